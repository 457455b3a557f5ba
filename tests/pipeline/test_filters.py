from dataclasses import replace

import numpy as np
import pytest

from pipeline.acceptance import FEATURES, Acceptance, OperatingPoint
from pipeline.context import Context
from pipeline.duplicates import Contamination
from pipeline.filters import (
    CLIP_REASONS,
    REASONS,
    UTTERANCE_REASONS,
    FilterConfig,
    clip_rejection,
    rejection,
    utterance_rejection,
    verdicts,
)
from pipeline.schema import Sample, Segment
from pipeline.speaking_rate import RateBounds, ledger_bounds

GOOD = Sample(
    id="u",
    corpus="c",
    split="train",
    language="en",
    language_probability=1.0,
    speaker="",
    licence="cc0-1.0",
    recording="a.wav",
    start_seconds=0.0,
    duration_seconds=2.0,
    utterances=(),
    reference="the cat sat on the mat",
    pseudo_label="The cat sat on the mat.",
    tokens=(),
    segments=(),
    previous_pseudo_label="",
    wer=0.0,
    cer=0.0,
    metric="wer",
    substitutions=0,
    deletions=0,
    insertions=0,
    avg_logprob=-0.2,
    no_speech_prob=0.0,
    compression_ratio=1.0,
    temperature=0.0,
    truncated=False,
    teacher="t",
    teacher_revision="0",
)

STRICT = FilterConfig(
    min_avg_logprob=-2.0,
    require_reference=True,
    min_seconds=0.5,
    max_seconds=20.0,
    drop_duplicates=True,
    max_disagreement=0.2,
    second_ledger="second",
    acceptance_model="acceptance.json",
)
"""Every rule there is, switched on."""

KEY = ("c", "train", "u")
EVIDENCE_OF_NOTHING = Acceptance(
    features=FEATURES,
    means=(0.0,) * len(FEATURES),
    scales=(1.0,) * len(FEATURES),
    weights=(5.0,) + (0.0,) * (len(FEATURES) - 1),  # the log-probability decides alone
    intercept=2.5,
    max_wer=0.1,
    clips=100,
    auc=1.0,
    calibration=(),
    operating_points=(OperatingPoint(threshold=0.5, precision=0.95, recall=0.9),),
)
SET = Contamination(10, [("a b c d e f g h i j k", "en"), ("q r s t", "en")])
CONTEXT = Context(contamination=SET, acceptance=EVIDENCE_OF_NOTHING)

# Each makes a good clip bad in one way.
DEFECTS: dict[str, dict] = {
    "no_speech": {"no_speech_prob": 0.9, "avg_logprob": -1.5},
    "truncated": {"truncated": True},
    "timestamp_disorder": {"segments": (Segment(start=1.0, end=0.5, text=""),)},
    "language": {"pseudo_label": "Кошка сидела на коврике."},
    "logprob": {"avg_logprob": -2.1},
    "compression_ratio": {"compression_ratio": 2.5, "pseudo_label": "the cat and the " * 3},
    "repetition": {"pseudo_label": "the cat " * 6},
    "hallucination": {"pseudo_label": "Thank you.", "no_speech_prob": 0.4},
    "no_reference": {"reference": "", "wer": None, "cer": None, "metric": ""},
    "empty_reference": {"reference": " ... ", "wer": None, "cer": None},
    "empty_label": {"pseudo_label": " - "},
    "too_short": {"duration_seconds": 0.4, "pseudo_label": "The cat"},
    "too_long": {"duration_seconds": 21.0, "pseudo_label": "The cat sat on the mat." * 2},
    "uppercase": {"pseudo_label": "THE CAT SAT ON THE MAT."},
    "speaking_rate": {"pseudo_label": "The cat sat on the mat, and so it was all week long."},
    "contaminated": {"pseudo_label": "q r s t"},
    "wer": {"wer": 0.2},
}
DEFECTS["speaking_rate"]["duration_seconds"] = 1.5


def why(config: FilterConfig | None = None, **changes) -> str | None:
    return rejection(replace(GOOD, **changes), config or STRICT, CONTEXT)


def test_a_good_clip_is_kept():
    assert why() is None


@pytest.mark.parametrize("reason", DEFECTS)
def test_each_defect_has_its_reason(reason):
    assert why(**DEFECTS[reason]) == reason


def test_every_reason_is_tested():
    of_context = {"disagreement", "unlikely", "duplicate"}
    assert {*DEFECTS, *of_context} == {*REASONS}


@pytest.mark.parametrize("reason", DEFECTS)
def test_the_reason_is_the_first_rule_that_rejects(reason):
    row = replace(GOOD, **DEFECTS[reason])
    rejecting = [v.reason for v in verdicts(row, row, STRICT, CONTEXT) if v.rejected]
    assert rejecting[0] == reason


@pytest.mark.parametrize(("earlier", "later"), [("truncated", "wer"), ("no_speech", "empty_label")])
def test_the_earlier_rule_wins(earlier, later):
    assert why(**(DEFECTS[later] | DEFECTS[earlier])) == earlier


def test_rules_of_the_clip_come_before_those_of_the_utterance():
    row = replace(GOOD, truncated=True, wer=0.9)
    assert clip_rejection(row, STRICT) == "truncated"
    assert utterance_rejection(row, STRICT) == "wer"
    assert rejection(row, STRICT) == "truncated"
    assert REASONS == CLIP_REASONS + UTTERANCE_REASONS


def test_by_default_only_rules_without_further_knowledge_are_on():
    on = {reason for reason in DEFECTS if why(FilterConfig(), **DEFECTS[reason])}
    off = {"logprob", "no_reference", "too_short", "too_long"}
    assert set(DEFECTS) - on == off
    of_files_or_other_rows = {"disagreement", "unlikely", "duplicate", "contaminated"}
    assert FilterConfig().switched_off == off | of_files_or_other_rows
    assert STRICT.switched_off == {"contaminated"}  # whose set the context brings


@pytest.mark.parametrize(("wer", "reason"), [(0.1, None), (0.1001, "wer"), (0.0, None)])
def test_a_clip_at_the_limit_is_kept(wer, reason):
    assert why(wer=wer) == reason


def test_the_limit_is_an_option():
    assert why(FilterConfig(max_wer=0.5), wer=0.4) is None
    assert why(FilterConfig(max_wer=0.0), wer=0.01) == "wer"


def test_a_language_without_spaces_is_judged_by_its_characters():
    changes = {"language": "ja", "metric": "cer", "wer": 1.0, "reference": "今日は"}
    changes["pseudo_label"] = "今日は"
    assert why(**changes, cer=0.05) is None
    assert why(**changes, cer=0.5) == "wer"


@pytest.mark.parametrize("split", ["validation", "test"])
def test_an_evaluation_split_is_not_chosen_by_the_model(split):
    for reason, defect in DEFECTS.items():
        expected = reason if reason in ("no_reference", "empty_reference") else None
        assert why(split=split, **defect) == expected


def test_which_splits_are_judged_is_an_option():
    assert why(FilterConfig(splits=("extra",)), split="extra", wer=0.5) == "wer"
    assert why(FilterConfig(splits=("extra",)), split="train", wer=0.5) is None


@pytest.mark.parametrize("changes", [{"no_speech_prob": 0.9}, {"avg_logprob": -1.5}])
def test_one_sign_of_silence_is_not_enough(changes):
    assert why(**changes) is None


@pytest.mark.parametrize("label", ["NASA", "I", "今日は いい", "Hello WORLD"])
def test_an_acronym_or_a_script_without_case_is_not_shouting(label):
    assert why(pseudo_label=label) is None


@pytest.mark.parametrize(
    ("label", "reason"),
    [
        ("no no no no", None),
        ("no no no no no", "repetition"),
        ("and then I went " * 5, "repetition"),
        ("and then I went " * 4, None),
        ("one two three four five six", None),
    ],
)
def test_a_loop_is_more_than_emphasis(label, reason):
    assert why(pseudo_label=label, duration_seconds=6.0) == reason


def test_a_loop_that_was_spoken_is_kept():
    assert why(reference="ha ha ha ha ha ha", pseudo_label="ha ha ha ha ha ha") is None


def test_a_loop_without_spaces_is_found():
    assert (
        why(language="zh", metric="cer", reference="你好", pseudo_label="你好" * 5) == "repetition"
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_wer": -0.1}, r"filter\.max_wer is -0\.1"),
        ({"max_wer": float("nan")}, r"filter\.max_wer is nan"),
        ({"max_compression_ratio": 0.0}, r"filter\.max_compression_ratio is 0\.0"),
        ({"max_no_speech_prob": 60.0}, r"filter\.max_no_speech_prob is 60\.0"),
        ({"min_language_probability": 1.5}, r"filter\.min_language_probability is 1\.5"),
        ({"min_avg_logprob": 0.5}, r"filter\.min_avg_logprob is 0\.5; the logarithm"),
        ({"error_budget": -1}, r"filter\.error_budget is -1"),
        ({"min_seconds": 5.0, "max_seconds": 2.0}, r"max_seconds is 2\.0; give more than"),
        ({"max_disagreement": 0.2}, r"needs a second teacher"),
        ({"contamination_words": 1}, r"filter\.contamination_words is 1"),
    ],
)
def test_an_impossible_limit_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        FilterConfig(**options)


def test_unlabelled_audio_is_judged_without_an_error_rate():
    unlabelled = {"reference": "", "wer": None, "cer": None, "metric": ""}
    assert why(FilterConfig(), **unlabelled) is None
    assert why(FilterConfig(), **unlabelled, truncated=True) == "truncated"
    assert why(FilterConfig(require_reference=True), **unlabelled) == "no_reference"


@pytest.mark.parametrize(
    ("errors", "words", "reason"),
    [(1, 9, None), (1, 4, None), (1, 3, "wer"), (2, 9, "wer"), (2, 20, None)],
)
def test_a_short_reference_has_a_budget_of_errors(errors, words, reason):
    config = FilterConfig(error_budget=1)
    assert why(config, wer=errors / words, substitutions=errors) == reason
    at_the_limit = None if errors / words <= 0.1 else "wer"
    assert why(FilterConfig(), wer=errors / words, substitutions=errors) == at_the_limit


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, None),  # nothing says that it was not said
        ({"no_speech_prob": 0.31}, "hallucination"),
        ({"avg_logprob": -0.6}, "hallucination"),
        ({"duration_seconds": 4.0}, "hallucination"),
        ({"no_speech_prob": 0.31, "reference": "thank you", "wer": 0.0}, None),
        ({"no_speech_prob": 0.31, "pseudo_label": "Thank you Senator, my question"}, None),
        ({"no_speech_prob": 0.31, "language": "de", "pseudo_label": "Thank you."}, None),
        ({"no_speech_prob": 0.31, "language": "de", "pseudo_label": "Vielen Dank."},
         "hallucination"),
    ],
)  # fmt: skip
def test_a_stock_phrase_needs_weak_evidence_and_the_whole_label(changes, reason):
    changes = {"pseudo_label": "Thank you.", "duration_seconds": 1.0} | changes
    assert why(**changes) == reason


@pytest.mark.parametrize(
    ("label", "language", "reason"),
    [
        ("Кошка сидела на коврике.", "ru", None),
        ("The cat sat on the mat.", "ru", "language"),
        ("OK", "ja", None),
        ("iPhoneを買った、とてもいい", "ja", None),
        ("The cat sat on the mat.", "tlh", None),
    ],
)
def test_a_label_in_a_foreign_script_is_another_language(label, language, reason):
    changes = {"language": language, "pseudo_label": label, "reference": "", "metric": ""}
    assert why(FilterConfig(), **changes) == reason


def test_an_improbable_language_is_rejected_where_that_is_asked_for():
    assert why(FilterConfig(min_language_probability=0.7), language_probability=0.6) == "language"
    assert why(FilterConfig(), language_probability=0.1) is None


@pytest.mark.parametrize(
    ("spans", "reason"),
    [
        (((0.0, 1.0), (1.0, 2.0)), None),
        (((0.0, 1.0), (1.0, 4.0)), None),  # the end may lie in the padding
        (((0.0, 1.0), (3.0, 4.0)), "timestamp_disorder"),
        (((1.0, 2.0), (0.5, 1.5)), "timestamp_disorder"),
        ((), None),
    ],
)
def test_timestamps_only_move_forward_and_stay_in_the_audio(spans, reason):
    segments = tuple(Segment(start=start, end=end, text="") for start, end in spans)
    assert why(segments=segments) == reason


def test_a_short_label_has_no_compression_ratio():
    assert why(compression_ratio=3.0, pseudo_label="the cat sat") is None


def test_speaking_rates_of_a_ledger_are_not_moved_by_what_they_catch():
    rng = np.random.default_rng(0)
    rates = [("en", rate) for rate in rng.normal(15, 2, 500)] + [("en", 29.9)] * 60
    bounds = ledger_bounds([*rates, ("de", 10.0)])
    assert 4 < bounds["en"].lowest < 10 < 20 < bounds["en"].highest < 29.9
    assert "de" not in bounds  # too few to know
    config = FilterConfig(speaking_rate="ledger")
    fast = replace(GOOD, pseudo_label="x" * 29, reference="x", duration_seconds=1.0)
    assert rejection(fast, config, Context(rates=bounds)) == "speaking_rate"
    wide = Context(rates={"en": RateBounds(lowest=1.0, highest=30.0)})
    assert rejection(fast, config, wide) is None
    assert rejection(fast, FilterConfig(speaking_rate="off"), Context(rates=bounds)) is None


def test_a_duplicate_is_dropped_where_that_is_asked_for():
    context = Context(duplicates={KEY: ("c", "train", "first")})
    assert rejection(GOOD, FilterConfig(drop_duplicates=True), context) == "duplicate"
    assert rejection(GOOD, FilterConfig(), context) is None


def test_a_second_teacher_that_says_something_else_is_a_reason():
    config = FilterConfig(max_disagreement=0.2, second_ledger="second")
    for label, reason in (("the cat sat on the mat", None), ("a dog ran on", "disagreement")):
        context = Context(second={KEY: replace(GOOD, pseudo_label=label)})
        assert rejection(GOOD, config, context) == reason
    other_span = Context(second={KEY: replace(GOOD, pseudo_label="x", start_seconds=9.0)})
    assert rejection(GOOD, config, other_span) is None


def test_unlikely_labels_are_rejected_only_where_there_is_no_reference():
    assert why(avg_logprob=-0.9) is None
    unlabelled = {"reference": "", "wer": None, "cer": None, "metric": ""}
    config = FilterConfig(acceptance_precision=0.9)
    assert why(config, **unlabelled, avg_logprob=-0.9) == "unlikely"
    assert why(config, **unlabelled, avg_logprob=-0.2) is None


def test_a_precision_that_the_evidence_does_not_allow_is_refused():
    with pytest.raises(ValueError, match=r"0\.99 is out of reach.* at most 0\.950"):
        EVIDENCE_OF_NOTHING.threshold(0.99)

from dataclasses import replace

import pytest

from pipeline.filters import REASONS, FilterConfig, rejection
from pipeline.schema import Sample

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

# Each makes a good clip bad in one way.
DEFECTS = {
    "empty_reference": {"reference": " ... ", "wer": None, "cer": None, "metric": ""},
    "no_speech": {"no_speech_prob": 0.9, "avg_logprob": -1.5},
    "empty_label": {"pseudo_label": " - "},
    "truncated": {"truncated": True},
    "uppercase": {"pseudo_label": "THE CAT SAT ON THE MAT."},
    "repetition": {"pseudo_label": "the cat " * 6},
    "compression_ratio": {"compression_ratio": 2.5},
    "wer": {"wer": 0.2},
}


def why(config: FilterConfig | None = None, **changes) -> str | None:
    return rejection(replace(GOOD, **changes), config or FilterConfig())


def test_a_good_clip_is_kept():
    assert why() is None


@pytest.mark.parametrize("reason", REASONS)
def test_each_defect_has_its_reason(reason):
    assert why(**DEFECTS[reason]) == reason


@pytest.mark.parametrize("number", range(len(REASONS) - 1))
def test_the_earlier_reason_wins(number):
    first, *later = REASONS[number:]
    changes = {name: value for reason in later for name, value in DEFECTS[reason].items()}
    assert why(**(changes | DEFECTS[first])) == first


@pytest.mark.parametrize(("wer", "reason"), [(0.1, None), (0.1001, "wer"), (0.0, None)])
def test_a_clip_at_the_limit_is_kept(wer, reason):
    assert why(wer=wer) == reason


def test_the_limit_is_an_option():
    assert why(FilterConfig(max_wer=0.5), wer=0.4) is None
    assert why(FilterConfig(max_wer=0.0), wer=0.01) == "wer"


def test_a_language_without_spaces_is_judged_by_its_characters():
    changes = {"language": "ja", "metric": "cer", "wer": 1.0, "reference": "今日は"}
    assert why(**changes, cer=0.05) is None
    assert why(**changes, cer=0.5) == "wer"


@pytest.mark.parametrize("split", ["validation", "test"])
def test_an_evaluation_split_is_not_chosen_by_the_model(split):
    for reason in REASONS[1:]:
        assert why(split=split, **DEFECTS[reason]) is None
    assert why(split=split, **DEFECTS["empty_reference"]) == "empty_reference"


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
    assert why(pseudo_label=label) == reason


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
    ],
)
def test_an_impossible_limit_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        FilterConfig(**options)

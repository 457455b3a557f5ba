import jiwer
import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers.models.whisper.tokenization_whisper import TO_LANGUAGE_CODE

from pipeline.scoring import (
    bootstrap_interval,
    corpus_rate,
    language_code,
    normalize,
    score,
    score_batch,
)

LANGUAGES = st.sampled_from(["en", "de", "ja", "hi", "ar", "zh"])


def test_counts_are_those_of_a_hand_made_alignment():
    result = score("a b c d e f", "a x c e f g", "de")  # b became x, d is gone, g is new
    assert (result.substitutions, result.deletions, result.insertions) == (1, 1, 1)
    assert result.hits == 4
    assert result.wer == pytest.approx(3 / 6)
    assert (result.metric, result.normalizer) == ("wer", "basic")


def test_character_error_rate_counts_characters():
    assert score("abcd", "abxd", "de").cer == pytest.approx(1 / 4)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Mr. Brown's colour", "mister brown is color"),
        ("Twenty-one dollars!", "$21"),
        ("I don't, um, know", "i do not know"),
        ("[noise] hello (laughs)", "hello"),
        ("Wait... what?!", "wait what"),
        ("...", ""),
        ("  ", ""),
    ],
)
def test_english_is_normalised_as_whisper_does(text, expected):
    assert normalize(text, "en") == expected


@pytest.mark.parametrize(
    ("text", "language"),
    [("नमस्ते दुनिया", "hi"), ("வணக்கம்", "ta"), ("สวัสดี", "th"), ("d été café", "fr")],
)
def test_combining_marks_survive(text, language):
    assert normalize(text, language) == text


def test_german_keeps_its_umlauts_and_loses_its_punctuation():
    assert normalize("Straße, schön!", "de") == "straße schön"


def test_a_lost_vowel_sign_is_an_error():
    assert score("दुनिया", "दुनय", "hi").wer == 1.0


@pytest.mark.parametrize("language", ["ja", "zh", "th", "lo", "km", "my", "yue", "Chinese"])
def test_a_language_without_spaces_is_judged_by_characters(language):
    result = score("一 二三四", "一二三 五", language)
    assert result.metric == "cer"
    assert result.rate == result.cer == pytest.approx(1 / 4)
    assert (result.substitutions, result.hits) == (1, 3)


@pytest.mark.parametrize("reference", ["", "  ", "...", "[music]"])
def test_an_empty_reference_is_right_only_if_nothing_was_heard(reference):
    assert score(reference, "", "en").wer == 0.0
    result = score(reference, "two words", "en")
    assert (result.wer, result.cer, result.insertions) == (1.0, 1.0, 2)


def test_an_empty_hypothesis_deletes_every_word():
    result = score("two words", "", "en")
    assert (result.wer, result.cer, result.deletions) == (1.0, 1.0, 2)


@pytest.mark.parametrize("language", ["en", "EN", "en-US", "en_GB", "English", " english "])
def test_english_has_many_names(language):
    assert language_code(language) == "en"
    assert score("colour", "color", language).wer == 0.0


def test_every_language_name_of_whisper_is_known():
    assert {name: language_code(name) for name in TO_LANGUAGE_CODE} == TO_LANGUAGE_CODE


@pytest.mark.parametrize("language", ["", "klingonish", "e", "12", "日本"])
def test_an_unknown_language_is_refused_by_name(language):
    with pytest.raises(ValueError, match=f"language '{language}' is not known; give a code"):
        language_code(language)


@given(st.text(max_size=40), LANGUAGES)
def test_a_text_is_its_own_perfect_hypothesis(text, language):
    result = score(text, text, language)
    assert (result.wer, result.cer, result.errors) == (0.0, 0.0, 0)


@given(st.text(alphabet="ab c", max_size=20), st.text(alphabet="ab c", max_size=20), LANGUAGES)
def test_counts_add_up_to_the_reference_and_the_rate(reference, hypothesis, language):
    result = score(reference, hypothesis, language)
    normalised = normalize(reference, language)
    by_words = result.metric == "wer"
    units = normalised.split() if by_words else normalised.replace(" ", "")
    assert result.reference_length == len(units)
    if units:
        assert result.rate == pytest.approx(result.errors / len(units))


def test_corpus_rate_weighs_by_length():
    scores = [score("a b c d e f g h", "a b c d e f g h", "de"), score("x", "y", "de")]
    assert corpus_rate(scores) == pytest.approx(1 / 9)


def test_corpus_rate_of_nothing_is_refused():
    with pytest.raises(ValueError, match="no scores"):
        corpus_rate([])


def test_rates_of_different_metrics_are_not_added_up():
    with pytest.raises(ValueError, match=r"\['cer', 'wer'\] cannot be added up"):
        corpus_rate([score("a", "a", "en"), score("一", "一", "ja")])


def test_the_interval_holds_the_rate_and_depends_on_the_seed_only():
    scores = [score("a b c d", "a b c x" if i % 4 == 0 else "a b c d", "de") for i in range(200)]
    interval = bootstrap_interval(scores, seed=1)
    assert interval == bootstrap_interval(scores, seed=1)
    assert interval.low < corpus_rate(scores) < interval.high
    # One error in four words in a quarter of 200 utterances: sd = 0.25 * sqrt(.25 * .75 / 200).
    assert interval.high - interval.low == pytest.approx(2 * 1.96 * 0.00765, rel=0.15)


def test_the_interval_of_perfect_scores_is_a_point():
    interval = bootstrap_interval([score("a", "a", "en")] * 5, seed=0)
    assert (interval.low, interval.high) == (0.0, 0.0)


WORDS = st.lists(st.sampled_from(["a", "b", "c", "d"]), min_size=1, max_size=12).map(" ".join)


@given(WORDS, WORDS)
def test_rates_and_counts_are_those_of_jiwer(reference, hypothesis):
    result = score(reference, hypothesis, "de")
    words = jiwer.process_words(reference, hypothesis)
    assert (result.wer, result.errors) == (
        pytest.approx(words.wer),
        words.substitutions + words.deletions + words.insertions,
    )
    assert result.cer == pytest.approx(jiwer.cer(reference, hypothesis))


def test_a_batch_is_its_pairs():
    references, hypotheses, languages = ["a b", "今日は"], ["a c", "今日わ"], ["en", "ja"]
    assert score_batch(references, hypotheses, languages) == [
        score(*pair) for pair in zip(references, hypotheses, languages, strict=True)
    ]
    assert score_batch(["a"], ["a"], "English") == [score("a", "a", "en")]
    with pytest.raises(ValueError, match="1 references, 2 hypotheses"):
        score_batch(["a"], ["a", "b"], "en")


@pytest.mark.parametrize(
    ("reference", "language", "metric"),
    [
        ("今天天气很好", "zh", "cer"),
        ("今天天气很好", "nan", "cer"),  # a Chinese language that Whisper has no code for
        ("กำลังใจ", "en", "cer"),  # a wrong label does not make words out of Thai
        ("kin-á-ji̍t thinn-khì", "nan", "wer"),
        ("한국어 문장", "ko", "wer"),
        ("", "de", "wer"),
        ("", "ja", "cer"),
    ],
)
def test_language_and_script_choose_the_metric(reference, language, metric):
    assert score(reference, reference, language).metric == metric


def test_the_orthographic_rate_sees_case_punctuation_and_spelling():
    result = score("Mr. Brown's colour, please.", "mister brown is color please", "en")
    assert (result.wer, result.orthographic_wer) == (0.0, pytest.approx(5 / 4))
    assert score("Hello,  World.", "Hello, World.", "en").orthographic_wer == 0.0
    assert score("今日は。", "今日は", "ja").orthographic_wer == pytest.approx(1 / 4)

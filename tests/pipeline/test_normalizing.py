import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from whisper_normalizer.english import EnglishTextNormalizer

from pipeline.normalizing import _special_words, is_empty, normalize

UPSTREAM = EnglishTextNormalizer()
WORDS = [
    *sorted(_special_words()),
    "and",
    "a",
    "the",
    "colour",
    "realised",
    "I",
    "is",
    "cats",
    "St",
]
GAPS = st.sampled_from([" ", " ", ", ", ". ", "-", "... ", ".", " - ", "\n", '"', " '"])


def upstream(text: str) -> str:
    return " ".join(w for w in str(UPSTREAM(text)).split() if any(map(str.isalnum, w)))


@given(st.lists(st.tuples(st.sampled_from(WORDS), GAPS), max_size=8))
def test_english_is_what_whispers_rules_make_of_it(pieces):
    text = "".join(word + gap for word, gap in pieces)
    assert normalize(text, "en") == upstream(text)


@given(st.text(max_size=30))
def test_any_text_is_normalised_as_upstream_does_in_english(text):
    assert normalize(text, "en") == upstream(text)


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("नमस्ते दुनिया", "hi"),
        ("กำลังใจ น้ำ", "th"),
        ("ນ້ຳ", "lo"),
        ("مُحَمَّد", "ar"),
        ("វិទ្យាស្ថាន", "km"),
        ("မြန်မာ", "my"),
        ("தமிழ்", "ta"),
        ("한국어", "ko"),
    ],
)
def test_every_script_survives(text, language):
    assert normalize(text, language) == text


@pytest.mark.parametrize(
    ("one", "other", "language"),
    [
        ("١٢٣ كتاب", "123 كتاب", "ar"),
        ("१२३", "123", "hi"),
        ("２０２４年", "2024年", "ja"),
        ("10.000 Menschen", "10000 menschen", "de"),
        ("10\u202f000 personnes", "10000 personnes", "fr"),
        ("İSTANBUL IŞIK", "istanbul ışık", "tr"),
        ("کتابــها", "کتابها", "fa"),
        ("می\u200cخواهم", "میخواهم", "fa"),
        ("e\u0301te", "éte", "fr"),
        ("twenty three", "23", "en"),
        ("ten thousand dollars", "$10,000", "en"),
    ],
)
def test_two_ways_to_write_the_same_are_the_same(one, other, language):
    assert normalize(one, language) == normalize(other, language)


def test_numbers_that_are_not_grouped_stay_apart():
    assert normalize("am 3.10. um 8.15", "de") == "am 3 10 um 8 15"


@given(st.text(max_size=40), st.sampled_from(["en", "de", "th", "hi", "tr", "ar", "ja"]))
def test_emptiness_is_what_normalising_would_say(text, language):
    assert is_empty(text, language) == (not normalize(text, language))


def test_emptiness_sees_through_fillers_and_brackets():
    texts = ["um um um um um um", "[background music]", "<laughs loudly>", "...", "", " - "]
    assert all(is_empty(text, "en") for text in texts)
    assert not any(is_empty(text, "en") for text in ["yes", "I", "um yes", "7"])


def test_normalising_is_idempotent_for_plain_words():
    rng = random.Random(0)
    for _ in range(200):
        text = " ".join(rng.choices(["colour", "the", "Cat", "über", "straße"], k=6))
        once = normalize(text, "de")
        assert normalize(once, "de") == once

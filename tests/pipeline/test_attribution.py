import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.attribution import attribute
from pipeline.scoring import score

WORDS = st.sampled_from(["alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta"])
SENTENCE = st.lists(WORDS, min_size=1, max_size=6).map(" ".join)


@given(st.lists(SENTENCE, min_size=1, max_size=5))
def test_a_perfect_label_is_cut_where_the_references_meet(parts: list[str]):
    assert attribute(" ".join(parts), parts, "en") == parts


@given(st.lists(WORDS, max_size=20), st.lists(SENTENCE | st.just(""), min_size=1, max_size=5))
def test_every_word_goes_to_exactly_one_utterance_in_order(said: list[str], parts: list[str]):
    pieces = attribute(" ".join(said), parts, "en")
    assert len(pieces) == len(parts)
    assert " ".join(pieces).split() == said


@given(st.lists(SENTENCE, min_size=2, max_size=5), st.data())
def test_a_wrong_reference_leaves_its_neighbours_without_errors(parts: list[str], data):
    bad = data.draw(st.integers(0, len(parts) - 1))
    said = data.draw(st.integers(1, 9))
    spoken = [f"x{i}" for i in range(said)]
    label = " ".join([*parts[:bad], *spoken, *parts[bad + 1 :]])
    pieces = attribute(label, parts, "en")
    assert pieces[bad].split() == spoken
    assert [
        score(r, h, "en").wer for r, h in zip(parts, pieces, strict=True) if r != parts[bad]
    ] == [0.0] * sum(p != parts[bad] for p in parts)


@pytest.mark.parametrize(
    ("label", "parts", "pieces"),
    [
        # Between two utterances without errors, what was added belongs to the earlier one.
        ("a b x c d", ["a b", "c d"], ["a b x", "c d"]),
        ("x a b c d", ["a b", "c d"], ["x a b", "c d"]),
        ("a b c d x", ["a b", "c d"], ["a b", "c d x"]),
        # Next to an error, what was added belongs to the utterance with the error.
        ("a b x y d", ["a b", "c d"], ["a b", "x y d"]),
        ("a x y c d", ["a b", "c d"], ["a x y", "c d"]),
        # An utterance that was not heard gets nothing, one without a reference what it said.
        ("a b", ["a b", "c d"], ["a b", ""]),
        ("c d", ["a b", "c d"], ["", "c d"]),
        ("a b x c d", ["a b", "", "c d"], ["a b", "x", "c d"]),
        ("x c d", ["", "c d"], ["x", "c d"]),
        ("", ["a", "b"], ["", ""]),
        ("x y", ["", ""], ["x y", ""]),
        # Compared as the scoring compares: case, punctuation, contractions.
        ("It's done, Mr. Smith! - Well: go.", ["its done mister smith", "well go"],
         ["It's done, Mr. Smith! -", "Well: go."]),
    ],
)  # fmt: skip
def test_words_in_no_reference_go_where_the_error_is(label, parts, pieces):
    assert attribute(label, parts, "en") == pieces


def test_a_language_without_spaces_is_cut_by_characters():
    assert attribute("今日は。良い天気", ["今日は", "良い天気"], "ja") == ["今日は。", "良い天気"]

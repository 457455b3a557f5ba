from pathlib import Path

import pytest
import tokenizers
import transformers
from hypothesis import given
from hypothesis import strategies as st

from pipeline.schema import EMBEDDED_FOLDER
from pipeline.teacher.spelling import byte_pieces, spell, token_ends

TEACHER = EMBEDDED_FOLDER / "teacher"
TOKENIZER = tokenizers.Tokenizer.from_file(str(TEACHER / "tokenizer.json"))
PIECES = byte_pieces(TOKENIZER)

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)


@st.composite
def cut_texts(draw: st.DrawFn) -> list[bytes]:
    """UTF-8 cut at any bytes, empty pieces (timestamps) among them."""
    data = draw(TEXTS).encode()
    cuts = draw(st.lists(st.integers(0, len(data)), max_size=12))
    borders = [0, *sorted(cuts), len(data)]
    return [data[start:end] for start, end in zip(borders, borders[1:], strict=False)]


@given(cut_texts())
def test_ends_never_fall_and_the_last_is_the_length_of_the_text(pieces: list[bytes]):
    ends = token_ends(pieces)
    assert len(ends) == len(pieces)
    assert list(ends) == sorted(ends)
    assert ends[-1] == len(spell(pieces))


@given(cut_texts())
def test_text_up_to_an_end_is_what_its_tokens_say(pieces: list[bytes]):
    text, ends = spell(pieces), token_ends(pieces)
    for i, end in enumerate(ends[:-1], start=1):
        complete = b"".join(pieces[:i]).decode(errors="ignore").lstrip()
        assert text[:end] == complete[: len(text)]


@given(st.lists(st.binary(max_size=5), min_size=1, max_size=8))
def test_bytes_that_are_no_text_still_give_ends_that_fit(pieces: list[bytes]):
    ends = token_ends(pieces)
    assert list(ends) == sorted(ends)
    assert ends[-1] == len(spell(pieces))


def test_a_character_belongs_to_the_token_that_completes_it():
    euro = "€".encode()
    assert token_ends([b" a", euro[:1], euro[1:2], euro[2:] + b"b"]) == (1, 1, 1, 3)


def test_a_character_that_is_never_completed_is_one_replacement_of_the_last_token():
    pieces = [b" a", "€".encode()[:2], b""]
    assert spell(pieces) == "a�"
    assert token_ends(pieces) == (1, 2, 2)


def test_space_around_the_text_is_not_counted():
    assert token_ends([b"", b" ", b" an", b" owl ", b" "]) == (0, 0, 2, 6, 6)


def test_no_tokens_and_only_timestamps_write_nothing():
    assert token_ends([]) == ()
    assert token_ends([b"", b""]) == (0, 0)


@given(TEXTS)
def test_spelling_is_that_of_the_tokenizer(text: str):
    tokens = TOKENIZER.encode(text, add_special_tokens=False).ids
    assert spell(PIECES[token] for token in tokens) == TOKENIZER.decode(tokens).strip()
    assert spell(PIECES[token] for token in tokens) == text.strip()


@pytest.mark.parametrize("text", ["naïve café", "日本語のテキスト", "🙂 done", "a\u00a0b"])
def test_spelling_is_that_of_transformers(text: str):
    tokenizer = transformers.WhisperTokenizer.from_pretrained(TEACHER)
    tokens = tokenizer.encode(text, add_special_tokens=False)
    shown = tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    assert spell(PIECES[token] for token in tokens) == shown.strip()


def test_special_tokens_and_timestamps_have_no_bytes():
    vocabulary = TOKENIZER.get_vocab()
    for name in ("<|endoftext|>", "<|en|>", "<|notimestamps|>", "<|0.00|>", "<|30.00|>"):
        assert PIECES[vocabulary[name]] == b""


def test_a_tokenizer_that_is_not_byte_level_is_refused(tmp_path: Path):
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel({"schön": 0, "日本": 1}, "schön"))
    with pytest.raises(ValueError, match="not Whisper's"):
        byte_pieces(words)

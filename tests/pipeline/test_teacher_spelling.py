from pathlib import Path

import pytest
import tokenizers
import transformers
from hypothesis import given
from hypothesis import strategies as st

from pipeline.schema import EMBEDDED_FOLDER
from pipeline.teacher.spelling import byte_pieces, spell

TEACHER = EMBEDDED_FOLDER / "teacher"
TOKENIZER = tokenizers.Tokenizer.from_file(str(TEACHER / "tokenizer.json"))
PIECES = byte_pieces(TOKENIZER)

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=40).filter(
    lambda text: "<|" not in text  # the name of a special token is one, and writes nothing
)


def test_a_character_that_is_never_completed_is_one_replacement():
    assert spell([b" a", "€".encode()[:2], b""]) == "a\ufffd"


def test_only_timestamps_write_nothing():
    assert spell([]) == spell([b"", b""]) == ""


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

"""Text tokens by word, in languages with spaces and without."""

import pytest
from transformers import WhisperTokenizer

from distill.vocabulary import TokenizerVocabulary


@pytest.mark.parametrize(
    ("text", "language", "expected"),
    [
        (
            'He said, "Come in" (and sat down) - then $5 left.', "en",
            [
                " He", " said,", ' "Come', ' in"', " (and", " sat", " down)", " - then", " $5",
                " left.",
            ],
        ),
        ("¿Qué? ¡No! «Sí»", "es", [" ¿Qué?", " ¡No!", " «Sí»"]),
        ("« Oui », dit-il. Non ?", "fr", [" « Oui »,", " dit-il.", " Non ?"]),
        ("Er sagt: »Komm« – nie", "de", [" Er", " sagt:", " »Komm«", " – nie"]),
        ("rock & roll (( \"so", "en", [" rock", " &", " roll", ' (( "so']),
        ("the end (", "en", [" the", " end ("]),
        ("-", "en", [" -"]),
        ("don't well-known 3.5 %", "en", [" don't", " well-known", " 3.5 %"]),
        ("你好，世界。", "zh", [" ", "你", "好，", "世", "界。"]),
    ],
)  # fmt: skip
def test_an_opening_mark_belongs_to_the_word_that_follows(
    tokenizer: WhisperTokenizer, text: str, language: str, expected: list[str]
):
    vocabulary = TokenizerVocabulary(tokenizer, True, None)
    tokens = vocabulary.encode(text)
    groups = vocabulary.split_words(tokens, language)
    assert sum(groups, []) == tokens
    assert [vocabulary.decode(group) for group in groups] == expected

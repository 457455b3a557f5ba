"""A Whisper's tokens: the special ones by name, and text to tokens and back.

Ids of special tokens differ between Whisper's generations, so each is looked up by its name. The
tokenizer may be transformers' or the bare one of `tokenizers`, which is what a CTranslate2 folder
holds.
"""

import re
import unicodedata
from typing import Any

from pipeline.scoring import language_code

_UNSPACED = frozenset({"zh", "ja", "th", "lo", "my", "yue"})
"""Languages in which every character may be a word."""
_CLOSING = frozenset("'.。,，!！?？:：;”)]}、…%")
"""OpenAI's `append_punctuations`, and what else ends a word."""
_OPENING = frozenset("\"'¿¡")
"""OpenAI's `prepend_punctuations` that Unicode does not know for opening; dashes go with them."""
_LANGUAGE_TOKEN = re.compile(r"<\|([a-z]{2,3})\|>")


class TokenizerVocabulary:
    """What the decoding needs to know of a model's tokens."""

    def __init__(
        self, tokenizer: Any, multilingual: bool, languages: dict[str, int] | None
    ) -> None:
        """Look up the special tokens.

        Args:
            tokenizer: `WhisperTokenizer`, or `tokenizers.Tokenizer`.
            multilingual: the model is told language and task.
            languages: tokens such as `<|en|>` with their ids; None finds them by their form.

        Raises:
            ValueError: the tokenizer lacks one of Whisper's special tokens.
        """
        self._tokenizer = tokenizer
        self._bare = hasattr(tokenizer, "token_to_id")
        ids = tokenizer.get_vocab()
        missing = [
            name for name in ("<|endoftext|>", "<|startoftranscript|>", "<|notimestamps|>")
            if name not in ids
        ]  # fmt: skip
        if missing:
            raise ValueError(f"this tokenizer is not a Whisper's: it lacks {', '.join(missing)}")
        self.end: int = ids["<|endoftext|>"]
        self.start: int = ids["<|startoftranscript|>"]
        self.no_timestamps: int = ids["<|notimestamps|>"]
        self.first_timestamp: int = self.no_timestamps + 1
        self.previous: int = ids.get("<|startofprev|>", self.start)
        self.no_speech: int | None = ids.get("<|nospeech|>", ids.get("<|nocaptions|>"))
        self._transcribe = ids.get("<|transcribe|>")
        self.multilingual = multilingual
        if languages is None:
            languages = {n: i for n, i in ids.items() if _LANGUAGE_TOKEN.fullmatch(n)}
        self.languages = {name.strip("<|>"): i for name, i in languages.items()}

    def check_language(self, language: str | None) -> str | None:
        """Return the code of a language; None where it is to be detected.

        Raises:
            ValueError: the model does not know it.
        """
        if not self.multilingual:
            if language is not None and language_code(language) != "en":
                raise ValueError(f"this model knows English only, not {language!r}")
            return "en"
        if language is None:
            return None
        code = language_code(language)
        if code not in self.languages:
            known = ", ".join(sorted(self.languages))
            raise ValueError(f"this model does not know language {language!r}; it knows {known}")
        return code

    def task(self, language: str, timestamps: bool) -> list[int]:
        """Return what a transcript begins with."""
        tokens = [self.start]
        if self.multilingual and self._transcribe is not None:
            tokens += [self.languages[language], self._transcribe]
        return tokens if timestamps else [*tokens, self.no_timestamps]

    def encode(self, text: str) -> list[int]:
        """Return the tokens of a text, which begins with a space as Whisper's texts do."""
        found = self._tokenizer.encode(" " + text.strip(), add_special_tokens=False)
        return list(found.ids if self._bare else found)

    def decode(self, tokens: list[int]) -> str:
        """Return the text of tokens, special ones and timestamps left out."""
        return self._tokenizer.decode([token for token in tokens if token < self.end])

    def split_words(self, tokens: list[int], language: str) -> list[list[int]]:
        """Group text tokens by word.

        A token that begins with a space begins a word, as in OpenAI's Whisper, so an opening mark
        belongs to the word that follows. In languages without spaces every character may be a word,
        and marks belong to the one before.
        """
        unspaced = language in _UNSPACED
        groups: list[list[int]] = []
        held: list[int] = []
        for token in tokens:
            held.append(token)
            text = self.decode(held)
            if "\ufffd" in text:  # part of a character
                continue
            mark = unspaced and not any(map(str.isalnum, text))
            if not groups or ((unspaced or text.startswith(" ")) and not mark):
                groups.append(held)
            else:
                groups[-1] += held
            held = []
        if held:
            groups.append(held)
        return groups if unspaced else self._join_marks(groups)

    def _join_marks(self, groups: list[list[int]]) -> list[list[int]]:
        """Join marks that stand alone, as in `he said - then` or `pourquoi ?`, with their word."""
        words: list[list[int]] = []
        opened: list[int] = []
        for group in groups:
            text = self.decode(group).strip()
            if all(map(_is_opening, text)):
                opened += group
            elif words and not opened and all(map(_is_closing, text)):
                words[-1] += group
            else:
                words.append(opened + group)
                opened = []
        if opened and words:  # nothing follows that they could open
            words[-1] += opened
        elif opened:
            words.append(opened)
        return words


def _is_opening(character: str) -> bool:
    return character in _OPENING or unicodedata.category(character) in ("Ps", "Pi", "Pd")


def _is_closing(character: str) -> bool:
    return character in _CLOSING or unicodedata.category(character) in ("Pe", "Pf")

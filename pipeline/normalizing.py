"""What is common to two ways of writing the same words: letters and digits, and nothing else.

English goes through Whisper's English rules, which know contractions, fillers, numbers in words and
British spellings. Any other language goes through its basic ones, mended where they lose meaning:
combining marks stay, Thai and Lao vowels stay one character, digits of every script and grouped
digits are the same number, Turkish has its own two letters i, and invisible characters are nothing.
Numbers in words are understood in English only.
"""

import functools
import re
from collections.abc import Callable

from whisper_normalizer.basic import BasicTextNormalizer
from whisper_normalizer.english import EnglishTextNormalizer

from pipeline.languages import language_code

_BRACKETS = re.compile(r"[\[(<]")
_WORD = re.compile(r"[^\W\d_]{4}")
_PLAIN = re.compile(r"[a-z\s.,!?;:\"'-]*")
_SPACED_APOSTROPHE = re.compile(r"\s+'")
_NOT_LETTERS = re.compile(r"[^a-z]+")
_GROUPED_DIGITS = re.compile(r"(?<=\d)[.,'’\u00a0\u202f](?=\d{3}(?!\d))")
# Format characters (joiners, marks of direction, soft hyphens) and the Arabic stretching stroke.
_INVISIBLE = re.compile("[\u00ad\u0640\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufeff]")
_DOTTED_I = str.maketrans({"İ": "i", "I": "ı"})
_DOTTED_I_LANGUAGES = frozenset({"tr", "az"})


def normalizer_name(language: str) -> str:
    """Return which rules a language goes through: "english" or "basic".

    Raises:
        ValueError: the language is neither a code nor a name that Whisper knows.
    """
    return "english" if language_code(language) == "en" else "basic"


def normalize(text: str, language: str) -> str:
    """Return the text as it is compared: lower case, no punctuation, single spaces.

    Raises:
        ValueError: the language is neither a code nor a name that Whisper knows.
    """
    return _rules(language)(text)


def is_empty(text: str, language: str) -> bool:
    """Tell whether nothing of a text is left to compare; quick where that is plain to see."""
    # Fillers such as "um" are words to people and nothing to the English rules; all are short.
    if _WORD.search(text) and not _BRACKETS.search(text):
        return False
    return not normalize(text, language)


@functools.cache
def _rules(language: str) -> Callable[[str], str]:
    """Return the function that normalises a language, as a config or a row names it."""
    code = language_code(language)
    if code == "en":
        return _english
    return _turkish if code in _DOTTED_I_LANGUAGES else _basic


def _english(text: str) -> str:
    """Apply the English rules, of which most sentences need only a few."""
    lowered = text.lower()
    rules = _english_rules()
    if _PLAIN.fullmatch(lowered):
        if "'" in lowered:
            lowered = _SPACED_APOSTROPHE.sub("'", lowered)
            for pattern, replacement in _contractions():
                lowered = pattern.sub(replacement, lowered)
        words = _NOT_LETTERS.sub(" ", lowered).split()
        if _special_words().isdisjoint(words):
            spelling = rules.standardize_spellings.mapping
            return " ".join([spelling.get(word, word) for word in words])
    # The rules leave a full stop behind where a text is "...": it is no word.
    return _only_words(str(rules(text)))


@functools.cache
def _contractions() -> list[tuple[re.Pattern[str], str]]:
    """Return the rules for words with an apostrophe, in their order."""
    return [(re.compile(p), r) for p, r in _english_rules().replacers.items() if "'" in p]


@functools.cache
def _special_words() -> frozenset[str]:
    """Return the words that more than one rule looks at: fillers, titles, slang, numbers."""
    rules = _english_rules()
    whole_words = (re.fullmatch(r"\\b([a-z]+)\\b", pattern) for pattern in rules.replacers)
    fillers = re.findall(r"[a-z]{2,}", rules.ignore_patterns)
    numbers = rules.standardize_numbers.words - {"and"}  # alone it is as any other word
    return frozenset({*(word[1] for word in whole_words if word), *fillers, *numbers, "half"})


def _turkish(text: str) -> str:
    return _basic(text.translate(_DOTTED_I))


def _basic(text: str) -> str:
    if text.isascii():
        return _only_words(str(_basic_rules()(_GROUPED_DIGITS.sub("", text))))
    text = _GROUPED_DIGITS.sub("", _INVISIBLE.sub("", text))
    text = str(_basic_rules()(text))
    text = text.replace("\u0e4d\u0e32", "\u0e33").replace("\u0ecd\u0eb2", "\u0eb3")
    return _only_words(_same_digits(text))


def _same_digits(text: str) -> str:
    """Write the digits of every script as 0 to 9."""
    return re.sub(r"[^\D0-9]", lambda digit: str(int(digit[0])), text)


def _only_words(text: str) -> str:
    """Drop what holds no letter and no digit, and all but single spaces."""
    return " ".join(word for word in text.split() if any(map(str.isalnum, word)))


@functools.cache
def _english_rules() -> EnglishTextNormalizer:
    return EnglishTextNormalizer()


@functools.cache
def _basic_rules() -> Callable[[str], object]:
    return BasicTextNormalizer(preserve_marks=True)

"""What the wording of a label betrays by itself: loops, shouting, a wrong script, stock phrases.

Pure functions of text. They are called for every row of a ledger each time it is judged, so each
looks first for the cheap sign that there is nothing to find.
"""

import functools
import re
import unicodedata
from pathlib import Path

import yaml

from pipeline.languages import CHARACTER_LANGUAGES, language_code
from pipeline.normalizing import normalize

_LONGEST_LOOP = 8  # words or characters; what repeats in longer pieces compresses well
_WORDS = re.compile(r"\w+(?:['’]\w+)*")
_MIN_LETTERS = 8  # "OK" is said in every language

_LATIN = frozenset({"LATIN"})
_SCRIPTS = {
    language: frozenset(scripts.split())
    for languages, scripts in {
        "be bg ba mk mn ru tg tt uk": "CYRILLIC",
        "az bs sr tk uz": "CYRILLIC LATIN",
        "el": "GREEK",
        "hy": "ARMENIAN",
        "ka": "GEORGIAN",
        "he yi": "HEBREW",
        "ar fa ps ur": "ARABIC",
        "sd": "ARABIC DEVANAGARI",
        "ms jw su": "LATIN ARABIC JAVANESE SUNDANESE",
        "hi mr ne sa": "DEVANAGARI",
        "as bn": "BENGALI",
        "pa": "GURMUKHI ARABIC",
        "gu": "GUJARATI",
        "ta": "TAMIL",
        "te": "TELUGU",
        "kn": "KANNADA",
        "ml": "MALAYALAM",
        "si": "SINHALA",
        "th": "THAI",
        "lo": "LAO",
        "km": "KHMER",
        "my": "MYANMAR",
        "bo": "TIBETAN",
        "am": "ETHIOPIC",
        "ko": "HANGUL CJK",
        "ja": "HIRAGANA KATAKANA KATAKANA-HIRAGANA HALFWIDTH CJK",
        "zh yue": "CJK BOPOMOFO",
        "kk": "CYRILLIC LATIN ARABIC",
    }.items()
    for language in languages.split()
}


def count_repeats(text: str, language: str) -> int:
    """Count how often the worst loop of a text repeats in a row; 1 where nothing does.

    A loop is a run of up to eight words that comes again and again, or characters where words are
    not separated. The share of different words, which other pipelines look at, also falls in plain
    long sentences and is high in "no, no, no".
    """
    lowered = text.lower()
    words = _WORDS.findall(lowered)
    if language_code(language) in CHARACTER_LANGUAGES:
        words = list("".join(words))
    worst = 1
    spare = len(words) - len(set(words))  # n rounds of k words leave at least (n - 1) k to spare
    for size in range(1, min(_LONGEST_LOOP, spare) + 1):
        if spare // size < worst:
            break
        run = 0  # words in a row that equal the one `size` before
        for current, before in zip(words[size:], words, strict=False):
            run = run + 1 if current == before else 0
            if run >= size * worst:
                worst = run // size + 1
    return worst


def is_shouted(label: str) -> bool:
    """Tell whether a label is all upper case, a failure mode of large-v3; "NASA" alone is not.

    Scripts without case have no such words.
    """
    return label.isupper() and sum(word.isupper() for word in label.split()) > 1


def is_foreign_script(text: str, language: str) -> bool:
    """Tell whether most letters of a text are of a script that its language is not written in.

    Languages that are not Whisper's, and texts of a few letters, are given the benefit of doubt.
    """
    expected = _expected_scripts(language)
    if expected is None or (expected is _LATIN and text.isascii()):
        return False
    scripts = [_script(character) for character in text if character.isalpha()]
    native = sum(script in expected for script in scripts)
    return len(scripts) >= _MIN_LETTERS and 2 * native < len(scripts)


def is_stock_phrase(label: str, language: str) -> bool:
    """Tell whether a whole label is a phrase that Whisper is known to write where nobody speaks."""
    phrases, initials, longest = _phrases(language_code(language))
    if len(label) > longest or not initials:
        return False
    first = next(filter(str.isalnum, label), "").lower()
    return first in initials and normalize(label, language) in phrases


@functools.cache
def _expected_scripts(language: str) -> frozenset[str] | None:
    code = language_code(language)
    if code in _SCRIPTS:
        return _SCRIPTS[code]
    return _LATIN if len(code) == 2 else None


@functools.lru_cache(maxsize=20_000)
def _script(character: str) -> str:
    """Return the first word of a letter's Unicode name, which is its script."""
    return unicodedata.name(character, "").split(" ")[0]


@functools.cache
def _phrases(code: str) -> tuple[frozenset[str], frozenset[str], int]:
    """Return the phrases of a language as they are compared, their initials, and a length.

    No label that is longer, with all its punctuation, can be one of them.
    """
    written = _phrase_file().get(code, ())
    return (
        frozenset(normalize(phrase, code) for phrase in written),
        frozenset(phrase[0].lower() for phrase in written),
        2 * max(map(len, written), default=0),
    )


@functools.cache
def _phrase_file() -> dict[str, list[str]]:
    return yaml.safe_load((Path(__file__).parent / "phrases.yaml").read_text(encoding="utf-8"))

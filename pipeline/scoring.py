"""The one place where text is compared: it judges a pseudo-label and it evaluates a student.

Both texts are normalised first: English with Whisper's English rules, any other language with its
basic ones, keeping combining marks (Whisper's own basic rules turn Indic vowel signs into spaces).
Languages written without spaces are judged by characters, since a WER of Japanese only says whether
two sentences are equal. Rates are fractions: 0.1 is 10 %.
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import jiwer
import numpy as np
from whisper_normalizer.basic import BasicTextNormalizer
from whisper_normalizer.english import EnglishTextNormalizer

CHARACTER_LANGUAGES = frozenset({"ja", "zh", "yue", "th", "lo", "km", "my"})
"""Judged by CER: their words are not separated by spaces."""

# Whisper's languages by code and English name, as in its tokenizer; some have several names.
_CODES_AND_NAMES = """
    af:afrikaans, am:amharic, ar:arabic, as:assamese, az:azerbaijani, ba:bashkir, be:belarusian,
    bg:bulgarian, bn:bengali, bo:tibetan, br:breton, bs:bosnian, ca:catalan, ca:valencian, cs:czech,
    cy:welsh, da:danish, de:german, el:greek, en:english, es:castilian, es:spanish, et:estonian,
    eu:basque, fa:persian, fi:finnish, fo:faroese, fr:french, gl:galician, gu:gujarati, ha:hausa,
    haw:hawaiian, he:hebrew, hi:hindi, hr:croatian, ht:haitian, ht:haitian creole, hu:hungarian,
    hy:armenian, id:indonesian, is:icelandic, it:italian, ja:japanese, jw:javanese, ka:georgian,
    kk:kazakh, km:khmer, kn:kannada, ko:korean, la:latin, lb:letzeburgesch, lb:luxembourgish,
    ln:lingala, lo:lao, lt:lithuanian, lv:latvian, mg:malagasy, mi:maori, mk:macedonian,
    ml:malayalam, mn:mongolian, mr:marathi, ms:malay, mt:maltese, my:burmese, my:myanmar, ne:nepali,
    nl:dutch, nl:flemish, nn:nynorsk, no:norwegian, oc:occitan, pa:panjabi, pa:punjabi, pl:polish,
    ps:pashto, ps:pushto, pt:portuguese, ro:moldavian, ro:moldovan, ro:romanian, ru:russian,
    sa:sanskrit, sd:sindhi, si:sinhala, si:sinhalese, sk:slovak, sl:slovenian, sn:shona, so:somali,
    sq:albanian, sr:serbian, su:sundanese, sv:swedish, sw:swahili, ta:tamil, te:telugu, tg:tajik,
    th:thai, tk:turkmen, tl:tagalog, tr:turkish, tt:tatar, uk:ukrainian, ur:urdu, uz:uzbek,
    vi:vietnamese, yi:yiddish, yo:yoruba, yue:cantonese, zh:chinese, zh:mandarin
"""
_CODES = {
    name.strip(): code.strip()
    for code, name in (entry.split(":") for entry in _CODES_AND_NAMES.split(","))
}


@dataclass(frozen=True, kw_only=True)
class Score:
    """How a hypothesis differs from its reference; the counts are in units of `metric`."""

    wer: float
    """Word errors per reference word; above 1 where many words were inserted."""
    cer: float
    """Character errors per reference character; spaces count unless `metric` is "cer"."""
    metric: str
    """Which of the two judges this language: "wer" or "cer"."""
    substitutions: int
    deletions: int
    insertions: int
    hits: int
    normalizer: str
    """Which rules both texts went through: "english" or "basic"."""

    @property
    def rate(self) -> float:
        """The rate that judges this language."""
        return self.wer if self.metric == "wer" else self.cer

    @property
    def errors(self) -> int:
        """Substitutions, deletions and insertions together."""
        return self.substitutions + self.deletions + self.insertions

    @property
    def reference_length(self) -> int:
        """Words, or characters where the metric is "cer", of the normalised reference."""
        return self.substitutions + self.deletions + self.hits


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A confidence interval of an error rate."""

    low: float
    high: float


def score(reference: str, hypothesis: str, language: str) -> Score:
    """Compare a hypothesis with its reference.

    `language` is a code ("en", "EN", "en-US") or one of Whisper's names ("english"). A reference
    that normalises to nothing has no words to be wrong about: its rates are 0 where the hypothesis
    is empty too, and else 1, with all the hypothesis counted as insertions.

    Raises:
        ValueError: the language is neither a code nor a name that Whisper knows.
    """
    code = language_code(language)
    reference, hypothesis = normalize(reference, code), normalize(hypothesis, code)
    words = jiwer.process_words(reference, hypothesis)
    by_characters = code in CHARACTER_LANGUAGES
    if by_characters:  # where spaces stand is a matter of taste in these scripts
        reference, hypothesis = reference.replace(" ", ""), hypothesis.replace(" ", "")
    characters = jiwer.process_characters(reference, hypothesis)
    counts = characters if by_characters else words
    return Score(
        wer=words.wer if reference else float(bool(hypothesis)),
        cer=characters.cer if reference else float(bool(hypothesis)),
        metric="cer" if by_characters else "wer",
        substitutions=counts.substitutions,
        deletions=counts.deletions,
        insertions=counts.insertions,
        hits=counts.hits,
        normalizer=_normalizer_name(code),
    )


def normalize(text: str, language: str) -> str:
    """Return the text as it is compared: lower case, no punctuation, single spaces.

    Raises:
        ValueError: the language is neither a code nor a name that Whisper knows.
    """
    normalizer = _normalizer(_normalizer_name(language_code(language)))
    words = str(normalizer(text)).split()
    # The English rules leave a full stop behind where a text is "...": it is no word.
    return " ".join(word for word in words if any(map(str.isalnum, word)))


def language_code(language: str) -> str:
    """Turn "en", "EN", "en-US" or "english" into "en".

    A code of two or three letters is taken as it is, known to Whisper or not.

    Raises:
        ValueError: it is neither a code nor one of Whisper's language names.
    """
    name = language.strip().lower()
    if name in _CODES:
        return _CODES[name]
    code = name.replace("_", "-").split("-")[0]
    if code.isascii() and code.isalpha() and 2 <= len(code) <= 3:
        return code
    raise ValueError(
        f"language {language!r} is not known; give a code such as 'en' or 'pt-BR', "
        "or the English name that Whisper uses, such as 'portuguese'"
    )


def corpus_rate(scores: Sequence[Score]) -> float:
    """Return the error rate of a whole set: all errors over all reference words.

    Longer utterances weigh more, which is how WER of a test set is reported. Counts are words or
    characters, by the metric of the scores.

    Raises:
        ValueError: there are no scores, or they are of different metrics.
    """
    errors, lengths = _errors_and_lengths(scores)
    return _rate(int(errors.sum()), int(lengths.sum()))


def bootstrap_interval(
    scores: Sequence[Score], seed: int, num_resamples: int = 1000, confidence: float = 0.95
) -> Interval:
    """Estimate how far the corpus rate may be from its true value, by resampling utterances.

    The percentile bootstrap (Bisani and Ney, 2004). Utterances are taken as independent, so the
    interval is too narrow where a few speakers speak them all.

    Raises:
        ValueError: there are no scores, or they are of different metrics.
    """
    errors, lengths = _errors_and_lengths(scores)
    generator = np.random.default_rng(seed)
    rates = np.empty(num_resamples)
    for i in range(num_resamples):
        drawn = generator.integers(len(errors), size=len(errors))
        rates[i] = _rate(int(errors[drawn].sum()), int(lengths[drawn].sum()))
    tail = (1 - confidence) / 2
    low, high = np.quantile(rates, [tail, 1 - tail])
    return Interval(low=float(low), high=float(high))


def _errors_and_lengths(scores: Sequence[Score]) -> tuple[np.ndarray, np.ndarray]:
    if not scores:
        raise ValueError("no scores: an error rate needs at least one utterance")
    metrics = {s.metric for s in scores}
    if len(metrics) > 1:
        raise ValueError(
            f"scores of {sorted(metrics)} cannot be added up; group them by language first"
        )
    return (
        np.array([s.errors for s in scores], dtype=np.int64),
        np.array([s.reference_length for s in scores], dtype=np.int64),
    )


def _rate(errors: int, length: int) -> float:
    """Divide, with the rule of `score` where there is no reference."""
    return errors / length if length else float(errors > 0)


def _normalizer_name(code: str) -> str:
    return "english" if code == "en" else "basic"


@functools.cache
def _normalizer(name: str) -> Callable[[str], object]:
    return (
        EnglishTextNormalizer() if name == "english" else BasicTextNormalizer(preserve_marks=True)
    )

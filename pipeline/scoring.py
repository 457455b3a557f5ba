"""The one place where text is compared: it judges a pseudo-label and it evaluates a student.

Both texts are normalised first, by the rules of their language. Languages and scripts written
without spaces are judged by characters, since a WER of Japanese only says whether two sentences are
equal. Rates are fractions: 0.1 is 10 %.
"""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from rapidfuzz.distance import Levenshtein

from pipeline.languages import CHARACTER_LANGUAGES, is_unspaced, language_code
from pipeline.normalizing import normalize, normalizer_name

__all__ = [
    "CHARACTER_LANGUAGES",
    "Interval",
    "Score",
    "bootstrap_interval",
    "corpus_rate",
    "language_code",
    "metric_of",
    "normalize",
    "score",
    "score_batch",
    "word_errors",
]


@dataclass(frozen=True, kw_only=True, slots=True)
class Score:
    """How a hypothesis differs from its reference; the counts are in units of `metric`."""

    wer: float
    """Word errors per reference word; above 1 where many words were inserted."""
    cer: float
    """Character errors per reference character; spaces count unless `metric` is "cer"."""
    metric: str
    """Which of the two judges this text: "wer" or "cer"."""
    substitutions: int
    deletions: int
    insertions: int
    hits: int
    normalizer: str
    """Which rules both texts went through: "english" or "basic"."""
    orthographic_wer: float
    """The rate of `metric` with casing, punctuation and spelling as they are."""

    @property
    def rate(self) -> float:
        """The rate that judges this text."""
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
    is empty too, and else 1, with all the hypothesis counted as insertions. An empty hypothesis
    deletes every word.

    Raises:
        ValueError: the language is neither a code nor a name that Whisper knows.
    """
    name = normalizer_name(language)
    by_characters = metric_of(reference, language) == "cer"
    orthographic = _orthographic_rate(reference, hypothesis, by_characters)
    normalised = normalize(reference, language)
    # Normalising takes nine tenths of the time, and a good teacher often writes what was given.
    same = reference == hypothesis
    reference, hypothesis = normalised, normalised if same else normalize(hypothesis, language)
    word_counts = _count_words(reference, hypothesis)
    if by_characters:  # where spaces stand is a matter of taste in these scripts
        reference, hypothesis = reference.replace(" ", ""), hypothesis.replace(" ", "")
    if by_characters:
        counts = _count(reference, hypothesis)
        character_errors = sum(counts[:3])
    else:
        counts = word_counts
        character_errors = Levenshtein.distance(reference, hypothesis)
    substitutions, deletions, insertions, hits = counts
    return Score(
        wer=_rate(sum(word_counts[:3]), word_counts[0] + word_counts[1] + word_counts[3]),
        cer=_rate(character_errors, len(reference)),
        metric="cer" if by_characters else "wer",
        substitutions=substitutions,
        deletions=deletions,
        insertions=insertions,
        hits=hits,
        normalizer=name,
        orthographic_wer=orthographic,
    )


def score_batch(
    references: Sequence[str], hypotheses: Sequence[str], languages: Sequence[str] | str
) -> list[Score]:
    """Compare many pairs; `languages` is one for all of them, or one for each.

    Raises:
        ValueError: the sequences differ in length, or a language is unknown.
    """
    if isinstance(languages, str):
        languages = [languages] * len(references)
    if not len(references) == len(hypotheses) == len(languages):
        raise ValueError(
            f"{len(references)} references, {len(hypotheses)} hypotheses and {len(languages)} "
            "languages were given; give one of each for every pair"
        )
    return [score(*pair) for pair in zip(references, hypotheses, languages, strict=True)]


def metric_of(reference: str, language: str) -> str:
    """Return how a text is judged: "cer" where its language or its script has no spaces.

    Raises:
        ValueError: the language is neither a code nor a name that Whisper knows.
    """
    unspaced = language_code(language) in CHARACTER_LANGUAGES or is_unspaced(reference)
    return "cer" if unspaced else "wer"


def word_errors(reference: str, hypothesis: str) -> tuple[int, int]:
    """Count errors and reference words of two texts that are normalised already."""
    substitutions, deletions, insertions, hits = _count_words(reference, hypothesis)
    return substitutions + deletions + insertions, substitutions + deletions + hits


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


def _count_words(reference: str, hypothesis: str) -> tuple[int, int, int, int]:
    """Return substitutions, deletions, insertions and hits of words separated by spaces."""
    if reference == hypothesis:
        return 0, 0, 0, len(reference.split())
    return _count(reference.split(), hypothesis.split())


def _count(reference: Sequence[str], hypothesis: Sequence[str]) -> tuple[int, int, int, int]:
    """Return substitutions, deletions, insertions and hits of words or characters."""
    length = len(reference)
    if reference == hypothesis:
        return 0, 0, 0, length
    tags = [operation[0] for operation in Levenshtein.editops(reference, hypothesis).as_list()]
    substitutions, deletions = tags.count("replace"), tags.count("delete")
    return substitutions, deletions, tags.count("insert"), length - substitutions - deletions


def _orthographic_rate(reference: str, hypothesis: str, by_characters: bool) -> float:
    """Return the error rate of texts as they are, but for spaces and Unicode's choice of form."""
    if reference == hypothesis:
        return 0.0
    words, hypothesis_words = (
        (text if text.isascii() else unicodedata.normalize("NFC", text)).split()
        for text in (reference, hypothesis)
    )
    if by_characters:
        reference, hypothesis = "".join(words), "".join(hypothesis_words)
        return _rate(Levenshtein.distance(reference, hypothesis), len(reference))
    return _rate(Levenshtein.distance(words, hypothesis_words), len(words))

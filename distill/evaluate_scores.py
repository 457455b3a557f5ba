"""Error rates of a set of clips with their intervals, and whether two models really differ.

Scores come from `pipeline.scoring`, the function that filtered the training labels. Two models are
compared on the same resampled clips (paired bootstrap, Bisani and Ney 2004), which sees differences
that are much smaller than either model's own interval.
"""

from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass

import jiwer
import numpy as np

from distill.evaluate_data import EvaluationClip
from distill.hallucination import Loops, find_loops
from pipeline.scoring import Score, bootstrap_interval, corpus_rate, normalize, score


@dataclass(frozen=True, kw_only=True)
class Rates:
    """How a model did on a set of clips; rates are fractions."""

    num_clips: int
    metric: str
    """wer, or cer for languages without spaces: what `wer` is a rate of, and its counts."""
    wer: float
    """Summed errors over summed reference words, normalised."""
    wer_low: float
    wer_high: float
    """95 % bootstrap interval over clips."""
    cer: float
    orthographic_wer: float
    """The rate of `metric` without normalisation: case and punctuation count."""
    substitutions: int
    deletions: int
    insertions: int
    reference_length: int
    insertion_rate: float
    loops: Loops


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A model against the first one, on the same clips."""

    wer_difference: float
    low: float
    high: float
    """95 % interval of the difference."""
    p_value: float
    """How often resampling turns the difference around, two-sided."""


def score_all(clips: list[EvaluationClip], texts: list[str]) -> list[Score]:
    """Score each clip in its language."""
    return [
        score(clip.reference, text, clip.language) for clip, text in zip(clips, texts, strict=True)
    ]


def rates(
    clips: list[EvaluationClip], texts: list[str], scores: list[Score], seed: int, resamples: int
) -> Rates:
    """Sum up a set of clips.

    Where languages of both metrics are mixed, the counts and `wer` are of the commoner metric's
    clips; the table by language shows the others.
    """
    counted = of_commoner_metric(scores)
    interval = bootstrap_interval(counted, seed, resamples)
    normalised = [
        (normalize(clip.reference, clip.language), normalize(text, clip.language))
        for clip, text in zip(clips, texts, strict=True)
    ]
    counted_in = [
        [units(one, found.metric) for one in pair]
        for pair, found in zip(normalised, scores, strict=True)
    ]
    characters = [
        character_errors(found, reference)
        for found, (reference, _) in zip(scores, normalised, strict=True)
    ]
    wrong, num_characters = (sum(column) for column in zip(*characters, strict=True))
    length = sum(s.reference_length for s in counted)
    insertions = sum(s.insertions for s in counted)
    return Rates(
        num_clips=len(clips),
        metric=counted[0].metric,
        wer=corpus_rate(counted),
        wer_low=interval.low,
        wer_high=interval.high,
        cer=wrong / num_characters if num_characters else 0.0,
        orthographic_wer=_orthographic_rate(clips, texts, scores),
        substitutions=sum(s.substitutions for s in counted),
        deletions=sum(s.deletions for s in counted),
        insertions=insertions,
        reference_length=length,
        insertion_rate=insertions / length if length else float(insertions > 0),
        loops=find_loops(
            [clip.id for clip in clips],
            *map(list, zip(*counted_in, strict=True)),
        ),
    )


def units(text: str, metric: str) -> list[str]:
    """Return what a text is counted in: its words, or its characters where the metric is "cer"."""
    return list("".join(text.split())) if metric == "cer" else text.split()


def _orthographic_rate(clips: list[EvaluationClip], texts: list[str], scores: list[Score]) -> float:
    """Compare the texts as they are, of the clips that `wer` counts."""
    metric = of_commoner_metric(scores)[0].metric
    pairs = [
        [" ".join(units(one, metric)) for one in (clip.reference, text)]
        for clip, text, found in zip(clips, texts, scores, strict=True)
        if found.metric == metric
    ]
    references, hypotheses = map(list, zip(*pairs, strict=True))
    return jiwer.wer(references, hypotheses)


def character_errors(found: Score, reference: str) -> tuple[int, int]:
    """Count the wrong characters of a score, and those of its normalised reference.

    Spaces count, but for texts that are judged by characters, as in `Score.cer`.
    """
    if found.metric == "cer":
        return found.errors, found.reference_length
    return round(found.cer * len(reference)), len(reference)


def compare(first: list[Score], other: list[Score], seed: int, resamples: int) -> Comparison | None:
    """Compare two models clip by clip; None where there are no common words to count."""
    metric = Counter(s.metric for s in first).most_common(1)[0][0]
    pairs = [(a, b) for a, b in zip(first, other, strict=True) if a.metric == metric]
    lengths = np.array([a.reference_length for a, _ in pairs], dtype=np.int64)
    errors = np.array([(a.errors, b.errors) for a, b in pairs], dtype=np.int64)
    if not lengths.sum():
        return None
    rng = np.random.default_rng(seed)
    differences = np.empty(resamples)
    for number in range(resamples):
        drawn = rng.integers(len(pairs), size=len(pairs))
        gap = errors[drawn, 1].sum() - errors[drawn, 0].sum()
        differences[number] = gap / max(int(lengths[drawn].sum()), 1)
    low, high = np.quantile(differences, [0.025, 0.975])
    below, above = np.mean(differences <= 0), np.mean(differences >= 0)
    return Comparison(
        wer_difference=float((errors[:, 1] - errors[:, 0]).sum() / lengths.sum()),
        low=float(low),
        high=float(high),
        p_value=float(min(1.0, 2 * min(below, above))),
    )


def break_down(
    clips: list[EvaluationClip], scores: list[Score], key: Callable[[EvaluationClip], str]
) -> dict[str, float]:
    """Return the error rate of each group of clips, in order of the groups' names.

    Where a group has clips of both metrics, the rate is of the commoner one's, as in `rates`.
    """
    groups: dict[str, list[Score]] = defaultdict(list)
    for clip, found in zip(clips, scores, strict=True):
        groups[key(clip)].append(found)
    return {
        name: round(corpus_rate(of_commoner_metric(group)), 5)
        for name, group in sorted(groups.items())
    }


def of_commoner_metric(scores: list[Score]) -> list[Score]:
    """Keep the scores of the metric that most have; words and characters do not add up."""
    metric = Counter(s.metric for s in scores).most_common(1)[0][0]
    return [s for s in scores if s.metric == metric]

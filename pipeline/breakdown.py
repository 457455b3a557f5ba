"""The numbers of a report by corpus, by language, and by bins of a value."""

import math
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.plan import Plan
from pipeline.schema import MAX_CLIP_SECONDS, ShardEntry
from pipeline.scoring import metric_of
from pipeline.shards import CommitRecord
from pipeline.sweep import Judged, hours, mean_rate

HISTOGRAM_EDGES = (0.0, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1.0)
"""Upper edges of the bins, inclusive; one more bin holds the rest."""


@dataclass(frozen=True, kw_only=True)
class SplitReport:
    """The numbers of one split of one corpus; counts are of utterances."""

    corpus: str
    split: str
    language: str
    licence: str
    planned: int
    kept: int
    rejected: dict[str, int]
    failed: dict[str, int]
    hours_planned: float
    hours_kept: float
    clips: int
    """In the shards; packed, a clip holds several utterances."""
    fill: float | None
    """Share of the clips' windows of 30 s that is audio; None where nothing is kept."""


@dataclass(frozen=True, kw_only=True)
class LanguageReport:
    """The filtered clips of one language."""

    language: str
    clips: int
    kept: int
    hours: float
    hours_kept: float
    metric: str
    """What its error rate counts: "wer" is of words, "cer" of characters."""
    wer: float | None
    """Of all its clips with a reference: summed errors over summed words, or characters."""
    wer_kept: float | None


@dataclass(frozen=True, kw_only=True)
class Bin:
    """Filtered clips whose value is at most `upper` and above the bin before."""

    upper: float | None
    """None for the last bin, which has no upper edge."""
    clips: int
    hours: float


def by_split(plan: Plan, records: list[CommitRecord]) -> tuple[SplitReport, ...]:
    """Add up the blocks of each split."""
    grouped: defaultdict[tuple[str, str], list[CommitRecord]] = defaultdict(list)
    for block, record in zip(plan.blocks, records, strict=True):
        grouped[block.corpus, block.split].append(record)
    reports = []
    for corpus in plan.corpora:
        mine = grouped[corpus.name, corpus.split]
        reports.append(
            SplitReport(
                corpus=corpus.name,
                split=corpus.split,
                language=corpus.language,
                licence=corpus.licence,
                planned=corpus.num_utterances,
                kept=sum(record.kept for record in mine),
                rejected=_sum(record.rejected for record in mine),
                failed=_sum(record.failed for record in mine),
                hours_planned=hours(corpus.duration_seconds),
                hours_kept=hours(sum(record.kept_seconds for record in mine)),
                clips=sum(record.shard.num_samples for record in mine if record.shard),
                fill=fill([record.shard for record in mine if record.shard]),
            )
        )
    return tuple(reports)


def fill(shards: Sequence[ShardEntry]) -> float | None:
    """Return how full the windows of some shards' clips are, as a fraction; None without clips."""
    windows = sum(shard.num_samples for shard in shards) * MAX_CLIP_SECONDS
    audio = math.fsum(shard.duration_seconds for shard in shards)
    return round(audio / windows, 4) if windows else None


def _sum(counts: Iterable[dict[str, int]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for count in counts:
        total.update(count)
    return dict(sorted(total.items()))


def by_language(judged: Judged) -> tuple[LanguageReport, ...]:
    """Say of each language how much there is, how much is kept, and how wrong it is."""
    reports = []
    for code, language in enumerate(judged.language_names):
        mine = judged.languages == code
        kept = mine & judged.kept
        reports.append(
            LanguageReport(
                language=language,
                clips=int(mine.sum()),
                kept=int(kept.sum()),
                hours=hours(float(judged.seconds[mine].sum())),
                hours_kept=hours(float(judged.seconds[kept].sum())),
                metric=metric_of("", language),
                wer=_corpus_rate(judged, mine),
                wer_kept=_corpus_rate(judged, kept),
            )
        )
    return tuple(sorted(reports, key=lambda r: -r.hours))


def _corpus_rate(judged: Judged, where: np.ndarray) -> float | None:
    return mean_rate(judged.errors[where], judged.lengths[where])


def histogram(values: np.ndarray, seconds: np.ndarray, edges: Sequence[float]) -> tuple[Bin, ...]:
    """Count clips in bins of a value, given their upper edges; those without one are in none."""
    clips = [0] * (len(edges) + 1)
    lengths = [0.0] * len(clips)
    for value, duration in zip(values.tolist(), seconds.tolist(), strict=True):
        if not math.isnan(value):
            position = bisect_left(edges, value)
            clips[position] += 1
            lengths[position] += duration
    return tuple(
        Bin(upper=upper, clips=n, hours=hours(s))
        for upper, n, s in zip([*edges, None], clips, lengths, strict=True)
    )

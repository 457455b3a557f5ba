"""What other thresholds would make of a ledger, from the ledger alone.

A pass over the Parquet parts reads only the columns that the rules look at, lets every rule judge
every row, and keeps a few numbers of each: its error rate, its length, a bit for each rule that
rejects it. Whatever is asked afterwards (another threshold, a corpus, what a rule adds) is
arithmetic on arrays, so a million rows are swept in seconds.
"""

import dataclasses
import math
from collections import namedtuple
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.context import NOTHING, Context
from pipeline.files import AnyPath
from pipeline.filters import REASONS, FilterConfig, clip_bits, error_rate, utterance_bits
from pipeline.ledger import PACKED, of_another_release, open_part, read_ledger
from pipeline.limits import SWEEP
from pipeline.normalizing import normalize, normalizer_name
from pipeline.pieces import pieces
from pipeline.schema import Sample

DURATION_EDGES = (0.0, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0)
"""Seconds; a bucket holds what is above its lower edge and up to the next."""

_BATCH = 20_000
_WER_BIT = np.uint32(1 << REASONS.index("wer"))


@dataclass(frozen=True)
class Judged:
    """A ledger in numbers: arrays of one entry for each of the `pieces` of the filtered splits."""

    rates: np.ndarray
    """Error rate; NaN without a reference."""
    errors: np.ndarray
    lengths: np.ndarray
    """Reference words, or characters where these are counted; see `_length`."""
    by_characters: np.ndarray
    """Whether errors and lengths are of characters; the two kinds cannot be added up."""
    seconds: np.ndarray
    verdicts: np.ndarray
    """Bit i is set where rule i of `REASONS` rejects, whatever the others say."""
    lenient: np.ndarray
    """Whether the budget of errors lets a row pass at any threshold."""
    rows: np.ndarray
    """Position among the rows that were judged; the utterances of a packed clip share it."""
    corpora: np.ndarray
    """Index into `corpus_names`."""
    languages: np.ndarray
    corpus_names: tuple[str, ...]
    language_names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.rates)

    @property
    def kept(self) -> np.ndarray:
        """Which rows no rule rejects."""
        return self.verdicts == 0

    @property
    def only_wer_may_reject(self) -> np.ndarray:
        """Which rows pass every rule but that of the error rate."""
        return (self.verdicts & ~_WER_BIT) == 0


@dataclass(frozen=True, kw_only=True)
class SweepPoint:
    """What of the filtered splits another threshold would keep."""

    max_wer: float
    clips: int
    hours: float
    mean_wer: float | None
    """Of what is kept: all errors over all reference words, or characters where all of it is judged
    by them. None where some is judged by one and some by the other, or nothing has a reference."""
    mean_rates: dict[str, float] = field(default_factory=dict)
    """The same by metric, "wer" or "cer", of what is judged by it."""


@dataclass(frozen=True, kw_only=True)
class RuleCount:
    """What one rule does.

    Clips are counted as they are judged: utterances, also inside a pack, parts of a long recording,
    or packs without references.
    """

    reason: str
    rejected: int
    """Clips that it rejects, whatever other rules say."""
    first: int
    """Clips of which it is the reason: no rule before it rejects them."""
    only: int
    """Its marginal contribution: clips that no other rule rejects."""
    hours_only: float


class _Segment(NamedTuple):
    start: float
    end: float


def judge_parts(
    parts: Sequence[AnyPath], config: FilterConfig, context: Context = NOTHING
) -> Judged:
    """Judge every row of the filtered splits in ledger parts; memory does not grow with rows."""
    return judge(_slim_rows(parts), config, context)


def judge(rows: Iterable[Sample], config: FilterConfig, context: Context = NOTHING) -> Judged:
    """Judge rows that are in memory, or that an iterator brings."""
    corpora: dict[str, int] = {}
    languages: dict[str, int] = {}
    numbers: list[tuple[float, ...]] = []
    chunks: list[np.ndarray] = []
    for position, row, bits in _judged_apart(rows, config, context):
        rate = error_rate(row)
        errors = (row.substitutions or 0) + (row.deletions or 0) + (row.insertions or 0)
        numbers.append(
            (
                math.nan if rate is None else rate,
                math.nan if rate is None else errors,
                math.nan if rate is None else _length(row, errors, rate),
                row.metric == "cer",
                row.duration_seconds,
                bits | utterance_bits(row, config, context),
                position,
                corpora.setdefault(row.corpus, len(corpora)),
                languages.setdefault(row.language, len(languages)),
            )
        )
        if len(numbers) == _BATCH:
            chunks.append(np.array(numbers, dtype=np.float64))
            numbers = []
    chunks.append(np.array(numbers, dtype=np.float64).reshape(-1, 9))
    columns = np.concatenate(chunks).T
    return Judged(
        rates=columns[0],
        errors=columns[1],
        lengths=columns[2],
        by_characters=columns[3].astype(bool),
        seconds=columns[4],
        verdicts=columns[5].astype(np.uint32),
        lenient=(columns[1] <= config.error_budget)
        & (columns[2] >= config.error_budget_min_length)
        & (config.error_budget > 0),
        rows=columns[6].astype(np.int64),
        corpora=columns[7].astype(np.int32),
        languages=columns[8].astype(np.int32),
        corpus_names=tuple(corpora),
        language_names=tuple(languages),
    )


def _judged_apart(
    rows: Iterable[Sample], config: FilterConfig, context: Context
) -> Iterator[tuple[int, Sample, int]]:
    """Yield each piece with its row's position and with what the clip's rules say of it."""
    position = 0
    for row in rows:
        if row.split not in config.splits:
            continue
        bits = clip_bits(row, config, context)
        if len(getattr(row, "utterances", ())) > 1:
            for piece in pieces(row):
                yield position, piece, bits
        else:
            yield position, row, bits
        position += 1


def sweep(
    judged: Judged, limits: Sequence[float] = SWEEP, where: np.ndarray | None = None
) -> tuple[SweepPoint, ...]:
    """Say for each threshold what it would keep of the rows, or of those `where` is True.

    Raises:
        ValueError: there is no threshold, or one is not a fraction of at least 0.
    """
    if not limits:
        raise ValueError("no threshold to try; give fractions such as 0.05 and 0.1")
    candidates = judged.only_wer_may_reject if where is None else judged.only_wer_may_reject & where
    rates, seconds = judged.rates[candidates], judged.seconds[candidates]
    errors, lengths = judged.errors[candidates], judged.lengths[candidates]
    by_characters = judged.by_characters[candidates]
    free = np.isnan(rates) | judged.lenient[candidates]
    points = []
    for limit in limits:
        if not 0 <= limit < math.inf:
            raise ValueError(f"threshold {limit} is out of range; give fractions such as 0.1")
        kept = free | (rates <= limit)
        means = {
            metric: mean
            for metric, mine in (("wer", kept & ~by_characters), ("cer", kept & by_characters))
            if (mean := mean_rate(errors[mine], lengths[mine])) is not None
        }
        points.append(
            SweepPoint(
                max_wer=limit,
                clips=int(kept.sum()),
                hours=hours(float(seconds[kept].sum())),
                mean_wer=next(iter(means.values())) if len(means) == 1 else None,
                mean_rates=means,
            )
        )
    return tuple(points)


def sweep_groups(
    judged: Judged, limits: Sequence[float] = SWEEP
) -> dict[str, dict[str, tuple[SweepPoint, ...]]]:
    """Sweep each corpus, each language and each bucket of duration by itself."""
    groups: dict[str, dict[str, tuple[SweepPoint, ...]]] = {"corpus": {}, "language": {}}
    for name, codes, names in (
        ("corpus", judged.corpora, judged.corpus_names),
        ("language", judged.languages, judged.language_names),
    ):
        for code, value in enumerate(names):
            groups[name][value] = sweep(judged, limits, codes == code)
    groups["duration"] = {}
    for low, high in zip(DURATION_EDGES[:-1], DURATION_EDGES[1:], strict=True):
        inside = (judged.seconds > low) & (judged.seconds <= high)
        if inside.any():
            groups["duration"][f"{low:g}-{high:g} s"] = sweep(judged, limits, inside)
    return groups


def count_rules(judged: Judged) -> tuple[RuleCount, ...]:
    """Say of every rule that rejects something what it rejects, and what it alone does."""
    counts = []
    before = np.zeros(len(judged), dtype=np.uint32)
    for position, reason in enumerate(REASONS):
        bit = np.uint32(1 << position)
        rejects = (judged.verdicts & bit) != 0
        if rejects.any():
            only = judged.verdicts == bit
            counts.append(
                RuleCount(
                    reason=reason,
                    rejected=int(rejects.sum()),
                    first=int((rejects & (before == 0)).sum()),
                    only=int(only.sum()),
                    hours_only=hours(float(judged.seconds[only].sum())),
                )
            )
        before |= judged.verdicts & bit
    return tuple(counts)


def hours(seconds: float) -> float:
    """Return hours as reports show them."""
    return round(seconds / 3600, 4)


def mean_rate(errors: np.ndarray, lengths: np.ndarray) -> float | None:
    """Return summed errors over summed lengths, of one metric; None where there is no length."""
    length = float(np.nansum(lengths))
    return round(float(np.nansum(errors)) / length, 5) if length else None


def _length(row: Sample, errors: int, rate: float) -> int:
    """Return the reference length of a row, in units of its metric.

    Without errors the counts do not tell it, and the reference is normalised once more. The English
    rules would take longer than all the rest, so English words are counted as written: 0.4 % more
    of the embedded corpus than after normalising.
    """
    if rate:
        return round(errors / rate)
    if row.metric == "cer":
        return len(normalize(row.reference, row.language).replace(" ", ""))
    if normalizer_name(row.language) == "english":
        return len(row.reference.split())
    return len(normalize(row.reference, row.language).split())


def _slim_rows(parts: Sequence[AnyPath]) -> Iterator[Any]:
    """Yield rows that have only what rules look at; a `Sample` takes ten times as long to make."""
    fields = [f.name for f in dataclasses.fields(Sample) if f.name not in _UNUSED]
    for part in parts:
        with _open_part(part) as file:
            if PACKED in (file.schema_arrow.metadata or {}):
                yield from read_ledger(part)[0]
                continue
            columns = [name for name in fields if name in file.schema_arrow.names]
            make = namedtuple("Row", columns)._make
            for batch in file.iter_batches(batch_size=_BATCH, columns=columns):
                values = [_plain(batch.column(name), name) for name in columns]
                yield from map(make, zip(*values, strict=True))


def _open_part(part: AnyPath) -> pq.ParquetFile:
    """Open a ledger part, or say why it cannot be judged."""
    if not part.is_file():
        raise FileNotFoundError(f"{part} does not exist: its block is not labelled yet; run again")
    file = open_part(part)
    needed = {f.name for f in dataclasses.fields(Sample) if f.default is dataclasses.MISSING}
    if missing := sorted(needed - set(file.schema_arrow.names)):
        file.close()
        raise of_another_release(part, f"it lacks {', '.join(missing)}")
    return file


_UNUSED = frozenset(
    {
        "tokens",
        "token_logprobs",
        "utterances",
        "previous_pseudo_label",
        "teacher",
        "teacher_revision",
        "recording",
        "speaker",
        "normalizer",
        "orthographic_wer",
    }
)


def _plain(column: pa.Array, name: str) -> list[Any]:
    """Return the values of a column; of segments only where they start and end."""
    if name != "segments":
        return column.to_pylist()
    lists = cast(pa.ListArray, column)
    items = cast(pa.StructArray, lists.values)
    spans = list(map(_Segment, items.field("start").to_pylist(), items.field("end").to_pylist()))
    offsets = lists.offsets.to_pylist()
    return [spans[a:b] for a, b in zip(offsets[:-1], offsets[1:], strict=True)]

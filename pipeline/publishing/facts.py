"""The numbers of a card, kept beside it as `card.json`: a split that comes later adds its own."""

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Any

from pipeline.files import AnyPath
from pipeline.publishing.contents import CheckedShard, Portion, add_up
from pipeline.publishing.sidecars import sidecar_teachers
from pipeline.schema import Index, Totals, from_dict
from pipeline.sweep import SweepPoint

Source = tuple[str, str]
"""A corpus and a split of it."""


@dataclass(frozen=True, kw_only=True)
class SplitFacts:
    """One published split of one corpus; counts are of utterances unless they say clips."""

    corpus: str
    split: str
    planned: int
    kept: int
    rejected: dict[str, int]
    failed: dict[str, int]
    hours_planned: float
    hours_kept: float
    clips: int
    """Published; a clip may hold several utterances."""
    portions: tuple[Portion, ...]
    """What is published, by language and licence."""
    shards_left_out: int = 0
    """Because of a licence."""

    @property
    def seconds(self) -> float:
        """Published audio."""
        return sum(portion.seconds for portion in self.portions)


@dataclass(frozen=True, kw_only=True)
class Facts:
    """`card.json`."""

    splits: tuple[SplitFacts, ...]
    sweeps: dict[str, Any]
    """By corpus: what other values of `filter.max_wer` would have kept, lowest first."""
    labels: dict[str, str] = field(default_factory=dict)
    """Who said the other labels that lie beside the shards, by their name."""

    def sweep_of(self, corpus: str) -> tuple[SweepPoint, ...]:
        """Return the sweep of a corpus; () where it was not filtered."""
        return tuple(from_dict(SweepPoint, point) for point in self.sweeps.get(corpus, ()))

    @property
    def clips(self) -> int:
        """All published clips."""
        return sum(split.clips for split in self.splits)

    @property
    def languages(self) -> list[str]:
        """All languages that occur."""
        return sorted({p.language for split in self.splits for p in split.portions})

    @property
    def licences(self) -> list[str]:
        """All licences that occur."""
        return sorted({p.licence for split in self.splits for p in split.portions})


def gather(
    output: AnyPath, free: tuple[CheckedShard, ...], held: tuple[CheckedShard, ...]
) -> Facts:
    """Put together what the report and the shards say of the splits that are published.

    Raises:
        FileNotFoundError: the folder has no report.
        ValueError: the report is of another release.
    """
    path = output / "report.json"
    advice = f"write it with `whisper-pipeline report {output}`"
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist: {advice}")
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
        reported = {(split["corpus"], split["split"]): split for split in report["splits"]}
        sweeps = report["sweep_by"]["corpus"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is damaged or of another release ({error}): {advice}") from error
    portions = add_up(free)
    missing = sorted(portions.keys() - reported.keys())
    if missing:
        raise ValueError(f"{path} knows nothing of {'-'.join(missing[0])}: {advice}")
    return Facts(
        splits=tuple(
            _split(source, reported[source], portions[source], held) for source in sorted(portions)
        ),
        sweeps={name: sweeps[name] for name in sorted({c for c, _ in portions}) if name in sweeps},
        labels=sidecar_teachers(output, free),
    )


def _split(
    source: Source,
    reported: dict[str, Any],
    portions: tuple[Portion, ...],
    held: tuple[CheckedShard, ...],
) -> SplitFacts:
    names = ("planned", "kept", "rejected", "failed", "hours_planned", "hours_kept")
    return SplitFacts(
        corpus=source[0],
        split=source[1],
        **{name: reported[name] for name in names},
        clips=sum(portion.clips for portion in portions),
        portions=portions,
        shards_left_out=sum((s.entry.corpus, s.entry.split) == source for s in held),
    )


def join(old: tuple[Index, Facts], new: tuple[Index, Facts]) -> tuple[Index, Facts]:
    """Return index and facts of a repository that gets further splits.

    What it has already stays as it is, so adding the same splits twice changes nothing but what
    labels of other teachers have come to lie beside them.

    Raises:
        ValueError: the old shards were labelled or filtered otherwise, or a split is there with
            other shards.
    """
    (old_index, old_facts), (new_index, new_facts) = old, new
    if (old_index.label_key, old_index.shard_key) != (new_index.label_key, new_index.shard_key):
        raise ValueError(
            "the repository holds clips that were labelled or filtered otherwise (other "
            "label_key or shard_key in its index.json); a dataset has one teacher and one filter. "
            "Publish this one under a name of its own"
        )
    held = set(old_index.shards)
    labels = dict(sorted((old_facts.labels | new_facts.labels).items()))
    if held.issuperset(new_index.shards):
        return old_index, dataclasses.replace(old_facts, labels=labels)
    there = {(e.corpus, e.split) for e in held} & {(e.corpus, e.split) for e in new_index.shards}
    if there:
        raise ValueError(
            f"the repository has {'-'.join(min(there))} already, with other shards; --append takes "
            "new splits only. Publish a run of all splits without --append to replace them"
        )
    entries = sorted((*held, *new_index.shards), key=lambda entry: entry.name)
    splits = sorted((*old_facts.splits, *new_facts.splits), key=lambda s: (s.corpus, s.split))
    index = dataclasses.replace(
        new_index, shards=tuple(entries), totals=_add(old_index.totals, new_index.totals)
    )
    # A corpus is swept once: the first splits were there to be filtered, further ones seldom are.
    return index, Facts(
        splits=tuple(splits),
        sweeps=new_facts.sweeps | old_facts.sweeps,
        labels=labels,
    )


def _add(old: Totals, new: Totals) -> Totals:
    """Add up the totals of two runs."""

    def both(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
        names = sorted({*first, *second})
        return {name: first.get(name, 0) + second.get(name, 0) for name in names}

    hours = old.hours_planned + new.hours_planned
    seconds = old.teacher_seconds + new.teacher_seconds
    kept = old.hours_kept + new.hours_kept
    cost = None if old.cost is None or new.cost is None else old.cost + new.cost
    padded = old.padding_fraction * old.hours_planned + new.padding_fraction * new.hours_planned
    return dataclasses.replace(
        new,
        planned=old.planned + new.planned,
        kept=old.kept + new.kept,
        rejected=both(old.rejected, new.rejected),
        failed=both(old.failed, new.failed),
        hours_planned=round(hours, 6),
        hours_kept=round(kept, 6),
        teacher_seconds=seconds,
        wall_seconds=old.wall_seconds + new.wall_seconds,
        rtfx=round(3600 * hours / seconds, 2) if seconds else 0.0,
        stage_seconds=both(old.stage_seconds, new.stage_seconds),
        padding_fraction=round(padded / hours, 4) if hours else 0.0,
        cost=cost,
        ledger_bytes=old.ledger_bytes + new.ledger_bytes,
        shard_bytes=old.shard_bytes + new.shard_bytes,
        cost_per_kept_hour=round(cost / kept, 6) if cost is not None and kept else None,
    )

"""What a run has done, counted from the committed files and from nothing else.

A runner's counters are lost with a worker and doubled by a retry; files are not. Every planned
utterance is kept, rejected or failed, and a dataset whose numbers do not add up gets no index.
"""

from collections import Counter
from collections.abc import Iterable

from pipeline.blocks import committed, is_labelled
from pipeline.fates import Fate, count_fates, fate_of_failure
from pipeline.files import each
from pipeline.layout import Layout
from pipeline.ledger import read_failures, read_ledger
from pipeline.plan import Block, Keys, Plan
from pipeline.schema import Totals
from pipeline.shards import CommitRecord, read_record
from pipeline.timings import read_timings


class TooManyFailuresError(RuntimeError):
    """The poison budget is spent."""


def commit_records(plan: Plan, layout: Layout) -> list[CommitRecord]:
    """Return the commit record of every planned block, in the order of the plan.

    Raises:
        AssertionError: a block has none, or its counts do not add up to what was planned.
    """
    records = []
    found = each(lambda block: committed(block, layout, plan.keys), plan.blocks, layout.output)
    for block, record in zip(plan.blocks, found, strict=True):
        assert record is not None, f"block {block.id} was not committed"
        assert record.planned == block.num_utterances, (
            f"block {block.id} has {block.num_utterances} utterances, but {record.kept} are kept, "
            f"{record.rejected} rejected and {record.failed} failed"
        )
        records.append(record)
    return records


def add_up(
    plan: Plan, layout: Layout, wall_seconds: float, price_per_hour: float | None = None
) -> Totals:
    """Return the numbers of a finished run.

    The price is of an hour of one worker.

    Raises:
        AssertionError: an utterance is lost, or counted twice.
    """
    records = commit_records(plan, layout)
    parts = [layout.ledger(plan.keys.label_key, block.id) for block in plan.blocks]
    spent = read_timings(
        parts,
        [layout.timing(block.id) for block in plan.blocks],
    )
    hours_kept = sum(record.kept_seconds for record in records) / 3600
    cost = None
    if price_per_hour is not None:
        cost = sum(spent.seconds.values()) / 3600 * price_per_hour
    return Totals(
        planned=plan.num_utterances,
        kept=sum(record.kept for record in records),
        rejected=_sum(record.rejected for record in records),
        failed=_sum(record.failed for record in records),
        hours_planned=round(plan.duration_seconds / 3600, 4),
        hours_kept=round(hours_kept, 4),
        teacher_seconds=round(spent.seconds["teacher"], 6),
        wall_seconds=round(wall_seconds, 3),
        rtfx=round(spent.rtfx or 0.0, 2),
        stage_seconds={stage: round(seconds, 6) for stage, seconds in spent.seconds.items()},
        padding_fraction=round(spent.padding_fraction, 4),
        cost=None if cost is None else round(cost, 6),
        cost_per_kept_hour=round(cost / hours_kept, 6) if cost is not None and hours_kept else None,
        ledger_bytes=sum(each(lambda part: part.stat().st_size, parts, layout.output)),
        shard_bytes=sum(record.shard.size_bytes for record in records if record.shard),
    )


def check_budget(layout: Layout, keys: Keys, num_planned: int, max_failed_fraction: float) -> None:
    """Stop when more has failed than the whole plan may lose.

    The budget is a share of the plan and not of what has been tried so far: the first bad block of
    many stops nothing, and a run is stopped exactly when no luck with the rest could save it.

    Raises:
        TooManyFailuresError: the message says how much failed, where to look and what to do.
    """
    records = each(read_record, layout.shards.glob("*.json"), layout.output)
    failed = _sum(r.failed for r in records if r and r.shard_key == keys.shard_key)
    _spend(failed, layout, keys, num_planned, max_failed_fraction)


class LabelBudget:
    """The budget while blocks are labelled only: what failed is in no commit record yet.

    A labelled block is looked at once and then remembered.
    """

    def __init__(self, plan: Plan, layout: Layout, max_failed_fraction: float) -> None:
        self._plan, self._layout, self._limit = plan, layout, max_failed_fraction
        self._failed: dict[str, dict[str, int]] = {}

    def check(self) -> None:
        """Stop when more has failed than the whole plan may lose, as `check_budget` does.

        Raises:
            TooManyFailuresError: as there.
        """
        waiting = [block for block in self._plan.blocks if block.id not in self._failed]
        looked = each(self._look, waiting, self._layout.output)
        for block, failed in zip(waiting, looked, strict=True):
            if failed is not None:
                self._failed[block.id] = failed
        keys, num_planned = self._plan.keys, self._plan.num_utterances
        _spend(_sum(self._failed.values()), self._layout, keys, num_planned, self._limit)

    def _look(self, block: Block) -> dict[str, int] | None:
        """Count by stage the utterances of a block that have no label at all, once it is done."""
        layout, keys = self._layout, self._plan.keys
        if not is_labelled(block, layout, keys):
            return None
        fates = [
            fate_of_failure(f) for f in read_failures(layout.failures(keys.label_key, block.id))
        ]
        if fates:
            rows, _ = read_ledger(layout.ledger(keys.label_key, block.id))
            fates += [Fate(utterance.id, "kept") for row in rows for utterance in row.utterances]
        counts = count_fates(fates)
        return {stage: n for (kind, stage), n in counts.items() if kind == "failed"}


def _spend(
    failed: dict[str, int],
    layout: Layout,
    keys: Keys,
    num_planned: int,
    max_failed_fraction: float,
) -> None:
    total = sum(failed.values())
    if total > max_failed_fraction * num_planned:
        stages = ", ".join(f"{stage} {count}" for stage, count in failed.items())
        raise TooManyFailuresError(
            f"{total} of {num_planned} planned utterances failed ({stages}), more than "
            f"max_failed_fraction {max_failed_fraction} allows. What failed and why is in "
            f"{layout.failures(keys.label_key, '*').parent}. Mend the corpus or raise the limit, "
            "and run again: what is labelled stays labelled."
        )


def _sum(counts: Iterable[dict[str, int]]) -> dict[str, int]:
    """Add up counts by name, sorted by name."""
    total: Counter[str] = Counter()
    for count in counts:
        total.update(count)
    return dict(sorted(total.items()))

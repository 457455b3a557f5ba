"""What of a plan is not up to date, found by looking at the committed files.

Whatever a file was made from is written in it, so nothing has to be remembered between runs, and a
run that was killed is only a run with a shorter backlog.
"""

import logging
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from pipeline.blocks import committed, is_labelled
from pipeline.files import AnyPath, each, remove_stale
from pipeline.layout import Layout
from pipeline.plan import Block, Plan
from pipeline.retry import has_failures

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Backlog:
    """The blocks that are to be worked on."""

    blocks: tuple[Block, ...]
    """All of them, in the order of the plan."""
    to_label: tuple[Block, ...]
    to_retry: tuple[Block, ...]
    """Labelled, but with failures; these keep their shards until they have better ones."""


def find_backlog(plan: Plan, layout: Layout, *, retry_failed: bool) -> Backlog:
    """Compare a plan with what is committed."""

    def state(block: Block) -> str:
        if not is_labelled(block, layout, plan.keys):
            return "label"
        if retry_failed and has_failures(block, layout, plan.keys):
            return "retry"
        return "" if committed(block, layout, plan.keys) else "filter"

    found = [
        (block, to_do)
        for block, to_do in zip(plan.blocks, each(state, plan.blocks, layout.output), strict=True)
        if to_do
    ]
    return Backlog(
        blocks=tuple(block for block, _ in found),
        to_label=tuple(block for block, to_do in found if to_do == "label"),
        to_retry=tuple(block for block, to_do in found if to_do == "retry"),
    )


def withdraw(backlog: Backlog, layout: Layout) -> None:
    """Take back what will no longer be true, before work begins.

    That is the index, and the records of the blocks: what they say of failures must not count any
    more.
    """
    if backlog.blocks:
        layout.index.unlink(missing_ok=True)
    retried = {block.id for block in backlog.to_retry}
    for block in backlog.blocks:
        if block.id not in retried:
            layout.commit_record(block.id).unlink(missing_ok=True)


def find_orphans(plan: Plan, layout: Layout) -> set[str]:
    """Name the blocks that have files among the shards and are no longer planned.

    Raises:
        ValueError: the shards there are of another dataset.
    """
    found = {path.stem for path in _shard_files(layout)}
    orphans = found - {block.id for block in plan.blocks}
    if found and orphans == found:
        raise ValueError(
            f"{layout.output} holds another dataset: of its {len(found)} blocks, {min(found)} for "
            "example, none is planned now. Name another `output`; or, to replace that dataset, "
            f"delete {layout.shards} and {layout.index} and run again."
        )
    return orphans


def clean(orphans: Collection[str], layout: Layout) -> None:
    """Remove what killed runs and other plans have left, where nobody else is at work.

    Of the blocks that are no longer planned only the shards go, for a reader that globs must not
    see them. Their ledger parts stay: they were paid for, and the corpus may come back.
    """
    local = isinstance(layout.output, Path)  # in a store there are only the locks of blocks
    if stale := remove_stale(layout.output if local else layout.shards):
        logger.info("removed %d temporary files of runs that were killed", stale)
    for path in _shard_files(layout) if orphans else ():
        if path.stem in orphans:
            layout.index.unlink(missing_ok=True)  # from here on it would not tell the truth
            logger.info("removing %s, its block is no longer planned", path)
            path.unlink()


def _shard_files(layout: Layout) -> list[AnyPath]:
    """List shards and commit records."""
    return sorted([*layout.shards.glob("*.json"), *layout.shards.glob("*.tar")])

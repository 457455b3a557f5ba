"""Read everything that is committed and withdraw what is not what it was.

A disk can change a byte and say nothing. An ordinary run looks at names, sizes and keys only, which
is what lets it decide in seconds; this reads every byte, and leaves it to the run to make again
what it withdraws.
"""

import logging

from pipeline.blocks import committed
from pipeline.layout import Layout
from pipeline.ledger import check_ledger, read_failures
from pipeline.plan import Block, Keys, Plan
from pipeline.shards import file_sha256

logger = logging.getLogger(__name__)


def withdraw_damaged(plan: Plan, layout: Layout) -> int:
    """Delete what of a plan's blocks is damaged; return how many blocks that are."""
    return sum(
        _withdraw_labels(block, layout, plan.keys) or _withdraw_shard(block, layout, plan.keys)
        for block in plan.blocks
    )


def _withdraw_labels(block: Block, layout: Layout, keys: Keys) -> bool:
    """Delete labels that cannot be read; the block is labelled again."""
    part = layout.ledger(keys.label_key, block.id)
    if not part.is_file():
        return False
    try:
        check_ledger(part)
        read_failures(layout.failures(keys.label_key, block.id))
    except (FileNotFoundError, ValueError) as error:
        logger.warning("%s is labelled again: %s", block.id, error)
        layout.commit_record(block.id).unlink(missing_ok=True)
        part.unlink()
        return True
    return False


def _withdraw_shard(block: Block, layout: Layout, keys: Keys) -> bool:
    """Delete the commit record of a shard that is not the one it speaks of."""
    record = committed(block, layout, keys)
    if record is None or record.shard is None:
        return False
    if file_sha256(layout.shard(block.id)) == record.shard.sha256:
        return False
    logger.warning("the shard of %s is not what was committed: it is written again", block.id)
    layout.commit_record(block.id).unlink()
    return True

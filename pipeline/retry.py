"""Try again what failed, and only that.

Failures are often of the moment: a network mount that was away, memory that ran short. Their
utterances are labelled again, each in a clip of its own, and join the rows that are already there.
The new ledger part is written before the new list of failures: killed between the two, an utterance
stands in both, and counts once, as what its label makes of it.
"""

import dataclasses
import logging
from collections.abc import Callable

from pipeline.blocks import committed, is_labelled, label_entries, write_part
from pipeline.config import PipelineConfig
from pipeline.context import needs_ledger
from pipeline.corpora import Utterance
from pipeline.corpora.utterance import RULE_STAGE
from pipeline.files import path_of
from pipeline.layout import Layout
from pipeline.ledger import Failure, LedgerRow, read_failures, read_ledger, write_failures
from pipeline.locking import block_locked
from pipeline.plan import Block, Keys, entries
from pipeline.stopwatch import LABEL_STAGES, Stopwatch

logger = logging.getLogger(__name__)

_FINAL_STAGES = ("plan", RULE_STAGE)
"""What the corpus itself or a rule decided comes out the same each time."""


def has_failures(block: Block, layout: Layout, keys: Keys) -> bool:
    """Tell whether anything of a block is worth another try."""
    record = committed(block, layout, keys)
    unreadable = record.failed.get("shard", 0) if record else 0
    return bool(unreadable or _to_retry(block, layout, keys))


def retry_block(block: Block, config: PipelineConfig, keys: Keys) -> None:
    """Label what failed of a labelled block; what that makes untrue of shards is withdrawn."""
    layout = Layout(path_of(config.output))
    with block_locked(layout.lock(block.id)) as still_held:
        _retry(block, config, keys, layout, still_held)


def _retry(
    block: Block,
    config: PipelineConfig,
    keys: Keys,
    layout: Layout,
    still_held: Callable[[], None],
) -> None:
    record = committed(block, layout, keys)
    if record and record.failed.get("shard"):
        layout.commit_record(block.id).unlink(missing_ok=True)
    wanted = _to_retry(block, layout, keys)
    if not wanted or not is_labelled(block, layout, keys):
        return
    rows, metadata = read_ledger(layout.ledger(keys.label_key, block.id))
    found = entries(block, config)
    again = [e for e in found if isinstance(e, Utterance) and e.id in wanted]
    stopwatch = Stopwatch({s: float(metadata.get(f"{s}_seconds", 0)) for s in LABEL_STAGES})
    new, failed = label_entries(again, _alone(config), keys, stopwatch)
    still_held()
    logger.info(
        "%s: %d of %d labelled on another try", block.id, len(wanted) - len(failed), len(wanted)
    )

    if new:
        _withdraw(block, config, layout)
        write_part(block, config, keys, _merge(rows, new, found), stopwatch)
    kept = [f for f in read_failures(layout.failures(keys.label_key, block.id)) if not _wants(f)]
    tried = [dataclasses.replace(f, attempts=f.attempts + wanted.get(f.id, 0)) for f in failed]
    write_failures(layout.failures(keys.label_key, block.id), [*kept, *tried])


def _withdraw(block: Block, config: PipelineConfig, layout: Layout) -> None:
    """Take back a block's commit record before it gets new rows.

    Where what is kept of a block depends on the rows of others, all records are taken back.
    """
    records = [layout.commit_record(block.id)]
    if needs_ledger(config.filter):
        records = layout.shards.glob("*.json")
    for record in records:
        record.unlink(missing_ok=True)


def _to_retry(block: Block, layout: Layout, keys: Keys) -> dict[str, int]:
    """Return the utterances that failed at a stage that may go better, and after how many tries."""
    path = layout.failures(keys.label_key, block.id)
    failures = read_failures(path) if path.is_file() else []
    return {name: f.attempts for f in failures if _wants(f) for name in f.utterance_ids}


def _wants(failure: Failure) -> bool:
    return failure.stage not in _FINAL_STAGES


def _alone(config: PipelineConfig) -> PipelineConfig:
    """Give each utterance a clip of its own; its pack was labelled without it."""
    if config.clips.pack != "before_label":
        return config
    return dataclasses.replace(config, clips=dataclasses.replace(config.clips, pack="no"))


def _merge(
    rows: list[LedgerRow], new: list[LedgerRow], found: list[Utterance | Failure]
) -> list[LedgerRow]:
    """Join old and new rows in the order of the corpus.

    Of a long recording of which a part failed, all parts were labelled again.
    """
    again = {utterance.id for row in new for utterance in row.utterances}
    places = {e.id: place for place, e in enumerate(found) if isinstance(e, Utterance)}

    def place(row: LedgerRow) -> tuple[int, float]:
        return places[row.utterances[0].id], row.start_seconds

    kept = [row for row in rows if not any(u.id in again for u in row.utterances)]
    return sorted([*kept, *new], key=place)

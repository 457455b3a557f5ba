"""The one place where a block passes through the stages: read, label, score, filter, commit.

Both steps are plain functions that look first whether their result is already there, so a killed
run goes on by being run again and a changed filter never wakes the teacher. Audio lives here for
one batch or one clip at a time; it is read twice, which is cheaper than to keep or to send it.
"""

import logging
import math
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import chain
from pathlib import Path

import numpy as np

from pipeline.audio import AudioError, load_audio
from pipeline.clips import RULE_STAGE, Clip, failure, make_clip
from pipeline.config import PipelineConfig
from pipeline.context import read_context
from pipeline.corpora import Utterance
from pipeline.filters import rejection
from pipeline.layout import Layout
from pipeline.ledger import (
    Failure,
    LedgerRow,
    read_failures,
    read_ledger,
    read_ledger_metadata,
    write_failures,
    write_ledger,
)
from pipeline.plan import Block, Keys, entries
from pipeline.rows import Labelled, make_rows
from pipeline.shards import CommitRecord, read_record, write_record, write_shard
from pipeline.teacher import Teacher, load_teacher

logger = logging.getLogger(__name__)

_teacher = lru_cache(maxsize=1)(load_teacher)
"""One teacher per process: loading a large one takes longer than labelling a block."""

_context = lru_cache(maxsize=1)(read_context)
"""What the filter's options name in files, once per process."""


def process_block(block: Block, config: PipelineConfig, keys: Keys) -> CommitRecord:
    """Bring a block up to date: label it if it is not labelled, write its shard if it has none."""
    label_block(block, config, keys)
    return build_shard(block, config, keys)


def is_labelled(block: Block, layout: Layout, keys: Keys) -> bool:
    """Tell whether the ledger has this block, as it is now, from this teacher."""
    path = layout.ledger(keys.label_key, block.id)
    try:
        metadata = read_ledger_metadata(path)
    except ValueError as error:
        logger.warning("%s is labelled again, its ledger part is damaged: %s", block.id, error)
        return False
    return metadata is not None and metadata["fingerprint"] == block.fingerprint


def committed(block: Block, layout: Layout, keys: Keys) -> CommitRecord | None:
    """Return a block's commit record if its shard is up to date, else None."""
    try:
        record = read_record(layout.commit_record(block.id))
    except ValueError as error:
        logger.warning("the shard of %s is written again: %s", block.id, error)
        return None
    if record is None:
        return None
    if (record.fingerprint, record.shard_key) != (block.fingerprint, keys.shard_key):
        return None
    shard = layout.shard(block.id)
    size_bytes = shard.stat().st_size if shard.is_file() else None
    planned_size = record.shard.size_bytes if record.shard else None
    return record if size_bytes == planned_size else None


def label_block(block: Block, config: PipelineConfig, keys: Keys) -> None:
    """Label a block and commit its failures and its ledger part, unless that is done already."""
    layout = Layout(Path(config.output))
    if is_labelled(block, layout, keys):
        return
    clips: list[Clip] = []
    failures: list[Failure] = []
    for entry in entries(block, config.corpus(block.corpus, block.split)):
        made = make_clip(entry, config.clips) if isinstance(entry, Utterance) else entry
        if isinstance(made, Clip):
            clips.append(made)
        else:
            failures.append(made)

    labelled: dict[str, Labelled] = {}
    teacher_seconds = 0.0
    for batch in _batches(clips, config.teacher.batch_size):
        teacher = _teacher(config.teacher, config.decoding, keys.teacher_revision)
        readable, unreadable = _read(batch)
        started = time.perf_counter()
        done, failed = _label(teacher, readable)
        teacher_seconds += time.perf_counter() - started
        labelled |= {item.clip.id: item for item in done}
        failures += unreadable + failed

    in_order = [labelled[clip.id] for clip in clips if clip.id in labelled]
    rows = make_rows(in_order, config.teacher.model, keys.teacher_revision)
    write_failures(layout.failures(keys.label_key, block.id), failures)
    write_ledger(
        layout.ledger(keys.label_key, block.id),
        rows,
        {
            "block": block.id,
            "fingerprint": block.fingerprint,
            "teacher_seconds": f"{teacher_seconds:.3f}",
            "audio_seconds": f"{sum(row.duration_seconds for row in rows):.3f}",
        },
    )


def build_shard(block: Block, config: PipelineConfig, keys: Keys) -> CommitRecord:
    """Filter a labelled block and commit its shard, unless that is done already.

    A block of which nothing is kept has a commit record and no shard.
    """
    layout = Layout(Path(config.output))
    if record := committed(block, layout, keys):
        return record
    rows, _ = read_ledger(layout.ledger(keys.label_key, block.id))
    not_labelled = read_failures(layout.failures(keys.label_key, block.id))
    rejected = Counter(f.error for f in not_labelled if f.stage == RULE_STAGE)
    failed = Counter(f.stage for f in not_labelled if f.stage != RULE_STAGE)
    kept: list[LedgerRow] = []
    context = _context(config.filter)
    for row in rows:
        reason = rejection(row, config.filter, context)
        if reason is None:
            kept.append(row)
        else:
            rejected[reason] += len(row.utterances)

    # From here on the old record would speak of a shard that is being replaced.
    layout.commit_record(block.id).unlink(missing_ok=True)
    layout.shard(block.id).unlink(missing_ok=True)
    written: list[LedgerRow] = []
    samples = _with_audio(kept, _clips_by_id(block, config), written)
    first = next(samples, None)
    shard = write_shard(layout.shard(block.id), chain([first], samples)) if first else None
    if lost := sum(len(row.utterances) for row in kept) - sum(len(r.utterances) for r in written):
        failed["shard"] = lost
    record = CommitRecord(
        block=block.id,
        fingerprint=block.fingerprint,
        label_key=keys.label_key,
        shard_key=keys.shard_key,
        shard=shard,
        kept=sum(len(row.utterances) for row in written),
        rejected=dict(sorted(rejected.items())),
        failed=dict(sorted(failed.items())),
        kept_seconds=round(math.fsum(row.duration_seconds for row in written), 4),
    )
    write_record(layout.commit_record(block.id), record)
    return record


def _batches(clips: Sequence[Clip], batch_size: int) -> Iterator[list[Clip]]:
    """Group clips of one language and similar length, the longest first.

    Batches never cross blocks, so a label does not depend on which worker made it; and if memory
    is short, that shows in the first batch.
    """
    by_language: defaultdict[str, list[Clip]] = defaultdict(list)
    for clip in clips:
        by_language[clip.utterance.language].append(clip)
    for _, group in sorted(by_language.items()):
        group.sort(key=lambda clip: (-clip.duration_seconds, clip.id))
        for start in range(0, len(group), batch_size):
            yield group[start : start + batch_size]


def _read(clips: Iterable[Clip]) -> tuple[list[tuple[Clip, np.ndarray]], list[Failure]]:
    """Decode a batch; what cannot be read is a failure."""
    readable, failures = [], []
    for clip in clips:
        try:
            readable.append((clip, _load(clip)))
        except AudioError as error:
            failures.append(failure(clip.utterance, "read", type(error).__name__, str(error)))
    return readable, failures


def _load(clip: Clip) -> np.ndarray:
    """Decode one clip."""
    utterance = clip.utterance
    return load_audio(utterance.path, utterance.start_seconds, clip.duration_seconds)


def _label(
    teacher: Teacher, batch: Sequence[tuple[Clip, np.ndarray]], attempt: int = 1
) -> tuple[list[Labelled], list[Failure]]:
    """Label a batch; if it fails, label its clips one by one, so that a bad one fails alone."""
    if not batch:
        return [], []
    language = batch[0][0].utterance.language
    try:
        labels = teacher.label([audio for _, audio in batch], language)
    except (
        Exception
    ) as error:  # whatever an engine raises, its clip is data and not a reason to stop
        if attempt == 1 and len(batch) > 1:
            logger.warning("a batch of %d clips failed, trying one by one: %s", len(batch), error)
            single = [_label(teacher, [item], attempt=2) for item in batch]
            return [d for done, _ in single for d in done], [f for _, bad in single for f in bad]
        clip = batch[0][0]
        logger.warning("clip %s could not be labelled: %s", clip.id, error)
        name = type(error).__name__
        return [], [failure(clip.utterance, "label", name, str(error), attempts=attempt)]
    assert len(labels) == len(batch), f"{len(batch)} clips gave {len(labels)} labels"
    return [
        Labelled(clip=clip, num_samples=len(audio), label=label)
        for (clip, audio), label in zip(batch, labels, strict=True)
    ], []


def _clips_by_id(block: Block, config: PipelineConfig) -> dict[str, Clip | Failure]:
    """Find a block's clips in its corpus again."""
    found = entries(block, config.corpus(block.corpus, block.split))
    return {e.id: make_clip(e, config.clips) for e in found if isinstance(e, Utterance)}


def _with_audio(
    rows: Iterable[LedgerRow], clips: dict[str, Clip | Failure], written: list[LedgerRow]
) -> Iterator[tuple[LedgerRow, np.ndarray]]:
    """Yield rows with their audio and note them as written; leave out what became unreadable."""
    for row in rows:
        clip = clips[row.id]
        try:
            if isinstance(clip, Failure):
                raise AudioError(clip.message)
            audio = _load(clip)
        except AudioError as error:
            logger.warning("clip %s was labelled but can no longer be read: %s", row.id, error)
        else:
            written.append(row)
            yield row, audio

"""The one place where a block passes through the stages: read, label, score, filter, commit.

Both steps are plain functions that look first whether their result is already there, so a killed
run goes on by being run again and a changed filter never wakes the teacher. Audio lives here for
one batch or one clip at a time; it is read twice, which is cheaper than to keep or to send it.
"""

import dataclasses
import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import chain

import numpy as np

from pipeline.admission import admit
from pipeline.audio import AudioError
from pipeline.clips import Span, load_sample, make_clips, pack_clips
from pipeline.config import ClipConfig, FilterConfig, PipelineConfig
from pipeline.context import Context, read_context, warn_of_strangers
from pipeline.corpora import Utterance
from pipeline.cutting import join, keep_only, reasons, with_previous
from pipeline.fates import Fate, count_fates, fate_of_failure
from pipeline.files import path_of
from pipeline.labelling import label_clips
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
from pipeline.locking import block_locked
from pipeline.logs import log_stage
from pipeline.plan import Block, Keys, entries
from pipeline.rows import Labelled, make_rows
from pipeline.schema import Sample
from pipeline.scoring import language_code
from pipeline.shards import CommitRecord, read_record, write_record, write_shard
from pipeline.stopwatch import LABEL_STAGES, Stopwatch
from pipeline.teacher import Teacher, engine_identity, load_teacher, uses_accelerator
from pipeline.timings import write_timing
from pipeline.voice import find_speech

logger = logging.getLogger(__name__)

_teacher = lru_cache(maxsize=1)(load_teacher)
"""One teacher per process: loading a large one takes longer than labelling a block."""
_one_at_a_time = threading.Lock()
"""A worker's threads begin together, and to remember a call does not keep others from making it."""


@lru_cache(maxsize=1)
def _context(config: FilterConfig, shard_key: str) -> Context:
    """Read what the filter's options name in files, once per process and content of the files."""
    return read_context(config)


def loaded_teacher(config: PipelineConfig, keys: Keys) -> Teacher:
    """Return the teacher of this process; threads wait for the one that loads it."""
    with _one_at_a_time:
        return _teacher(config.teacher, config.decoding, keys.teacher_revision)


def admitted_teacher(config: PipelineConfig, keys: Keys) -> Teacher:
    """Return the teacher of this process, once its canary was heard.

    Raises:
        CanaryError: it may not label anything.
    """
    teacher = loaded_teacher(config, keys)
    if config.teacher.canary:
        admit(
            teacher,
            config.teacher,
            Layout(path_of(config.output)).canary(keys.label_key),
            english=any(language_code(corpus.language) == "en" for corpus in config.corpora),
            accelerated=uses_accelerator(config.teacher),
            engine=engine_identity(config.teacher, keys.teacher_revision),
        )
    return teacher


def process_block(
    block: Block, config: PipelineConfig, keys: Keys, context: Context | None = None
) -> CommitRecord:
    """Bring a block up to date: label it if it is not labelled, write its shard if it has none."""
    label_block(block, config, keys)
    return build_shard(block, config, keys, context)


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
    layout = Layout(path_of(config.output))
    if is_labelled(block, layout, keys):
        return
    with block_locked(layout.lock(block.id)) as still_held:
        if is_labelled(block, layout, keys):  # by the worker that held it
            return
        found = entries(block, config)
        stopwatch = Stopwatch()
        rows, failures = label_entries(found, config, keys, stopwatch)
        still_held()
        write_failures(layout.failures(keys.label_key, block.id), failures)
        write_part(block, config, keys, rows, stopwatch)


def label_entries(
    found: Sequence[Utterance | Failure],
    config: PipelineConfig,
    keys: Keys,
    stopwatch: Stopwatch,
    load: Callable[[PipelineConfig, Keys], Teacher] = admitted_teacher,
) -> tuple[list[LedgerRow], list[Failure]]:
    """Label entries of a corpus; return rows in the order of the corpus, and what failed."""
    utterances = [e for e in found if isinstance(e, Utterance)]
    with stopwatch.stage("read"):  # what has no length yet is measured, what is too long is cut
        planned = make_clips(utterances, config.clips, find_speech)
    failures = [*(e for e in found if isinstance(e, Failure)), *planned.failures]
    labelled, failed = label_clips(
        planned,
        lambda: load(config, keys),
        stopwatch,
        batch_size=config.teacher.batch_size,
        window_seconds=config.clips.max_seconds,
    )
    with stopwatch.stage("score"):
        ordered = _in_corpus_order(labelled, found)
        rows = make_rows(ordered, config.teacher.model, keys.teacher_revision)
    return rows, failures + failed


def write_part(
    block: Block,
    config: PipelineConfig,
    keys: Keys,
    rows: Sequence[LedgerRow],
    stopwatch: Stopwatch,
) -> None:
    """Commit the labels of a block, with what they cost."""
    padded = config.teacher.window == "full"
    metadata = {
        "block": block.id,
        "fingerprint": block.fingerprint,
        "audio_seconds": f"{sum(row.duration_seconds for row in rows):.3f}",
        "full_windows": str(len(rows) if padded else 0),
    }
    spent = {f"{stage}_seconds": f"{stopwatch[stage]:.6f}" for stage in LABEL_STAGES}
    path = Layout(path_of(config.output)).ledger(keys.label_key, block.id)
    write_ledger(path, rows, metadata | spent)
    for stage in LABEL_STAGES:
        log_stage(block.id, stage, stopwatch[stage])


def build_shard(
    block: Block, config: PipelineConfig, keys: Keys, context: Context | None = None
) -> CommitRecord:
    """Filter a labelled block and commit its shard, unless that is done already.

    A block of which nothing is kept has a commit record and no shard. The context is that of the
    whole ledger, where the filter needs it.
    """
    layout = Layout(path_of(config.output))
    if record := committed(block, layout, keys):
        return record
    with block_locked(layout.lock(block.id)) as still_held:
        return committed(block, layout, keys) or _build(
            block, config, keys, context or _context(config.filter, keys.shard_key), still_held
        )


def _build(
    block: Block,
    config: PipelineConfig,
    keys: Keys,
    context: Context,
    still_held: Callable[[], None],
) -> CommitRecord:
    """Filter a labelled block and commit its shard."""
    layout = Layout(path_of(config.output))
    rows, _ = read_ledger(layout.ledger(keys.label_key, block.id))
    not_labelled = read_failures(layout.failures(keys.label_key, block.id))
    found = entries(block, config)
    utterances = {e.id: e for e in found if isinstance(e, Utterance)}
    fates = [fate_of_failure(f) for f in not_labelled]
    kept: list[Sample] = []
    warn_of_strangers(block.id, rows, config.filter, context)
    for row in rows:
        against = reasons(row, config.filter, context)
        dropped = zip(row.utterances, against, strict=True)
        fates += [Fate(u.id, "rejected", reason) for u, reason in dropped if reason]
        good = [reason is None for reason in against]
        if any(good):
            kept.append(keep_only(row, good, config.clips.pack_gap_samples))
    kept = with_previous(kept, rows, {name: u.channel for name, u in utterances.items()})
    if config.clips.pack == "after_filter":
        kept = _joined(kept, utterances, config.clips)

    still_held()
    # From here on the old record would speak of a shard that is being replaced.
    layout.commit_record(block.id).unlink(missing_ok=True)
    layout.shard(block.id).unlink(missing_ok=True)
    stopwatch = Stopwatch()
    with stopwatch.stage("write"):
        samples = _with_audio(kept, utterances, fates)
        first = next(samples, None)
        shard = write_shard(layout.shard(block.id), chain([first], samples)) if first else None
    write_timing(layout.timing(block.id), stopwatch["write"])
    counts = count_fates(fates)
    record = CommitRecord(
        block=block.id,
        fingerprint=block.fingerprint,
        label_key=keys.label_key,
        shard_key=keys.shard_key,
        shard=shard,
        kept=counts["kept", ""],
        rejected={r: n for (kind, r), n in sorted(counts.items()) if kind == "rejected"},
        failed={s: n for (kind, s), n in sorted(counts.items()) if kind == "failed"},
        kept_seconds=shard.duration_seconds if shard else 0.0,
    )
    write_record(layout.commit_record(block.id), record)
    log_stage(block.id, "write", stopwatch["write"])
    return record


def _in_corpus_order(
    labelled: Iterable[Labelled], found: Iterable[Utterance | Failure]
) -> list[Labelled]:
    """Sort clips as the corpus has their first utterances, the parts of a long one by time."""
    places = {e.id: place for place, e in enumerate(found) if isinstance(e, Utterance)}

    def place(item: Labelled) -> tuple[int, float]:
        span = item.heard.clip.spans[0]
        return places[span.utterance.id], span.start_seconds

    return sorted(labelled, key=place)


def _joined(
    kept: Sequence[Sample], utterances: dict[str, Utterance], config: ClipConfig
) -> list[Sample]:
    """Pack what was labelled and kept utterance by utterance into longer clips."""
    samples = {sample.id: sample for sample in kept}
    spans = [
        Span(
            utterance=dataclasses.replace(utterances[sample.utterances[0].id], id=sample.id),
            start_seconds=sample.start_seconds,
            duration_seconds=sample.duration_seconds,
        )
        for sample in kept
    ]
    joined = []
    for clip in pack_clips(spans, config):
        together = [samples[span.utterance.id] for span in clip.spans]
        joined.append(join(together, clip.id, config.pack_gap_samples))
    return joined


def _with_audio(
    kept: Iterable[Sample], utterances: dict[str, Utterance], fates: list[Fate]
) -> Iterator[tuple[Sample, np.ndarray]]:
    """Yield clips with their audio and note how their utterances ended.

    What became unreadable since it was labelled is left out.
    """
    for sample in kept:
        ids = [u.id for u in sample.utterances]
        try:
            audio = load_sample(sample, utterances)
        except AudioError as error:
            logger.warning("clip %s was labelled but can no longer be read: %s", sample.id, error)
            fates += [Fate(utterance_id, "failed", "shard") for utterance_id in ids]
        else:
            fates += [Fate(utterance_id, "kept") for utterance_id in ids]
            yield sample, audio

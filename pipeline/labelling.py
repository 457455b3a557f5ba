"""Bring clips before the teacher, in batches; what fails, fails alone.

The next batch is read and its features are computed while the teacher is at work on this one. Here
is who shares a batch, and what happens when one cannot be labelled.
"""

import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from pipeline.clips import Clip, Clips, Heard, failure, read_clip
from pipeline.ledger import Failure
from pipeline.longform import label_sequentially
from pipeline.rows import Labelled
from pipeline.stopwatch import Stopwatch
from pipeline.teacher import Prepared, Teacher, ahead

logger = logging.getLogger(__name__)

Batch = Sequence[tuple[Heard, np.ndarray]]
"""Clips with their audio."""


def label_clips(
    planned: Clips,
    load: Callable[[], Teacher],
    stopwatch: Stopwatch,
    *,
    batch_size: int,
    window_seconds: float,
) -> tuple[list[Labelled], list[Failure]]:
    """Label the clips of a block, the long recordings too.

    Args:
        planned: what is to be labelled.
        load: returns the teacher; called when there is something to label, and not before.
        stopwatch: told of the stages "read", "features" and "teacher"; of long recordings of the
            teacher only.
        batch_size: clips at once.
        window_seconds: how much of a long recording is labelled at once.

    Returns:
        The labelled clips in any order, and what failed.
    """
    labelled: list[Labelled] = []
    failures: list[Failure] = []
    if not planned.clips and not planned.long:
        return [], []
    teacher = load()

    def label(
        batch: Batch, prepared: Prepared | None = None
    ) -> tuple[list[Labelled], list[Failure]]:
        with stopwatch.stage("teacher"):
            return _label(teacher, batch, prepared)

    def ready(clips: Sequence[Clip]) -> tuple[Batch, list[Failure], Prepared | None]:
        with stopwatch.stage("read"):
            batch, unreadable = _read(clips)
        with stopwatch.stage("features"):
            try:
                prepared = teacher.prepare([audio for _, audio in batch])
            except Exception as error:  # `label` meets it again, clip by clip, and says of which
                logger.warning(
                    "features of a batch of %d clips failed, the teacher tries by itself: %s",
                    len(batch),
                    error,
                )
                prepared = None
        return batch, unreadable, prepared

    for _, (batch, unreadable, prepared) in ahead(_batches(planned.clips, batch_size), ready):
        done, failed = label(batch, prepared)
        labelled += done
        failures += unreadable + failed
    if planned.long:
        done, failed = label_sequentially(planned.long, label, window_seconds, batch_size)
        labelled += done
        failures += failed
    return labelled, failures


def _batches(clips: Sequence[Clip], batch_size: int) -> Iterator[list[Clip]]:
    """Group clips of one language and similar length, the longest first.

    Batches never cross blocks, so a label does not depend on which worker made it; and if memory
    is short, that shows in the first batch.
    """
    by_language: defaultdict[str, list[Clip]] = defaultdict(list)
    for clip in clips:
        by_language[clip.language].append(clip)
    for _, group in sorted(by_language.items()):
        group.sort(key=lambda clip: (-clip.duration_seconds, clip.id))
        for start in range(0, len(group), batch_size):
            yield group[start : start + batch_size]


def _read(clips: Iterable[Clip]) -> tuple[Batch, list[Failure]]:
    """Decode a batch; what cannot be read is a failure."""
    readable, failures = [], []
    for clip in clips:
        read, failed = read_clip(clip)
        failures += failed
        if read:
            readable.append(read)
    return readable, failures


def _label(
    teacher: Teacher, batch: Batch, prepared: Prepared | None = None, attempt: int = 1
) -> tuple[list[Labelled], list[Failure]]:
    """Label a batch; if it fails, label its clips one by one, so that a bad one fails alone."""
    if not batch:
        return [], []
    language = batch[0][0].clip.language
    try:
        labels = teacher.label(prepared or [audio for _, audio in batch], language)
    except (
        Exception
    ) as error:  # whatever an engine raises, its clip is data and not a reason to stop
        if attempt == 1 and len(batch) > 1:
            logger.warning("a batch of %d clips failed, trying one by one: %s", len(batch), error)
            single = [_label(teacher, [item], attempt=2) for item in batch]
            return [d for done, _ in single for d in done], [f for _, bad in single for f in bad]
        clip = batch[0][0].clip
        logger.warning("clip %s could not be labelled: %s", clip.id, error)
        name = type(error).__name__
        return [], [
            failure(span.utterance, "label", name, str(error), attempts=attempt)
            for span in clip.spans
        ]
    assert len(labels) == len(batch), f"{len(batch)} clips gave {len(labels)} labels"
    return [
        Labelled(heard=heard, label=label) for (heard, _), label in zip(batch, labels, strict=True)
    ], []

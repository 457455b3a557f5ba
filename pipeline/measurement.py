"""Label a small sample to learn what all of it will take: time, money and disk.

The sample is taken from blocks that are not labelled yet, of each a run of neighbours, for apart
from each other they would share no clip. It goes through the real stages with the real teacher,
after one clip to warm up. Of the sample nothing is kept but what it took: a run says beside that
what it did take.
"""

import logging
import math
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.audio import encode_flac
from pipeline.blocks import label_entries, loaded_teacher
from pipeline.clips import Span, load_span
from pipeline.config import PipelineConfig
from pipeline.corpora import Utterance
from pipeline.files import write_text
from pipeline.layout import Layout
from pipeline.ledger import LedgerRow, write_ledger
from pipeline.plan import Block, Keys, Plan, entries
from pipeline.schema import from_json, to_json
from pipeline.stopwatch import STAGES, Stopwatch

logger = logging.getLogger(__name__)

_MAX_BLOCKS = 16
"""To list a block costs time too; so many are enough to see every corpus."""
_MAX_PACKED_BLOCKS = 4
"""Where utterances share clips: how full these get shows in a long run only."""
_BYTES_PER_CLIP = 4096
"""What a clip's JSON and the two headers of its members take in a tar, generously."""


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """What a sample took on one worker of this machine."""

    label_key: str
    """Of the labels that were measured; another teacher is as fast as it is."""
    utterances: int
    audio_seconds: float
    stage_seconds: dict[str, float]
    ledger_bytes_per_block: int
    """Of a part without rows."""
    ledger_bytes_per_second: float
    """Per second of audio."""
    shard_bytes_per_second: float
    """Per second of audio, were all of it kept."""

    def ledger_bytes(self, plan: Plan) -> float:
        """Of the parts of a plan."""
        rows = self.ledger_bytes_per_second * plan.duration_seconds
        return self.ledger_bytes_per_block * len(plan.blocks) + rows

    @property
    def compute_per_audio(self) -> float:
        """Seconds of work per second of audio."""
        return sum(self.stage_seconds.values()) / self.audio_seconds

    @property
    def rtfx(self) -> float:
        """Seconds of audio per second of teacher."""
        return self.audio_seconds / self.stage_seconds["teacher"]


def measure(
    blocks: Sequence[Block], config: PipelineConfig, keys: Keys, num_utterances: int
) -> Measurement:
    """Label some of the utterances of blocks.

    Args:
        blocks: where to take them from, at least one.
        config: what to do with them.
        keys: names the teacher's revision.
        num_utterances: about how many; several batches give a better figure than one.

    Raises:
        RuntimeError: none of them could be labelled.
    """
    sample = take_sample(blocks, config, num_utterances)
    label_entries(sample[:1], config, keys, Stopwatch(), loaded_teacher)
    stopwatch = Stopwatch()
    rows, failures = label_entries(sample, config, keys, stopwatch, loaded_teacher)
    audio_seconds = sum(row.duration_seconds for row in rows)
    if not audio_seconds or not stopwatch["teacher"]:
        why = f", for example {failures[0].id}: {failures[0].message}" if failures else ""
        raise RuntimeError(f"none of {len(sample)} utterances could be labelled{why}")
    with stopwatch.stage("write"):
        shard_bytes = sum(_shard_bytes(row, sample) for row in rows)
    empty = _ledger_bytes([])
    return Measurement(
        label_key=keys.label_key,
        utterances=len(sample),
        audio_seconds=audio_seconds,
        stage_seconds={stage: stopwatch[stage] for stage in STAGES},
        ledger_bytes_per_block=empty,
        ledger_bytes_per_second=(_ledger_bytes(rows) - empty) / audio_seconds,
        shard_bytes_per_second=shard_bytes / audio_seconds,
    )


def write_measurement(layout: Layout, measured: Measurement) -> None:
    """Keep a measurement beside the dataset that it is of.

    Raises:
        OSError: the output cannot be written to.
    """
    write_text(layout.estimate, to_json(measured) + "\n")


def expected(plan: Plan, layout: Layout, price_per_hour: float | None) -> dict[str, Any] | None:
    """Return what the kept measurement says of a whole plan, by the names of the index's totals.

    None where nothing was measured, or another teacher was.
    """
    if not layout.estimate.is_file():
        return None
    try:
        measured = from_json(Measurement, layout.estimate.read_bytes())
    except ValueError as error:
        logger.warning("%s is passed over: %s", layout.estimate, error)
        return None
    if measured.label_key != plan.keys.label_key:
        return None
    times = plan.duration_seconds / measured.audio_seconds
    hours = plan.duration_seconds / 3600 * measured.compute_per_audio
    return {
        "sample_utterances": measured.utterances,
        "sample_seconds": round(measured.audio_seconds, 3),
        "stage_seconds": {
            stage: round(seconds * times, 3) for stage, seconds in measured.stage_seconds.items()
        },
        "rtfx": round(measured.rtfx, 2),
        "cost": None if price_per_hour is None else round(hours * price_per_hour, 6),
        "ledger_bytes": round(measured.ledger_bytes(plan)),
        "shard_bytes": round(measured.shard_bytes_per_second * plan.duration_seconds),
    }


def take_sample(
    blocks: Sequence[Block], config: PipelineConfig, num_utterances: int
) -> list[Utterance]:
    """Take as many neighbours from each of some blocks; short blocks leave more to the others."""
    packed = config.clips.pack == "before_label"
    listed = [
        _utterances(block, config)
        for block in _spread(blocks, _MAX_PACKED_BLOCKS if packed else _MAX_BLOCKS)
    ]
    sample: list[Utterance] = []
    for number, utterances in enumerate(sorted(listed, key=len)):
        share = math.ceil((num_utterances - len(sample)) / (len(listed) - number))
        start = max(len(utterances) - share, 0) // 2
        sample += utterances[start : start + share]
    return sample


def _spread(items: Sequence, count: int) -> list:
    """Take so many items, evenly from all of them."""
    count = min(count, len(items))
    return [items[number * len(items) // count] for number in range(count)]


def _utterances(block: Block, config: PipelineConfig) -> list[Utterance]:
    return [entry for entry in entries(block, config) if isinstance(entry, Utterance)]


def _ledger_bytes(rows: Sequence[LedgerRow]) -> int:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "sample.parquet"
        write_ledger(path, rows, {})
        return path.stat().st_size


def _shard_bytes(row: LedgerRow, sample: Sequence[Utterance]) -> int:
    """Read a clip again and encode it, as is done for a shard."""
    by_id = {utterance.id: utterance for utterance in sample}
    spans = [
        Span(
            utterance=by_id[u.id],
            start_seconds=u.recording_start_seconds,
            duration_seconds=u.duration,
        )
        for u in row.utterances
    ]
    return _BYTES_PER_CLIP + sum(len(encode_flac(load_span(span))) for span in spans)

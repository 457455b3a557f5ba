"""What a finished dataset took, from the committed files: seconds by stage, and padding.

The seconds of labelling stand in the ledger part, those of writing a shard in a file of their own:
a commit record must be the same bytes each time, and no clock gives the same time twice.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from pipeline.files import AnyPath, each, write_text
from pipeline.ledger import read_ledger_metadata
from pipeline.schema import MAX_CLIP_SECONDS
from pipeline.stopwatch import LABEL_STAGES, STAGES

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Timings:
    """Work on some blocks, summed over workers and runs."""

    seconds: dict[str, float]
    """By stage; parts of an older release know only "teacher"."""
    audio_seconds: float
    full_windows: int
    """How many windows of 30 s the teacher was shown; 0 where it sees only what a clip needs."""

    @property
    def rtfx(self) -> float | None:
        """Seconds of audio per second of teacher; None where it has not labelled anything."""
        teacher = self.seconds["teacher"]
        return self.audio_seconds / teacher if teacher else None

    @property
    def padding_fraction(self) -> float:
        """Share of what the teacher was shown that was silence behind the clips."""
        shown = self.full_windows * MAX_CLIP_SECONDS
        return 1 - self.audio_seconds / shown if shown else 0.0


def read_timings(ledger_parts: Sequence[AnyPath], timings: Sequence[AnyPath] = ()) -> Timings:
    """Add up what stands in the parts and timings that exist."""
    seconds = dict.fromkeys(STAGES, 0.0)
    audio_seconds, windows = 0.0, 0
    for metadata in _each(read_ledger_metadata, ledger_parts):
        if metadata:
            for stage in LABEL_STAGES:
                seconds[stage] += float(metadata.get(f"{stage}_seconds", 0))
            audio_seconds += float(metadata["audio_seconds"])
            windows += int(metadata.get("full_windows", 0))
    seconds["write"] = sum(_each(_write_seconds, timings))
    return Timings(seconds=seconds, audio_seconds=audio_seconds, full_windows=windows)


def _write_seconds(path: AnyPath) -> float:
    """Read what `write_timing` wrote; 0 where it is missing."""
    return float(json.loads(path.read_text())["write_seconds"]) if path.is_file() else 0.0


def _each(read: Callable[[AnyPath], T], paths: Sequence[AnyPath]) -> Iterator[T]:
    return each(read, paths, paths[0]) if paths else iter(())


def write_timing(path: AnyPath, write_seconds: float) -> None:
    """Note how long it took to write a shard."""
    write_text(path, json.dumps({"write_seconds": round(write_seconds, 6)}) + "\n")

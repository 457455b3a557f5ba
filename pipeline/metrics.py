"""How far a run is, as a file of Prometheus' text format, for a collector that reads such files.

The numbers are those of `pipeline.progress`, which come from the committed files, so they are true
after a restart too. They are gauges, because a changed corpus or filter lets them fall. The format
is a few lines of text and needs no library.
"""

import time
from dataclasses import dataclass, field

from pipeline.files import AnyPath, path_of, write_text
from pipeline.progress import Progress

PREFIX = "whisper_pipeline"
INTERVAL_SECONDS = 5.0
"""Collectors look every 15 s or less often."""


@dataclass(kw_only=True)
class MetricsFile:
    """A file that is written again as the run goes, whole each time."""

    path: str | AnyPath
    labels: dict[str, str]
    """What tells this run from others that the same collector reads."""
    _written: float = field(default=float("-inf"), init=False)

    def write(self, progress: Progress, *, now: bool = False) -> None:
        """Write a moment of a run, unless that was done just now.

        Raises:
            OSError: the file cannot be written; the message names it.
        """
        if not now and time.monotonic() - self._written < INTERVAL_SECONDS:
            return
        write_text(path_of(self.path), exposition(progress, self.labels, time.time()))
        self._written = time.monotonic()


def exposition(progress: Progress, labels: dict[str, str], unix_seconds: float) -> str:
    """Return a moment of a run in Prometheus' text format; what is not known yet is left out."""
    gauges = {
        "blocks_planned": ("Blocks of this run.", progress.blocks),
        "blocks_done": ("Blocks that are committed.", progress.blocks_done),
        "utterances_failed": (
            "Utterances of committed blocks that failed.",
            progress.utterances_failed,
        ),
        "audio_planned_seconds": ("Audio of this run.", progress.hours_planned * 3600),
        "audio_labelled_seconds": ("Audio of labelled clips.", progress.hours_labelled * 3600),
        "audio_kept_seconds": ("Audio of kept clips.", progress.hours_kept * 3600),
        "teacher_rtfx": ("Seconds of audio per second of teacher.", progress.rtfx),
        "eta_seconds": ("Time until the last block is done.", progress.eta_seconds),
        "updated_timestamp_seconds": ("When this file was written.", unix_seconds),
    }
    marks = ",".join(f'{name}="{_escaped(value)}"' for name, value in sorted(labels.items()))
    lines = []
    for name, (help_text, value) in gauges.items():
        if value is not None:
            lines += [
                f"# HELP {PREFIX}_{name} {help_text}",
                f"# TYPE {PREFIX}_{name} gauge",
                f"{PREFIX}_{name}{{{marks}}} {round(value, 3)}",
            ]
    return "\n".join(lines) + "\n"


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")

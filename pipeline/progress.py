"""How far a run is, read from the committed files, so it is true on any runner and after a restart.

A terminal gets a live table; a log file gets a line when a block is finished.
"""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.table import Table

from pipeline.blocks import committed, is_labelled
from pipeline.files import AnyPath
from pipeline.layout import Layout
from pipeline.logs import is_json
from pipeline.plan import Plan
from pipeline.timings import read_timings

logger = logging.getLogger(__name__)


_LOOK_SECONDS = 10.0
"""How often an output in a store is looked at; each look asks for listings, which cost money."""

CONSOLE = Console(stderr=True)
"""Where the table is drawn; what is logged while it stands must go through it too."""


@dataclass(frozen=True, kw_only=True)
class Progress:
    """A moment of a run."""

    blocks_done: int
    blocks: int
    utterances_failed: int
    hours_planned: float
    hours_labelled: float
    hours_kept: float
    rtfx: float | None
    """Seconds of audio per second of one worker's teacher; None before the first block."""
    eta_seconds: float | None
    """None before the first block of this run is finished."""


class Tracker:
    """Follows a run; a finished block is looked at once and then remembered."""

    def __init__(self, plan: Plan, layout: Layout) -> None:
        """Take stock of what was finished before the run began."""
        self._plan, self._layout = plan, layout
        self._done: dict[str, tuple[float, int]] = {}
        self._labelled: dict[str, tuple[float, float]] = {}
        self._look()
        self._seconds_before = self._seconds_done()
        self._started = time.monotonic()

    def progress(self) -> Progress:
        """Look at the committed files and return where the run stands."""
        self._look()
        planned, done = self._plan.duration_seconds, self._seconds_done()
        elapsed, gained = time.monotonic() - self._started, done - self._seconds_before
        teacher_seconds = sum(teacher for teacher, _ in self._labelled.values())
        audio_seconds = sum(audio for _, audio in self._labelled.values())
        return Progress(
            blocks_done=len(self._done),
            blocks=len(self._plan.blocks),
            utterances_failed=sum(failed for _, failed in self._done.values()),
            hours_planned=planned / 3600,
            hours_labelled=audio_seconds / 3600,
            hours_kept=sum(kept for kept, _ in self._done.values()) / 3600,
            rtfx=audio_seconds / teacher_seconds if teacher_seconds else None,
            eta_seconds=elapsed * (planned - done) / gained if gained > 0 else None,
        )

    def _look(self) -> None:
        """Remember the blocks that were committed since the last look.

        Two folders are listed and only what is new in them is opened: of ten thousand blocks, a
        handful is finished between two looks.
        """
        keys, layout = self._plan.keys, self._layout
        parts = _stems(layout.ledger(keys.label_key, "").parent) - self._labelled.keys()
        records = _stems(layout.shards, ".json") - self._done.keys()
        for block in self._plan.blocks:
            if block.id in parts and is_labelled(block, layout, keys):
                spent = read_timings([layout.ledger(keys.label_key, block.id)])
                self._labelled[block.id] = (spent.seconds["teacher"], spent.audio_seconds)
            if block.id in records and (record := committed(block, layout, keys)):
                self._done[block.id] = (record.kept_seconds, sum(record.failed.values()))

    def _seconds_done(self) -> float:
        return sum(b.duration_seconds for b in self._plan.blocks if b.id in self._done)


def _stems(folder: AnyPath, suffix: str = ".parquet") -> set[str]:
    """Name the blocks that have a file in a folder."""
    if not folder.is_dir():
        return set()
    return {path.stem for path in folder.iterdir() if path.suffix == suffix}


@contextmanager
def display(
    plan: Plan, layout: Layout, on_progress: Callable[[Progress], object] | None = None
) -> Iterator[Callable[[], None]]:
    """Show progress for as long as the context lasts; yield what to call to bring it up to date.

    `on_progress` is told each time.
    """
    tracker = Tracker(plan, layout)
    pause = 0.0 if isinstance(layout.output, Path) else _LOOK_SECONDS
    seen, looked = tracker.progress(), time.monotonic()

    def look(now: bool = False) -> Progress:
        nonlocal seen, looked
        if now or time.monotonic() - looked >= pause:
            seen = tracker.progress()
            looked = time.monotonic()
        if on_progress:
            on_progress(seen)
        return seen

    if is_json() or not CONSOLE.is_terminal:
        reported = seen.blocks_done

        def log(last: bool = False) -> None:
            nonlocal reported
            now = look(last)
            if now.blocks_done != reported:
                reported = now.blocks_done
                logger.info("%s", line(now))

        yield log
        log(last=True)
        return
    with Live(table(seen), console=CONSOLE, auto_refresh=False) as live:

        def draw(last: bool = False) -> None:
            live.update(table(look(last)), refresh=True)

        yield draw
        draw(last=True)


def table(progress: Progress) -> Table:
    """Draw a moment of a run."""
    drawn = Table("blocks", "hours labelled", "hours kept", "failed", "RTFx", "ETA")
    drawn.add_row(
        f"{progress.blocks_done} of {progress.blocks}",
        f"{progress.hours_labelled:.2f} of {progress.hours_planned:.2f}",
        f"{progress.hours_kept:.2f}",
        str(progress.utterances_failed),
        _rtfx(progress.rtfx),
        clock(progress.eta_seconds),
    )
    return drawn


def line(progress: Progress) -> str:
    """Say a moment of a run in one line."""
    return (
        f"{progress.blocks_done} of {progress.blocks} blocks, "
        f"{progress.hours_labelled:.2f} of {progress.hours_planned:.2f} h labelled, "
        f"{progress.hours_kept:.2f} h kept, {progress.utterances_failed} failed, "
        f"RTFx {_rtfx(progress.rtfx)}, ETA {clock(progress.eta_seconds)}"
    )


def _rtfx(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def clock(seconds: float | None) -> str:
    """Write a duration as h:mm:ss, or "-" where it is unknown."""
    if seconds is None:
        return "-"
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}"

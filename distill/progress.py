"""What a training shows: a bar on a terminal or lines in a log, and samples in TensorBoard."""

import logging
import time
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from transformers import TrainerCallback, TrainerState

from distill.config import ValidationConfig
from distill.validation import Clip, Heard
from pipeline.audio import decode_flac
from pipeline.schema import SAMPLE_RATE

logger = logging.getLogger(__name__)

CONSOLE = Console(stderr=True)
"""Where the bar is drawn."""


class ShowProgress(TrainerCallback):
    """Shows step, losses, rate and the time that is left."""

    def __init__(self) -> None:
        self._bar: Progress | None = None
        self._task: Any = None
        self._first_step = 0
        self._started = 0.0

    def on_train_begin(self, args: Any, state: TrainerState, control: Any, **_: Any) -> None:
        """Begin to count; a resumed training counts its own steps."""
        self._first_step, self._started = state.global_step, time.monotonic()
        if CONSOLE.is_terminal and state.is_world_process_zero:
            columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            self._bar = Progress(*columns, TextColumn("{task.description}"), console=CONSOLE)
            self._task = self._bar.add_task("", total=state.max_steps, completed=state.global_step)
            self._bar.start()

    def on_step_end(self, args: Any, state: TrainerState, control: Any, **_: Any) -> None:
        """Move the bar."""
        if self._bar is not None:
            self._bar.update(self._task, completed=state.global_step)

    def on_log(
        self,
        args: Any,
        state: TrainerState,
        control: Any,
        logs: dict[str, Any] | None = None,
        **_: Any,
    ) -> None:
        """Say how the training goes."""
        if not state.is_world_process_zero or not logs or "train_runtime" in logs:
            return
        if self._bar is not None:
            self._bar.update(self._task, description=figures(logs))
            return
        done = state.global_step - self._first_step
        elapsed = time.monotonic() - self._started
        left = elapsed / done * (state.max_steps - state.global_step) if done else None
        logger.info(
            "step %d of %d: %s%s",
            state.global_step,
            state.max_steps,
            figures(logs),
            "" if left is None else f", {duration(left)} left",
        )

    def close(self) -> None:
        """Remove the bar, however the training ended."""
        if self._bar is not None:
            self._bar.stop()


def figures(logs: dict[str, Any]) -> str:
    """Write what was logged in a line: rates in percent, everything else to four digits."""
    parts = []
    for name, value in logs.items():
        if name.startswith("eval_wer"):
            parts.append(f"{name.removeprefix('eval_')} {value:.2%}")
        elif isinstance(value, float) and name != "epoch":
            parts.append(f"{name} {value:.4g}")
    return ", ".join(parts)


def duration(seconds: float) -> str:
    """Write a time as h:mm:ss."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}"


def show_samples(
    writer: Any,
    heard: Sequence[Heard],
    clips: Sequence[Clip],
    config: ValidationConfig,
    step: int,
) -> None:
    """Write the first validation clips into TensorBoard: the texts each time, the sound once."""
    sounds = {sample.id: flac for sample, flac in clips}
    for clip in heard[: config.num_shown]:
        name = f"validation/{clip.sample.id}"
        text = f"reference: {clip.sample.reference}\n\nstudent: {clip.text}"
        writer.add_text(name, text, step)
        if step <= config.every_steps:
            audio = decode_flac(sounds[clip.sample.id])
            writer.add_audio(name, audio[None], step, sample_rate=SAMPLE_RATE)

"""A request to end that waits until a step is done."""

import signal
from types import FrameType
from typing import Any, Self


class InterruptedTrainingError(Exception):
    """The training was asked to stop, and did, with everything saved."""


class StopRequest:
    """Notes SIGTERM while its context lasts, instead of dying from it."""

    def __init__(self) -> None:
        self.requested = False
        self._before: Any = None

    def __enter__(self) -> Self:
        self._before = signal.signal(signal.SIGTERM, self._note)
        return self

    def __exit__(self, *_error: object) -> None:
        signal.signal(signal.SIGTERM, self._before)

    def _note(self, _number: int, _frame: FrameType | None) -> None:
        self.requested = True

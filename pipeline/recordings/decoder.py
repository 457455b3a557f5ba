"""What a decoder is, whichever library is behind it."""

from collections.abc import Iterator
from typing import Protocol

import numpy as np


class AudioError(ValueError):
    """Audio that cannot be used: missing, damaged, empty, or a span outside the recording."""


class Recording(Protocol):
    """An open recording."""

    sample_rate: int
    num_channels: int
    num_frames: int | None
    """As the header says; None where it does not."""
    missing_frames: int
    """Frames that the header promises and the file does not hold."""

    def read(self, start: int, stop: int | None) -> Iterator[np.ndarray]:
        """Yield float32 blocks, shape (frames, channels), of frames `start` to `stop`."""
        ...

    def close(self) -> None:
        """Give the file back."""
        ...

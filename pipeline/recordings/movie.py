"""Recordings that libsndfile cannot read, through PyAV: m4a, aac and the sound of videos.

The only module that imports `av`, which is an optional dependency.
"""

from collections.abc import Iterator
from typing import Any, BinaryIO

import av
import numpy as np
from av.error import FFmpegError

from pipeline.recordings.decoder import AudioError

_EARLY_SECONDS = 0.5
"""Decoding starts so much before a span: the first frames after a seek are not clean yet."""


class Movie:
    """The first audio stream of a file."""

    missing_frames = 0

    def __init__(self, file: BinaryIO, where: str) -> None:
        """Open the file and read its header.

        Raises:
            AudioError: it cannot be read, or has no sound.
        """
        self._file, self._where = file, where
        try:
            self._container: Any = av.open(file, mode="r")
        except (FFmpegError, OSError, ValueError) as error:
            raise AudioError(f"{where}: not readable as audio ({error})") from error
        if not self._container.streams.audio:
            self._container.close()
            raise AudioError(f"{where}: holds no audio")
        self._stream = self._container.streams.audio[0]
        self.sample_rate, self.num_channels = self._stream.rate, self._stream.channels
        duration = None
        if self._stream.duration is not None:
            duration = float(self._stream.duration * self._stream.time_base)
        elif self._container.duration is not None:
            duration = self._container.duration / av.time_base
        self.num_frames = None if duration is None else round(duration * self.sample_rate)

    def read(self, start: int, stop: int | None) -> Iterator[np.ndarray]:
        """Seek to shortly before the span, decode, and cut by the frames' own times."""
        resampler = av.AudioResampler(
            format="fltp", layout=self._stream.layout, rate=self.sample_rate
        )
        early = max(start / self.sample_rate - _EARLY_SECONDS, 0.0)
        origin = self._stream.start_time or 0
        try:
            self._container.seek(
                round(early / self._stream.time_base) + origin, stream=self._stream, backward=True
            )
            position: int | None = None
            for frame in self._container.decode(self._stream):
                if position is None:
                    since = ((frame.pts or origin) - origin) * self._stream.time_base
                    position = round(float(since) * self.sample_rate)
                for part in resampler.resample(frame):
                    block = part.to_ndarray().T
                    first, position = position, position + len(block)
                    if stop is not None and first >= stop:
                        return
                    cut = block[max(start - first, 0) : None if stop is None else stop - first]
                    if len(cut):
                        yield np.ascontiguousarray(cut, dtype=np.float32)
        except (FFmpegError, ValueError) as error:
            raise AudioError(f"{self._where}: damaged audio ({error})") from error

    def close(self) -> None:
        """Close decoder and file."""
        self._container.close()
        self._file.close()

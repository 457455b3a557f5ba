"""Recordings that libsndfile cannot read, through PyAV: m4a, aac and the sound of videos.

The only module that imports `av`, which is an optional dependency.
"""

import re
from collections.abc import Iterator
from typing import Any, BinaryIO

import av
import numpy as np
from av.error import FFmpegError

from pipeline.recordings.decoder import AudioError

_EARLY_SECONDS = 0.5
"""Decoding starts so much before a span: the first frames after a seek are not clean yet."""
_CLOCK = re.compile(r"(\d+):(\d+):(\d+(?:\.\d+)?)$")


class Movie:
    """The first audio stream of a file."""

    missing_frames = 0

    def __init__(self, file: BinaryIO, where: str) -> None:
        """Open the file and read its header.

        Raises:
            AudioError: it cannot be read, or has no sound.
        """
        self._file, self._where, self._entered = file, where, False
        try:
            self._container: Any = av.open(file, mode="r")
        except (FFmpegError, OSError, ValueError) as error:
            raise AudioError(f"{where}: not readable as audio ({error})") from error
        if not self._container.streams.audio:
            self._container.close()
            raise AudioError(f"{where}: holds no audio")
        self._stream = self._container.streams.audio[0]
        self.sample_rate, self.num_channels = self._stream.rate, self._stream.channels
        duration = _duration_seconds(self._container, self._stream)
        self.num_frames = None if duration is None else round(duration * self.sample_rate)

    def read(self, start: int, stop: int | None) -> Iterator[np.ndarray]:
        """Seek to shortly before the span, decode, and cut by the frames' own times."""
        resampler = av.AudioResampler(
            format="fltp", layout=self._stream.layout, rate=self.sample_rate
        )
        early = max(start / self.sample_rate - _EARLY_SECONDS, 0.0)
        origin = self._stream.start_time or 0
        try:
            if early or self._entered:  # a seek to where a new file is anyway costs a frame of aac
                self._container.seek(
                    round(early / self._stream.time_base) + origin,
                    stream=self._stream,
                    backward=True,
                )
            self._entered = True
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


def _duration_seconds(container: Any, stream: Any) -> float | None:
    """Return the length of the sound; None where nothing tells it.

    Matroska and WebM tell it by a tag: when the track ends. Without one the length is that of the
    file, which is the picture's where that is longer.
    """
    if stream.duration is not None:
        return float(stream.duration * stream.time_base)
    for name, value in stream.metadata.items():
        if name.startswith("DURATION") and (clock := _CLOCK.match(value)):
            hours, minutes, seconds = map(float, clock.groups())
            begins = float((stream.start_time or 0) * stream.time_base)
            return hours * 3600 + minutes * 60 + seconds - begins
    return None if container.duration is None else container.duration / av.time_base

"""Decode what libsndfile reads: wav, flac, mp3, ogg, opus, NIST sphere and some forty more."""

import re
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np
import soundfile

from pipeline.recordings.decoder import AudioError

_BLOCK_VALUES = 2**21
_UNKNOWN_FRAMES = 2**62
_UNKNOWN_BYTES = 0x7FFFF000
"""What programs that write to a pipe put where they do not know the size yet, or more."""
_CUT_WAV = re.compile(r"^data : (\d+) \(should be (\d+)\)", re.MULTILINE)


class Sound:
    """A recording that libsndfile has open."""

    def __init__(self, file: BinaryIO, where: str) -> None:
        """Read the header.

        Raises:
            AudioError: libsndfile does not know the format.
        """
        self._file, self._where = file, where
        try:
            # By number and not by name: libsndfile takes a name that ends in .raw for raw samples.
            self._sound = soundfile.SoundFile(_handle(file), closefd=False)
        except (soundfile.SoundFileError, TypeError, ValueError) as error:
            raise AudioError(f"{where}: not readable as audio ({_reason(error)})") from error
        self.sample_rate, self.num_channels = self._sound.samplerate, self._sound.channels
        frames = self._sound.frames
        self.num_frames = frames if frames < _UNKNOWN_FRAMES else None
        if self.num_frames is None:
            # soundfile seeks to where it is after each read, which fails at an end not known.
            self._sound.seekable = lambda: False
        self.missing_frames = 0
        if cut := _CUT_WAV.search(self._sound.extra_info):
            promised, held = int(cut[1]), int(cut[2])
            if frames and held < promised < _UNKNOWN_BYTES:
                self.missing_frames = round(frames * promised / held) - frames

    def read(self, start: int, stop: int | None) -> Iterator[np.ndarray]:
        """Seek, then decode block by block."""
        size = max(_BLOCK_VALUES // self.num_channels, 1)
        position = start
        try:
            self._sound.seek(start)
        except soundfile.SoundFileError as error:
            if self.num_frames is None:  # past an end that the header does not tell
                return
            raise AudioError(f"{self._where}: damaged audio ({error})") from error
        try:
            while stop is None or position < stop:
                wanted = size if stop is None else min(size, stop - position)
                block = self._sound.read(wanted, dtype="float32", always_2d=True)
                if len(block) == 0:
                    return
                position += len(block)
                yield block
        except soundfile.SoundFileError as error:
            raise AudioError(f"{self._where}: damaged audio ({_reason(error)})") from error

    def close(self) -> None:
        """Close decoder and file."""
        self._sound.close()
        self._file.close()


def _reason(error: Exception) -> str:
    """Return what is wrong, without the number of the open file: it differs from run to run."""
    return getattr(error, "error_string", None) or str(error)


def _handle(file: BinaryIO) -> int | BinaryIO:
    """Return the number of a real file, which libsndfile reads without coming back to Python."""
    try:
        return file.fileno()
    except (AttributeError, OSError):
        return file

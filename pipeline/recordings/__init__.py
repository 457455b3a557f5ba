"""Open any recording and decode spans of it, in its own rate and channels, a block at a time.

libsndfile reads what it knows by content, so a wrong extension does no harm; what it does not know
(m4a, the sound of videos) goes to PyAV, where that is installed. Everything is read in blocks of a
fixed size: neither ten hours nor a thousand channels cost more memory than a clip.
"""

import io
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

from pipeline import storage
from pipeline.recordings.decoder import AudioError, Recording
from pipeline.recordings.sound import Sound

__all__ = ["AudioError", "Recording", "open_bytes", "open_recording"]

_MAX_SAMPLE_RATE = 768_000
_HELD_FROM_SECONDS = 300
_HELD_RECORDINGS = 4


class _Recent(threading.local):
    """Long recordings that this thread has open.

    To find a place in an hour of mp3 all frames before it are passed over, once: an open file
    remembers where they are.
    """

    def __init__(self) -> None:
        self.recordings: OrderedDict[tuple[object, ...], Recording] = OrderedDict()


_recent = _Recent()


@contextmanager
def open_recording(address: str) -> Iterator[Recording]:
    """Open a recording that has at least one sample, or one that is open already.

    Raises:
        AudioError: it is missing, may not be read, is no audio, or holds no samples.
    """
    try:
        key = (address, *storage.file_version(storage.container(address)))
    except (OSError, ValueError) as error:
        raise AudioError(_unreachable(address, error)) from error
    recording = _recent.recordings.pop(key, None) or _open(address)
    try:
        yield recording
    except BaseException:
        recording.close()
        raise
    if recording.num_frames and recording.num_frames / recording.sample_rate > _HELD_FROM_SECONDS:
        _recent.recordings[key] = recording
        while len(_recent.recordings) > _HELD_RECORDINGS:
            _recent.recordings.popitem(last=False)[1].close()
    else:
        recording.close()


@contextmanager
def open_bytes(data: bytes, where: str) -> Iterator[Recording]:
    """Open a recording that is in memory.

    Raises:
        AudioError: it is no audio or holds no samples.
    """
    recording = _decoder(io.BytesIO(data), where)
    try:
        yield recording
    finally:
        recording.close()


def _open(address: str) -> Recording:
    try:
        file = storage.open_address(address)
    except (OSError, ValueError) as error:
        raise AudioError(_unreachable(address, error)) from error
    try:
        return _decoder(file, address)
    except BaseException:
        file.close()
        raise


def _decoder(file: BinaryIO, where: str) -> Recording:
    """Choose the decoder by the first bytes."""
    try:
        head = file.read(64)
        file.seek(0)
    except OSError as error:
        raise AudioError(_unreachable(where, error)) from error
    recording = _movie(file, where) if _is_movie(head) else Sound(file, where)
    if recording.num_frames is not None and recording.num_frames <= 0:
        raise AudioError(f"{where}: holds no audio")
    if not 0 < recording.sample_rate <= _MAX_SAMPLE_RATE:
        raise AudioError(f"{where}: a sample rate of {recording.sample_rate} Hz cannot be")
    return recording


def _movie(file: BinaryIO, where: str) -> Recording:
    """Open what only PyAV reads."""
    try:
        from pipeline.recordings.movie import Movie
    except ImportError as error:
        raise AudioError(
            f"{where}: not readable as audio by libsndfile; m4a, aac and the sound of videos need "
            "PyAV: pip install 'whisper-distillery[video]'"
        ) from error
    return Movie(file, where)


def _is_movie(head: bytes) -> bool:
    """Tell MP4/M4A/MOV, Matroska/WebM, AVI, ASF/WMA, FLV and raw AAC by their marks."""
    return (
        head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free")
        or head.startswith((b"\x1aE\xdf\xa3", b"0&\xb2u\x8ef\xcf\x11", b"FLV\x01"))
        or (head.startswith(b"RIFF") and head[8:12] == b"AVI ")
        or head[:2] in (b"\xff\xf1", b"\xff\xf9")
    )


def _unreachable(address: str, error: Exception) -> str:
    """Say that a file cannot be opened, without repeating its name."""
    if isinstance(error, FileNotFoundError | IsADirectoryError):
        return f"{address}: no such file"
    reason = getattr(error, "strerror", None) or str(error)
    return f"{address}: cannot be opened ({reason})"

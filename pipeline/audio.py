"""Audio in and out: any recording becomes float32 mono at 16 kHz, clips become FLAC.

Decoding is soundfile and resampling soxr, which ship their C libraries in their wheels, so neither
ffmpeg nor torchcodec is needed. A span is read by seeking, so a clip in the middle of an hour costs
no more than one at its start; a whole recording is streamed. What cannot be read is an
`AudioError`, which callers turn into a failure row: a bad recording is data, not a crash.
"""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr

from pipeline.recordings import AudioError, Recording, open_bytes, open_recording
from pipeline.schema import SAMPLE_RATE
from pipeline.storage import without_credentials

__all__ = [
    "MAX_LOADED_SECONDS",
    "AudioError",
    "AudioInfo",
    "decode_flac",
    "encode_flac",
    "load_audio",
    "probe",
    "stream_audio",
    "without_credentials",
]

MAX_LOADED_SECONDS = 3600.0
"""Most that is decoded into one array; a few bytes of FLAC can stand for days of silence."""

# The length in the header of a compressed file may be an estimate; more than this is a cut file.
_TOLERATED_LOSS_SECONDS = 0.1
_MAX_MEASURED_SECONDS = 100 * 3600.0


@dataclass(frozen=True, kw_only=True)
class AudioInfo:
    """What the header of a recording says."""

    duration_seconds: float
    sample_rate: int
    num_channels: int


def probe(path: str | Path) -> AudioInfo:
    """Read length and format of a recording from its header, without decoding it.

    A recording whose header does not tell the length, as those written to a pipe, is decoded to
    measure it. One that was cut off is as long as its header promises, so that whoever reads all
    of it is told what is missing.

    Args:
        path: a file, a URL, or an address inside a container as `pipeline.storage` names them.

    Raises:
        AudioError: the file is missing, is no audio, or holds no samples.
    """
    with open_recording(str(path)) as recording:
        return AudioInfo(
            duration_seconds=_num_frames(recording, str(path)) / recording.sample_rate,
            sample_rate=recording.sample_rate,
            num_channels=recording.num_channels,
        )


def load_audio(
    path: str | Path,
    start_seconds: float = 0.0,
    duration_seconds: float | None = None,
    *,
    channel: int | None = None,
    max_seconds: float = MAX_LOADED_SECONDS,
) -> np.ndarray:
    """Read a span of a recording as float32 mono at 16 kHz, shape (samples,).

    Without a duration the span runs to the end of the recording; a span that runs past the end is
    cut there, so the length of what comes back is the true duration. It is never longer than was
    asked for: 30.0 s are exactly 480 000 samples.

    Args:
        path: a file, a URL, or an address inside a container as `pipeline.storage` names them.
        start_seconds: where the span begins.
        duration_seconds: how long it is; None is to the end.
        channel: the channel to take, counted from 0; None is the mean of all.
        max_seconds: refuse to decode more than this; `stream_audio` has no such limit.

    Raises:
        AudioError: the file is missing, damaged, cut off or empty, the span begins after its end or
            is longer than `max_seconds`, there is no such channel, or it holds samples that are not
            finite numbers.
    """
    where = str(path)
    _check_span(where, start_seconds, duration_seconds)
    with open_recording(where) as recording:
        return _load(recording, where, start_seconds, duration_seconds, channel, max_seconds)


def stream_audio(
    path: str | Path,
    start_seconds: float = 0.0,
    duration_seconds: float | None = None,
    *,
    channel: int | None = None,
    block_seconds: float = 30.0,
) -> Iterator[np.ndarray]:
    """Yield a span of a recording of any length as float32 mono at 16 kHz, block by block.

    Every block has `block_seconds` but the last, which is not empty. Joined they are what
    `load_audio` returns; memory stays at a few blocks.

    Raises:
        AudioError: as `load_audio`, at the block where it is found.
    """
    where = str(path)
    _check_span(where, start_seconds, duration_seconds)
    size = round(block_seconds * SAMPLE_RATE)
    if size < 1:
        raise ValueError(f"block_seconds must be above 0, got {block_seconds}")
    limit = None if duration_seconds is None else round(duration_seconds * SAMPLE_RATE)
    with open_recording(where) as recording:
        held: list[np.ndarray] = []
        num_held = given = 0
        pieces = _resampled(
            _mono(recording, where, start_seconds, duration_seconds, channel), recording
        )
        for piece in pieces:
            if limit is not None:
                piece = piece[: max(limit - given - num_held, 0)]
            if piece.size == 0:
                continue
            _check(piece, where)
            held.append(piece)
            num_held += piece.size
            if num_held < size:
                continue
            joined = np.concatenate(held)
            whole = num_held - num_held % size
            yield from np.split(joined[:whole], whole // size)
            held, num_held, given = [joined[whole:]], num_held - whole, given + whole
        if num_held:
            yield np.concatenate(held)
        elif not given:
            raise AudioError(f"{where}: holds no audio")


def encode_flac(samples: np.ndarray) -> bytes:
    """Write float32 mono at 16 kHz, shape (samples,), as 16-bit FLAC.

    Values outside [-1, 1] are clipped. The same samples give the same bytes, and decoding and
    encoding again changes nothing.

    Raises:
        AudioError: there are no samples, more than one channel, or values that are not finite.
    """
    _check(samples, "audio to encode")
    scaled = np.clip(np.rint(samples.astype(np.float64) * 32768), -32768, 32767).astype(np.int16)
    buffer = io.BytesIO()
    soundfile.write(buffer, scaled, SAMPLE_RATE, format="FLAC", subtype="PCM_16")
    return buffer.getvalue()


def decode_flac(data: bytes) -> np.ndarray:
    """Read what `encode_flac` wrote: float32 mono at 16 kHz, shape (samples,).

    Raises:
        AudioError: the bytes are damaged or hold no samples.
    """
    where = f"FLAC of {len(data)} bytes"
    with open_bytes(data, where) as recording:
        return _load(recording, where, 0.0, None, None, MAX_LOADED_SECONDS)


def _load(
    recording: Recording,
    where: str,
    start_seconds: float,
    duration_seconds: float | None,
    channel: int | None,
    max_seconds: float,
) -> np.ndarray:
    """Decode and resample a span into one array; see `load_audio`."""
    rate, blocks, num_frames = recording.sample_rate, [], 0
    for block in _mono(recording, where, start_seconds, duration_seconds, channel):
        num_frames += len(block)
        if num_frames > max_seconds * rate:
            raise AudioError(
                f"{where}: the span is longer than {max_seconds:g} s, the most that is decoded at "
                "once; give its recording segments, or cut it by voice activity"
            )
        blocks.append(block)
    samples = blocks[0] if len(blocks) == 1 else np.concatenate(blocks or [np.zeros(0, "f4")])
    if rate != SAMPLE_RATE and samples.size:
        samples = soxr.resample(samples, rate, SAMPLE_RATE)
    if duration_seconds is not None:
        samples = samples[: round(duration_seconds * SAMPLE_RATE)]
    _check(samples, where)
    return np.ascontiguousarray(samples, dtype=np.float32)


def _mono(
    recording: Recording,
    where: str,
    start_seconds: float,
    duration_seconds: float | None,
    channel: int | None,
) -> Iterator[np.ndarray]:
    """Yield the frames of a span as one channel, in the rate of the recording."""
    rate, length = recording.sample_rate, recording.num_frames
    if channel is not None and not 0 <= channel < recording.num_channels:
        raise AudioError(
            f"{where}: there is no channel {channel}; "
            f"the recording has {recording.num_channels}, counted from 0"
        )
    start = round(start_seconds * rate)
    stop = None if duration_seconds is None else start + round(duration_seconds * rate)
    if length is not None:
        if start >= length:
            raise _too_late(where, start_seconds, length / rate)
        missing = recording.missing_frames
        if missing and (stop is None or stop > length):
            raise AudioError(f"{where}: cut off, {missing / rate:.2f} s of the audio are missing")
        stop = length if stop is None else min(stop, length)
    position = start
    for block in recording.read(start, stop):
        position += len(block)
        yield _one_channel(block, channel)
    if length is None and position == start:
        raise _too_late(where, start_seconds, None)
    if length is not None and stop is not None:
        lost_seconds = (stop - position) / rate
        if lost_seconds > _TOLERATED_LOSS_SECONDS:
            raise AudioError(f"{where}: cut off, {lost_seconds:.2f} s of the audio are missing")


def _one_channel(block: np.ndarray, channel: int | None) -> np.ndarray:
    """Take a channel, or the mean of all; shape (frames, channels) becomes (frames,)."""
    if channel is not None or block.shape[1] == 1:
        return np.ascontiguousarray(block[:, channel or 0])
    total = block[:, 0].copy()  # adding columns is ten times as fast as a mean over rows of two
    for number in range(1, block.shape[1]):
        total += block[:, number]
    total /= block.shape[1]
    return total


def _resampled(blocks: Iterator[np.ndarray], recording: Recording) -> Iterator[np.ndarray]:
    """Bring a stream of blocks to 16 kHz."""
    if recording.sample_rate == SAMPLE_RATE:
        yield from blocks
        return
    stream = soxr.ResampleStream(recording.sample_rate, SAMPLE_RATE, 1, dtype="float32")
    for block in blocks:
        yield stream.resample_chunk(block)
    yield stream.resample_chunk(np.zeros(0, np.float32), last=True)


def _num_frames(recording: Recording, where: str) -> int:
    """Return the promised length of a recording, decoding it where its header does not tell."""
    if recording.num_frames is not None:
        return recording.num_frames + recording.missing_frames
    total = 0
    for block in recording.read(0, None):
        total += len(block)
        if total > _MAX_MEASURED_SECONDS * recording.sample_rate:
            raise AudioError(
                f"{where}: its header tells no length, and it is longer than "
                f"{_MAX_MEASURED_SECONDS / 3600:g} h"
            )
    if not total:
        raise AudioError(f"{where}: holds no audio")
    return total


def _check_span(where: str, start_seconds: float, duration_seconds: float | None) -> None:
    """Refuse a span that no recording could have."""
    if not 0 <= start_seconds < float("inf") or not (
        duration_seconds is None or 0 < duration_seconds < float("inf")
    ):
        raise AudioError(
            f"{where}: a span of {duration_seconds} s from {start_seconds} s; "
            "the start must not be negative and the duration must be above 0"
        )


def _too_late(where: str, start_seconds: float, end_seconds: float | None) -> AudioError:
    end = "before" if end_seconds is None else f"at {end_seconds:.2f} s"
    return AudioError(
        f"{where}: the span starts at {start_seconds} s, but the recording ends {end}"
    )


def _check(samples: np.ndarray, where: str) -> None:
    """Refuse audio that no later stage could use."""
    if samples.ndim != 1:
        raise AudioError(f"{where}: expected one channel, got an array of shape {samples.shape}")
    if samples.size == 0:
        raise AudioError(f"{where}: holds no audio")
    if not np.isfinite(samples).all():
        raise AudioError(f"{where}: holds samples that are not finite numbers")

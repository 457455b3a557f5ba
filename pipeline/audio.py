"""Audio in and out: any file libsndfile reads becomes float32 mono at 16 kHz, clips become FLAC.

Decoding is soundfile and resampling soxr, which ship their C libraries in their wheels, so neither
ffmpeg nor torchcodec is needed. A span is read by seeking, so a clip in the middle of an hour costs
no more than one at its start. What cannot be read is an `AudioError`, which callers turn into a
failure row: a bad recording is data, not a crash.
"""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import soundfile
import soxr

from pipeline.schema import SAMPLE_RATE

# The length in the header of a compressed file may be an estimate; more than this is a cut file.
_TOLERATED_LOSS_SECONDS = 0.1


class AudioError(ValueError):
    """Audio that cannot be used: missing, damaged, empty, or a span outside the recording."""


@dataclass(frozen=True, kw_only=True)
class AudioInfo:
    """What the header of a recording says."""

    duration_seconds: float
    sample_rate: int
    num_channels: int


def probe(path: str | Path) -> AudioInfo:
    """Read length and format of a recording from its header, without decoding it.

    Raises:
        AudioError: the file is missing, is no audio, or holds no samples.
    """
    with _open(Path(path), str(path)) as file:
        return AudioInfo(
            duration_seconds=file.frames / file.samplerate,
            sample_rate=file.samplerate,
            num_channels=file.channels,
        )


def load_audio(
    path: str | Path, start_seconds: float = 0.0, duration_seconds: float | None = None
) -> np.ndarray:
    """Read a span of a recording as float32 mono at 16 kHz, shape (samples,).

    Channels are averaged. Without a duration the span runs to the end of the recording; a span that
    runs past the end is cut there, so the length of what comes back is the true duration. It is
    never longer than was asked for: 30.0 s are exactly 480 000 samples.

    Raises:
        AudioError: the file is missing, damaged, cut off or empty, the span begins after its end,
            or it holds samples that are not finite numbers.
    """
    return _read(Path(path), str(path), start_seconds, duration_seconds)


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
    return _read(io.BytesIO(data), f"FLAC of {len(data)} bytes", 0.0, None)


def _open(source: Path | BinaryIO, where: str) -> soundfile.SoundFile:
    """Open a recording that has at least one sample."""
    if isinstance(source, Path) and not source.is_file():
        raise AudioError(f"{where}: no such file")
    try:
        file = soundfile.SoundFile(source)
    except soundfile.SoundFileError as error:
        raise AudioError(f"{where}: not readable as audio ({error})") from error
    if file.frames <= 0:
        file.close()
        raise AudioError(f"{where}: holds no audio")
    return file


def _read(
    source: Path | BinaryIO, where: str, start_seconds: float, duration_seconds: float | None
) -> np.ndarray:
    """Seek, decode, mix down and resample a span; see `load_audio`."""
    if not start_seconds >= 0 or not (duration_seconds is None or duration_seconds > 0):
        raise AudioError(
            f"{where}: a span of {duration_seconds} s from {start_seconds} s; "
            "the start must not be negative and the duration must be above 0"
        )
    with _open(source, where) as file:
        rate, length = file.samplerate, file.frames
        start = round(start_seconds * rate)
        if start >= length:
            raise AudioError(
                f"{where}: the span starts at {start_seconds} s, "
                f"but the recording ends at {length / rate:.2f} s"
            )
        rest = length - start
        wanted = rest if duration_seconds is None else min(rest, round(duration_seconds * rate))
        try:
            file.seek(start)
            channels = file.read(wanted, dtype="float32", always_2d=True)
        except soundfile.SoundFileError as error:
            raise AudioError(f"{where}: damaged audio ({error})") from error
    lost_seconds = (wanted - len(channels)) / rate
    if lost_seconds > _TOLERATED_LOSS_SECONDS:
        raise AudioError(f"{where}: cut off, {lost_seconds:.2f} s of the audio are missing")
    samples = channels.mean(axis=1)
    if rate != SAMPLE_RATE:
        samples = soxr.resample(samples, rate, SAMPLE_RATE)
    if duration_seconds is not None:
        samples = samples[: round(duration_seconds * SAMPLE_RATE)]
    _check(samples, where)
    return np.ascontiguousarray(samples, dtype=np.float32)


def _check(samples: np.ndarray, where: str) -> None:
    """Refuse audio that no later stage could use."""
    if samples.ndim != 1:
        raise AudioError(f"{where}: expected one channel, got an array of shape {samples.shape}")
    if samples.size == 0:
        raise AudioError(f"{where}: holds no audio")
    if not np.isfinite(samples).all():
        raise AudioError(f"{where}: holds samples that are not finite numbers")

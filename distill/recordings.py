"""Recordings to transcribe: which ones are meant, and their audio, a window at a time.

A recording is never in memory as a whole: it is decoded and resampled as it is read, and what lies
before the window is dropped, so ten hours need no more than ten minutes do.
"""

import glob
import shutil
import sys
import tempfile
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr

from pipeline.audio import AudioError
from pipeline.schema import SAMPLE_RATE

SUFFIXES = frozenset(
    f".{name}"
    for name in (
        *("wav", "flac", "mp3", "ogg", "oga", "opus", "aif", "aiff", "au", "caf", "w64", "sph"),
        *("m4a", "mp4", "aac", "webm", "mkv", "mov", "wma"),
    )
)
"""What is taken for a recording in a folder; a file that is named is always tried."""
_BLOCK_SECONDS = 10
_TOLERATED_LOSS_SECONDS = 0.1
_URL_SECONDS = 60


@dataclass(frozen=True, kw_only=True)
class Recording:
    """One recording that was asked for."""

    name: str
    """As it was given, or its path in the folder that was."""
    source: str
    """Path or URL; - is standard input."""
    output_name: Path
    """Where its output goes in the output folder, without the format's suffix."""


def find_recordings(sources: list[str]) -> list[Recording]:
    """Resolve files, folders, globs, URLs and - to recordings, in order, each one once.

    A name that does not exist stays in the list: it is reported when its turn comes.

    Raises:
        ValueError: a folder or a glob holds no recording.
    """
    found: dict[str, Recording] = {}
    for source in sources:
        for name, path, output_name in _resolve(source):
            found.setdefault(path, Recording(name=name, source=path, output_name=output_name))
    recordings = list(found.values())
    stems = [recording.output_name for recording in recordings]
    return [
        recording
        if stems.count(recording.output_name) == 1
        else Recording(
            name=recording.name,
            source=recording.source,
            output_name=recording.output_name.with_name(Path(recording.source).name),
        )
        for recording in recordings
    ]


def check_output_names(recordings: list[Recording]) -> None:
    """Refuse recordings that would be written to one file.

    Raises:
        ValueError: two of them have one output name.
    """
    seen: dict[Path, Recording] = {}
    for recording in recordings:
        other = seen.setdefault(recording.output_name, recording)
        if other is not recording:
            raise ValueError(
                f"{other.source} and {recording.source} would both be written to "
                f"{recording.output_name}; give their common folder instead"
            )


def _resolve(source: str) -> Iterator[tuple[str, str, Path]]:
    """Yield name, path and output name of what a source stands for."""
    path = Path(source)
    if source == "-":
        yield "standard input", source, Path("stdin")
    elif "://" in source:
        last = source.split("?")[0].rstrip("/").rpartition("/")[2]
        yield source, source, Path(Path(last).stem or "recording")
    elif path.is_dir():
        files = sorted(f for f in path.rglob("*") if f.suffix.lower() in SUFFIXES and f.is_file())
        if not files:
            raise ValueError(f"{source} holds no recording ({', '.join(sorted(SUFFIXES))})")
        for file in files:
            inside = file.relative_to(path)
            yield str(file), str(file), inside.with_suffix("")
    elif not path.exists() and glob.has_magic(source):
        matches = sorted(m for m in glob.glob(source, recursive=True) if Path(m).is_file())  # noqa: PTH207
        if not matches:
            raise ValueError(f"no file matches {source}")
        for match in matches:
            yield match, match, Path(Path(match).stem)
    else:
        yield source, source, Path(path.stem)


class AudioStream:
    """The audio of a recording as float32 mono at 16 kHz, read from its beginning to its end."""

    def __init__(self, source: str) -> None:
        """Open a path, a URL or - for standard input.

        Raises:
            AudioError: it is missing, or no audio.
        """
        self._temporary: Any = None
        self.on_progress: Callable[[float], None] | None = None
        """Told how many seconds further the reading has come."""
        self.source = source
        self._path = self._fetch(source)
        self._told = 0
        self._begin()
        if self.read(0, 1).size == 0:
            self.close()
            raise AudioError(f"{source}: holds no audio")

    def rewind(self) -> None:
        """Begin anew; what standard input or a URL gave is not fetched a second time."""
        self._blocks.close()
        self._begin()

    def _begin(self) -> None:
        self._blocks = _blocks(self._path, self.source)
        self._held = np.zeros(0, dtype=np.float32)
        self._offset, self._ended = 0, False

    def read(self, start: int, num_samples: int) -> np.ndarray:
        """Read samples from `start` on; fewer than asked for at the end, none after it.

        What lies before `start` is forgotten, so the next call may not ask for less.

        Raises:
            AudioError: the recording is damaged or cut off.
            ValueError: `start` lies before that of an earlier call.
        """
        if start < self._offset:
            raise ValueError(f"sample {start} was asked for after sample {self._offset}")
        parts, held = [self._held], self._offset + len(self._held)
        while held < start + num_samples and not self._ended:
            block = next(self._blocks, None)
            if block is None:
                self._ended = True
                break
            if not np.isfinite(block).all():
                raise AudioError(f"{self.source}: holds samples that are not finite numbers")
            parts.append(block)
            held += len(block)
            if held <= start:  # jumped over; nothing of it is needed
                parts, self._offset = [np.zeros(0, dtype=np.float32)], held
        samples = np.concatenate(parts)
        dropped = min(max(start - self._offset, 0), len(samples))
        if self.on_progress is not None and start > self._told:
            self.on_progress((start - self._told) / SAMPLE_RATE)
            self._told = start
        self._held, self._offset = samples[dropped:], self._offset + dropped
        return self._held[:num_samples]

    def close(self) -> None:
        """Close the file, and remove it where it was fetched."""
        self._blocks.close()
        if self._temporary is not None:
            self._temporary.close()

    def __enter__(self) -> "AudioStream":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _fetch(self, source: str) -> Path:
        """Bring what is not a file to one."""
        if source != "-" and "://" not in source:
            if not Path(source).is_file():
                raise AudioError(f"{source}: no such file")
            return Path(source)
        self._temporary = tempfile.NamedTemporaryFile(prefix="whisper-distill-")  # noqa: SIM115
        try:
            if source == "-":
                shutil.copyfileobj(sys.stdin.buffer, self._temporary)
            elif source.startswith(("http://", "https://")):
                with urllib.request.urlopen(source, timeout=_URL_SECONDS) as reply:
                    shutil.copyfileobj(reply, self._temporary)
            else:
                import fsspec

                with fsspec.open(source) as file:
                    shutil.copyfileobj(file, self._temporary)  # pyright: ignore[reportArgumentType]
        except (OSError, ValueError, ImportError) as error:
            self._temporary.close()
            raise AudioError(f"{source}: could not be fetched ({error})") from error
        self._temporary.flush()
        return Path(self._temporary.name)


def _blocks(path: Path, source: str) -> Any:
    """Return a generator of blocks at 16 kHz."""
    try:
        file = soundfile.SoundFile(path)
    except soundfile.SoundFileError as error:
        return _video_blocks(path, source, error)
    return _sound_blocks(file, source)


def _sound_blocks(file: soundfile.SoundFile, source: str) -> Iterator[np.ndarray]:
    with file:
        rate, decoded = file.samplerate, 0
        resample = soxr.ResampleStream(rate, SAMPLE_RATE, 1, dtype="float32")
        try:
            for block in file.blocks(_BLOCK_SECONDS * rate, dtype="float32", always_2d=True):
                decoded += len(block)
                mono = block.mean(axis=1)
                yield mono if rate == SAMPLE_RATE else resample.resample_chunk(mono)
        except soundfile.SoundFileError as error:
            raise AudioError(f"{source}: damaged audio ({error})") from error
        if (file.frames - decoded) / rate > _TOLERATED_LOSS_SECONDS:
            lost = (file.frames - decoded) / rate
            raise AudioError(f"{source}: cut off, {lost:.2f} s of the audio are missing")
        if rate != SAMPLE_RATE and decoded:
            yield resample.resample_chunk(np.zeros(0, dtype=np.float32), last=True)


def _video_blocks(path: Path, source: str, reason: Exception) -> Iterator[np.ndarray]:
    """Read what libsndfile cannot (m4a, the sound of videos) where PyAV is installed."""
    try:
        import av
    except ImportError:
        raise AudioError(
            f"{source}: not readable as audio ({reason}); m4a and video need the `video` extra"
        ) from reason
    try:
        with av.open(str(path)) as container:
            if not container.streams.audio:
                raise AudioError(f"{source}: not readable as audio, it has no sound")
            resampler = av.AudioResampler(format="flt", layout="mono", rate=SAMPLE_RATE)
            for frame in container.decode(audio=0):
                for piece in resampler.resample(frame):
                    yield piece.to_ndarray().reshape(-1).astype(np.float32)
            for piece in resampler.resample(None):
                yield piece.to_ndarray().reshape(-1).astype(np.float32)
    except av.error.FFmpegError as error:  # pyright: ignore[reportAttributeAccessIssue]
        raise AudioError(f"{source}: not readable as audio ({error})") from error

"""Recordings to transcribe: which ones are meant, and their audio, a window at a time.

A recording is never in memory as a whole: it is decoded and resampled as it is read, and what lies
before the window is dropped, so ten hours need no more than ten minutes do.
"""

import glob
import http.client
import shutil
import sys
import tempfile
import urllib.request
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.audio import AudioError, stream_audio
from pipeline.schema import SAMPLE_RATE

SUFFIXES = frozenset(
    f".{name}"
    for name in (
        *("wav", "flac", "mp3", "ogg", "oga", "opus", "aif", "aiff", "au", "caf", "w64", "sph"),
        *("m4a", "mp4", "aac", "webm", "mkv", "mov", "wma"),
    )
)
"""What is taken for a recording in a folder; a file that is named is always tried."""
_BLOCK_SECONDS = 10.0
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
    num_named = Counter(recording.output_name for recording in recordings)
    return [
        recording
        if num_named[recording.output_name] == 1
        else replace(
            recording, output_name=recording.output_name.with_name(Path(recording.source).name)
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
            AudioError: it is missing, cannot be fetched, or is no audio.
        """
        self._temporary: Any = None
        self.on_progress: Callable[[float], None] | None = None
        """Told how many seconds further the reading has come."""
        self.source = source
        self.num_samples: int | None = None
        """Of the recording; known when it has been read to its end."""
        self._path = self._fetch(source)
        self._told = 0
        self._begin()
        try:
            self.read(0, 1)
        except AudioError:
            self.close()
            raise

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
                self._ended, self.num_samples = True, held
                break
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
        except (OSError, ValueError, ImportError, http.client.HTTPException) as error:
            self._temporary.close()
            raise AudioError(f"{source}: could not be fetched ({error})") from error
        self._temporary.flush()
        return Path(self._temporary.name)


def _blocks(path: Path, source: str) -> Generator[np.ndarray, None, None]:
    """Yield blocks at 16 kHz; what is wrong is said of the source, which may be fetched."""
    address = str(path.absolute())
    try:
        yield from stream_audio(address, block_seconds=_BLOCK_SECONDS)
    except AudioError as error:
        raise AudioError(f"{source}: {str(error).removeprefix(f'{address}: ')}") from error

"""Write a file whole or not at all, to a disk or to an object store.

A run can be killed at any moment, and what stands under its final name is believed by the next run.
So every file of a dataset is written under a temporary name in the same folder, flushed to the disk
and then renamed, which replaces the old one in a single step. A store shows an object when all of
it has arrived, so what goes there is written to the local disk first and then sent.

A path is pathlib's, or for a URL universal_pathlib's, which has the same methods.
"""

import io
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar, cast

from upath import UPath

from pipeline.storage import is_url, service

AnyPath = Path | UPath

S = TypeVar("S")
T = TypeVar("T")

_CONNECTIONS = 32

TEMPORARY_SUFFIX = ".tmp"
"""What a killed run may leave behind ends so; nothing reads it and it may be deleted."""


def path_of(name: str | AnyPath) -> AnyPath:
    """Return the path that a name or URL means.

    Raises:
        ValueError: the URL is of no service that is known.
        ImportError: the package that knows the service is not installed.
    """
    if not isinstance(name, str):
        return name
    if not is_url(name):
        return Path(name)
    try:
        # Others write to the same folder, so a listing is never older than the question.
        return UPath(name, use_listings_cache=False)
    except ValueError as error:
        raise ValueError(f"{name}: {error}. Give a local path, or s3:// or gs://.") from error


@contextmanager
def replacing(path: str | AnyPath) -> Iterator[Path]:
    """Yield a temporary path that becomes `path` when the block ends without an error.

    The folder is made where it is missing. After an error the temporary file is deleted and a file
    that stood at `path` before is untouched.
    """
    path = path_of(path)
    with _replacing(path) if isinstance(path, Path) else _sending(path) as temporary:
        yield temporary


@contextmanager
def _sending(url: UPath) -> Iterator[Path]:
    """Yield a temporary path that is sent to `url` at the end."""
    with tempfile.TemporaryDirectory() as folder:
        temporary = Path(folder) / url.name
        yield temporary
        with service(str(url)) as (system, name):
            system.put_file(str(temporary), name)


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path` that is renamed at the end."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(
        dir=path.parent, prefix=f".{path.name}.", suffix=TEMPORARY_SUFFIX
    )
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o644)  # mkstemp makes it readable for its owner only
        _flush(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    _flush(path.parent)


def remove_stale(folder: str | AnyPath) -> int:
    """Delete temporary files that killed runs have left below a folder; return how many.

    Only for who knows that nobody else writes there. In a store, whose folders are not so quickly
    listed, only those in the folder itself.
    """
    folder = path_of(folder)
    find = folder.rglob if isinstance(folder, Path) else folder.glob
    stale = list(find(f".*{TEMPORARY_SUFFIX}"))
    for path in stale:
        path.unlink(missing_ok=True)
    return len(stale)


def write_text(path: str | AnyPath, text: str) -> None:
    """Write a UTF-8 text file whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_bytes(text.encode())


def readable(path: str | AnyPath) -> Path | io.BytesIO:
    """Return what libraries that open files themselves can read: a local path, or the bytes."""
    path = path_of(path)
    return path if isinstance(path, Path) else io.BytesIO(path.read_bytes())


def tail(path: AnyPath, size: int) -> Path | io.BytesIO:
    """Return what ends as a file does: a local path itself, of an object its last bytes."""
    if isinstance(path, Path):
        return path
    start = max(path.stat().st_size - size, 0)
    return io.BytesIO(cast(bytes, path.fs.cat_file(path.path, start=start)))


def each(function: Callable[[S], T], items: Iterable[S], output: AnyPath) -> Iterator[T]:
    """Apply a function that looks at files of an output; several at a time where that is a store.

    A disk answers in microseconds and a store in tens of milliseconds.
    """
    if isinstance(output, Path):
        yield from map(function, items)
        return
    with ThreadPoolExecutor(_CONNECTIONS) as pool:
        yield from pool.map(function, items)


def remembered(read: Callable[[Path], T]) -> Callable[[AnyPath], T]:
    """Return a function that reads a local file once, and again only when it has changed.

    A run looks at every commit record and every ledger part several times, and has written few of
    them since. What is returned must not be changed. A file in a store is read each time.
    """
    seen: dict[str, tuple[tuple[int, int, int], T]] = {}

    def look(path: AnyPath) -> T:
        if not isinstance(path, Path):
            return read(path)  # type: ignore[arg-type]
        found = path.stat()
        version = found.st_ino, found.st_size, found.st_mtime_ns
        known = seen.get(str(path))
        if known and known[0] == version:
            return known[1]
        value = read(path)
        seen[str(path)] = version, value
        return value

    return look


def _flush(path: Path) -> None:
    """Wait until the disk has the file's bytes, or the folder's entries."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

"""Files and folders, local or behind a URL: open, list, measure.

Local paths never touch fsspec, because a corpus of a million files is looked at once for each.
Whatever a service raises becomes an `OSError` that names the file, so that callers have one kind of
error to expect and a missing credential is told from a missing file.
"""

import io
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

_CONNECTIONS = 16
_LIST_FROM = 1000
"""From so many files of one remote folder on, listing it is cheaper than asking for each."""
_asked: Counter[str] = Counter()
_WHOLE_BYTES = 32 * 2**20
"""Up to this size a remote file is fetched in one request; a larger one is read in blocks."""
_BLOCK_BYTES = 4 * 2**20


@dataclass(frozen=True, kw_only=True)
class Listing:
    """What lies in one folder: names only, sorted."""

    files: tuple[str, ...]
    folders: tuple[str, ...]


def is_url(path: str) -> bool:
    """Tell whether a path goes through fsspec."""
    return "://" in path


def join(folder: str, relative: str) -> str:
    """Join a path to a folder, either of which may be a URL; an absolute path stays as it is."""
    if is_url(relative) or relative.startswith("/") or not folder:
        return relative
    if is_url(folder):
        return f"{folder.rstrip('/')}/{relative}"
    return os.path.normpath(f"{folder}/{relative}")


def relative_to(path: str, folder: str) -> str:
    """Return a path as seen from a folder that it lies in, or the path itself where it does not."""
    prefix = folder.rstrip("/") + "/"
    return path.removeprefix(prefix)


def open_file(path: str) -> BinaryIO:
    """Open a file for reading; what comes back can seek and holds little of it in memory.

    Raises:
        OSError: it is not there, may not be read, or the service did not answer.
    """
    if not is_url(path):
        return cast(BinaryIO, open(path, "rb", buffering=0))  # noqa: PTH123 - a million times, and Path is slower
    with service(path) as (system, name):
        size = system.info(name)["size"]
        if size is not None and size <= _WHOLE_BYTES:
            return io.BytesIO(system.cat_file(name))
        return system.open(name, "rb", block_size=_BLOCK_BYTES)


def read_bytes(path: str, offset: int = 0, size: int | None = None) -> bytes:
    """Read a file, or a part of it.

    Raises:
        OSError: it is not there, may not be read, or the service did not answer.
    """
    if not is_url(path):
        with open_file(path) as file:
            file.seek(offset)
            return file.read(-1 if size is None else size)
    with service(path) as (system, name):
        end = None if size is None else offset + size
        return system.cat_file(name, start=offset, end=end)


def file_version(path: str) -> tuple[str, int, int]:
    """Return what changes when a local file does: size and time; a URL is taken to stay.

    Raises:
        OSError: the local file is not there or may not be looked at.
    """
    if is_url(path):
        return path, 0, 0
    found = os.stat(path)  # noqa: PTH116
    return path, found.st_size, found.st_mtime_ns


def size_bytes(paths: Iterable[str]) -> dict[str, int | None]:
    """Return the size of each file, None where it is not there or the service does not say.

    An http server lists nothing and would have to be asked for each file, so it is not asked.
    """
    sizes: dict[str, int | None] = {}
    remote: defaultdict[str, list[str]] = defaultdict(list)
    for path in dict.fromkeys(paths):
        if not is_url(path):
            try:
                sizes[path] = os.stat(path).st_size  # noqa: PTH116
            except (OSError, ValueError):  # ValueError: a null character in the name
                sizes[path] = None
        elif path.startswith(("http://", "https://")):
            sizes[path] = None
        else:
            remote[path.rpartition("/")[0]].append(path)
    for folder, members in remote.items():
        _asked[folder] += len(members)
        if _asked[folder] >= _LIST_FROM:
            with service(folder) as (system, name):
                system.ls(name)  # fills the listing cache that `info` looks into first
        with ThreadPoolExecutor(_CONNECTIONS) as pool:
            sizes |= zip(members, pool.map(_remote_size, members), strict=True)
    return sizes


def list_folder(path: str) -> Listing:
    """List a folder, sorted by name; a link to a folder is a folder.

    Raises:
        OSError: it is not there, is no folder, or may not be read.
    """
    files, folders = [], []
    if is_url(path):
        with service(path) as (system, name):
            for found in system.ls(name, detail=True):
                base = found["name"].rstrip("/").rpartition("/")[2]
                if base and found["name"].rstrip("/") != name.rstrip("/"):
                    (folders if found["type"] == "directory" else files).append(base)
    else:
        with os.scandir(path) as found:
            for entry in found:
                try:
                    is_folder = entry.is_dir()
                except OSError:  # a link to itself: opening it will say so
                    is_folder = False
                (folders if is_folder else files).append(entry.name)
    return Listing(files=tuple(sorted(files)), folders=tuple(sorted(folders)))


def check_writable(folder: str) -> None:
    """Write and remove an object in a remote folder.

    Raises:
        OSError: the service cannot be reached, or does not allow it; the message says what to do.
    """
    with service(f"{folder.rstrip('/')}/.writable") as (system, name):
        system.pipe_file(name, b"")
        system.rm_file(name)


def matching(pattern: str) -> list[str]:
    """Return the files that a path with `*`, `?` or `{000..012}` stands for, in order.

    Raises:
        FileNotFoundError: there are none.
        OSError: the service did not answer.
    """
    from braceexpand import braceexpand  # comes with webdataset

    found: list[str] = []
    for path in braceexpand(pattern, escape=False):
        if not any(c in path for c in "*?["):
            found.append(path)
        elif is_url(path):
            with service(path) as (system, name):
                found += sorted(system.unstrip_protocol(n) for n in system.glob(name))
        else:
            anchor = Path(path).anchor or "."
            relative = str(Path(path).relative_to(anchor)) if anchor != "." else path
            found += sorted(str(p) for p in Path(anchor).glob(relative) if p.is_file())
    if not found:
        raise FileNotFoundError(f"{pattern}: no file matches")
    return found


def _remote_size(path: str) -> int | None:
    try:
        with service(path) as (system, name):
            return system.info(name)["size"]
    except OSError:
        return None


@contextmanager
def service(path: str) -> Iterator[tuple[Any, str]]:
    """Yield the filesystem of a URL and the name there; turn what it raises into an OSError."""
    import fsspec

    try:
        yield fsspec.url_to_fs(path)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{path}: no such file") from error
    except FileExistsError as error:
        raise FileExistsError(f"{path}: it is there already") from error
    except PermissionError as error:
        raise PermissionError(f"{path}: permission denied ({error}). {_HINT}") from error
    except ImportError as error:
        extra = "whisper-distillery[s3]" if path.startswith("s3:") else "the package it names"
        raise OSError(f"{path}: {error}. Install {extra}.") from error
    except OSError as error:
        raise OSError(f"{path}: {error}") from error
    except Exception as error:  # botocore, aiohttp and the Hub have trees of errors of their own
        raise _meaning(error, path) from error


def service_error(error: BaseException, path: str) -> OSError | None:
    """Return what a service's own error means, or None where it is none; it names the path."""
    packages = {kind.__module__.partition(".")[0] for kind in type(error).__mro__}
    if not packages & {"botocore", "aiobotocore", "aiohttp", "gcsfs", "google"}:
        return None
    return _meaning(error, path)


def _meaning(error: BaseException, path: str) -> OSError:
    name = type(error).__name__
    away = any(word in name for word in ("Connect", "Timeout", "Endpoint", "Disconnected"))
    return OSError(f"{path}: {name}: {error}. {_UNREACHABLE if away else _HINT}")


_UNREACHABLE = (
    "The service does not answer: see to its address (AWS_ENDPOINT_URL, where it is not the "
    "provider's own) and the network, then run again"
)
_HINT = (
    "Credentials are read from the environment (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, "
    "GOOGLE_APPLICATION_CREDENTIALS, HF_TOKEN)"
)

"""Shards in a store or on the Hub: each is fetched when it is first read, and then kept.

A copy is named by the shard's hash in the index, and compared with it before it counts. So a
dataset that was built again is fetched again, an interrupted copy is no copy, and processes that
fetch the same shard at once do no harm. Nothing is ever removed: every epoch reads every shard.
"""

import hashlib
import os
import posixpath
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from upath import UPath

from pipeline.schema import Index, ShardEntry, read_index

CACHE_VARIABLE = "WHISPER_DISTILLERY_CACHE"
_CHUNK_BYTES = 2**20
_HINT = (
    "Credentials are read from the environment (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, "
    "GOOGLE_APPLICATION_CREDENTIALS, HF_TOKEN); or copy the dataset to a local folder"
)


@dataclass(frozen=True, kw_only=True)
class RemoteShard:
    """A shard that an index behind a URL lists."""

    url: str
    sha256: str
    size_bytes: int
    corpus: str
    num_samples: int

    def __str__(self) -> str:
        """Name it as its user does."""
        return self.url


def is_remote(folder: str) -> bool:
    """Tell whether a dataset is not in a local folder."""
    return "://" in folder


def remote_index(folder: str) -> Index:
    """Read the index of a dataset behind a URL.

    Raises:
        FileNotFoundError: there is none.
        ValueError: the index is damaged, or of a release with other fields.
        OSError: the service did not answer, or does not allow it.
    """
    with _said_plainly(folder):
        return read_index(folder)


def remote_shard(folder: str, entry: ShardEntry) -> RemoteShard:
    """Name a shard of a dataset behind a URL; in a published one it lies beside `shards`."""
    scheme, _, path = folder.partition("://")
    path = posixpath.normpath(f"{path}/shards/{entry.name}")
    return RemoteShard(
        url=f"{scheme}://{path}",
        sha256=entry.sha256,
        size_bytes=entry.size_bytes,
        corpus=entry.corpus,
        num_samples=entry.num_samples,
    )


def local_copy(shard: RemoteShard) -> Path:
    """Return where a shard is on this machine, and fetch it if it is not.

    Raises:
        FileNotFoundError: the shard is not there.
        ValueError: it is not what its index says.
        OSError: the service did not answer, or the disk is full.
    """
    path = cache_folder() / f"{shard.sha256}.tar"
    if path.is_file() and path.stat().st_size == shard.size_bytes:
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
    temporary = Path(name)
    try:
        digest = hashlib.sha256()
        with (
            os.fdopen(handle, "wb") as file,
            _said_plainly(shard.url),
            UPath(shard.url).open("rb") as source,
        ):
            while chunk := source.read(_CHUNK_BYTES):
                digest.update(chunk)
                file.write(chunk)
        if digest.hexdigest() != shard.sha256:
            raise ValueError(
                f"{shard.url} has another content than its index says (SHA-256 differs): it was "
                "built again while it was read, or is damaged; run the pipeline on it again"
            )
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def cache_folder() -> Path:
    """Return where copies are kept: in `$WHISPER_DISTILLERY_CACHE`, else in the user's cache."""
    if given := os.environ.get(CACHE_VARIABLE):
        return Path(given) / "shards"
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "whisper-distillery" / "shards"


@contextmanager
def _said_plainly(url: str) -> Iterator[None]:
    """Turn whatever a service raises into an OSError that names the URL."""
    try:
        yield
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{url}: {error}") from error
    except ImportError as error:
        extra = "whisper-distillery[s3]" if url.startswith("s3:") else "the package it names"
        raise OSError(f"{url}: {error}. Install {extra}.") from error
    except ValueError:
        raise
    except Exception as error:  # botocore, aiohttp and the Hub have trees of errors of their own
        raise OSError(f"{url}: {type(error).__name__}: {error}. {_HINT}") from error

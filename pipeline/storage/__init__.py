"""Where bytes are: a local file, a URL, or a member of a container, all named by one string.

A recording inside a container has an address of its own, so an utterance can be sent to any worker
as a short text and be opened there without reading what lies before it:

    /data/a.flac, s3://bucket/a.flac, hf://datasets/owner/name/a.flac      a file
    tar://1536-20480::/data/a.tar                      20480 bytes from byte 1536 of a tar
    parquet://3/17/audio.bytes::s3://bucket/a.parquet  a cell: row group 3, row 17 of it, its column

URLs go through fsspec. Credentials come from the environment, as each service's own tools read
them, and never from a configuration.
"""

import io
from typing import BinaryIO, cast

from pipeline.storage.cells import first_value, read_cell
from pipeline.storage.credentials import without_credentials
from pipeline.storage.files import (
    Listing,
    check_writable,
    file_version,
    is_url,
    join,
    list_folder,
    matching,
    open_file,
    read_bytes,
    relative_to,
    service,
    service_error,
    size_bytes,
)
from pipeline.storage.leases import HeldError, leased, wait_until_free
from pipeline.storage.windows import Window

__all__ = [
    "HeldError",
    "Listing",
    "cell_address",
    "check_writable",
    "container",
    "file_version",
    "first_value",
    "is_url",
    "join",
    "leased",
    "list_folder",
    "matching",
    "member_address",
    "member_size",
    "open_address",
    "open_file",
    "read_bytes",
    "relative_to",
    "service",
    "service_error",
    "size_bytes",
    "wait_until_free",
    "without_credentials",
]

_TAR, _PARQUET = "tar://", "parquet://"
_SMALL_MEMBER_BYTES = 32 * 2**20
"""Up to this size a remote member is fetched in one request and held in memory."""


def member_address(path: str, offset: int, size: int) -> str:
    """Name a run of bytes inside a file, as a tar holds its members."""
    return f"{_TAR}{offset}-{size}::{path}"


def cell_address(path: str, row_group: int, row: int, column: str) -> str:
    """Name a value of a Parquet file that holds a file's bytes."""
    return f"{_PARQUET}{row_group}/{row}/{column}::{path}"


def container(address: str) -> str:
    """Return the file that an address lies in; for a plain file that is the address itself."""
    if address.startswith((_TAR, _PARQUET)):
        return address.partition("::")[2]
    return address


def member_size(address: str) -> int | None:
    """Return the size of a tar member, which its address tells; None for any other address."""
    if not address.startswith(_TAR):
        return None
    return _tar_span(address)[1]


def open_address(address: str) -> BinaryIO:
    """Open what an address names for reading; what comes back can seek.

    Raises:
        OSError: it is not there, may not be read, or the service did not answer; the message names
            the address.
    """
    if address.startswith(_TAR):
        (offset, size), path = _tar_span(address), container(address)
        if is_url(path) and size <= _SMALL_MEMBER_BYTES:
            return io.BytesIO(read_bytes(path, offset, size))
        return cast(BinaryIO, Window(open_file(path), offset, size))
    if address.startswith(_PARQUET):
        row_group, row, column = _within(address, _PARQUET).split("/", 2)
        return read_cell(container(address), int(row_group), int(row), column)
    return open_file(address)


def _tar_span(address: str) -> tuple[int, int]:
    offset, size = _within(address, _TAR).split("-")
    return int(offset), int(size)


def _within(address: str, scheme: str) -> str:
    return address.removeprefix(scheme).partition("::")[0]

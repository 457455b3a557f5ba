"""Text files line by line, from any line on, wherever they lie and gzipped or not.

A position is `byte offset:line number`. A plain file is entered at the byte, a gzipped one is read
from its start. A line longer than any manifest has is passed over in pieces, so that a file of a
few kilobytes which unpacks to gigabytes costs time but no memory.
"""

import gzip
import io
import zlib
from collections.abc import Iterator
from typing import IO, cast

from pipeline import storage
from pipeline.config import CorpusConfig

MAX_LINE_BYTES = 16 * 2**20


class LongLineError(ValueError):
    """A line that no manifest has."""


def open_lines(corpus: CorpusConfig, path: str) -> IO[bytes]:
    """Open a listing of a corpus, unpacked.

    Raises:
        FileNotFoundError: it does not exist.
        ValueError: it is a folder.
        OSError: it may not be read.
    """
    try:
        raw = cast(io.RawIOBase, storage.open_file(path))
    except IsADirectoryError as error:
        raise ValueError(
            f"corpus {corpus.name!r}: {path} is a folder, but kind {corpus.kind} reads one file "
            "there: name the file"
        ) from error
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"corpus {corpus.name!r}: there is no file {path}. "
            "A relative path is taken from the folder the command runs in."
        ) from error
    buffered = raw if isinstance(raw, io.BytesIO) else io.BufferedReader(raw, 2**20)
    return cast(IO[bytes], gzip.open(buffered) if path.endswith(".gz") else buffered)


def read_lines(
    corpus: CorpusConfig, path: str, position: str = ""
) -> Iterator[tuple[str, int, bytes]]:
    """Yield the lines of a file that are not blank, each with its position and number from 1.

    A line longer than `MAX_LINE_BYTES` comes as b"", which no other line does.

    Raises:
        FileNotFoundError: there is no such file.
        OSError: it may not be read, or its gzip stream is damaged.
    """
    offset, number = _parse(position)
    with open_lines(corpus, path) as file:
        try:
            file.seek(offset)
            for line in iter(lambda: file.readline(MAX_LINE_BYTES), b""):
                number += 1
                start, offset = offset, offset + len(line)
                if start == 0:
                    line = line.removeprefix(b"\xef\xbb\xbf")
                if len(line) >= MAX_LINE_BYTES and not line.endswith(b"\n"):
                    while line and not line.endswith(b"\n"):
                        line = file.readline(MAX_LINE_BYTES)
                        offset += len(line)
                    yield f"{start}:{number - 1}", number, b""
                elif line.strip():
                    yield f"{start}:{number - 1}", number, line
        except (EOFError, zlib.error) as error:
            raise OSError(f"{path}: damaged gzip stream ({error})") from error


def check_length(line: bytes) -> None:
    """Raise a ValueError for a line that was too long to be read."""
    if not line:
        raise LongLineError(f"longer than {MAX_LINE_BYTES} bytes; this is no manifest")


def _parse(position: str) -> tuple[int, int]:
    offset, _, number = position.partition(":")
    return int(offset or 0), int(number or 0)

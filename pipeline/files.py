"""Write a file whole or not at all.

A run can be killed at any moment, and what stands under its final name is believed by the next run.
So every file of a dataset is written under a temporary name in the same folder, flushed to the disk
and then renamed, which replaces the old one in a single step.
"""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

TEMPORARY_SUFFIX = ".tmp"
"""What a killed run may leave behind ends so; nothing reads it and it may be deleted."""


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path that becomes `path` when the block ends without an error.

    The folder is made where it is missing. After an error the temporary file is deleted and a file
    that stood at `path` before is untouched.
    """
    path = Path(path)
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


def remove_stale(folder: str | Path) -> int:
    """Delete temporary files that killed runs have left below a folder; return how many.

    Only for who knows that nobody else writes there.
    """
    stale = list(Path(folder).rglob(f".*{TEMPORARY_SUFFIX}"))
    for path in stale:
        path.unlink(missing_ok=True)
    return len(stale)


def write_text(path: str | Path, text: str) -> None:
    """Write a UTF-8 text file whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_bytes(text.encode())


def _flush(path: Path) -> None:
    """Wait until the disk has the file's bytes, or the folder's entries."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

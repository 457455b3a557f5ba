"""One run at a time on one output, or several that each do another part of it.

The lock is the kernel's, on a file in the output: it is freed when its process ends, however that
ends, so no stale lock ever has to be removed by hand. A whole run shuts everybody out; runs of
parts share the output, and shut out only a second run of the same part.

An object store has no such lock. Two runs of one configuration write the same bytes under the same
names there, so they waste work and do no harm.
"""

import fcntl
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime
from pathlib import Path

from pipeline.files import AnyPath
from pipeline.parts import Part
from pipeline.storage import check_writable

logger = logging.getLogger(__name__)

LOCK_NAME = ".lock"
"""Names of lock files begin so; a killed run leaves them behind, and they mean nothing then."""


class LockedError(RuntimeError):
    """Another run is at work on the output; the message says which."""


@contextmanager
def locked(output: AnyPath, part: Part | None = None) -> Iterator[None]:
    """Hold the output, or a part of it, for as long as the context lasts.

    Raises:
        LockedError: another run holds it.
        OSError: the output cannot be written to.
    """
    if not isinstance(output, Path):
        check_writable(str(output))
        logger.warning("%s cannot be locked: see to it that no two runs work on it", output)
        yield
        return
    output.mkdir(parents=True, exist_ok=True)
    whole = output / LOCK_NAME
    with ExitStack() as held:
        if part is None:
            held.enter_context(_lock(whole, fcntl.LOCK_EX, "a run"))
        else:
            held.enter_context(_lock(whole, fcntl.LOCK_SH, ""))
            mine = output / f"{LOCK_NAME}-{part.number}-of-{part.of}"
            held.enter_context(_lock(mine, fcntl.LOCK_EX, f"the run of {part}"))
        yield


@contextmanager
def _lock(path: Path, operation: int, who: str) -> Iterator[None]:
    """Lock a file and say in it who holds it; the last one to leave removes it."""
    handle = _open_locked(path, operation)
    try:
        os.ftruncate(handle, 0)
        if who:
            now = datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
            holder = f"{who}, process {os.getpid()} on {socket.gethostname()}, since {now}"
            os.pwrite(handle, holder.encode(), 0)
        yield
    finally:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink(missing_ok=True)
        except OSError as error:  # others share it, or the disk is gone: it is free in any case
            logger.debug("%s stays: %s", path, error)
        os.close(handle)


def _open_locked(path: Path, operation: int) -> int:
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(handle, operation | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(handle)
            raise LockedError(_refusal(path)) from error
        except OSError as error:
            logger.warning(
                "%s cannot be locked (%s): see to it yourself that no two runs work on it",
                path.parent,
                error,
            )
            return handle
        if path.exists() and os.path.samestat(os.fstat(handle), path.stat()):
            return handle
        os.close(handle)  # its holder removed it between our opening and locking it


def _refusal(path: Path) -> str:
    """Say who is at work, as far as the lock files tell."""
    others = sorted(path.parent.glob(f"{LOCK_NAME}-*")) if path.name == LOCK_NAME else []
    holders = [_text(path), *(_text(other) for other in others if _is_held(other))]
    known = "; ".join(holder for holder in holders if holder) or "another run"
    return (
        f"{path.parent} is in use by {known}. Wait until it has ended, or stop it; what it has "
        "finished is kept."
    )


def _text(path: Path) -> str:
    """Return what a lock file says; "" where its run has ended meanwhile."""
    return path.read_text() if path.is_file() else ""


def _is_held(path: Path) -> bool:
    """Tell whether the holder of a lock file is alive."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(handle)
    return False

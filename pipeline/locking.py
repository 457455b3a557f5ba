"""One run at a time on one output, or several that each do another part of it.

The lock is the kernel's, on a file in the output: it is freed when its process ends, however that
ends, so no stale lock ever has to be removed by hand. A whole run shuts everybody out; runs of
parts share the output, and shut out only a second run of the same part.

A runner may give a block to two workers, as when it takes one for dead. So a block is held as well,
for as long as it is worked on; the second worker waits, and finds it done.

An object store has no such lock. There it is an object that is made only where there is none, and
renewed for as long as its run lives (`pipeline.storage.leases`); that of a killed run is taken over
after a minute.
"""

import fcntl
import logging
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime
from pathlib import Path

from pipeline.files import AnyPath
from pipeline.parts import Part
from pipeline.storage import HeldError, check_writable, leased, wait_until_free

logger = logging.getLogger(__name__)

LOCK_NAME = ".lock"
"""Names of lock files begin so; a killed run leaves them behind, and they mean nothing then."""


class LockedError(RuntimeError):
    """Another run is at work on the output; the message says which."""


def always() -> None:
    """Tell that the output is held; the kernel takes no lock away."""


@contextmanager
def locked(output: AnyPath, part: Part | None = None) -> Iterator[Callable[[], None]]:
    """Hold the output, or a part of it, for as long as the context lasts.

    Yields what raises a `LockedError` once the output is held no more, which can happen in a store.

    Raises:
        LockedError: another run holds it.
        OSError: the output cannot be written to.
    """
    if not isinstance(output, Path):
        check_writable(str(output))
        with _locked_store(output, part) as still_held:
            yield still_held
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
        yield always


@contextmanager
def _locked_store(output: AnyPath, part: Part | None) -> Iterator[Callable[[], None]]:
    """Hold an output in a store; look for the others only when they can see that it is held."""
    whole = output / LOCK_NAME
    mine = output / f"{LOCK_NAME}-{part.number}-of-{part.of}" if part else whole
    with ExitStack() as held:
        try:
            who = _holder(f"the run of {part}" if part else "a run")
            is_held = held.enter_context(leased(str(mine), who))
            for other in [whole] if part else sorted(output.glob(f"{LOCK_NAME}-*")):
                wait_until_free(str(other))
        except HeldError as error:
            raise LockedError(_in_use(output, str(error))) from error
        except NotImplementedError as error:
            logger.warning(
                "%s cannot be locked (%s): see to it yourself that no two runs work on it",
                output,
                error,
            )
            is_held = _for_ever

        def still_held() -> None:
            if not is_held():
                raise LockedError(
                    f"{output} was not renewed for too long, and another run has begun there. "
                    "What is committed is kept; see how the other one goes."
                )

        yield still_held


@contextmanager
def _lock(path: Path, operation: int, who: str) -> Iterator[None]:
    """Lock a file and say in it who holds it; the last one to leave removes it."""
    handle = _open_locked(path, operation)
    try:
        os.ftruncate(handle, 0)
        if who:
            os.pwrite(handle, _holder(who).encode(), 0)
        yield
    finally:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink(missing_ok=True)
        except OSError as error:  # others share it, or the disk is gone: it is free in any case
            logger.debug("%s stays: %s", path, error)
        os.close(handle)


@contextmanager
def block_locked(path: AnyPath) -> Iterator[Callable[[], None]]:
    """Hold a block, by its lock file, for as long as the context lasts; wait for who holds it.

    Yields what raises a `LockedError` once the block is held no more, which can happen in a store.
    """
    if isinstance(path, Path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = _open_waiting(path)
        try:
            yield always
        finally:
            path.unlink(missing_ok=True)
            os.close(handle)
        return
    with ExitStack() as held:
        is_held = None
        while is_held is None:
            try:
                is_held = held.enter_context(leased(str(path), _holder("a worker")))
            except HeldError as error:  # it was watched for some seconds and is alive
                logger.info("%s is held by %s, waiting", path, error)
            except NotImplementedError:  # the run itself has warned of it
                is_held = _for_ever

        def still_held() -> None:
            if not is_held():
                raise LockedError(f"{path} was not renewed for too long; another worker has it now")

        yield still_held


def _holder(who: str) -> str:
    now = datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
    return f"{who}, process {os.getpid()} on {socket.gethostname()}, since {now}"


def _for_ever() -> bool:
    return True


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
        if _is_still(handle, path):
            return handle
        os.close(handle)


def _open_waiting(path: Path) -> int:
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
        except OSError as error:
            logger.debug("%s cannot be locked: %s", path, error)
            return handle
        if _is_still(handle, path):
            return handle
        os.close(handle)


def _is_still(handle: int, path: Path) -> bool:
    """Tell whether an open file is still there; its holder may have removed it meanwhile."""
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False


def _refusal(path: Path) -> str:
    """Say who is at work, as far as the lock files tell."""
    others = sorted(path.parent.glob(f"{LOCK_NAME}-*")) if path.name == LOCK_NAME else []
    holders = [_text(path), *(_text(other) for other in others if _is_held(other))]
    known = "; ".join(holder for holder in holders if holder) or "another run"
    return _in_use(path.parent, known)


def _in_use(output: AnyPath, known: str) -> str:
    return (
        f"{output} is in use by {known}. Wait until it has ended, or stop it; what it has "
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

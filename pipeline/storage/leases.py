"""A lock in an object store: an object that is made only where there is none, and renewed.

A store tells nobody that a process has died. So a holder writes its object again every few seconds,
and whoever finds one watches it: an object that changes has a holder, one that stays the same for a
whole lease has none and is taken over. No two clocks are compared. A holder that could not renew in
time, because its machine slept or its network was gone, finds the object of another one and is told
to stop.
"""

import errno
import json
import logging
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pipeline.storage.files import service

logger = logging.getLogger(__name__)

LEASE_SECONDS = 60.0
"""An object that stays the same for so long has no holder any more."""
RENEW_SECONDS = 15.0
SETTLE_SECONDS = 2.0
"""Two that take over at once see within this time which of them was the last."""


class HeldError(RuntimeError):
    """Another process holds the lease; the message is what its holder says of itself."""


@contextmanager
def leased(url: str, holder: str) -> Iterator[Callable[[], bool]]:
    """Hold an object for as long as the context lasts; yield what tells whether it is still held.

    Raises:
        HeldError: another process holds it.
        NotImplementedError: the service has no way to make an object only where there is none.
        OSError: the service did not answer.
    """
    token = uuid.uuid4().hex
    _acquire(url, holder, token)
    ended, lost = threading.Event(), threading.Event()

    def renew() -> None:
        number = 0
        while not ended.wait(RENEW_SECONDS):
            number += 1
            try:
                if _token(_read(url)) != token:
                    lost.set()
                    return
                with service(url) as (system, name):
                    system.pipe_file(name, _text(holder, token, number))
            except OSError as error:
                logger.warning("%s could not be renewed, trying again: %s", url, error)

    thread = threading.Thread(target=renew, name="lease", daemon=True)
    thread.start()
    try:
        yield lambda: not lost.is_set()
    finally:
        ended.set()
        thread.join()
        try:
            _remove(url, token)
        except OSError as error:  # the next run finds that nobody renews it
            logger.warning("%s stays: %s", url, error)


def wait_until_free(url: str) -> None:
    """Return when nobody holds an object, which is at once where there is none.

    Raises:
        HeldError: somebody does.
    """
    first = _read(url)
    if first is None:
        return
    logger.info("%s is there, watching whether its holder is alive", url)
    gives_up = time.monotonic() + LEASE_SECONDS
    while time.monotonic() < gives_up:
        time.sleep(min(1.0, RENEW_SECONDS / 4))
        now = _read(url)
        if now is None:
            return
        if now != first:
            raise HeldError(json.loads(now)["holder"])
    logger.warning("%s has no holder any more and is removed", url)
    _remove(url, _token(first))


def _acquire(url: str, holder: str, token: str) -> None:
    if _create(url, _text(holder, token, 0)):
        return
    wait_until_free(url)
    if _create(url, _text(holder, token, 0)):
        time.sleep(SETTLE_SECONDS)  # whoever watched it too may have removed ours for the dead one
        if _token(_read(url)) == token:
            return
    raise HeldError("another run, which began at the same time")


def _create(url: str, text: bytes) -> bool:
    """Write an object unless there is one; tell whether it was written."""
    try:
        with service(url) as (system, name):
            system.pipe_file(name, text, mode="create")
    except FileExistsError:
        return False
    except OSError as error:
        cause = error.__cause__
        unknown = isinstance(cause, TypeError | ValueError | NotImplementedError)
        if unknown or (isinstance(cause, OSError) and cause.errno == errno.ENOSYS):
            raise NotImplementedError(str(error)) from error
        raise
    return True


def _read(url: str) -> bytes | None:
    try:
        with service(url) as (system, name):
            return system.cat_file(name)
    except FileNotFoundError:
        return None


def _remove(url: str, token: str) -> None:
    """Remove an object, unless it is another one by now."""
    try:
        if _token(_read(url)) == token:
            with service(url) as (system, name):
                system.rm_file(name)
    except FileNotFoundError:
        return


def _text(holder: str, token: str, number: int) -> bytes:
    return json.dumps({"holder": holder, "token": token, "renewed": number}).encode()


def _token(text: bytes | None) -> str:
    return json.loads(text)["token"] if text else ""

"""Decode in another process, so that a recording that crashes its decoder costs one utterance.

A decoder in C may crash on a damaged file and take its process with it: nothing can be caught, and
the next run would die of the same file. So `probe`, `load_audio` and `stream_audio` are those of
`pipeline.audio`, called in a child that stays for the next call. If it dies, the call is made once
more in a new one, for a process may be ended for other reasons too; if that dies as well, the
recording cannot be read, and that is said as of any other. To send 30 s of audio costs a few
milliseconds.
"""

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.audio import AudioError, AudioInfo

MAX_CRASHES = 2
"""So many, and a recording is not read again."""

PATIENCE_SECONDS = 600.0
"""A decoder that says nothing for so long is taken for stuck."""

_MODULE = "pipeline.decoder_process"
_PACKAGES = str(Path(__file__).parents[1])


class CrashError(AudioError):
    """A recording ends every process that reads it, or is never read to its end."""

    def __init__(self, message: str, attempts: int) -> None:
        super().__init__(message)
        self.attempts = attempts


class _DiedError(Exception):
    """The child is gone."""


def probe(path: str | Path) -> AudioInfo:
    """Call `pipeline.audio.probe`.

    Raises:
        AudioError: as there, or the decoder crashed.
    """
    return _call("probe", str(path))


def load_audio(path: str | Path, *span: float | None, **options: Any) -> np.ndarray:
    """Call `pipeline.audio.load_audio`.

    Raises:
        AudioError: as there, or the decoder crashed.
    """
    return _call("load_audio", str(path), *span, **options)


def stream_audio(path: str | Path, *span: float | None, **options: Any) -> Iterator[np.ndarray]:
    """Call `pipeline.audio.stream_audio`; what was yielded before a crash is not taken back.

    Raises:
        AudioError: as there, or the decoder crashed.
    """
    try:
        with _child() as child:
            yield from child.answers("stream_audio", str(path), *span, **options)
    except _DiedError as died:
        raise _crash(path, 1, died) from None


def _call(name: str, path: str, *arguments: Any, **options: Any) -> Any:
    for crashes in range(1, MAX_CRASHES + 1):
        try:
            with _child() as child:
                (answer,) = child.answers(name, path, *arguments, **options)
                return answer
        except _DiedError as died:
            if crashes == MAX_CRASHES:
                raise _crash(path, crashes, died) from None
    raise AssertionError


def _crash(path: str | Path, crashes: int, died: _DiedError) -> CrashError:
    processes = "1 process" if crashes == 1 else f"{crashes} processes"
    return CrashError(f"{path}: {processes} ended while decoding it ({died})", crashes)


class _Child:
    """A process that decodes, and the socket to it."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        self.surroundings = _surroundings()
        search = os.pathsep.join(filter(None, [_PACKAGES, os.environ.get("PYTHONPATH", "")]))
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", _MODULE, str(theirs.fileno())],
            env={**os.environ, "PYTHONPATH": search},
            stdin=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
        )
        theirs.close()
        self._connection = Connection(ours.detach())
        self.at_rest = True

    def answers(self, name: str, *arguments: Any, **options: Any) -> Iterator[Any]:
        """Yield what a call returns.

        Raises:
            _DiedError: the process ended before it had answered.
            CrashError: it does not answer.
            Exception: what the call raised there.
        """
        self.at_rest = False
        with self._died_if_cut_off():
            self._connection.send((name, arguments, options))
        while (answer := self._receive(arguments[0])) is not None:
            if isinstance(answer, Exception):
                self.at_rest = True
                raise answer
            yield answer
        self.at_rest = True

    def _receive(self, path: str) -> Any:
        with self._died_if_cut_off():
            if not self._connection.poll(PATIENCE_SECONDS):
                silent = f"{path}: no answer for {PATIENCE_SECONDS:g} s while decoding it"
                raise CrashError(silent, 1)
            answer = self._connection.recv()
            if not isinstance(answer, int):
                return answer
            samples = np.empty(answer, np.float32)
            self._connection.recv_bytes_into(samples.data.cast("B"))
            return samples

    @contextmanager
    def _died_if_cut_off(self) -> Iterator[None]:
        """Around sending and receiving only: what a call raised over there may be an OSError."""
        try:
            yield
        except (EOFError, OSError):  # OSError: it ended in the middle of a message
            code = self._process.wait()
            raise _DiedError(
                f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
            ) from None

    @property
    def usable(self) -> bool:
        """Whether it is alive and would start in the same surroundings today."""
        return self._process.poll() is None and self.surroundings == _surroundings()

    def end(self) -> None:
        self._connection.close()
        self._process.kill()
        self._process.wait()


_idle: list[_Child] = []
"""The last one to be used comes first: it has long recordings open."""
_room = threading.BoundedSemaphore(os.cpu_count() or 1)


@contextmanager
def _child() -> Iterator[_Child]:
    """Take a child that is idle, or start one; a child inherits environment and folder."""
    with _room:
        child = _idle_child() or _Child()
        try:
            yield child
        finally:
            if child.at_rest:
                _idle.append(child)
            else:
                child.end()


def _idle_child() -> _Child | None:
    """Take the last child that was used and can still be; those that cannot are ended."""
    while True:
        try:
            child = _idle.pop()
        except IndexError:  # another thread may have taken the last one
            return None
        if child.usable:
            return child
        child.end()


def _surroundings() -> tuple[str, dict[str, str]]:
    return os.getcwd(), dict(os.environ)  # noqa: PTH109 - once for each clip


os.register_at_fork(after_in_child=_idle.clear)

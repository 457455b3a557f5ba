"""Remember which utterance is being read, so that one that kills the process is passed over.

A decoder in C may crash on a damaged file and take the process with it: nothing can be caught, and
the next run would die of the same file. So an utterance's id is written down for as long as it is
read. Whoever finds one there knows that a process ended over it; that happens by chance too, when a
machine is taken away, and therefore it takes two. An object store is too slow to be told of every
utterance, so the trail of an output there is kept on the machine that labels.
"""

import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from types import TracebackType

from pipeline.files import AnyPath

logger = logging.getLogger(__name__)

MAX_CRASHES = 2
"""So many, and an utterance is not read again."""

Reading = Callable[[str], AbstractContextManager[None]]
"""Called with an utterance's id; the context lasts as long as it is read."""


def unwatched(_: str) -> AbstractContextManager[None]:
    """Read without a trail."""
    return nullcontext()


class Trail:
    """The trail of one block; a context in which the block is labelled by one thread at a time.

    Its file goes when the context ends without an error.
    """

    def __init__(self, path: AnyPath) -> None:
        """Read what earlier processes left at `path`."""
        self._path = path if isinstance(path, Path) else _nearby(path)
        self._crashes = _read(self._path)
        self._handle = -1

    @property
    def poisonous(self) -> dict[str, int]:
        """The utterances that are not to be read again, and how many processes each has ended."""
        return {name: n for name, n in self._crashes.items() if n >= MAX_CRASHES}

    def __enter__(self) -> "Trail":
        """Open the file."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._handle = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
        self._note("")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the file, and remove it where nothing has to be remembered."""
        os.close(self._handle)
        if kind is None or not self._crashes:
            self.remove()

    def remove(self) -> None:
        """Forget everything."""
        self._path.unlink(missing_ok=True)

    @contextmanager
    def reading(self, utterance_id: str) -> Iterator[None]:
        """Have the id stand in the file; not flushed, as the machine itself does not crash."""
        self._note(utterance_id)
        try:
            yield
        finally:
            self._note("")

    def _note(self, utterance_id: str) -> None:
        """Write one line in one call, then cut off what a longer one left behind it."""
        said = {"reading": utterance_id, "crashes": self._crashes}
        line = json.dumps(said).encode() + b"\n"
        os.pwrite(self._handle, line, 0)
        os.ftruncate(self._handle, len(line))


def _nearby(url: AnyPath) -> Path:
    """Return where this machine keeps the trail of an output in an object store."""
    name = hashlib.sha256(str(url).encode()).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / "whisper-distillery" / f"{name}.trail"


def _read(path: Path) -> dict[str, int]:
    """Count how many processes ended while they read an utterance."""
    try:
        said = json.loads(path.read_bytes().partition(b"\n")[0])
    except FileNotFoundError:
        return {}
    except ValueError as error:
        logger.warning("%s is damaged and begun again: %s", path, error)
        return {}
    crashes: dict[str, int] = dict(said["crashes"])
    if name := said["reading"]:
        crashes[name] = crashes.get(name, 0) + 1
    return crashes

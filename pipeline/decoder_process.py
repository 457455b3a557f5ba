"""A process that decodes for another one: `pipeline.guard` starts it and says what is in it for it.

It reads calls of `pipeline.audio` from a socket and writes back what they return, until the socket
is closed, which is also how it notices that its parent has ended, however that ended.
"""

import signal
import sys
from collections.abc import Iterator
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from pipeline import audio


def serve(connection: Connection) -> None:
    """Answer calls one after the other until nobody is there any more."""
    while True:
        try:
            name, arguments, options = connection.recv()
            for block in _answers(name, arguments, options):
                if isinstance(block, np.ndarray):
                    connection.send(block.size)
                    connection.send_bytes(block.data.cast("B"))
                else:
                    connection.send(block)
        except (EOFError, OSError):
            return


def _answers(name: str, arguments: tuple[Any, ...], options: dict[str, Any]) -> Iterator[Any]:
    """Yield what a call returns, block by block, and None behind the last; or what it raised."""
    try:
        if name == "stream_audio":
            yield from audio.stream_audio(*arguments, **options)
        else:
            yield getattr(audio, name)(*arguments, **options)
    except Exception as error:  # the caller's to deal with
        yield error
    else:
        yield None


if __name__ == "__main__":
    # Ctrl-C, and the SIGTERM that a scheduler sends to all, are for the parent; we end after it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    serve(Connection(int(sys.argv[1])))

"""What a CTranslate2 folder says of its model that the library does not tell.

The library hides how many layers a model has, by which a student is known, and with it how long its
chunks should be. The names of the weights say it; they are read, the weights are passed over.
"""

import re
import struct
from collections.abc import Iterator
from pathlib import Path

_VERSION = 6
_LAYER = re.compile(r"(encoder|decoder)/layer_(\d+)/")


def num_layers(path: Path) -> tuple[int, int] | None:
    """Return the encoder and decoder layers of a `model.bin`; None of a version not known here."""
    most = {"encoder": 0, "decoder": 0}
    names = _names(path)
    if names is None:
        return None
    for name in names:
        if found := _LAYER.match(name):
            most[found[1]] = max(most[found[1]], int(found[2]) + 1)
    return most["encoder"], most["decoder"]


def _names(path: Path) -> list[str] | None:
    with path.open("rb") as file:

        def number(kind: str) -> int:
            return struct.unpack(f"<{kind}", file.read(struct.calcsize(kind)))[0]

        def text() -> str:
            return file.read(number("H")).rstrip(b"\0").decode()

        def names() -> Iterator[str]:
            for _ in range(number("I")):
                yield text()
                file.seek(4 * number("B") + 1, 1)  # the sizes, and the kind of number
                file.seek(number("I"), 1)

        if number("I") != _VERSION:
            return None
        _kind, _revision = text(), number("I")
        return list(names())

"""Where utterances come from. A kind of corpus is a module with one function `read`.

`read(corpus, position)` yields, in an order that never changes and without touching audio, the
entries of a corpus: an `Utterance`, or a `Failure` where an entry does not make one. Each comes
with its position, a short text that only its reader understands. Reading again from a position goes
straight there: that makes a block a reference, and keeps the last block of a corpus as cheap as its
first.
"""

from collections.abc import Callable, Iterator
from itertools import islice

from pipeline.config import CorpusConfig, CorpusKind
from pipeline.corpora import (
    embedded,
    folder,
    hub,
    kaldi,
    lhotse,
    manifest,
    parquet,
    stm,
    table,
    webdataset,
)
from pipeline.corpora.utterance import Entry, Utterance

__all__ = ["CorpusError", "Entry", "Utterance", "read", "scan"]

_READERS: dict[CorpusKind, Callable[[CorpusConfig, str], Iterator[tuple[str, Entry]]]]
_READERS = {
    "embedded": embedded.read,
    "folder": folder.read,
    "hub": hub.read,
    "kaldi": kaldi.read,
    "lhotse": lhotse.read,
    "manifest": manifest.read,
    "parquet": parquet.read,
    "stm": stm.read,
    "table": table.read,
    "webdataset": webdataset.read,
}


class CorpusError(RuntimeError):
    """A corpus is there but cannot be listed."""


def scan(corpus: CorpusConfig, position: str = "") -> Iterator[tuple[str, Entry]]:
    """Yield the entries of a corpus from a position on, each with its own position.

    Raises:
        FileNotFoundError: the corpus is not there.
        CorpusError: it is there, but may not be read, or the service did not answer.
        ValueError: it is not what its configuration says, for example it lacks a column.
    """
    try:
        yield from _READERS[corpus.kind](corpus, position)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise CorpusError(f"corpus {corpus.name!r}, split {corpus.split!r}: {error}") from error


def read(corpus: CorpusConfig, position: str = "", count: int | None = None) -> Iterator[Entry]:
    """Yield `count` entries of a corpus from a position on, or all of them; raises as `scan`."""
    return (entry for _, entry in islice(scan(corpus, position), count))

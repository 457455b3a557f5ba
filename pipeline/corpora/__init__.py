"""Where utterances come from. A kind of corpus is a module with one function `read`.

`read(corpus, start, stop)` yields, in an order that never changes, an `Utterance` or a `Failure`
for each entry, without touching audio. The slice is what makes a block a reference: a worker reads
its own part of the listing again instead of being sent it.
"""

from collections.abc import Callable, Iterator

from pipeline.config import CorpusConfig, CorpusKind
from pipeline.corpora import embedded, manifest
from pipeline.corpora.utterance import Utterance
from pipeline.ledger import Failure

__all__ = ["Utterance", "read"]

_READERS: dict[CorpusKind, Callable[[CorpusConfig, int, int | None], Iterator[Utterance | Failure]]]
_READERS = {"manifest": manifest.read, "embedded": embedded.read}


def read(
    corpus: CorpusConfig, start: int = 0, stop: int | None = None
) -> Iterator[Utterance | Failure]:
    """Yield the entries `start` to `stop` of a corpus, in its own order."""
    return _READERS[corpus.kind](corpus, start, stop)

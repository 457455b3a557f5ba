"""The corpus that ships with the package: an ordinary manifest per split, beside its recordings."""

import dataclasses
from collections.abc import Iterator

from pipeline.config import CorpusConfig
from pipeline.corpora import manifest
from pipeline.corpora.utterance import Utterance
from pipeline.ledger import Failure
from pipeline.schema import EMBEDDED_FOLDER

SPLITS = ("train", "validation", "test")


def read(
    corpus: CorpusConfig, start: int = 0, stop: int | None = None
) -> Iterator[Utterance | Failure]:
    """Yield the utterances `start` to `stop` of a split.

    Raises:
        ValueError: the embedded corpus has no such split.
    """
    if corpus.split not in SPLITS:
        raise ValueError(
            f"the embedded corpus has no split {corpus.split!r}; choose from {', '.join(SPLITS)}"
        )
    path = EMBEDDED_FOLDER / f"{corpus.split}.jsonl"
    yield from manifest.read(dataclasses.replace(corpus, path=str(path)), start, stop)

"""The corpus that ships with the package: an ordinary manifest per split, beside its recordings."""

import dataclasses
from collections.abc import Iterator

from pipeline.config import CorpusConfig
from pipeline.corpora import manifest
from pipeline.corpora.utterance import Entry
from pipeline.schema import EMBEDDED_FOLDER

SPLITS = ("train", "validation", "test")


def read(corpus: CorpusConfig, position: str = "") -> Iterator[tuple[str, Entry]]:
    """Yield the utterances of a split.

    Raises:
        ValueError: the embedded corpus has no such split.
    """
    if corpus.split not in SPLITS:
        raise ValueError(
            f"the embedded corpus has no split {corpus.split!r}; choose from {', '.join(SPLITS)}"
        )
    path = EMBEDDED_FOLDER / f"{corpus.split}.jsonl"
    yield from manifest.read(dataclasses.replace(corpus, path=str(path)), position)

"""What the tests of all kinds of corpora share."""

from pathlib import Path
from typing import Any

from pipeline import corpora
from pipeline.config import CorpusConfig
from pipeline.corpora import Entry, Utterance


def configured(kind: Any, path: Path | str, **fields: Any) -> CorpusConfig:
    """Return the configuration of a corpus."""
    fields = {"name": "mine", "licence": "cc0-1.0", **fields}
    return CorpusConfig(kind=kind, path=str(path), **fields)


def read_all(config: CorpusConfig) -> list[Utterance]:
    """Read a corpus that has no bad entries."""
    found = list(corpora.read(config))
    assert all(isinstance(entry, Utterance) for entry in found), found
    return [entry for entry in found if isinstance(entry, Utterance)]


def check_positions(config: CorpusConfig) -> list[Entry]:
    """Read a corpus from every position, find what stands there, and return all of it."""
    whole = list(corpora.scan(config))
    assert list(corpora.scan(config)) == whole
    assert len({position for position, _ in whole}) == len(whole)
    for index, (position, _) in enumerate(whole):
        assert list(corpora.scan(config, position)) == whole[index:], position
    return [entry for _, entry in whole]

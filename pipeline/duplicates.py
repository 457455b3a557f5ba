"""The same speech twice: within a run, and between a run and the sets it is evaluated on."""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.languages import CHARACTER_LANGUAGES, language_code
from pipeline.normalizing import normalize
from pipeline.schema import Sample
from pipeline.shards import read_shard

RowKey = tuple[str, str, str]
"""Corpus, split and id: what tells rows apart."""

_MIN_WHOLE = 4  # words; a shorter sentence is said by everybody


def row_key(row: Sample) -> RowKey:
    """Return what tells a row from all others."""
    return row.corpus, row.split, row.id


def find_duplicates(rows: Iterable[Sample]) -> dict[RowKey, RowKey]:
    """Return for each row that repeats an earlier one which that is.

    Rows are the same where the hash of their decoded audio and their normalised label are; a row
    without a hash is never a duplicate. The order of the rows decides which one is kept, so give
    them in the order of the plan. Rows of different splits are compared too: what is in an
    evaluation split must not be in training, so give evaluation splits first.
    """
    first: dict[tuple[str, str], RowKey] = {}
    repeats: dict[RowKey, RowKey] = {}
    for row in rows:
        audio = "".join(utterance.audio_sha256 for utterance in row.utterances)
        if not audio:
            continue
        key = row_key(row)
        original = first.setdefault((audio, normalize(row.pseudo_label, row.language)), key)
        if original != key:
            repeats[key] = original
    return repeats


@dataclass(frozen=True)
class Contamination:
    """Which runs of words occur in evaluation sets; holds hashes only."""

    length: int
    """Words in a run; characters are taken twice as many."""
    runs: frozenset[bytes]

    def overlaps(self, text: str, language: str) -> bool:
        """Tell whether a text shares a run, or is a short text of the set as a whole."""
        return not self.runs.isdisjoint(_runs(text, language, self.length))


def read_evaluation_sets(
    paths: Sequence[str], length: int, language_of: Callable[[str], str] = lambda _: "en"
) -> Contamination:
    """Read the texts of evaluation sets: shards, JSONL manifests, or plain text of one line each.

    `language_of` names the language of a plain text file by its path.

    Raises:
        FileNotFoundError: a file does not exist.
        ValueError: a file is none of the three; the message says which and what is expected.
    """
    runs: set[bytes] = set()
    for path in paths:
        for text, language in _texts(Path(path), language_of):
            runs.update(_runs(text, language, length))
    return Contamination(length, frozenset(runs))


def _runs(text: str, language: str, length: int) -> Iterator[bytes]:
    """Yield a hash of each run of words; of the whole text where it is shorter than a run."""
    units: Sequence[str] = normalize(text, language).split()
    if language_code(language) in CHARACTER_LANGUAGES:
        units, length = "".join(units), 2 * length
    if len(units) < length:
        if len(units) >= _MIN_WHOLE:
            yield _hash("^", units)
        return
    for start in range(len(units) - length + 1):
        yield _hash("", units[start : start + length])


def _hash(mark: str, units: Sequence[str]) -> bytes:
    return hashlib.blake2b((mark + " ".join(units)).encode(), digest_size=8).digest()


def _texts(path: Path, language_of: Callable[[str], str]) -> Iterator[tuple[str, str]]:
    """Yield texts with their languages."""
    if not path.exists():
        raise FileNotFoundError(f"evaluation set {path} does not exist")
    if path.is_dir() or path.suffix == ".tar":
        shards = sorted(path.glob("shards/*.tar")) or sorted(path.glob("*.tar"))
        for shard in shards if path.is_dir() else [path]:
            for sample, _ in read_shard(shard):
                yield sample.reference or sample.pseudo_label, sample.language
        return
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            if path.suffix != ".jsonl":
                yield line, language_of(str(path))
                continue
            try:
                entry = json.loads(line)
                yield entry["text"], entry.get("lang", "en")
            except (ValueError, KeyError, TypeError) as error:
                raise ValueError(
                    f"evaluation set {path}, line {number} is not a manifest line with a `text` "
                    f"({error!r}); give shards, JSONL manifests, or plain text"
                ) from error

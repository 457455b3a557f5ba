"""The same speech twice: within a run, and between a run and the sets it is evaluated on."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
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


class Contamination:
    """Which runs of words occur in evaluation sets.

    Texts of a known language are kept as hashes only. The others are kept as they are and hashed by
    the rules of each language that a label has: plain text does not say which rules are its own.
    """

    def __init__(self, length: int, texts: Iterable[tuple[str, str | None]]) -> None:
        """Take texts with their languages; None where it is not known.

        `length` is of a run in words; characters are taken twice as many.
        """
        self._length = length
        self._runs: set[bytes] = set()
        self._unknown: list[str] = []
        self._unknown_runs: dict[str, frozenset[bytes]] = {}
        for text, language in texts:
            if language is None:
                self._unknown.append(text)
            else:
                self._runs.update(_runs(text, language, length))

    def overlaps(self, text: str, language: str) -> bool:
        """Tell whether a text shares a run, or is a short text of the set as a whole."""
        runs = set(_runs(text, language, self._length))
        return not (self._runs.isdisjoint(runs) and self._runs_in(language).isdisjoint(runs))

    def _runs_in(self, language: str) -> frozenset[bytes]:
        """Return the runs of the texts without a language, read in this one."""
        code = language_code(language)
        if code not in self._unknown_runs:
            self._unknown_runs[code] = frozenset(
                run for text in self._unknown for run in _runs(text, code, self._length)
            )
        return self._unknown_runs[code]


def read_evaluation_sets(paths: Sequence[str], length: int) -> Contamination:
    """Read the texts of evaluation sets: shards, JSONL manifests, or plain text of one line each.

    Lines of a manifest may name their language as `lang`.

    Raises:
        FileNotFoundError: a file does not exist.
        ValueError: a file is none of the three; the message says which and what is expected.
    """
    return Contamination(length, (entry for path in paths for entry in _texts(Path(path))))


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
    return hashlib.blake2b(
        (mark + " ".join(units)).encode("utf-8", "surrogatepass"), digest_size=8
    ).digest()


def _texts(path: Path) -> Iterator[tuple[str, str | None]]:
    """Yield texts with their languages, None where nothing says it."""
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
                yield line, None
                continue
            try:
                entry = json.loads(line)
                text, language = entry["text"], entry.get("lang")
                if not isinstance(text, str):
                    raise TypeError(f"`text` is {text!r}")
                yield text, None if language is None else language_code(language)
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise ValueError(
                    f"evaluation set {path}, line {number} is not a manifest line with a `text` "
                    f"({error!r}); give shards, JSONL manifests, or plain text"
                ) from error

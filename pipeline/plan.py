"""Cut the corpora into blocks, the same way every time.

A block is a contiguous slice of one corpus, sized in minutes of audio; it is the unit of work, of
retry and of resume. Its fingerprint covers what the corpus says of each utterance and the size of
each audio file, so a block is done again when its input changed, and only then. Two keys name what
the blocks are turned into: `label_key` for all that decides a label, `shard_key` for all that
decides which labels are kept.
"""

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from pipeline import corpora
from pipeline.audio import AudioError, probe
from pipeline.config import CorpusConfig, PipelineConfig
from pipeline.corpora import Utterance
from pipeline.ledger import Failure
from pipeline.schema import SCHEMA_VERSION


@dataclass(frozen=True, kw_only=True)
class Block:
    """A reference to a slice of a corpus; this, and never audio, travels between workers."""

    id: str
    corpus: str
    split: str
    start: int
    """First entry of the corpus that belongs to the block."""
    stop: int
    """The entry after its last one."""
    duplicates: tuple[int, ...]
    """Entries whose id an earlier entry of the corpus has."""
    duration_seconds: float
    """Audio of all utterances whose length is known."""
    fingerprint: str

    @property
    def num_utterances(self) -> int:
        """Planned utterances; each ends as kept, rejected or failed."""
        return self.stop - self.start


@dataclass(frozen=True, kw_only=True)
class PlannedCorpus:
    """What the plan says of one split of one corpus."""

    name: str
    split: str
    language: str
    licence: str
    num_utterances: int
    duration_seconds: float


@dataclass(frozen=True, kw_only=True)
class Keys:
    """What a file is made by, next to the audio; a file with other keys is out of date."""

    teacher_revision: str
    label_key: str
    """Of teacher, decoding and clips."""
    shard_key: str
    """Of all that and the filter."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """`plan.json`: everything a run will do, decided before it does any of it."""

    keys: Keys
    corpora: tuple[PlannedCorpus, ...]
    blocks: tuple[Block, ...]

    @property
    def num_utterances(self) -> int:
        """All planned utterances."""
        return sum(block.num_utterances for block in self.blocks)

    @property
    def duration_seconds(self) -> float:
        """All planned audio."""
        return sum(block.duration_seconds for block in self.blocks)


class CorpusChangedError(RuntimeError):
    """A corpus is no longer what it was when the run was planned."""


def make_plan(config: PipelineConfig, teacher_revision: str) -> Plan:
    """List the corpora and cut them into blocks.

    Raises:
        FileNotFoundError: a corpus does not exist.
        ValueError: a corpus is empty.
    """
    by_corpus = [list(_blocks(corpus, config.blocks.minutes * 60)) for corpus in config.corpora]
    planned = [
        PlannedCorpus(
            name=corpus.name,
            split=corpus.split,
            language=corpus.language,
            licence=corpus.licence,
            num_utterances=sum(b.num_utterances for b in blocks),
            duration_seconds=sum(b.duration_seconds for b in blocks),
        )
        for corpus, blocks in zip(config.corpora, by_corpus, strict=True)
    ]
    for corpus in planned:
        if not corpus.num_utterances:
            raise ValueError(f"corpus {corpus.name!r}, split {corpus.split!r}, has no utterances")
    return Plan(
        keys=make_keys(config, teacher_revision),
        corpora=tuple(planned),
        blocks=tuple(chain.from_iterable(by_corpus)),
    )


def entries(block: Block, corpus: CorpusConfig) -> list[Utterance | Failure]:
    """Read a block's slice of its corpus again; repeated ids come back as failures.

    Raises:
        CorpusChangedError: the slice is not what was planned.
    """
    found = list(corpora.read(corpus, block.start, block.stop))
    if _fingerprint(found) != block.fingerprint:
        raise CorpusChangedError(
            f"corpus {corpus.name!r}, split {corpus.split!r}, changed while the run was at work "
            f"(block {block.id}). Start the run again: what is already labelled is kept."
        )
    repeated = set(block.duplicates)
    return [
        _duplicate(entry) if position in repeated and isinstance(entry, Utterance) else entry
        for position, entry in enumerate(found, start=block.start)
    ]


def _blocks(corpus: CorpusConfig, max_seconds: float) -> Iterator[Block]:
    """Cut one corpus greedily, in its own order; what is longer than a block gets its own."""
    seen: set[str] = set()
    held: list[Utterance | Failure] = []
    duplicates: list[int] = []
    start, number, seconds = 0, 0, 0.0

    def block() -> Block:
        return Block(
            id=f"{corpus.name}-{corpus.split}-{number:05d}",
            corpus=corpus.name,
            split=corpus.split,
            start=start,
            stop=start + len(held),
            duplicates=tuple(duplicates),
            duration_seconds=round(seconds, 3),
            fingerprint=_fingerprint(held),
        )

    for position, entry in enumerate(corpora.read(corpus)):
        added = duration_seconds(entry) if isinstance(entry, Utterance) else 0.0
        if held and seconds + added > max_seconds:
            yield block()
            held, duplicates = [], []
            start, number, seconds = position, number + 1, 0.0
        if isinstance(entry, Utterance):
            if entry.id in seen:
                duplicates.append(position)
            seen.add(entry.id)
        held.append(entry)
        seconds += added
    if held:
        yield block()


def duration_seconds(utterance: Utterance) -> float:
    """Return an utterance's length, measured where the corpus does not say; 0 if it is unreadable.

    Unreadable audio is found again, and then recorded, when the block is worked on.
    """
    if utterance.duration_seconds is not None:
        return utterance.duration_seconds
    try:
        return max(probe(utterance.path).duration_seconds - utterance.start_seconds, 0.0)
    except AudioError:
        return 0.0


def _duplicate(utterance: Utterance) -> Failure:
    """Say that an id was used before."""
    return Failure(
        id=utterance.id,
        utterance_ids=(utterance.id,),
        duration_seconds=utterance.duration_seconds or 0.0,
        stage="plan",
        error="duplicate_id",
        message=f"an earlier utterance of {utterance.corpus}-{utterance.split} has the same id; "
        "the earlier one is used",
        attempts=1,
    )


def _fingerprint(found: Iterable[Utterance | Failure]) -> str:
    """Hash what a slice of a corpus says and how large its audio files are.

    Where the files lie does not count, so a corpus may move to another folder or machine.
    """
    digest, sizes = hashlib.sha256(), {}
    for entry in found:
        fields = dataclasses.asdict(entry)
        if isinstance(entry, Utterance):
            path = fields.pop("path")
            if path not in sizes:
                sizes[path] = Path(path).stat().st_size if Path(path).is_file() else None
            fields["size_bytes"] = sizes[path]
        else:
            fields.pop("message")
        digest.update(_canonical(fields))
    return digest.hexdigest()


def make_keys(config: PipelineConfig, teacher_revision: str) -> Keys:
    """Name what decides labels and shards; device, batch size and threads only decide the speed."""
    label_key = _key(
        {
            "schema_version": SCHEMA_VERSION,
            "model": config.teacher.model,
            "revision": teacher_revision,
            "engine": config.teacher.engine,
            "dtype": config.teacher.dtype,
            "window": config.teacher.window,
            "decoding": dataclasses.asdict(config.decoding),
            "clips": dataclasses.asdict(config.clips),
        }
    )
    shard_key = _key({"label_key": label_key, "filter": dataclasses.asdict(config.filter)})
    return Keys(teacher_revision=teacher_revision, label_key=label_key, shard_key=shard_key)


def _key(value: Any) -> str:
    return hashlib.sha256(_canonical(value)).hexdigest()[:16]


def _canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, ensure_ascii=False).encode() + b"\n"

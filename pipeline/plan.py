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
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from pipeline import corpora, storage
from pipeline.audio import AudioError
from pipeline.config import CorpusConfig, PipelineConfig
from pipeline.context import named_files, needs_ledger
from pipeline.corpora import Entry, Utterance
from pipeline.corpora.inventory import Inventory
from pipeline.corpora.utterance import RULE_STAGE
from pipeline.guard import probe
from pipeline.ledger import Failure
from pipeline.schema import SCHEMA_VERSION

_PROBES = 8


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
    position: str = ""
    """Where the corpus's reader finds the first entry."""
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
    """As configured; an utterance may have another."""
    licence: str
    """All that its utterances have, separated by commas."""
    num_utterances: int
    duration_seconds: float
    num_blocks: int = 0
    languages: tuple[str, ...] = ()
    """All that its utterances have, those aside that are not labelled for their licence."""
    problems: dict[str, int] = field(default_factory=dict)
    """What is wrong with some entries, found without reading audio: how many have it, by error."""


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
        CorpusError: a corpus cannot be listed.
        ValueError: a corpus is empty, or is not what its configuration says.
    """
    planned: list[PlannedCorpus] = []
    blocks: list[Block] = []
    for corpus in config.corpora:
        seen = Inventory()
        cut = list(_blocks(corpus, config, seen))
        seen.check(corpus)
        planned.append(
            PlannedCorpus(
                name=corpus.name,
                split=corpus.split,
                language=corpus.language,
                licence=", ".join(sorted(seen.licences)) or corpus.licence,
                num_utterances=sum(b.num_utterances for b in cut),
                duration_seconds=sum(b.duration_seconds for b in cut),
                num_blocks=len(cut),
                languages=tuple(sorted(seen.languages)),
                problems=dict(sorted(seen.problems.items())),
            )
        )
        blocks += cut
    return Plan(
        keys=make_keys(config, teacher_revision, blocks),
        corpora=tuple(planned),
        blocks=tuple(blocks),
    )


def entries(block: Block, config: PipelineConfig) -> list[Entry]:
    """Read a block's slice of its corpus again, as far as it may be used.

    Repeated ids come back as failures, and what has a licence that is not allowed as rejections.

    Raises:
        CorpusChangedError: the slice is not what was planned.
    """
    corpus = config.corpus(block.corpus, block.split)
    found = list(corpora.read(corpus, block.position, block.num_utterances))
    allowed = [_allowed(entry, config.licences) for entry in found]
    if _fingerprint(allowed) != block.fingerprint:
        raise CorpusChangedError(
            f"corpus {corpus.name!r}, split {corpus.split!r}, changed while the run was at work "
            f"(block {block.id}). Start the run again: what is already labelled is kept."
        )
    for number in block.duplicates:  # whatever a rule would say of it: its id is taken
        place = number - block.start
        allowed[place] = _duplicate(found[place], corpus)
    return allowed


def _blocks(corpus: CorpusConfig, config: PipelineConfig, seen: Inventory) -> Iterator[Block]:
    """Cut one corpus greedily, in its own order; what is longer than a block gets its own."""
    max_seconds = config.blocks.minutes * 60
    held: list[Entry] = []
    duplicates: list[int] = []
    first, start, count, seconds = "", 0, 0, 0.0

    def block() -> Block:
        return Block(
            id=f"{corpus.name}-{corpus.split}-{count:05d}",
            corpus=corpus.name,
            split=corpus.split,
            start=start,
            stop=start + len(held),
            position=first,
            duplicates=tuple(duplicates),
            duration_seconds=round(seconds, 3),
            fingerprint=_fingerprint(held),
        )

    for number, (position, entry, added) in enumerate(_measured(corpora.scan(corpus))):
        if held and seconds + added > max_seconds:
            yield block()
            held, duplicates = [], []
            start, count, seconds = number, count + 1, 0.0
        if not held:
            first = position
        allowed = _allowed(entry, config.licences)
        if seen.note(entry, added, allowed=allowed is entry):
            duplicates.append(number)
        held.append(allowed)
        seconds += added
    if held:
        yield block()


def _measured(found: Iterator[tuple[str, Entry]]) -> Iterator[tuple[str, Entry, float]]:
    """Add how long each entry is; recordings of unknown length are measured several at a time."""
    with ThreadPoolExecutor(_PROBES) as pool:
        while several := list(islice(found, _PROBES * 32)):
            unknown = [e for _, e in several if isinstance(e, Utterance) and not e.says_length]
            measured = iter(pool.map(duration_seconds, unknown))
            for position, entry in several:
                if not isinstance(entry, Utterance):
                    yield position, entry, 0.0
                elif entry.says_length:
                    yield position, entry, duration_seconds(entry)
                else:
                    yield position, entry, next(measured)


def duration_seconds(utterance: Utterance) -> float:
    """Return an utterance's length, measured where the corpus does not say; 0 if it is unreadable.

    Unreadable audio is found again, and then recorded, when the block is worked on.
    """
    if utterance.duration_seconds is not None:
        return utterance.duration_seconds
    if utterance.estimated_seconds is not None:
        return utterance.estimated_seconds
    try:
        return max(probe(utterance.path).duration_seconds - utterance.start_seconds, 0.0)
    except AudioError:
        return 0.0


def _allowed(entry: Entry, licences: Sequence[str] | None) -> Entry:
    """Reject an utterance whose licence is not in the list."""
    if licences is None or not isinstance(entry, Utterance):
        return entry
    if entry.licence.lower() in (licence.lower() for licence in licences):
        return entry
    return Failure(
        id=entry.id,
        utterance_ids=(entry.id,),
        duration_seconds=entry.duration_seconds or 0.0,
        stage=RULE_STAGE,
        error="licence",
        message=f"its licence is {entry.licence}; `licences` allows {', '.join(licences)}",
        attempts=1,
    )


def _duplicate(entry: Entry, corpus: CorpusConfig) -> Failure:
    """Say that an id was used before."""
    return Failure(
        id=entry.id,
        utterance_ids=(entry.id,),
        duration_seconds=entry.duration_seconds or 0.0,
        stage="plan",
        error="duplicate_id",
        message=f"an earlier utterance of {corpus.name}-{corpus.split} has the same id; "
        "the earlier one counts",
        attempts=1,
    )


def _fingerprint(found: Sequence[Entry]) -> str:
    """Hash what a slice of a corpus says and how large its audio files are.

    Where the files lie does not count, so a corpus may move to another folder or machine.
    """
    files = {
        e.path: storage.container(e.path)
        for e in found
        if isinstance(e, Utterance) and storage.member_size(e.path) is None
    }
    sizes = storage.size_bytes(files.values())
    digest = hashlib.sha256()
    for entry in found:
        if isinstance(entry, Utterance):
            member = storage.member_size(entry.path)
            size = sizes[files[entry.path]] if member is None else member
            values = [getattr(entry, name) for name in _DESCRIBED]
        else:
            size = None
            values = [entry.id, entry.duration_seconds, entry.stage, entry.error]
        line = json.dumps([*values, size], ensure_ascii=False)
        digest.update(line.encode("utf-8", "surrogatepass") + b"\n")
    return digest.hexdigest()


_DESCRIBED = tuple(
    f.name for f in dataclasses.fields(Utterance) if f.name not in ("path", "estimated_seconds")
)


def make_keys(config: PipelineConfig, teacher_revision: str, blocks: Sequence[Block] = ()) -> Keys:
    """Name what decides labels and shards; device, batch size and threads only decide the speed.

    Where the filter compares clips of different blocks, all blocks decide each shard; the files
    that it reads decide with their content.
    """
    label_key = _key(
        {
            "schema_version": SCHEMA_VERSION,
            "model": config.teacher.model,
            "revision": teacher_revision,
            "engine": config.teacher.engine,
            "dtype": config.teacher.dtype,
            "window": config.teacher.window,
            "decoding": dataclasses.asdict(config.decoding),
            "clips": dataclasses.asdict(config.clips.for_labels()),
        }
    )
    shard_key = _key(
        {
            "label_key": label_key,
            "clips": dataclasses.asdict(config.clips),
            "filter": dataclasses.asdict(config.filter),
            "files": [_file_key(Path(name)) for name in named_files(config.filter)],
            "blocks": [b.fingerprint for b in blocks] if needs_ledger(config.filter) else [],
        }
    )
    return Keys(teacher_revision=teacher_revision, label_key=label_key, shard_key=shard_key)


def _file_key(path: Path) -> str:
    """Hash a file, or what a folder's index says of its shards; "" for what is not there."""
    if path.is_dir():
        path = path / "index.json"
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""


def _key(value: Any) -> str:
    return hashlib.sha256(_canonical(value)).hexdigest()[:16]


def _canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, ensure_ascii=False).encode() + b"\n"

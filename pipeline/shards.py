"""Shards: the kept clips of a block as one WebDataset tar, and the record that commits the block.

A shard is written under a temporary name, read back by its hash, and only then renamed; its record
follows last and readers trust nothing else. Members are sorted and carry no clock and no owner, so
a rebuild of the same block is the same file byte for byte.
"""

import hashlib
import math
import os
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
from webdataset.tariterators import group_by_keys, tar_file_expander
from webdataset.writer import TarWriter

from pipeline.audio import encode_flac
from pipeline.files import AnyPath, path_of, remembered, replacing, write_text
from pipeline.schema import (
    MAX_CLIP_SAMPLES,
    SAMPLE_RATE,
    Sample,
    ShardEntry,
    from_json,
    sample_key,
    to_json,
)

_END_OF_TAR = 1024  # a tar ends with two blocks of 512 zero bytes


@dataclass(frozen=True, kw_only=True)
class CommitRecord:
    """`<block>.json`: how every utterance of a block ended. Where it stands, the block is done.

    Fingerprint and keys say what the shard was made from; a record that differs in one of them is
    of an older run, and the shard is built again.
    """

    block: str
    fingerprint: str
    """Of the block's utterances and their audio files."""
    label_key: str
    shard_key: str
    shard: ShardEntry | None
    """None where no clip was kept."""
    kept: int
    """Utterances, like all counts here."""
    rejected: dict[str, int]
    """By reason."""
    failed: dict[str, int]
    """By stage."""
    kept_seconds: float

    @property
    def planned(self) -> int:
        """How many utterances of the plan this block accounts for."""
        return self.kept + sum(self.rejected.values()) + sum(self.failed.values())


def write_shard(path: str | AnyPath, samples: Iterable[tuple[Sample, np.ndarray]]) -> ShardEntry:
    """Write clips and their audio (float32 mono at 16 kHz) as `<block>.tar`; return its entry.

    The order of the clips does not matter. Audio is encoded as it comes, so only the FLAC of a
    block is held in memory.

    Raises:
        ValueError: there are no clips, two share a key, they are of different corpora or splits,
            one is longer than 30 s or not as long as its `duration_seconds` says, or a number in a
            sample is not finite.
    """
    path = path_of(path)
    members: dict[str, tuple[bytes, bytes]] = {}
    sources: set[tuple[str, str]] = set()
    durations: list[float] = []
    for sample, audio in samples:
        key = sample_key(sample.id)
        if key in members:
            raise ValueError(f"{path.name}: two clips have the key {key!r} (id {sample.id!r})")
        _check_length(sample, audio)
        members[key] = encode_flac(audio), to_json(sample).encode()
        sources.add((sample.corpus, sample.split))
        durations.append(sample.duration_seconds)
    if len(sources) != 1:
        raise ValueError(
            f"{path.name}: a shard holds clips of one corpus and split, got {sorted(sources)}"
        )
    corpus, split = sources.pop()
    with replacing(path) as temporary:
        sha256 = _write_members(temporary, members)
        if file_sha256(temporary) != sha256:
            raise OSError(f"{path}: what is read back is not what was written; check the disk")
        return ShardEntry(
            name=path.name,
            corpus=corpus,
            split=split,
            num_samples=len(members),
            duration_seconds=round(math.fsum(durations), 4),
            size_bytes=temporary.stat().st_size,
            sha256=sha256,
        )


def read_shard(path: str | AnyPath) -> Iterator[tuple[Sample, bytes]]:
    """Yield the clips of a shard in its order, each with its FLAC; `decode_flac` reads that.

    Raises:
        FileNotFoundError: there is no such shard.
        ValueError: the shard is cut off or damaged, or a clip lacks its audio, its JSON or a field.
    """
    with path_of(path).open("rb") as stream:
        try:
            _check_end(stream)
            members = tar_file_expander([{"url": str(path), "stream": stream}])
            for group in group_by_keys(members):
                missing = [name for name in ("flac", "json") if name not in group]
                if missing:
                    raise ValueError(f"{path}: clip {group['__key__']} has no .{missing[0]} member")
                yield from_json(Sample, group["json"]), group["flac"]
        except tarfile.TarError as error:
            raise ValueError(
                f"{path} is damaged ({error}); delete it and its .json, then run the pipeline again"
            ) from error


def write_record(path: str | AnyPath, record: CommitRecord) -> None:
    """Commit a block: from here on its shard counts."""
    write_text(path, to_json(record) + "\n")


def read_record(path: str | AnyPath) -> CommitRecord | None:
    """Read a block's commit record, or None where the block is not committed.

    Raises:
        ValueError: the record is damaged, or of a release with other fields.
    """
    path = path_of(path)
    try:
        return _record(path)
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise ValueError(
            f"{path} is no commit record of this release ({error}); "
            "delete it, then run the pipeline again"
        ) from error


@remembered
def _record(path: AnyPath) -> CommitRecord:
    return from_json(CommitRecord, path.read_bytes())


def file_sha256(path: str | AnyPath) -> str:
    """Return the hash of a file's content, as `index.json` lists it."""
    with path_of(path).open("rb") as file:
        return hashlib.file_digest(cast(Any, file), "sha256").hexdigest()


def _check_end(stream: BinaryIO) -> None:
    """Refuse a tar without its end mark: cut off between two members it would look complete."""
    size = stream.seek(0, os.SEEK_END)
    stream.seek(-min(size, _END_OF_TAR), os.SEEK_END)
    if stream.read() != bytes(_END_OF_TAR):
        raise tarfile.ReadError("its end is missing")
    stream.seek(0)


def _check_length(sample: Sample, audio: np.ndarray) -> None:
    if audio.size > MAX_CLIP_SAMPLES:
        raise ValueError(
            f"clip {sample.id!r} has {audio.size} samples; "
            f"a clip has at most {MAX_CLIP_SAMPLES} ({MAX_CLIP_SAMPLES / SAMPLE_RATE} s)"
        )
    if abs(audio.size / SAMPLE_RATE - sample.duration_seconds) > 0.001:
        raise ValueError(
            f"clip {sample.id!r} says {sample.duration_seconds} s, "
            f"but its audio is {audio.size / SAMPLE_RATE:.4f} s long"
        )


class _HashedFile:
    """A file that is written from beginning to end, and the hash of what it was given."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.sha256 = hashlib.sha256()

    def write(self, data: bytes) -> int:
        self.sha256.update(data)
        return self._file.write(data)


def _write_members(path: Path, members: dict[str, tuple[bytes, bytes]]) -> str:
    """Write a tar that depends on nothing but the members; return the hash of what was given."""
    with path.open("wb") as file:
        stream = _HashedFile(file)
        with TarWriter(cast(BinaryIO, stream), encoder=False, mtime=0, user="", group="") as tar:
            for key in sorted(members):
                flac, text = members[key]
                tar.write({"__key__": key, "flac": flac, "json": text})
    return stream.sha256.hexdigest()

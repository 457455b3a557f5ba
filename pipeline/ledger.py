"""The ledger: what the teacher said of every clip of a block, kept or not, and what failed.

It holds facts and no decisions, so a new threshold, a sweep or a report never needs the teacher
again. A row is a `Sample`. One Parquet part per block, with the block's fingerprint and whatever
else the writer wants to know later in the file's metadata. The failures of a block are written
first, the part last: where the part stands, both are complete.
"""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.files import AnyPath, path_of, readable, remembered, replacing, tail, write_text
from pipeline.schema import Sample, from_dict, from_json, to_json

LedgerRow = Sample

T = TypeVar("T")

PACKED = b"packed"
"""In a part's metadata where a clip holds several utterances."""

_ARROW_SCHEMA = "ARROW:schema"
_CONTENT = "content_sha256"
"""Parquet's checksums leave out the heads of pages and the footer, so a part has one of its own."""

_FOOTER_BYTES = 2**16
"""At least what the end of a part is read of; most have their metadata in it."""

_UTTERANCE = pa.struct(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("start", pa.float64(), nullable=False),
        pa.field("duration", pa.float64(), nullable=False),
        pa.field("reference", pa.string(), nullable=False),
        pa.field("recording", pa.string(), nullable=False),
        pa.field("recording_start_seconds", pa.float64(), nullable=False),
        pa.field("pseudo_label", pa.string(), nullable=False),
        pa.field("wer", pa.float64()),
        pa.field("cer", pa.float64()),
        pa.field("substitutions", pa.int64()),
        pa.field("deletions", pa.int64()),
        pa.field("insertions", pa.int64()),
        pa.field("audio_sha256", pa.string(), nullable=False),
    ]
)
_SEGMENT = pa.struct(
    [
        pa.field("start", pa.float64(), nullable=False),
        pa.field("end", pa.float64(), nullable=False),
        pa.field("text", pa.string(), nullable=False),
    ]
)
LEDGER_SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("corpus", pa.string(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("language", pa.string(), nullable=False),
        pa.field("language_probability", pa.float64(), nullable=False),
        pa.field("speaker", pa.string(), nullable=False),
        pa.field("licence", pa.string(), nullable=False),
        pa.field("recording", pa.string(), nullable=False),
        pa.field("start_seconds", pa.float64(), nullable=False),
        pa.field("duration_seconds", pa.float64(), nullable=False),
        pa.field("utterances", pa.list_(_UTTERANCE), nullable=False),
        pa.field("reference", pa.string(), nullable=False),
        pa.field("pseudo_label", pa.string(), nullable=False),
        pa.field("tokens", pa.list_(pa.int32()), nullable=False),
        pa.field("segments", pa.list_(_SEGMENT), nullable=False),
        pa.field("previous_pseudo_label", pa.string()),
        pa.field("wer", pa.float64()),
        pa.field("cer", pa.float64()),
        pa.field("metric", pa.string(), nullable=False),
        pa.field("substitutions", pa.int64()),
        pa.field("deletions", pa.int64()),
        pa.field("insertions", pa.int64()),
        pa.field("avg_logprob", pa.float64(), nullable=False),
        pa.field("no_speech_prob", pa.float64(), nullable=False),
        pa.field("compression_ratio", pa.float64(), nullable=False),
        pa.field("temperature", pa.float64(), nullable=False),
        pa.field("truncated", pa.bool_(), nullable=False),
        pa.field("teacher", pa.string(), nullable=False),
        pa.field("teacher_revision", pa.string(), nullable=False),
        pa.field("token_logprobs", pa.list_(pa.float64()), nullable=False),
        pa.field("normalizer", pa.string(), nullable=False),
        pa.field("orthographic_wer", pa.float64()),
    ]
)


@dataclass(frozen=True, kw_only=True)
class Failure:
    """What could not be processed, and why; enough to find it, mend it and replay it."""

    id: str
    """The clip, or the utterance where it failed before it became a clip."""
    utterance_ids: tuple[str, ...]
    duration_seconds: float
    """As planned; 0 where the audio could not even be measured."""
    stage: str
    """Where it failed: a verb such as "plan", "read" or "label"."""
    error: str
    """The exception's class, or a short reason such as "duplicate_id"."""
    message: str
    attempts: int


def write_ledger(path: str | AnyPath, rows: Sequence[LedgerRow], metadata: dict[str, str]) -> None:
    """Write a block's ledger part, in the order given; it may have no rows.

    The same rows and metadata give the same bytes.
    """
    table = pa.Table.from_pylist([dataclasses.asdict(row) for row in rows], schema=LEDGER_SCHEMA)
    if any(len(row.utterances) > 1 for row in rows):
        metadata = metadata | {PACKED.decode(): "true"}
    metadata = metadata | {_CONTENT: _digest(table, metadata)}
    table = table.replace_schema_metadata(dict(sorted(metadata.items())))
    with replacing(path) as temporary:
        pq.write_table(table, temporary, compression="zstd", write_page_checksum=True)


def read_ledger(path: str | AnyPath) -> tuple[list[LedgerRow], dict[str, str]]:
    """Read a block's ledger part: its rows in the order written, and its metadata.

    Raises:
        FileNotFoundError: the block is not labelled yet.
        ValueError: the part is damaged, or of a release with other fields.
    """
    table = _checked_table(path)
    try:
        rows = [from_dict(Sample, row) for row in table.to_pylist()]
    except ValueError as error:
        raise of_another_release(path, str(error)) from error
    return rows, _said(table.schema.metadata)


def check_ledger(path: str | AnyPath) -> None:
    """Read a block's ledger part and compare all that it says with its checksum.

    Parts of an older release have none; of these only the pages are checked.

    Raises:
        as `read_ledger`.
    """
    table = _checked_table(path)
    read_ledger(path)
    written = _text(table.schema.metadata).get(_CONTENT)
    if written is not None and written != _digest(table, _said(table.schema.metadata)):
        raise ValueError(f"{path} is damaged: it says something else than what was written")


def _digest(table: pa.Table, metadata: dict[str, str]) -> str:
    """Hash rows and metadata, as they come out of a part: a 0 that went in may be a 0.0 there."""
    digest = hashlib.sha256(json.dumps(sorted(metadata.items())).encode())
    for row in table.to_pylist():
        digest.update(b"\n" + json.dumps(row, sort_keys=True).encode())
    return digest.hexdigest()


def _checked_table(path: str | AnyPath) -> pa.Table:
    return _parquet(path, lambda path: pq.read_table(path, page_checksum_verification=True))


def of_another_release(path: str | AnyPath, why: str) -> ValueError:
    """Return the error that says why a part cannot be used, and what to do."""
    return ValueError(
        f"{path} is of a release with another schema: {why}. Use the release that wrote it, or "
        "delete it and run the pipeline again to label its block."
    )


def read_ledger_metadata(path: str | AnyPath) -> dict[str, str] | None:
    """Read only the metadata of a ledger part, or None where the block is not labelled yet.

    Raises:
        ValueError: the part is damaged.
    """
    try:
        return dict(_metadata(path_of(path)))
    except FileNotFoundError:
        return None


@remembered
def _metadata(path: AnyPath) -> dict[str, str]:
    """Read a part's metadata, of a part in a store without the rest of it."""
    try:
        found = pq.read_metadata(tail(path, _FOOTER_BYTES))
    except (pa.ArrowException, OSError):
        found = _parquet(path, pq.read_metadata)
    return _said(found.metadata)


def read_table(path: str | AnyPath, columns: Sequence[str] | None = None) -> pa.Table:
    """Read columns of a ledger part, or all of them, as a table; its pages are not checked.

    Raises:
        FileNotFoundError: the block is not labelled yet.
        ValueError: the part is damaged.
    """
    return _parquet(path, lambda source: pq.read_table(source, columns=columns))


def count_rows(path: str | AnyPath) -> int:
    """Return how many clips a ledger part has.

    Raises:
        as `read_table`.
    """
    return _parquet(path, pq.read_metadata).num_rows


def open_part(path: str | AnyPath) -> pq.ParquetFile:
    """Open a ledger part to read it piece by piece.

    Raises:
        as `read_table`.
    """
    return _parquet(path, pq.ParquetFile)


def write_failures(path: str | AnyPath, failures: Iterable[Failure]) -> None:
    """Write a block's failures, one JSON object a line; a block without any gets an empty file."""
    write_text(path, "".join(f"{to_json(failure)}\n" for failure in failures))


def read_failures(path: str | AnyPath) -> list[Failure]:
    """Read a block's failures in the order written.

    Raises:
        FileNotFoundError: the block is not labelled yet.
        ValueError: a line is not a failure.
    """
    # str.splitlines would also split at U+2028 in a message.
    with path_of(path).open("rb") as lines:
        return [from_json(Failure, line) for line in lines]


def _parquet(path: str | AnyPath, read: Callable[[Any], T]) -> T:
    """Read a ledger part, or say what to do about a damaged one."""
    try:
        return read(readable(path))
    except FileNotFoundError:
        raise
    except (pa.ArrowException, OSError) as error:  # OSError: a page whose checksum is wrong
        raise ValueError(
            f"{path} is damaged or half-written ({error}); delete it, then run the pipeline again"
        ) from error


def _said(metadata: dict[bytes, bytes] | None) -> dict[str, str]:
    """Return what the writer of a part gave it, without what was added to that."""
    return {k: v for k, v in _text(metadata).items() if k not in (_ARROW_SCHEMA, _CONTENT)}


def _text(metadata: dict[bytes, bytes] | None) -> dict[str, str]:
    return {key.decode(): value.decode() for key, value in (metadata or {}).items()}

"""A corpus as Parquet files, one utterance a row, with the audio in a column or beside the file.

The audio column holds a file's bytes, the Hub's struct of bytes and path, or a path. It is never
read here: rows are listed row group by row group from the small columns, and an utterance carries
the address of its cell. A path may hold `*` or `{000..127}`.
"""

import functools
import posixpath
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pipeline import storage
from pipeline.config import ColumnsConfig, CorpusConfig
from pipeline.corpora.fields import Fields, bad_entry
from pipeline.corpora.utterance import Entry
from pipeline.recordings import AudioError, open_bytes

USUAL = ColumnsConfig(audio="audio", text="text", id="id", duration="duration")
_ROWS = 4096


@dataclass(frozen=True, kw_only=True)
class _Audio:
    """Where the audio is: the leaf column of bytes, of paths, or both."""

    bytes: str
    path: str


def read(corpus: CorpusConfig, position: str = "") -> Iterator[tuple[str, Entry]]:
    """Yield the rows of the Parquet files.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a column is missing, or the audio column holds no audio.
    """
    path = corpus.path
    if not path.endswith(".parquet") and not any(c in path for c in "*?["):
        path = storage.join(path, "*.parquet")  # a folder
    yield from read_files(corpus, storage.matching(path), position)


def read_files(
    corpus: CorpusConfig, paths: list[str], position: str = ""
) -> Iterator[tuple[str, Entry]]:
    """Yield the rows of Parquet files in the order given; raises as `read`.

    A file that cannot be opened is one bad entry, and so is what cannot be read of a row group.
    """
    file, group, row = (int(n) for n in (position or "0:0:0").split(":"))
    for index in range(file, len(paths)):
        try:
            for place, entry in _rows(corpus, paths[index], paths[0], group, row):
                yield f"{index}:{place}", entry
        except _damage() as error:
            if isinstance(error, FileNotFoundError):
                raise
            if not _is_damage(error, paths[index]):
                raise OSError(f"{paths[index]} cannot be read: {error}") from error
            name = posixpath.basename(paths[index])
            message = f"{paths[index]}: not readable as Parquet ({error})"
            yield f"{index}:0:0", bad_entry(corpus, name, message, "damaged_file")
        group = row = 0


def _damage() -> tuple[type[Exception], ...]:
    """Return what pyarrow raises for damaged files: OSError where a page does not unpack."""
    import pyarrow as pa

    return pa.ArrowException, UnicodeDecodeError, OSError


def _is_damage(error: Exception, path: str) -> bool:
    """Tell whether an error comes from what a file holds; disks and services fail too."""
    if not isinstance(error, OSError):
        return True
    return type(error) is OSError and error.errno is None and not storage.is_url(path)


def _rows(
    corpus: CorpusConfig, path: str, sample: str, from_group: int, from_row: int
) -> Iterator[tuple[str, Entry]]:
    """Yield the rows of a file, from a row of a row group on.

    Where recordings are remote and of unknown length, that of the first in the file `sample` tells
    how many bytes a second has.
    """
    import pyarrow.parquet as pq

    with storage.open_file(path) as source, pq.ParquetFile(source, pre_buffer=False) as parquet:
        columns = _leaves(parquet.schema_arrow)
        fields = Fields(corpus, USUAL, folder=posixpath.dirname(path), columns=columns)
        audio = _audio(corpus, fields.names.audio, columns, path)
        names = fields.names
        wanted = {n for n in vars(names).values() if n in columns and n != names.audio}
        wanted |= {audio.path} - {""}
        for group in range(from_group, parquet.num_row_groups):
            held = audio.bytes if _has_values(parquet, group, audio.bytes) else ""
            estimate = None
            if held and names.duration not in columns and not names.end and storage.is_url(path):
                estimate = _mean_seconds(parquet, sample, group, held)
            row = 0
            try:
                for values in _values(parquet, group, sorted(wanted)):
                    number, row = row, row + 1
                    if number >= from_row:
                        flat = {name: _value(values, name) for name in wanted}
                        entry = _entry(
                            corpus, fields, audio, flat, path, held, group, number, estimate
                        )
                        yield f"{group}:{number}", entry
            except _damage() as error:
                if not _is_damage(error, path):
                    raise
                yield f"{group}:{row}", _damaged(corpus, parquet, path, group, row, error)
            from_row = 0


def _values(parquet: Any, group: int, columns: list[str]) -> Iterator[dict[str, Any]]:
    """Yield the rows of a row group as far as it can be read."""
    for batch in parquet.iter_batches(
        batch_size=_ROWS, row_groups=[group], columns=columns, use_threads=False
    ):
        yield from batch.to_pylist()


def _damaged(
    corpus: CorpusConfig, parquet: Any, path: str, group: int, row: int, error: Exception
) -> Entry:
    """Say of a row group that cannot be read from a row on what is lost."""
    lost = parquet.metadata.row_group(group).num_rows - row
    message = f"{path}: {lost} rows from row {row} of row group {group} on cannot be read ({error})"
    return bad_entry(corpus, _place(path, group, row), message, "damaged_file")


def _entry(
    corpus: CorpusConfig,
    fields: Fields,
    audio: _Audio,
    row: Mapping[str, Any],
    path: str,
    held: str,
    group: int,
    number: int,
    estimate: float | None,
) -> Entry:
    """Turn a row into an utterance."""
    place = _place(path, group, number)
    try:
        name = row.get(audio.path) if audio.path else None
        if not held:
            row = {**row, fields.names.audio: name}
            return fields.utterance(row)
        return fields.utterance(
            row,
            path=storage.cell_address(path, group, number, held),
            recording=name or place,
            default_id=None if name else place,
            estimated_seconds=estimate,
        )
    except ValueError as error:
        message = f"{path}, row {number} of row group {group}: {error}"
        return bad_entry(corpus, place, message, "bad_row")


def _place(path: str, group: int, row: int) -> str:
    """Name a row after its file and its place in it."""
    return f"{posixpath.splitext(posixpath.basename(path))[0]}-{group}-{row}"


def _leaves(schema: Any) -> dict[str, Any]:
    """Return the types of all columns, those inside of structs by dotted name."""
    import pyarrow as pa

    found: dict[str, Any] = {}

    def add(name: str, kind: Any) -> None:
        found[name] = kind
        if pa.types.is_struct(kind):
            for field in kind:
                add(f"{name}.{field.name}", field.type)

    for field in schema:
        add(field.name, field.type)
    return found


def _audio(corpus: CorpusConfig, name: str, columns: dict[str, Any], path: str) -> _Audio:
    """Find out how the audio column holds audio.

    Raises:
        ValueError: in no way that is known.
    """
    import pyarrow as pa

    kind = columns[name]
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        return _Audio(bytes=name, path="")
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return _Audio(bytes="", path=name)
    inside = [f for f in ("bytes", "path") if f"{name}.{f}" in columns]
    if not inside:
        raise ValueError(
            f"corpus {corpus.name!r}: column {name!r} of {path} is {kind}; audio is expected as a "
            "file's bytes, as a path, or as a struct of bytes and path"
        )
    return _Audio(
        bytes=f"{name}.bytes" if "bytes" in inside else "",
        path=f"{name}.path" if "path" in inside else "",
    )


def _value(row: Mapping[str, Any], dotted: str) -> Any:
    value: Any = row
    for name in dotted.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def _chunk(parquet: Any, group: int, column: str) -> Any:
    """Return what the file says of a column in a row group."""
    metadata = parquet.metadata.row_group(group)
    return next(
        chunk
        for chunk in (metadata.column(i) for i in range(metadata.num_columns))
        if chunk.path_in_schema == column
    )


def _has_values(parquet: Any, group: int, column: str) -> bool:
    """Tell whether a row group has bytes: the struct's are empty where only paths are given."""
    if not column:
        return False
    chunk = _chunk(parquet, group, column)
    statistics = chunk.statistics
    if statistics is None or not statistics.has_null_count:
        return chunk.total_uncompressed_size > 64 * parquet.metadata.row_group(group).num_rows
    return statistics.null_count < chunk.num_values


def _mean_seconds(parquet: Any, sample: str, group: int, column: str) -> float | None:
    """Guess how long the recordings of a row group are."""
    per_byte = _seconds_per_byte(sample, storage.file_version(sample), column)
    num_rows = parquet.metadata.row_group(group).num_rows
    size = _chunk(parquet, group, column).total_uncompressed_size
    return None if per_byte is None else round(per_byte * size / max(num_rows, 1), 3)


@functools.lru_cache(maxsize=64)
def _seconds_per_byte(path: str, version: object, column: str) -> float | None:
    """Measure the first recording of a remote file; the others are taken to be coded alike."""
    data = storage.first_value(path, column)
    try:
        with open_bytes(data, path) as recording:
            return (recording.num_frames or 0) / recording.sample_rate / len(data) or None
    except AudioError:
        return None

"""A file that is stored as one value of a Parquet column, as the Hub stores audio.

Parquet cannot be entered in the middle of a row group, and a block reads its clips in the order of
their length. So the values of a row group are copied once, a few rows at a time, to an anonymous
temporary file, and every cell is then a window of that. Memory stays at a few rows however large
the row group is; disk holds the row groups last used.
"""

import os
import tempfile
import threading
from collections import OrderedDict
from typing import Any, BinaryIO, cast

from pipeline.storage.files import file_version, open_file
from pipeline.storage.windows import Window

_ROWS = 8
_ROW_GROUPS = 16


class _Spilled:
    """The values of one column of a row group, one after another in a temporary file."""

    def __init__(self, path: str, row_group: int, column: str) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        self.file = tempfile.TemporaryFile(prefix="whisper-pipeline-")  # noqa: SIM115
        self.spans: list[tuple[int, int] | None] = []
        end = 0
        try:
            with open_file(path) as source, pq.ParquetFile(source, pre_buffer=False) as parquet:
                for batch in parquet.iter_batches(
                    batch_size=_ROWS, row_groups=[row_group], columns=[column], use_threads=False
                ):
                    values: Any = batch.column(0)
                    for name in column.split(".")[1:]:
                        values = values.field(name)
                    for value in values:
                        data = value.as_py()
                        self.spans.append(None if data is None else (end, len(data)))
                        if data is not None:
                            self.file.write(data)
                            end += len(data)
        except (pa.ArrowException, IndexError) as error:
            self.file.close()
            raise OSError(f"{path}, row group {row_group}: {error}") from error
        except BaseException:
            self.file.close()
            raise
        self.file.flush()


class _Recent(threading.local):
    """The row groups last used by this thread."""

    def __init__(self) -> None:
        self.row_groups: OrderedDict[tuple[Any, ...], _Spilled] = OrderedDict()


_recent = _Recent()


def read_cell(path: str, row_group: int, row: int, column: str) -> BinaryIO:
    """Open a cell as a file.

    Raises:
        OSError: the Parquet file is not there or damaged, or the cell is empty.
    """
    held = _recent.row_groups
    key = (*file_version(path), row_group, column)
    spilled = held.pop(key, None) or _Spilled(path, row_group, column)
    held[key] = spilled
    while len(held) > _ROW_GROUPS:
        held.popitem(last=False)[1].file.close()
    span = spilled.spans[row] if row < len(spilled.spans) else None
    if span is None:
        raise OSError(f"{path}, row group {row_group}, row {row}: no audio in column {column}")
    # A handle of its own: the cell may outlive the row group's turn here.
    copy = os.fdopen(os.dup(spilled.file.fileno()), "rb", buffering=0)
    return cast(BinaryIO, Window(cast(BinaryIO, copy), *span))


def first_value(path: str, column: str) -> bytes:
    """Return the first value of a column that is not empty, reading no more than needed; or b"".

    Raises:
        OSError: the Parquet file is not there.
    """
    import pyarrow.parquet as pq

    with open_file(path) as source, pq.ParquetFile(source, pre_buffer=False) as parquet:
        for batch in parquet.iter_batches(batch_size=1, columns=[column], use_threads=False):
            values: Any = batch.column(0)
            for name in column.split(".")[1:]:
                values = values.field(name)
            if (data := values[0].as_py()) is not None:
                return data
    return b""

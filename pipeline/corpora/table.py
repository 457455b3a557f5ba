"""A corpus as a table with a header: TSV as Common Voice has it, CSV, or any other separator.

A TSV has a row a line and quotes mean nothing, as Common Voice writes it; elsewhere a quoted field
may hold separators and line breaks. The usual columns are Common Voice's: `path` and `sentence`,
and, where they are there, `client_id` and `locale`.
"""

import csv
import posixpath
from collections.abc import Iterator

from pipeline.config import ColumnsConfig, CorpusConfig
from pipeline.corpora.fields import Fields, bad_entry
from pipeline.corpora.lines import read_lines
from pipeline.corpora.utterance import Entry

USUAL = ColumnsConfig(
    audio="path",
    text="sentence",
    id="id",
    duration="duration",
    speaker="client_id",
    language="locale",
    licence="licence",
)


class _Rows:
    """Rows of a table, with the position where each begins."""

    def __init__(self, corpus: CorpusConfig, position: str, separator: str) -> None:
        self._lines = read_lines(corpus, corpus.path, position)
        self.begins = ("", 0)
        self._fresh = True
        quoting = csv.QUOTE_NONE if separator == "\t" else csv.QUOTE_MINIMAL
        self._reader = csv.reader(self, delimiter=separator, quoting=quoting)

    def __iter__(self) -> "_Rows":
        return self

    def __next__(self) -> str:
        """Hand a line to the CSV reader; an unreadable character is found again in its row."""
        place, number, line = next(self._lines)
        if self._fresh:
            self.begins, self._fresh = (place, number), False
        return line.decode("utf-8", "surrogateescape")

    def row(self) -> list[str]:
        """Return the next row; `begins` is then its position and line.

        Raises:
            StopIteration: there are no more.
            csv.Error: it is no row; the one after it may be.
        """
        self._fresh = True
        return next(self._reader)


def read(corpus: CorpusConfig, position: str = "") -> Iterator[tuple[str, Entry]]:
    """Yield what the rows of a table describe.

    Raises:
        FileNotFoundError: the table does not exist.
        ValueError: it is empty or lacks a column.
    """
    separator, header = _header(corpus)
    fields = Fields(
        corpus, USUAL, folder=posixpath.dirname(corpus.path), columns=header, textual=True
    )
    rows = _Rows(corpus, position, separator)
    if not position:
        rows.row()
    while True:
        try:
            row = rows.row()
            _check(row, header)
            yield rows.begins[0], fields.utterance(dict(zip(header, row, strict=True)))
        except StopIteration:
            return
        except (ValueError, csv.Error) as error:
            place, number = rows.begins
            message = f"{corpus.path}, line {number}: {error}"
            yield place, bad_entry(corpus, f"line-{number}", message)


def _header(corpus: CorpusConfig) -> tuple[str, list[str]]:
    """Return the separator and the names of the columns."""
    first = next(read_lines(corpus, corpus.path), None)
    if first is None:
        raise ValueError(f"corpus {corpus.name!r}: {corpus.path} is empty; a header is expected")
    try:
        line = first[2].decode()
        if "\0" in line:
            raise ValueError("it holds zero bytes")
    except ValueError as error:
        raise ValueError(
            f"corpus {corpus.name!r}: the header of {corpus.path} is not UTF-8 ({error}). Convert "
            "the table; `iconv -f UTF-16 -t UTF-8` does it for what Excel calls Unicode text"
        ) from error
    name = corpus.path.removesuffix(".gz")
    if name.endswith(".tsv"):
        separator = "\t"
    elif name.endswith(".csv"):
        separator = max(",;|", key=line.count)
    else:
        separator = max("\t,;|", key=line.count)
    return separator, next(csv.reader([line], delimiter=separator))


def _check(row: list[str], header: list[str]) -> None:
    """Refuse a row that is cut, or not in UTF-8."""
    if len(row) != len(header):
        raise ValueError(f"has {len(row)} fields, but the header names {len(header)}")
    for name, value in zip(header, row, strict=True):
        if not value.isascii():
            try:
                value.encode()
            except UnicodeEncodeError:
                raise ValueError(f"{name} is not UTF-8: {value!r}") from None

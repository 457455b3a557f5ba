"""Make an utterance of a row, whatever the corpus calls its columns.

Manifests, tables, Parquet files and the JSON of WebDataset samples differ in where their rows come
from and in the usual names of the fields; what a field may hold is the same for all and said here.
"""

import contextlib
import dataclasses
import functools
import posixpath
import re
from collections.abc import Collection, Mapping
from typing import Any

from pipeline import storage
from pipeline.config import ColumnsConfig, CorpusConfig
from pipeline.corpora.utterance import Utterance
from pipeline.ledger import Failure
from pipeline.scoring import language_code

LONGEST_SECONDS = 1e9
"""Thirty years: no recording is longer, and larger numbers overflow where they are rounded."""

_known_language = functools.lru_cache(maxsize=1024)(language_code)
_MILLISECONDS = re.compile(r"(?i)(^|[^a-z])(ms|milliseconds)\W*$")


class Fields:
    """The columns of a corpus, by the names that its configuration or its kind gives them."""

    def __init__(
        self,
        corpus: CorpusConfig,
        usual: ColumnsConfig,
        *,
        folder: str,
        columns: Collection[str] | None = None,
        textual: bool = False,
    ) -> None:
        """Settle the names.

        Args:
            corpus: the configuration; a name that it gives must exist.
            usual: names for what it does not give; only audio and text must exist.
            folder: what relative audio paths are relative to, unless the configuration says.
            columns: the columns there are; None where each row has its own.
            textual: the values are texts, as in CSV: "" is no value and "1.5" a number.

        Raises:
            ValueError: a column is missing; the message names it and those that are there.
        """
        self._corpus, self._textual = corpus, textual
        self._folder = corpus.audio or folder
        given = corpus.columns
        self.names = ColumnsConfig(
            **{
                f.name: getattr(given, f.name) or getattr(usual, f.name)
                for f in dataclasses.fields(ColumnsConfig)
            }
        )
        if not corpus.references:
            self.names = dataclasses.replace(self.names, text="")
        if columns is not None:
            self._check(given, columns)
        names = self.names
        self._scale = {
            name: 0.001 if _MILLISECONDS.search(name) else 1.0
            for name in (names.start, names.end, names.duration)
        }

    def _check(self, given: ColumnsConfig, columns: Collection[str]) -> None:
        for field in dataclasses.fields(ColumnsConfig):
            name = getattr(self.names, field.name)
            needed = getattr(given, field.name) or field.name in ("audio", "text")
            if name and needed and name not in columns:
                advice = "; or set references: false" if field.name == "text" else ""
                raise ValueError(
                    f"corpus {self._corpus.name!r}, split {self._corpus.split!r}: there is no "
                    f"column {name!r}; the columns are {', '.join(sorted(columns))}. Say which one "
                    f"it is with columns.{field.name}{advice}"
                )

    def utterance(
        self,
        row: Mapping[str, Any],
        *,
        path: str | None = None,
        recording: str | None = None,
        default_id: str | None = None,
        estimated_seconds: float | None = None,
    ) -> Utterance:
        """Make the utterance of a row.

        Args:
            row: the values by column.
            path: the audio, where it is not in a column.
            recording: what the corpus calls the audio, where it is not in a column.
            default_id: the id where there is no column for it; by default the recording's name and
                the start of the span.
            estimated_seconds: see `Utterance`.

        Raises:
            ValueError: a value is missing or cannot be; the message says which and why.
        """
        names, corpus = self.names, self._corpus
        if recording is None:
            recording = self._needed(row, names.audio)
            if not recording:
                raise ValueError(f"{names.audio} is empty")
        if path is None:
            path = storage.join(self._folder, recording)
        # Published with each sample, and the signature of a link is another one tomorrow.
        recording = storage.without_credentials(recording)
        start = self._seconds(row, names.start)
        duration = self._duration(row, start or 0.0)
        channel = self._channel(row)
        identity = self._text(row, names.id)
        if identity == "":
            raise ValueError(f"{names.id} is empty")
        if identity is None:
            identity = default_id or _stem(recording)
            if start is not None:
                identity += f"-{round(start * 1000):07d}"
            if channel is not None and names.channel in row:
                identity += f"-{channel}"
        for name in (identity, recording):
            if printable(name) != name:
                raise ValueError(f"the name {name!r} is not UTF-8; rename the file")
        return Utterance(
            id=identity,
            corpus=corpus.name,
            split=corpus.split,
            language=_known_language(self._text(row, names.language) or corpus.language),
            licence=self._text(row, names.licence) or corpus.licence,
            speaker=self._text(row, names.speaker) or "",
            recording=recording,
            path=path,
            start_seconds=start or 0.0,
            duration_seconds=duration,
            reference=self._reference(row),
            channel=channel,
            estimated_seconds=estimated_seconds,
        )

    def _reference(self, row: Mapping[str, Any]) -> str | None:
        name = self.names.text
        if not name:
            return None
        if self._textual and row.get(name) == "":
            return ""
        return self._needed(row, name)

    def _needed(self, row: Mapping[str, Any], name: str) -> str:
        value = self._text(row, name)
        if value is None:
            there = f"the fields are {', '.join(map(str, row)) or 'none'}"
            empty = "the field is there, without a value"
            raise ValueError(f"{name} is missing; {empty if name in row else there}")
        return value

    def _text(self, row: Mapping[str, Any], name: str) -> str | None:
        """Return a value as text; numbers are accepted, because ids and speakers often are."""
        value = row.get(name) if name else None
        if value is None or (self._textual and value == ""):
            return None
        if isinstance(value, str):
            if printable(value) != value:
                raise ValueError(f"{name} is not valid Unicode: {value!r}")
            return value
        if not isinstance(value, int) or isinstance(value, bool):
            raise ValueError(f"{name} must be text, got {value!r}")
        return str(value)

    def _seconds(self, row: Mapping[str, Any], name: str) -> float | None:
        """Return a value as seconds, or None where it is absent."""
        value = row.get(name) if name else None
        if value is None or (self._textual and value == ""):
            return None
        if self._textual:
            with contextlib.suppress(ValueError):  # refused below
                value = float(value)
        return seconds(value, name) * self._scale[name]

    def _duration(self, row: Mapping[str, Any], start: float) -> float | None:
        duration = self._seconds(row, self.names.duration)
        if duration == 0:
            raise ValueError(f"{self.names.duration} is 0; leave it out to have it measured")
        if duration is not None:
            return duration
        end = self._seconds(row, self.names.end)
        return None if end is None else span(start, end)

    def _channel(self, row: Mapping[str, Any]) -> int | None:
        value = row.get(self.names.channel) if self.names.channel else None
        if value is None or (self._textual and value == ""):
            return self._corpus.channel
        if self._textual and isinstance(value, str) and value.isdecimal():
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise ValueError(
                f"{self.names.channel} must be a channel, counted from 0, got {value!r}"
            )
        return value


def seconds(value: Any, name: str) -> float:
    """Return a value as seconds.

    Raises:
        ValueError: it is no number, below 0, or too large for a time.
    """
    if (
        not isinstance(value, int | float)
        or isinstance(value, bool)
        or not 0 <= value <= LONGEST_SECONDS
    ):
        raise ValueError(f"{name} must be seconds, 0 or more, got {repr(value)[:80]}")
    return value


def beginning(text: str | bytes) -> float:
    """Return where a segment starts, in seconds.

    Raises:
        ValueError: it is no number, or not a time in a recording.
    """
    start = float(text)
    if not 0 <= start <= LONGEST_SECONDS:
        raise ValueError(f"the segment starts at {start:g} s")
    return start


def span(start: float, end: float) -> float:
    """Return the length of a segment.

    Raises:
        ValueError: it has none, or ends nowhere.
    """
    if not start < end <= LONGEST_SECONDS:
        raise ValueError(f"the segment ends at {end:g} s but starts at {start:g} s")
    return round(end - start, 6)


def bad_entry(
    corpus: CorpusConfig, place: str, message: str, error: str = "bad_line", identity: str = ""
) -> Failure:
    """Record that an entry of a corpus makes no utterance; one in a million costs only itself."""
    identity = printable(identity or f"{corpus.name}-{corpus.split}-{place}")
    return Failure(
        id=identity,
        utterance_ids=(identity,),
        duration_seconds=0.0,
        stage="plan",
        error=error,
        message=printable(message),
        attempts=1,
    )


def printable(text: str) -> str:
    """Spell out what UTF-8 cannot write: lone surrogates, as names in other codings have them."""
    return text.encode("utf-8", "backslashreplace").decode()


def _stem(recording: str) -> str:
    """Return a recording's name without its extension."""
    root, extension = posixpath.splitext(recording)
    return root if extension and root else recording

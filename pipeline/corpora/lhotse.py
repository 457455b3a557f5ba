"""A corpus as lhotse manifests (JSONL, may be gzipped).

- Supervisions, with the recordings they speak of in `audio`.
- Cuts, which carry both: a single supervision makes a cut one utterance, several make several.
- Recordings alone, with `references: false`.
"""

import dataclasses
import functools
import posixpath
from collections.abc import Iterator
from typing import Any

from pipeline import storage
from pipeline.config import ColumnsConfig, CorpusConfig
from pipeline.corpora.fields import Fields, bad_entry, seconds
from pipeline.corpora.lines import read_lines
from pipeline.corpora.manifest import json_object
from pipeline.corpora.utterance import Entry

USUAL = ColumnsConfig(
    audio="source",
    text="text",
    id="id",
    start="start",
    duration="duration",
    speaker="speaker",
    language="language",
    licence="licence",
    channel="channel",
)


def read(corpus: CorpusConfig, position: str = "") -> Iterator[tuple[str, Entry]]:
    """Yield what the lines of a manifest describe.

    Raises:
        FileNotFoundError: a manifest does not exist.
        ValueError: the recordings are missing in the configuration.
    """
    recordings: dict[str, Any] = {}
    if corpus.audio:
        recordings = _recordings(corpus, corpus.audio, storage.file_version(corpus.audio))
    folder = posixpath.dirname(corpus.audio or corpus.path)
    # Audio paths are relative to the manifest that names them, and `audio` is no folder here.
    fields = Fields(dataclasses.replace(corpus, audio=""), USUAL, folder=folder)
    place_count = int(position.partition("/")[2] or 0)
    for place, number, line in read_lines(corpus, corpus.path, position.partition("/")[0]):
        try:
            rows = _rows(corpus, json_object(line), recordings)
        except (ValueError, RecursionError) as error:
            rows = [error]
        for index, row in enumerate(rows):
            if index < place_count:
                continue
            try:
                if isinstance(row, Exception):
                    raise row
                default_id = row.get("recording_id") and str(row["recording_id"])
                entry: Entry = fields.utterance(row, default_id=default_id)
            except (ValueError, RecursionError) as error:
                identity = f"line-{number}" + (f"-{index}" if index else "")
                message = f"{corpus.path}, line {number}: {error}"
                entry = bad_entry(corpus, identity, message)
            yield f"{place}/{index}", entry
        place_count = 0


def _rows(corpus: CorpusConfig, line: dict, recordings: dict[str, Any]) -> list[Any]:
    """Return a row for each utterance of a line, with the recording's source in it."""
    if "recording" in line:  # a cut
        source = _source(_object(line, "recording"))
        channel = line.get("channel")
        base = {"source": source, "recording_id": line.get("id"), "channel": _channel(channel)}
        supervisions = _objects(line, "supervisions")
        if not supervisions:
            if corpus.references:
                raise ValueError("the cut has no supervision; set references: false to use it")
            return [base | {k: line.get(k) for k in ("id", "start", "duration")}]
        return [
            _supervised(s, base) | {"start": round(_start(line) + _start(s), 6)}
            for s in supervisions
        ]
    if "sources" in line:  # a recording by itself
        if corpus.references:
            raise ValueError(
                "this is a recording without a supervision: give the supervisions as path and the "
                "recordings as audio, or set references: false"
            )
        return [{"source": _source(line), "id": line.get("id"), "duration": line.get("duration")}]
    if "recording_id" not in line:
        raise ValueError(
            f"neither a supervision nor a cut nor a recording; its fields are {', '.join(line)}"
        )
    if not corpus.audio:
        raise ValueError("supervisions need their recordings: name that manifest as audio")
    recording = recordings.get(str(line["recording_id"]))
    if recording is None:
        raise ValueError(f"{corpus.audio} has no recording {line['recording_id']!r}")
    if isinstance(recording, ValueError):
        raise recording
    return [_supervised(line, {"source": recording})]


def _supervised(supervision: dict, base: dict[str, Any]) -> dict[str, Any]:
    """Return the row of a supervision; what a corpus adds of its own lies in `custom`."""
    row = {**_object(supervision, "custom"), **supervision, **base}
    if "channel" in supervision:
        row["channel"] = _channel(supervision["channel"])
    return row


def _channel(value: Any) -> Any:
    """Return the channel to take: lhotse may list several, which are then mixed."""
    if isinstance(value, list):
        return value[0] if len(value) == 1 else None
    return value


def _source(recording: dict) -> str:
    """Return the file or URL of a recording.

    Raises:
        ValueError: it has none, several, or one that is a command or data.
    """
    sources = _objects(recording, "sources")
    if len(sources) != 1:
        raise ValueError(f"recording {recording.get('id')!r} has {len(sources)} sources, not one")
    kind = sources[0].get("type")
    if kind not in ("file", "url"):
        raise ValueError(
            f"recording {recording.get('id')!r} is of type {kind!r}; only file and url are read, "
            "and commands are never run"
        )
    return str(sources[0].get("source"))


def _start(line: dict) -> float:
    """Return where a cut or a supervision starts; without a value that is the beginning."""
    start = line.get("start")
    return 0.0 if start is None else seconds(start, "start")


def _object(line: dict, name: str) -> dict:
    """Return the object in a field, an empty one where it has no value.

    Raises:
        ValueError: it holds something else.
    """
    value = line.get(name) or {}
    if not isinstance(value, dict):
        raise ValueError(f"{name} must be an object, got {repr(value)[:80]}")
    return value


def _objects(line: dict, name: str) -> list[dict]:
    """Return the list of objects in a field, an empty one where it has no value.

    Raises:
        ValueError: it holds something else.
    """
    values = line.get(name) or []
    if not isinstance(values, list) or not all(isinstance(value, dict) for value in values):
        raise ValueError(f"{name} must be a list of objects, got {repr(values)[:80]}")
    return values


@functools.lru_cache(maxsize=2)
def _recordings(corpus: CorpusConfig, path: str, version: object) -> dict[str, Any]:
    """Read sources by id; one that cannot be used is kept as the reason why."""
    found: dict[str, Any] = {}
    for _, _, line in read_lines(corpus, path):
        try:
            recording = json_object(line)
            identity = str(recording.get("id"))
        except ValueError:
            continue  # whoever refers to it is told that it is not there
        try:
            found[identity] = _source(recording)
        except ValueError as error:
            found[identity] = error
    return found

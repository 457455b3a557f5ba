"""The output folder of a transcription: what is in it, of which recording, and what wrote it.

A run that died is gone on with by repeating it, so a file counts as done only where the folder's
journal says that these very settings and these very weights wrote it, from this very recording.
"""

import contextlib
import dataclasses
import json
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from distill.recordings import Recording, check_output_names
from distill.setting_changes import defaults_of, describe_changes
from distill.subtitles import render
from distill.transcribe_config import TranscribeConfig
from distill.transcript import Transcript
from distill.weight_files import file_identity, weights_identity
from pipeline.audio import without_credentials

JOURNAL_FILE = ".transcribe.jsonl"
"""In an output folder: a line for each run, with its settings, the weights, and the files that it
writes with the recording of each."""
_NOT_SETTINGS = {"files", "output", "overwrite", "batch_size", "device"}
"""What does not change a text; a folder can be gone on with when only these are different."""
_STANDARD_INPUT = "standard input"


@dataclass(frozen=True, kw_only=True)
class Writer:
    """What writes texts; taken before the weights are read, since a training may replace them."""

    settings: dict[str, Any]
    """What decides over a text."""
    weights: dict[str, Any]
    """By `model` and `assistant`: size and time of each file, or the revision on the Hub."""


def writer_of(config: TranscribeConfig) -> Writer:
    """Say what is going to write; of a model on the Hub, the Hub is asked."""
    named = {"model": config.model, "assistant": config.assistant}
    return Writer(
        settings={k: v for k, v in dataclasses.asdict(config).items() if k not in _NOT_SETTINGS},
        weights={role: weights_identity(name) for role, name in named.items() if name},
    )


def prepare_output(
    config: TranscribeConfig, recordings: list[Recording], writer: Writer
) -> list[Recording]:
    """Make the output folder; return the recordings that are not in it yet.

    Raises:
        ValueError: it holds their output, which is of another recording, other settings, other
            weights or unknown origin, or two recordings would be written to one file.
    """
    check_output_names(recordings)
    folder = Path(config.output or ".")
    folder.mkdir(parents=True, exist_ok=True)
    if config.overwrite:
        return recordings
    journal = _read_journal(folder)
    strange = []
    for recording in recordings:
        for path in filter(Path.exists, output_paths(recording, config)):
            known = journal.get(str(path.relative_to(folder)))
            if reason := _why_not(known, recording, writer):
                strange.append((path, reason))
    if strange:
        path, reason = strange[0]
        raise ValueError(
            f"{path} exists already"
            + (f", and {len(strange) - 1} more" if len(strange) > 1 else "")
            + f", {reason}; give --overwrite to replace it, or another --output"
        )
    return [r for r in recordings if not all(p.exists() for p in output_paths(r, config))]


def claim_output(config: TranscribeConfig, recordings: list[Recording], writer: Writer) -> None:
    """Remove what is to be overwritten, then note what writes these recordings.

    In this order, a run that dies leaves no old file that would pass for one of these settings.
    """
    folder = Path(config.output or ".")
    if config.overwrite:
        for path in (path for each in recordings for path in output_paths(each, config)):
            path.unlink(missing_ok=True)
    journal = _read_journal(folder)
    files = {}
    for recording in recordings:
        for path in output_paths(recording, config):
            name = str(path.relative_to(folder))
            if _why_not(journal.get(name), recording, writer):
                files[name] = _source(recording)
    if files:
        line = json.dumps(dataclasses.asdict(writer) | {"files": files})
        with (folder / JOURNAL_FILE).open("a", encoding="utf-8") as opened:
            opened.write(f"\n{line}\n")  # the line before may be that of a run that died


def _why_not(known: dict[str, Any] | None, recording: Recording, writer: Writer) -> str:
    """Say why a file that is there is not what would be written now; "" where it is."""
    if known is None:
        return f"and {JOURNAL_FILE} does not say what wrote it"
    reasons = []
    if changed := describe_changes(
        known["settings"], writer.settings, defaults_of(TranscribeConfig)
    ):
        reasons.append(f"not written with these settings: {changed}")
    elif known["weights"] is None:
        reasons.append("written by a release that did not note which weights it used")
    else:
        for role, weights in writer.weights.items():
            if known["weights"].get(role) != weights:
                name = writer.settings[role]
                reasons.append(f"written by other weights of {name} than are there now")
    if known["source"] is None:
        reasons.append("written by a release that did not note of which recording")
    elif reason := _other_source(known["source"], recording):
        reasons.append(reason)
    return ", and ".join(reasons)


def _other_source(known: dict[str, Any], recording: Recording) -> str:
    """Say how the recording is not the one that is known; "" where it is."""
    now = _source(recording)
    if now["source"] != known["source"]:
        return f"written from {known['source']}, not from {now['source']}"
    if now["source"] == _STANDARD_INPUT:
        return "written from standard input, which may be another recording each time"
    if now != known:
        return f"written from {now['source']} {_as_of(known)}; now it is {_as_of(now)}"
    return ""


def _as_of(source: dict[str, Any]) -> str:
    """Say which state of a file is meant."""
    if "size_bytes" not in source:
        return "as a file that was not there"
    when = datetime.fromtimestamp(source["modified_ns"] / 1e9, UTC)
    return f"of {when:%Y-%m-%d %H:%M:%S} UTC with {source['size_bytes']:,} bytes"


def _source(recording: Recording) -> dict[str, Any]:
    """Return what identifies a recording: its path or URL; of a file its size and time as well.

    The signature of a URL is a secret, and another one tomorrow.
    """
    if recording.source == "-":
        return {"source": _STANDARD_INPUT}
    if "://" in recording.source:
        return {"source": without_credentials(recording.source)}
    path = Path(recording.source).resolve()
    try:
        return {"source": str(path), **file_identity(path)}
    except OSError:  # it is reported when its turn comes
        return {"source": str(path)}


def _read_journal(folder: Path) -> dict[str, dict[str, Any]]:
    """Return settings, weights and source that each file of an output folder was claimed with.

    Weights and source are None where a release wrote that did not note them.
    """
    written_by: dict[str, dict[str, Any]] = {}
    path = folder / JOURNAL_FILE
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n") if path.is_file() else []
    for line in lines:
        with contextlib.suppress(ValueError, KeyError, TypeError):  # cut off, or empty
            run = json.loads(line)
            writer = {"settings": run["settings"], "weights": run.get("weights")}
            files = run["files"]
            sources = files if isinstance(files, dict) else dict.fromkeys(files)
            written_by |= {name: {**writer, "source": source} for name, source in sources.items()}
    return written_by


def output_paths(recording: Recording, config: TranscribeConfig) -> list[Path]:
    """Return the files of a recording, one for each format."""
    base = Path(config.output or ".") / recording.output_name
    return [base.with_name(f"{base.name}.{kind}") for kind in config.formats]


def write(transcript: Transcript, recording: Recording, config: TranscribeConfig) -> None:
    """Write a recording's files; each one appears whole or not at all."""
    for kind, path in zip(config.formats, output_paths(recording, config), strict=True):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.part")
        temporary.write_text(render(transcript, kind), encoding="utf-8")
        os.replace(temporary, path)  # noqa: PTH105

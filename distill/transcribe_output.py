"""The output folder of a transcription: what is in it, and which settings wrote it.

A run that died is gone on with by repeating it, so a file counts as done only where the folder's
journal says that these very settings wrote it.
"""

import contextlib
import dataclasses
import json
import os
from pathlib import Path
from typing import Any

from distill.recordings import Recording, check_output_names
from distill.subtitles import render
from distill.transcribe_config import TranscribeConfig
from distill.transcript import Transcript

JOURNAL_FILE = ".transcribe.jsonl"
"""In an output folder: one line for each run, with its settings and the files that it writes."""
_NOT_SETTINGS = {"files", "output", "overwrite", "batch_size", "device"}
"""What does not change a text; a folder can be gone on with when only these are different."""


def prepare_output(config: TranscribeConfig, recordings: list[Recording]) -> list[Recording]:
    """Make the output folder; return the recordings that are not in it yet.

    Raises:
        ValueError: it holds their output, which other settings wrote or which is of unknown origin,
            or two recordings would be written to one file.
    """
    check_output_names(recordings)
    folder = Path(config.output or ".")
    folder.mkdir(parents=True, exist_ok=True)
    if config.overwrite:
        return recordings
    written_by, settings = _read_journal(folder), _settings(config)
    strange = [
        path
        for recording in recordings
        for path in output_paths(recording, config)
        if path.exists() and written_by.get(str(path.relative_to(folder))) != settings
    ]
    if strange:
        raise ValueError(
            f"{strange[0]} exists already"
            + (f", and {len(strange) - 1} more" if len(strange) > 1 else "")
            + ", not written with these settings; give --overwrite or another folder"
        )
    return [r for r in recordings if not all(p.exists() for p in output_paths(r, config))]


def claim_output(config: TranscribeConfig, recordings: list[Recording]) -> None:
    """Remove what is to be overwritten, then note which settings write these recordings.

    In this order, a run that dies leaves no old file that would pass for one of these settings.
    """
    folder, settings = Path(config.output or "."), _settings(config)
    paths = [path for recording in recordings for path in output_paths(recording, config)]
    if config.overwrite:
        for path in paths:
            path.unlink(missing_ok=True)
    written_by = _read_journal(folder)
    names = [str(path.relative_to(folder)) for path in paths]
    names = [name for name in names if written_by.get(name) != settings]
    if names:
        line = json.dumps({"settings": settings, "files": names})
        with (folder / JOURNAL_FILE).open("a", encoding="utf-8") as journal:
            journal.write(f"\n{line}\n")  # the line before may be that of a run that died


def _settings(config: TranscribeConfig) -> dict[str, Any]:
    """Return what decides over a text."""
    return {k: v for k, v in dataclasses.asdict(config).items() if k not in _NOT_SETTINGS}


def _read_journal(folder: Path) -> dict[str, Any]:
    """Return the settings that each file of an output folder was last claimed with."""
    written_by: dict[str, Any] = {}
    path = folder / JOURNAL_FILE
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n") if path.is_file() else []
    for line in lines:
        with contextlib.suppress(ValueError, KeyError, TypeError):  # cut off, or empty
            run = json.loads(line)
            written_by |= dict.fromkeys(run["files"], run["settings"])
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

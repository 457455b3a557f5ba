"""Checkpoints that are whole or do not count, and that belong to one configuration.

The Trainer fills a checkpoint's folder; `checkpoint.json` follows last, lists every file with its
size, and says what the training was. Readers trust nothing without it, so a run that is killed
while it saves goes on from the checkpoint before. The older ones are removed only afterwards.
"""

import contextlib
import dataclasses
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distill.config import TrainConfig
from distill.setting_changes import changes

RECORD = "checkpoint.json"
PARTIAL = "checkpoint.partial"
"""Stands in a folder that is being filled. One with neither is not of this release."""
FREE_KEYS = {
    "output",
    "resume",
    "device",
    "save_steps",
    "logging_steps",
    "keep_checkpoints",
    "average_last",
    "alignment_clips",
    "max_steps",
}
"""What may change between a checkpoint and the run that goes on from it. `max_steps` only where the
schedule does not depend on it."""


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A whole checkpoint."""

    folder: Path
    step: int
    tokens: int
    """Labels learnt from so far, over all processes."""
    config: dict[str, Any]
    num_processes: int


def commit(folder: Path, step: int, tokens: int, config: TrainConfig, num_processes: int) -> None:
    """Declare a checkpoint whole: what is in the folder now is on the disk and is all of it."""
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.name not in (RECORD, PARTIAL))
    for path in [*files, folder]:
        _flush(path)
    record = {
        "step": step,
        "tokens": tokens,
        "num_processes": num_processes,
        "files": {str(p.relative_to(folder)): p.stat().st_size for p in files},
        "config": dataclasses.asdict(config),
    }
    temporary = folder / f"{RECORD}.tmp"
    temporary.write_text(json.dumps(record, indent=2))
    _flush(temporary)
    temporary.replace(folder / RECORD)
    (folder / PARTIAL).unlink(missing_ok=True)
    _flush(folder)


def revoke(folder: Path) -> None:
    """Declare a folder that is about to be filled, or removed, not whole."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / PARTIAL).touch()
    (folder / RECORD).unlink(missing_ok=True)


def read_checkpoint(folder: Path) -> Checkpoint | None:
    """Return a checkpoint, or None where it is not whole."""
    try:
        record = json.loads((folder / RECORD).read_text())
        whole = all(
            (folder / name).stat().st_size == size for name, size in record["files"].items()
        )
        found = Checkpoint(
            folder=folder,
            step=record["step"],
            tokens=record["tokens"],
            config=record["config"],
            num_processes=record["num_processes"],
        )
    except (OSError, ValueError, KeyError):
        return None
    return found if whole else None


def whole_checkpoints(output: Path) -> list[Checkpoint]:
    """Return the whole checkpoints of a training's folder, the newest last."""
    folders = (output / "checkpoints").glob("checkpoint-*")
    found = [checkpoint for folder in folders if (checkpoint := read_checkpoint(folder))]
    return sorted(found, key=lambda checkpoint: checkpoint.step)


def newest_checkpoint(output: Path) -> Checkpoint | None:
    """Return the newest whole checkpoint of a training's folder."""
    return next(reversed(whole_checkpoints(output)), None)


def last_checkpoint(config: TrainConfig, num_processes: int = 1) -> Checkpoint | None:
    """Return the checkpoint to go on from; None begins anew.

    Raises:
        ValueError: it is of a training that was configured differently, or of another release.
    """
    newest = newest_checkpoint(Path(config.output))
    if not config.resume:
        return None
    if newest is None:
        _refuse_other_releases(Path(config.output))
        return None
    differing = differences(newest.config, json.loads(json.dumps(dataclasses.asdict(config))))
    if newest.num_processes != num_processes:
        differing.append(f"processes (checkpoint: {newest.num_processes}, now: {num_processes})")
    if differing:
        raise ValueError(
            f"{newest.folder} is a checkpoint of another configuration; "
            f"it differs in {', '.join(differing)}. Use the configuration it was made with (its "
            f"{RECORD} has it), give another `output`, or set `resume: false` to begin anew, which "
            "removes it"
        )
    return newest


def _refuse_other_releases(output: Path) -> None:
    """Do not begin anew over the checkpoints of an earlier release, which had no record."""
    for state in sorted((output / "checkpoints").glob("checkpoint-*/trainer_state.json")):
        folder = state.parent
        if not (folder / PARTIAL).exists() and not (folder / RECORD).exists():
            raise ValueError(
                f"{folder} has no {RECORD}, so it is not a checkpoint of this release and cannot "
                "be gone on from. Move it away, give another `output`, or set `resume: false` to "
                "begin anew, which removes it"
            )


def differences(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Name the keys, dotted, whose values differ, with both values."""
    free = FREE_KEYS.copy()
    if now.get("schedule") != "constant_with_warmup":
        free.discard("max_steps")
    return [
        f"{key} (checkpoint: {old}, now: {new})"
        for key, old, new in changes(before, now, {})
        if key not in free
    ]


def remove_old(output: Path, keep: int) -> None:
    """Leave the newest whole checkpoints, and remove all others, halves of them too."""
    folders = [p for p in (output / "checkpoints").glob("checkpoint-*") if p.is_dir()]
    kept = {checkpoint.folder for checkpoint in whole_checkpoints(output)[-keep:]}
    for folder in folders:
        if folder not in kept:
            revoke(folder)
            shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def replacing_folder(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder that takes the place of `folder` when the block ends well."""
    temporary, old = (folder.with_name(f".{folder.name}.{end}") for end in ("tmp", "old"))
    for left in (temporary, old):
        shutil.rmtree(left, ignore_errors=True)
    temporary.mkdir(parents=True)
    yield temporary
    for path in [*(p for p in temporary.rglob("*") if p.is_file()), temporary]:
        _flush(path)
    if folder.exists():
        folder.replace(old)
    temporary.replace(folder)
    shutil.rmtree(old, ignore_errors=True)


def _flush(path: Path) -> None:
    """Wait until the disk has the file's bytes, or the folder's entries."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

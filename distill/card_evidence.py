"""What the files beside a student say of it: its training, and an evaluation that judged it."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distill.publish_config import PublishConfig
from distill.weight_files import weights_sha256
from pipeline.upload import public_name


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What the files beside a student say of it."""

    run: dict[str, Any] | None
    """`run.json` of the training."""
    results: dict[str, Any] | None
    """`results.json` of an evaluation."""
    measured: dict[str, Any] | None
    """The student's own part of it."""

    @property
    def teacher(self) -> str | None:
        """What it learned from, if that is on record."""
        name = (self.run or {}).get("config", {}).get("teacher")
        return public_name(name) if name else None


def gather(config: PublishConfig) -> Evidence:
    """Read what there is.

    Raises:
        FileNotFoundError: a file that is named does not exist.
        ValueError: it is damaged, or knows nothing of the student.
    """
    student = Path(config.student)
    run = Path(config.run or student.resolve().parent)
    run = run / "run.json" if run.is_dir() else run
    if config.run and not run.is_file():
        raise FileNotFoundError(f"{run} does not exist; `run` is the folder of a training")
    results = _results_path(config.results)
    found = _read(results) if results else None
    return Evidence(
        run=_read(run) if run.is_file() else None,
        results=found,
        measured=_own_result(found, student, results) if found and results else None,
    )


def _results_path(name: str | None) -> Path | None:
    if name is None:
        return None
    path = Path(name) / "results.json" if Path(name).is_dir() else Path(name)
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} does not exist; `results` is the output of `whisper-distill evaluate`"
        )
    return path


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error})") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path} is damaged: it holds no object")
    return found


def _own_result(results: dict[str, Any], student: Path, path: Path) -> dict[str, Any]:
    """Return what an evaluation says of a student, which it knows by its weights.

    Raises:
        ValueError: it judged other models, or the student when its weights were others.
    """
    judged = results.get("models", [])
    weights = weights_sha256(str(student))
    for model in judged:
        if weights and model.get("weights_sha256") == weights:
            return model
    if any(Path(model["model"]).resolve() == student.resolve() for model in judged):
        raise ValueError(
            f"{path} judged {student} when its weights were others, or does not say which; repeat "
            "`whisper-distill evaluate`, or the card would say of this model what another did"
        )
    names = ", ".join(model["model"] for model in judged) or "no model"
    raise ValueError(f"{path} knows nothing of the weights of {student}: it judged {names}")

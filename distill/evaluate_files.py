"""What an evaluation leaves in its folder, and what it finds there.

A folder whose results other settings made is not written over unless that is asked for; the same
evaluation may be made again, since a student of the same name may have been trained further.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any

from distill.evaluate_config import EvaluateConfig
from distill.evaluate_data import EvaluationClip
from distill.evaluate_scores import units
from distill.hallucination import loops_of
from distill.quantization.sizes import number_format
from distill.setting_changes import defaults_of, describe_changes
from distill.weight_files import weight_files
from pipeline.schema import model_path
from pipeline.scoring import Score, normalize

RESULTS_FILE = "results.json"
SETTINGS_FILE = "evaluate.json"
_NOT_SETTINGS = ("output", "overwrite")


def prepare_output(config: EvaluateConfig) -> Path:
    """Make the folder and return it.

    Raises:
        ValueError: it is a file, or holds results that other settings made.
    """
    output = Path(config.output)
    if output.is_file():
        raise ValueError(f"{output} is a file; output is the folder that results.json is put in")
    note, results = output / SETTINGS_FILE, output / RESULTS_FILE
    if results.exists() and not config.overwrite:
        if not note.is_file():
            reason = f"and no {SETTINGS_FILE} beside it says with which settings"
        else:
            before = json.loads(note.read_text(encoding="utf-8"))
            changed = describe_changes(before, _settings(config), defaults_of(EvaluateConfig))
            reason = changed and f"made with other settings: {changed}"
        if reason:
            raise ValueError(
                f"{results} exists already, {reason}; give --overwrite or another folder"
            )
    output.mkdir(parents=True, exist_ok=True)
    return output


def write_results(config: EvaluateConfig, fields: dict[str, Any]) -> None:
    """Write `results.json`, and beside it the settings that made it."""
    for name, content in ((SETTINGS_FILE, _settings(config)), (RESULTS_FILE, fields)):
        text = json.dumps(content, indent=2) + "\n"
        (Path(config.output) / name).write_text(text, encoding="utf-8")


def write_hypotheses(
    path: Path, clips: list[EvaluationClip], texts: list[str], scores: list[Score]
) -> None:
    """Write what a model heard in each recording and what it made up, as JSON lines."""
    lines = []
    for clip, text, found in zip(clips, texts, scores, strict=True):
        both = (normalize(part, clip.language) for part in (clip.reference, text))
        words = (units(part, found.metric) for part in both)
        repeated, loop = loops_of(*words)
        lines.append(
            {
                "id": clip.id,
                "reference": clip.reference,
                "hypothesis": text,
                "wer": round(found.rate, 4),
                "insertions": found.insertions,
                "repeated_five_grams": repeated,
                "longest_loop": loop,
            }
        )
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    path.write_text(text, encoding="utf-8")


def size_bytes(name: str) -> int | None:
    """Return the bytes of a model's weights in its folder; None for a name that is no folder."""
    if not Path(model_path(name)).is_dir():
        return None
    return sum(file.stat().st_size for file in weight_files(name))


def stored_as(name: str) -> str:
    """Return the numbers that a model's weights are stored in; "" where that is not known."""
    files = [file for file in weight_files(name) if file.suffix == ".safetensors"]
    return number_format(files[0]) if files else ""


def _settings(config: EvaluateConfig) -> dict[str, Any]:
    """Return what results depend on, as JSON gives it back."""
    return {k: v for k, v in dataclasses.asdict(config).items() if k not in _NOT_SETTINGS}

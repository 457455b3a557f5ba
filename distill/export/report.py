"""`export.json`: which formats of which model lie in a folder, and whether they passed."""

import json
from pathlib import Path
from typing import Any

REPORT = "export.json"


def read_report(folder: Path) -> dict[str, Any] | None:
    """Return what earlier exports wrote of a folder, or None where there were none.

    Raises:
        ValueError: the file is damaged, or nothing that an export wrote.
    """
    path = folder / REPORT
    if not path.is_file():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        whole = isinstance(found["model"], str) and all(
            isinstance(each["format"], str) and isinstance(each["passed"], bool)
            for each in found["formats"]
        )
    except (ValueError, KeyError, TypeError):
        whole = False
    if not whole:
        raise ValueError(
            f"{path} is damaged or was not written by `whisper-distill export`; move it away, or "
            "name another output"
        )
    return found


def is_of(report: dict[str, Any], model: str | Path, weights: str | None) -> bool:
    """Tell whether exports are of a model as it is now: by its weights' hash, or else its name."""
    known = report.get("weights_sha256")
    if known is None or weights is None:
        return Path(report["model"]).resolve() == Path(model).resolve()
    return known == weights

"""What a run says while it is at work: lines for people, or one JSON object a line for programs.

Worker processes inherit the choice through the environment, and write to the same stream. How long
each stage of a block took is said to programs only; people have the table of progress.
"""

import json
import logging
import os
from datetime import UTC, datetime
from typing import Literal

from pipeline import LOG_LINE, LOG_TIME

LogFormat = Literal["text", "json"]

LOG_FORMAT_VARIABLE = "WHISPER_DISTILLERY_LOG_FORMAT"

_FIELDS = ("block", "stage", "seconds")
"""What a record may carry besides its message."""

logger = logging.getLogger(__name__)


class _Json(logging.Formatter):
    """One object a line: time, level, logger, message, and the fields a record carries."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of a record."""
        said = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        said |= {name: getattr(record, name) for name in _FIELDS if hasattr(record, name)}
        if record.exc_info:
            said["traceback"] = self.formatException(record.exc_info)
        return json.dumps(said, ensure_ascii=False)


def choose_format(log_format: LogFormat) -> None:
    """Set how this process and those that it starts will log."""
    os.environ[LOG_FORMAT_VARIABLE] = log_format
    if is_json():
        from huggingface_hub.utils import disable_progress_bars  # workers have no use for it

        disable_progress_bars()


def is_json() -> bool:
    """Tell whether logs are for programs."""
    return os.environ.get(LOG_FORMAT_VARIABLE) == "json"


def formatted(handler: logging.Handler, text: str = LOG_LINE) -> logging.Handler:
    """Let a handler write as was chosen; `text` is the format of a line for people."""
    handler.setFormatter(_Json() if is_json() else logging.Formatter(text, LOG_TIME))
    return handler


def log_stage(block: str, stage: str, seconds: float) -> None:
    """Say to programs how long a stage of a block took."""
    if not is_json():
        return
    about = {"block": block, "stage": stage, "seconds": round(seconds, 6)}
    logger.info("%s: %s took %.3f s", block, stage, seconds, extra=about)

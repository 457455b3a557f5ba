"""Label large speech corpora with a Whisper teacher and write the labels as training shards."""

import os
import re
import sys
from collections.abc import Collection
from difflib import get_close_matches
from typing import Any

__version__ = "0.1.0"

LOG_LINE, LOG_TIME = "%(asctime)s %(levelname)s %(message)s", "%H:%M:%S"
"""What both commands log for people, and the time in it."""

_LOG_COLUMNS = 120

_REQUIRED = "the following arguments are required: "  # as jsonargparse says it
_UNKNOWN = re.compile(r"unrecognized arguments: --([\w.]+)|does not accept option '([\w.]+)'")
"""As argparse says it of a command line, and jsonargparse of a configuration."""
_SUBCOMMAND = re.compile(r"Subcommand '([\w.]+)' does not accept")
_EXTRAS = {
    "av": "video",
    "ctranslate2": "fast",
    "onnx": "export",
    "onnxruntime": "vad",
    "s3fs": "s3",
    "silero_vad": "vad",
}


def table_width() -> int | None:
    """Return the columns of a table on standard output: None asks the terminal; a log has none."""
    wanted = os.environ.get("COLUMNS", "").isdigit()
    return None if sys.stdout.isatty() or wanted else _LOG_COLUMNS


def how_to_install(error: ModuleNotFoundError, extra: str) -> str:
    """Say what to install where an import failed.

    Args:
        error: as Python raised it.
        extra: of the package that the command belongs to, which brings everything not listed here.

    Raises:
        ModuleNotFoundError: what is missing is a module of this project.
    """
    name = (error.name or "").partition(".")[0]
    if name in ("pipeline", "distill"):
        raise error
    if not name or "pip install" in str(error):
        return str(error)
    return f"{name} is not installed: pip install 'whisper-distillery[{_EXTRAS.get(name, extra)}]'"


def examples_of(examples: str, command: str) -> str:
    """Return those lines of the examples of a program that are of one of its commands."""
    head, *lines = examples.splitlines()
    return "\n".join([head, *(line for line in lines if line.split()[1] == command)])


def what_is_required(message: str, program: str, configured: Collection[str]) -> str:
    """Say what a command lacks and how it is given; another message stays as it is.

    Args:
        message: as the parser wrote it.
        program: the name of the command.
        configured: the subcommands that read a configuration.
    """
    if not message.startswith(_REQUIRED):
        return message
    names = message.removeprefix(_REQUIRED).split(", ")
    command = names[0].partition(".")[0]
    missing = " and ".join(name.removeprefix(f"{command}.") for name in names)
    if command not in configured:
        return f"{command} needs {missing}: `{program} {command} --help` explains them"
    return (
        f"{command} needs {missing}: give --config FILE, or each as --KEY VALUE; "
        f"`{program} {command} --help` explains them"
    )


def with_nearest(message: str, parser: Any) -> str:
    """Add to a message of an unknown option which one may have been meant.

    Args:
        message: as the parser wrote it; one of another kind stays as it is.
        parser: of jsonargparse, of the program or of the subcommand.
    """
    found, named = _UNKNOWN.search(message), _SUBCOMMAND.search(message)
    if not found:
        return message
    if named and parser._subcommands_action:
        parser = parser._subcommands_action.choices[named[1]]
    options = [name.removeprefix("--") for name in parser._option_string_actions]
    near = get_close_matches(found[1] or found[2], options, n=1, cutoff=0.75)
    return f"{message}; did you mean {near[0]}?" if near else message

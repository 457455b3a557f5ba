"""The `whisper-distill` command: one subcommand for each configuration dataclass."""

import dataclasses
import inspect
import logging
import sys
from argparse import RawDescriptionHelpFormatter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from jsonargparse import ArgumentParser, DefaultHelpFormatter, set_parsing_settings

from distill.arguments import expand
from distill.config import InitConfig, TrainConfig
from distill.evaluate_config import EvaluateConfig
from distill.export.config import ExportConfig
from distill.publish_config import PublishConfig
from distill.quantization.config import InspectConfig, QuantizeConfig
from distill.stopping import InterruptedTrainingError
from distill.study_config import StudyConfig
from distill.transcribe_config import TranscribeConfig
from pipeline import (
    LOG_LINE,
    LOG_TIME,
    __version__,
    examples_of,
    how_to_install,
    what_is_required,
    with_nearest,
)

set_parsing_settings(docstring_parse_attribute_docstrings=True, add_print_completion_argument=True)

DESCRIPTION = """\
Make a small Whisper out of a large one, train it on the shards that whisper-pipeline wrote, and
compare the two.
"""

EXAMPLES = """\
examples:
  whisper-distill init --teacher embedded --decoder_layers 2 --output runs/quickstart/init
  whisper-distill train --config configs/distill/quickstart.yaml
  whisper-distill evaluate --config configs/evaluate/quickstart.yaml
  whisper-distill transcribe --model runs/quickstart/student talk.flac
  whisper-distill quantize --model runs/quickstart/student --output runs/quickstart/small
  whisper-distill export runs/quickstart/student runs/quickstart/export --formats onnx
  whisper-distill export runs/quickstart/student runs/own --clips mine.jsonl --formats ct2-int8
  whisper-distill publish runs/quickstart/student me/student --results runs/quickstart/evaluation
  whisper-distill inspect runs/quickstart/small
  whisper-distill study --config configs/study/quickstart.yaml
  whisper-distill train --print_config > my.yaml
"""

COMMANDS: dict[str, tuple[type, str]] = {
    "init": (InitConfig, "make a student out of a teacher's layers"),
    "train": (TrainConfig, "train a student on shards"),
    "study": (StudyConfig, "train students that differ in one thing, and compare them"),
    "transcribe": (TranscribeConfig, "write down what is said in recordings"),
    "evaluate": (EvaluateConfig, "compare models on the same clips, the teacher first"),
    "quantize": (QuantizeConfig, "write a trained model in 8 or 4 bits"),
    "publish": (PublishConfig, "send a student and its card to the Hugging Face Hub"),
    "inspect": (InspectConfig, "how many bytes each part of a model takes"),
    "export": (ExportConfig, "write a model for CTranslate2, ONNX, whisper.cpp, and compare"),
}

POSITIONAL = {
    "export": ("model", "output"),
    "inspect": ("folder",),
    "publish": ("student", "repo_id"),
}
"""Fields that may be given without their names, in this order."""


class _HelpFormatter(RawDescriptionHelpFormatter, DefaultHelpFormatter):
    """Leave the lines of description and examples as they are."""


class _Parser(ArgumentParser):
    """Says in the user's words what is missing or misspelt."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        message = what_is_required(message, "whisper-distill", COMMANDS)
        super().error(with_nearest(message, self), ex)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command. Returns 0 when done, 1 when it failed, 2 for bad arguments or config."""
    parser, commands = _parser()
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if arguments and arguments[0] in COMMANDS:
        arguments[1:] = expand(
            arguments[1:], COMMANDS[arguments[0]][0], POSITIONAL.get(arguments[0], ())
        )
    values = parser.parse_args(arguments)
    command = values.subcommand
    if command is None:
        parser.error("give a command; whisper-distill --help lists them")
    kind, _ = COMMANDS[command]
    try:
        built = commands[command].instantiate(values[command])
        config = kind(**{field.name: built[field.name] for field in dataclasses.fields(kind)})
    except ValueError as error:
        return _fail(error, 2)
    logging.basicConfig(level=logging.WARNING, format=LOG_LINE, datefmt=LOG_TIME, force=True)
    for package in ("distill", "pipeline"):  # of others only warnings
        logging.getLogger(package).setLevel(logging.INFO)
    try:
        _call(config)
    except ModuleNotFoundError as error:
        return _fail(how_to_install(error, "distill"), 1)
    except (OSError, ValueError) as error:
        return _fail(error, 1)
    except InterruptedTrainingError as error:
        return _fail(error, 143)  # as if SIGTERM had ended it, so that nobody takes it for done
    except KeyboardInterrupt:
        return _fail(_interrupted(config), 130)
    return 0


def _parser() -> tuple[ArgumentParser, dict[str, ArgumentParser]]:
    """Return the parser of the command, and those of its subcommands."""
    parser = _Parser(
        prog="whisper-distill",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=_HelpFormatter,
        version=__version__,
    )
    subcommands = parser.add_subcommands(title="commands")
    parsers = {}
    for name, (kind, summary) in COMMANDS.items():
        places = "".join(f"{place.upper()} " for place in POSITIONAL.get(name, ()))
        takes_files = any(field.name == "files" for field in dataclasses.fields(kind))
        files = " FILE ..." if takes_files else ""
        usage = f"whisper-distill {name} {places}[--config FILE] [--KEY VALUE ...]{files}"
        parsers[name] = _Parser(
            description=inspect.cleandoc(kind.__doc__ or ""),
            usage=usage,
            epilog=examples_of(EXAMPLES, name),
            formatter_class=_HelpFormatter,
        )
        parsers[name].add_argument(
            "--config", action="config", help="YAML file with any of the keys below"
        )
        parsers[name].add_class_arguments(kind)
        subcommands.add_subcommand(name, parsers[name], help=summary)
    return parser, parsers


def _call(config: Any) -> None:
    """Do what a configuration says; torch is imported only now, so that --help is quick."""
    import transformers

    transformers.utils.logging.disable_progress_bar()
    match config:
        case InitConfig():
            from distill.train import init

            init(config)
        case TrainConfig():
            from distill.train import train

            train(config)
        case StudyConfig():
            from distill.study import study

            study(config)
        case TranscribeConfig():
            from distill.transcribe import transcribe

            transcribe(config)
        case EvaluateConfig():
            from distill.evaluate import evaluate
            from distill.evaluate_table import comparison_table, describe_unreadable

            results = evaluate(config)
            print(comparison_table(results))
            if results.unreadable:
                raise ValueError(describe_unreadable(results))
        case QuantizeConfig():
            from distill.quantize import quantize

            quantize(config)
        case PublishConfig():
            from distill.publish import publish

            publish(config)
        case ExportConfig():
            from distill.export.command import export

            export(config)
        case InspectConfig():
            from distill.quantize import print_sizes

            print_sizes(config)


def _interrupted(config: Any) -> str:
    """Say how to go on, where that is possible; the other commands begin anew."""
    match config:
        case TranscribeConfig(output=str()) if "-" not in config.files:  # which is read only once
            again = " without --overwrite, which begins anew," if config.overwrite else ""
            return f"interrupted; run it again{again} to go on from what is written"
        case StudyConfig():
            return "interrupted; run it again to go on from what is written"
        case TrainConfig():
            from distill.checkpoints import newest_checkpoint

            if checkpoint := newest_checkpoint(Path(config.output)):
                again = "run it again" if config.resume else "run it again with --resume true"
                return f"interrupted; {again} to go on from {checkpoint.folder}"
            return "interrupted before the first checkpoint"
        case PublishConfig(dry_run=False):
            return "interrupted; run it again to finish the upload"
    return "interrupted"


def _fail(error: object, code: int) -> int:
    """Print a message for the user and return the exit code."""
    message = str(error).strip()
    if message.startswith("Caught "):  # of a loader process: torch adds the traceback
        message = message.splitlines()[-1]
    print(f"whisper-distill: error: {message}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())

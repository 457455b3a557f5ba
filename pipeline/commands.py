"""What `whisper-pipeline` takes: its commands and their options; each is run by `__main__`."""

import dataclasses
from argparse import RawDescriptionHelpFormatter
from typing import Any, NoReturn, get_type_hints

from jsonargparse import SUPPRESS, ArgumentParser, DefaultHelpFormatter

from pipeline import __version__, examples_of, what_is_required
from pipeline.config_files import Parser, config_parser
from pipeline.limits import SWEEP, FilterConfig
from pipeline.logs import LogFormat

DESCRIPTION = """\
Turn speech corpora into WebDataset shards of pseudo-labels.

`run` works like make: it labels what is not labelled, filters, writes shards, index and report, and
does nothing where nothing changed. A killed run is finished by running it again.
"""

EXAMPLES = """\
examples:
  whisper-pipeline plan --config configs/pipeline/quickstart.yaml
  whisper-pipeline run --config configs/pipeline/quickstart.yaml
  whisper-pipeline run --config configs/pipeline/quickstart.yaml --filter.max_wer 0.05
  whisper-pipeline run --config my.yaml --num_shards 16 --shard 3
  whisper-pipeline report runs/quickstart --thresholds [0.05,0.1,0.2]
  whisper-pipeline explain runs/quickstart CLIP_ID --max_wer 0.2
  whisper-pipeline publish runs/quickstart me/speech --dry_run
  whisper-pipeline publish runs/quickstart me/speech --private false
  whisper-pipeline relabel runs/quickstart --second runs/relabelled --name turbo
  whisper-pipeline parity --config my.yaml --num_clips 64
  whisper-pipeline run --print_config > my.yaml
"""


_CONFIGURED = ("plan", "run", "parity")
"""The commands that read a configuration."""


class _HelpFormatter(RawDescriptionHelpFormatter, DefaultHelpFormatter):
    """Leave the lines of description and examples as they are."""


class _Parser(Parser):
    """Says in the user's words what is missing."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        super().error(what_is_required(message, "whisper-pipeline", _CONFIGURED), ex)


def make_parser() -> tuple[ArgumentParser, dict[str, ArgumentParser]]:
    """Return the parser of the command, and those of its subcommands that take a configuration."""
    parser = _Parser(
        prog="whisper-pipeline",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=_HelpFormatter,
        version=__version__,
    )
    commands = parser.add_subcommands(title="commands")
    plan = config_parser(
        description="Say what a run would do, and do none of it.",
        **_shown("plan", "--config FILE"),
    )
    _add_plan_options(plan)
    run = config_parser(
        description="Label what is not labelled, filter, write shards, index and report.",
        **_shown("run", "--config FILE"),
    )
    parity = config_parser(
        description="Label the same clips with every engine and say how far they agree.",
        **_shown("parity", "--config FILE"),
    )
    parity.add_argument("--num_clips", type=int, default=64, help="how many clips are labelled")
    _add_run_options(run)
    report = Parser(
        description="Write report.json and report.html again from the ledger.",
        **_shown("report", "OUTPUT"),
    )
    report.add_argument("output", type=str, help="folder of a finished run")
    report.add_argument(
        "--thresholds",
        type=list[float],
        default=list(SWEEP),
        help="values of filter.max_wer to try, for example [0.05,0.1]",
    )
    explain = Parser(
        description="Say why a clip was kept, was rejected or failed, or would be otherwise.",
        **_shown("explain", "OUTPUT ID"),
    )
    explain.add_argument("output", type=str, help="folder of a run")
    explain.add_argument("id", type=str, help="id of a clip or utterance")
    hints = get_type_hints(FilterConfig)
    for name in (f.name for f in dataclasses.fields(FilterConfig)):
        explain.add_argument(
            f"--{name}", type=hints[name] | None, default=None, help=f"suppose filter.{name} is so"
        )
    publish = Parser(
        description="Send a finished dataset to the Hugging Face Hub, with a card.",
        **_shown("publish", "OUTPUT REPO_ID"),
    )
    publish.add_argument("output", type=str, help="folder or URL of a finished run")
    publish.add_argument("repo_id", type=str, help="OWNER/NAME on the Hub")
    _add_publish_options(publish)
    relabel = Parser(
        description="Put the labels of a second run over a dataset's shards beside them.",
        **_shown("relabel", "OUTPUT --second OUTPUT --name NAME"),
    )
    relabel.add_argument("output", type=str, help="folder or URL of the finished dataset")
    relabel.add_argument(
        "--second", type=str, required=True, help="folder or URL of the second run"
    )
    relabel.add_argument("--name", type=str, required=True, help="of the labels, for data.labels")
    commands.add_subcommand("plan", plan, help="what would be done: blocks, hours, licences")
    commands.add_subcommand("run", run, help="label, filter, write shards, index and report")
    commands.add_subcommand("parity", parity, help="how far the teacher's engines agree")
    commands.add_subcommand("report", report, help="write the report again, without the teacher")
    commands.add_subcommand("explain", explain, help="why a clip was kept, rejected or failed")
    commands.add_subcommand("relabel", relabel, help="add another teacher's labels to shards")
    commands.add_subcommand("publish", publish, help="send the dataset and its card to the Hub")
    return parser, dict(zip(_CONFIGURED, (plan, run, parity), strict=True))


def _shown(command: str, given: str) -> dict[str, Any]:
    """Return how the help of a command begins and ends."""
    return {
        "usage": f"whisper-pipeline {command} {given} [--KEY VALUE ...]",
        "epilog": examples_of(EXAMPLES, command),
        "formatter_class": _HelpFormatter,
    }


def _add_plan_options(parser: ArgumentParser) -> None:
    """Add what is said of one plan and is no property of the dataset."""
    parser.add_argument(
        "--json", action="store_true", default=SUPPRESS, help="print JSON instead of a table"
    )
    parser.add_argument(
        "--measure",
        type=int,
        default=SUPPRESS,
        help="label so many utterances with the teacher, and estimate time, money and disk from it",
    )


def _add_run_options(parser: ArgumentParser) -> None:
    """Add what is said of one run and is no property of the dataset, so no config has it."""
    parser.add_argument(
        "--num_shards",
        type=int,
        default=SUPPRESS,
        help="divide the blocks among so many processes, and do one share; a run without it then "
        "writes index and report",
    )
    parser.add_argument("--shard", type=int, default=SUPPRESS, help="which share, from 0")
    parser.add_argument(
        "--verify",
        action="store_true",
        default=SUPPRESS,
        help="read all that is committed and make again what is damaged",
    )
    parser.add_argument(
        "--retry_failed",
        action="store_true",
        default=SUPPRESS,
        help="try again what could not be read or labelled",
    )
    parser.add_argument(
        "--metrics_file",
        type=str,
        default=SUPPRESS,
        help="write there how far the run is, in the text format of Prometheus",
    )
    parser.add_argument(
        "--log_format",
        type=LogFormat,
        default=SUPPRESS,
        help="text for people, or json: one object a line, with the block, the stage and its "
        "seconds where a stage is done",
    )


def _add_publish_options(parser: ArgumentParser) -> None:
    """Add where a dataset is published, and what may be."""
    parser.add_argument(
        "--private",
        type=bool,
        default=True,
        help="make a new repository private, and do not write to a public one",
    )
    parser.add_argument(
        "--dry_run", action="store_true", help="list what would be sent, and send nothing"
    )
    parser.add_argument(
        "--append", action="store_true", help="add splits to what the repository holds"
    )
    parser.add_argument(
        "--card_only",
        action="store_true",
        help="send no data, only a card that says how far the labelling is; while a run is at work",
    )
    parser.add_argument("--commit_files", type=int, default=50, help="files in one commit")
    parser.add_argument(
        "--allow_licence",
        type=str,
        nargs="+",
        default=[],
        help="licences that you have read and that permit to give the audio to others",
    )
    parser.add_argument(
        "--leave_out_forbidden",
        action="store_true",
        help="publish the rest where licences forbid some of it",
    )

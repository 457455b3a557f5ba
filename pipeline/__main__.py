"""The `whisper-pipeline` command: parse, call, print.

Exit code 0 done, 1 the run failed, 2 bad arguments or configuration, 130 interrupted, 143
terminated.
"""

import dataclasses
import json
import logging
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, get_type_hints

from jsonargparse import SUPPRESS, ArgumentParser, Namespace
from rich.console import Console
from rich.logging import RichHandler
from rich.table import Table

from pipeline import __version__, how_to_install
from pipeline.config import HelpFormatter, PipelineConfig, config_parser, from_values
from pipeline.files import path_of
from pipeline.limits import SWEEP, FilterConfig
from pipeline.logs import LogFormat, choose_format, formatted, is_json
from pipeline.publishing.config import PublishConfig

# Everything else is imported by the command that needs it, so that --help does not wait for torch.
if TYPE_CHECKING:
    from pipeline.forecast import Estimate
    from pipeline.parts import Part

DESCRIPTION = """\
Turn speech corpora into WebDataset shards of pseudo-labels.

`run` works like make: it labels what is not labelled, filters, writes shards, index and report, and
does nothing where nothing changed. A killed run is finished by running it again.
"""

logger = logging.getLogger("pipeline")
EXAMPLES = """\
examples:
  whisper-pipeline plan --config configs/pipeline/quickstart.yaml
  whisper-pipeline run --config configs/pipeline/quickstart.yaml
  whisper-pipeline run --config configs/pipeline/quickstart.yaml --filter.max_wer 0.05
  whisper-pipeline run --config my.yaml --num_shards 16 --shard 3
  whisper-pipeline report runs/quickstart --thresholds [0.05,0.1,0.2]
  whisper-pipeline explain runs/quickstart CLIP_ID --max_wer 0.2
  whisper-pipeline run --print_config > my.yaml
"""

_KEPT = "what is committed is kept, run again to finish"


class _TerminatedError(KeyboardInterrupt):
    """SIGTERM, as a scheduler sends it before it takes a machine away; it ends a run as Ctrl-C."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    parser, configured = _parser()
    values = parser.parse_args(arguments)
    command = values.subcommand
    if command is None:
        parser.error("give a command; whisper-pipeline --help lists them")
    if values[command].get("log_format"):
        choose_format(values[command].log_format)
    signal.signal(signal.SIGTERM, _terminate)
    try:
        _set_up_logging()
        if command in configured:
            config = from_values(configured[command], values[command])
            if command == "parity":
                return _parity(config, values[command].num_clips)
            return (_plan if command == "plan" else _run)(config, values[command])
        options = values[command]
        return (
            _report(options.output, options.thresholds)
            if command == "report"
            else _publish(options)
            if command == "publish"
            else _relabel(options)
            if command == "relabel"
            else _explain(options)
        )
    except ModuleNotFoundError as error:
        return _fail(how_to_install(error, "pipeline"), 1)
    except (FileNotFoundError, ValueError) as error:
        return _fail(error, 2)
    except (OSError, RuntimeError) as error:
        return _fail(error, 1)
    except _TerminatedError:
        return _fail(f"terminated; {_KEPT}", 143)
    except KeyboardInterrupt:
        return _fail(f"interrupted; {_KEPT}", 130)


def _parser() -> tuple[ArgumentParser, dict[str, ArgumentParser]]:
    """Return the parser of the command, and those of its subcommands that take a configuration."""
    parser = ArgumentParser(
        prog="whisper-pipeline",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=HelpFormatter,
        version=__version__,
    )
    commands = parser.add_subcommands(title="commands")
    usage = "whisper-pipeline {} --config FILE [--KEY VALUE ...]"
    plan = config_parser(
        description="Say what a run would do, and do none of it.", usage=usage.format("plan")
    )
    _add_plan_options(plan)
    run = config_parser(
        description="Label what is not labelled, filter, write shards, index and report.",
        usage=usage.format("run"),
    )
    parity = config_parser(
        description="Label the same clips with every engine and say how far they agree.",
        usage=usage.format("parity"),
    )
    parity.add_argument("--num_clips", type=int, default=64, help="how many clips are labelled")
    _add_run_options(run)
    report = ArgumentParser(description="Write report.json and report.html again from the ledger.")
    report.add_argument("output", type=str, help="folder of a finished run")
    report.add_argument(
        "--thresholds",
        type=list[float],
        default=list(SWEEP),
        help="values of filter.max_wer to try, for example [0.05,0.1]",
    )
    explain = ArgumentParser(description="Say why a clip was kept, was rejected or failed.")
    explain.add_argument("output", type=str, help="folder of a run")
    explain.add_argument("id", type=str, help="id of a clip or utterance")
    hints = get_type_hints(FilterConfig)
    for name in (f.name for f in dataclasses.fields(FilterConfig)):
        explain.add_argument(
            f"--{name}", type=hints[name] | None, default=None, help=f"suppose filter.{name} is so"
        )
    publish = ArgumentParser(
        description="Send a finished dataset to the Hugging Face Hub, with a card."
    )
    publish.add_argument("output", type=Path, help="folder of a finished run")
    _add_publish_options(publish)
    relabel = ArgumentParser(
        description="Put the labels of a second run over a dataset's shards beside them."
    )
    relabel.add_argument("output", type=Path, help="folder of the finished dataset")
    relabel.add_argument("--second", type=Path, required=True, help="folder of the second run")
    relabel.add_argument("--name", type=str, required=True, help="of the labels, for data.labels")
    commands.add_subcommand("plan", plan, help="what would be done: blocks, hours, licences")
    commands.add_subcommand("run", run, help="label, filter, write shards, index and report")
    commands.add_subcommand("parity", parity, help="how far the teacher's engines agree")
    commands.add_subcommand("report", report, help="write the report again, without the teacher")
    commands.add_subcommand("explain", explain, help="why a clip was kept, rejected or failed")
    commands.add_subcommand("relabel", relabel, help="add another teacher's labels to shards")
    commands.add_subcommand("publish", publish, help="send the dataset and its card to the Hub")
    return parser, {"plan": plan, "run": run, "parity": parity}


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
    parser.add_argument(
        "--price_per_hour", type=float, default=SUPPRESS, help="what an hour of one worker costs"
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
        "--log_format",
        type=LogFormat,
        default=SUPPRESS,
        help="text for people, or json: one object a line, with the block, the stage and its "
        "seconds where a stage is done",
    )


def _add_publish_options(parser: ArgumentParser) -> None:
    """Add where a dataset is published, and what may be."""
    parser.add_argument("--repo_id", type=str, required=True, help="OWNER/NAME on the Hub")
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


def _part(options: Namespace) -> "Part | None":
    """Return the share of the blocks that the options name, or None for all of them."""
    from pipeline.parts import Part

    number, of = options.get("shard"), options.get("num_shards")
    if (number is None) != (of is None):
        raise ValueError("--num_shards and --shard belong together: give both or none")
    return None if number is None or of is None else Part(number=number, of=of)


def _plan(config: PipelineConfig, options: Namespace) -> int:
    """Print what a run would do."""
    from pipeline.forecast import make_forecast

    measured, price = options.get("measure", 0), options.get("price_per_hour")
    if measured < 0 or (price is not None and not measured):
        raise ValueError("--measure takes a number of utterances, and --price_per_hour needs it")
    forecast = make_forecast(config, measure=measured, price_per_hour=price)
    if options.get("json"):
        print(json.dumps(dataclasses.asdict(forecast), indent=2, ensure_ascii=False))
        return 0
    table = Table("corpus", "split", "language", "licence", "utterances", "hours", "blocks")
    for c in forecast.corpora:
        hours = f"{c.duration_seconds / 3600:.2f}"
        counts = str(c.num_utterances), hours, str(c.num_blocks)
        table.add_row(c.name, c.split, c.language, c.licence, *counts)
    console = Console()
    console.print(table)
    console.print(
        f"{forecast.blocks} blocks: {forecast.blocks_to_label} to label "
        f"({forecast.hours_to_label:.2f} h), {forecast.blocks_to_filter} to filter again, "
        f"{forecast.blocks_done} up to date.",
        highlight=False,
    )
    if forecast.estimate:
        console.print(_estimate(forecast.estimate), highlight=False)
    elif forecast.teacher_hours is not None and forecast.blocks_to_label:
        console.print(
            f"About {forecast.teacher_hours:.2f} h of teacher compute, at RTFx "
            f"{forecast.rtfx:.1f} as measured in {config.output}.",
            highlight=False,
        )
    elif forecast.blocks_to_label:
        console.print(
            "Time and cost are not known yet: --measure 200 labels a sample to estimate them.",
            highlight=False,
        )
    return 0


def _estimate(estimate: "Estimate") -> str:
    """Say what a run will take."""
    stages = ", ".join(f"{name} {spent:.1f} s" for name, spent in estimate.stage_seconds.items())
    cost = "" if estimate.cost is None else f", which cost {estimate.cost:.2f}"
    return (
        f"About {estimate.compute_hours:.2f} worker-hours to label the rest{cost}; "
        f"{estimate.ledger_bytes / 1e9:.2f} GB of ledger and at most "
        f"{estimate.shard_bytes / 1e9:.2f} GB of shards. Measured on "
        f"{estimate.sample_utterances} utterances, {estimate.sample_seconds:.0f} s: {stages}."
    )


def _run(config: PipelineConfig, options: Namespace) -> int:
    """Bring a dataset up to date and say what became of it."""
    from pipeline.progress import clock
    from pipeline.run import run, run_part

    output, part = path_of(config.output), _part(options)
    how = {name: options.get(name, False) for name in ("verify", "retry_failed")}
    if part:
        work = run_part(config, part, **how)
        print(
            f"Done with {part}: {work.labelled} of its {work.blocks} blocks labelled, "
            f"{work.rebuilt} shards written. When all are done, run without --num_shards and "
            "--shard to write index and report."
        )
        return 0
    outcome = run(config, **how)
    totals = outcome.totals
    if outcome.rebuilt == 0:
        print(
            f"Nothing to do: all {outcome.blocks} blocks are labelled by this teacher and filtered "
            f"with these limits; {output / 'index.json'} is up to date."
        )
        return 0
    table = Table("", "utterances", "hours")
    table.add_row("planned", str(totals.planned), f"{totals.hours_planned:.2f}")
    table.add_row("kept", str(totals.kept), f"{totals.hours_kept:.2f}")
    for reason, count in totals.rejected.items():
        table.add_row(f"rejected: {reason}", str(count), "")
    for stage, count in totals.failed.items():
        table.add_row(f"failed: {stage}", str(count), "")
    console = Console()
    console.print(table)
    console.print(
        f"{outcome.labelled} of {outcome.blocks} blocks labelled, {outcome.rebuilt} shards written "
        f"in {clock(totals.wall_seconds)}; RTFx of the teacher {totals.rtfx:.1f}.\n"
        f"Read {output / 'report.html'}, or train from {output}.",
        highlight=False,
        soft_wrap=True,
    )
    return 0


def _parity(config: PipelineConfig, num_clips: int) -> int:
    """Print how far the engines agree."""
    from pipeline.parity import parity

    table = Table("engine", "clips", "identical text", "WER", "difference")
    for found in parity(config, num_clips):
        table.add_row(
            found.engine,
            str(found.clips),
            f"{found.identical:.1%}",
            f"{found.wer:.4f}",
            f"{found.wer_difference:+.4f}",
        )
    Console().print(table)
    return 0


def _report(folder: str, thresholds: Sequence[float]) -> int:
    """Write the report again."""
    from pipeline.report import write_report

    output = path_of(folder)
    write_report(output, limits=thresholds)
    print(f"Wrote {output / 'report.json'} and {output / 'report.html'}.")
    return 0


def _relabel(options: Namespace) -> int:
    """Write the labels of a second teacher beside the shards."""
    from pipeline.relabelling import write_sidecar

    done = write_sidecar(options.output, options.second, options.name)
    print(
        f"{done.labelled} clips have a label in {options.output / f'labels@{options.name}'}, "
        f"{done.missing} have none. Train on them with --data.labels {options.name}."
    )
    return 0


def _publish(options: Namespace) -> int:
    """Send a dataset to the Hub, or list what would be sent."""
    # datasets takes seconds to import; no other command needs it.
    from pipeline.publishing.dataset import compare, publish
    from pipeline.upload import describe

    names = [field.name for field in dataclasses.fields(PublishConfig)]
    config = PublishConfig(**{name: options[name] for name in names})
    print(describe((compare if options.dry_run else publish)(options.output, config)))
    return 0


def _explain(options: Namespace) -> int:
    """Print what became of a clip or utterance, or would with other options of the filter."""
    from pipeline.explain import explain

    names = [f.name for f in dataclasses.fields(FilterConfig)]
    supposed = {name: options[name] for name in names if options[name] is not None}
    print("\n\n".join(explain(options.output, options.id, **supposed)))
    return 0


def _terminate(_number: int, _frame: object) -> None:
    """End the run; only once, for another one would cut short how its workers are stopped."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise _TerminatedError


def _fail(error: object, code: int) -> int:
    """Tell the user what went wrong and return the exit code."""
    if is_json():
        logger.error("%s", error)
    else:
        print(f"whisper-pipeline: error: {error}", file=sys.stderr)
    return code


def _set_up_logging() -> None:
    """Log what this package does and warnings of others; of Beam nothing, it raises its errors."""
    from pipeline.progress import CONSOLE

    if CONSOLE.is_terminal and not is_json():
        rich = RichHandler(console=CONSOLE, show_time=False, show_path=False, markup=False)
        handler = formatted(rich, "%(message)s")
    else:
        handler = formatted(logging.StreamHandler(), "%(levelname)s %(message)s")
    handler.addFilter(lambda record: "apitools" not in record.getMessage())  # optional in Beam
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("pipeline").setLevel(logging.INFO)
    logging.getLogger("apache_beam").setLevel(logging.CRITICAL)


if __name__ == "__main__":
    sys.exit(main())

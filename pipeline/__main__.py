"""The `whisper-pipeline` command: parse, call, print.

Exit code 0 done, 1 the run failed, 2 bad arguments or configuration, 130 interrupted.
"""

import dataclasses
import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import get_type_hints

from jsonargparse import ArgumentParser, Namespace
from rich.console import Console
from rich.logging import RichHandler
from rich.table import Table

from pipeline import __version__
from pipeline.config import PipelineConfig, config_parser, from_values
from pipeline.explain import explain
from pipeline.forecast import make_forecast
from pipeline.limits import FilterConfig
from pipeline.progress import CONSOLE, clock
from pipeline.report import write_report
from pipeline.sweep import SWEEP

DESCRIPTION = """\
Turn speech corpora into WebDataset shards of pseudo-labels.

`run` works like make: it labels what is not labelled, filters, writes shards, index and report, and
does nothing where nothing changed. A killed run is finished by running it again.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    parser, configured = _parser()
    values = parser.parse_args(arguments)
    command = values.subcommand
    if command is None:
        parser.error("give a command; whisper-pipeline --help lists them")
    _set_up_logging()
    try:
        if command in configured:
            config = from_values(configured[command], values[command])
            if command == "parity":
                return _parity(config, values[command].num_clips)
            return (
                _plan(config, as_json=values[command].json) if command == "plan" else _run(config)
            )
        options = values[command]
        return (
            _report(options.output, options.thresholds)
            if command == "report"
            else _explain(options)
        )
    except (FileNotFoundError, ValueError) as error:
        return _fail(error, 2)
    except RuntimeError as error:
        return _fail(error, 1)
    except KeyboardInterrupt:
        return _fail("interrupted; what is committed is kept, run again to finish", 130)


def _parser() -> tuple[ArgumentParser, dict[str, ArgumentParser]]:
    """Return the parser of the command, and those of its subcommands that take a configuration."""
    parser = ArgumentParser(prog="whisper-pipeline", description=DESCRIPTION, version=__version__)
    commands = parser.add_subcommands(title="commands")
    usage = "whisper-pipeline {} --config FILE [--KEY VALUE ...]"
    plan = config_parser(
        description="Say what a run would do, and do none of it.", usage=usage.format("plan")
    )
    plan.add_argument("--json", action="store_true", help="print JSON instead of a table")
    run = config_parser(
        description="Label what is not labelled, filter, write shards, index and report.",
        usage=usage.format("run"),
    )
    parity = config_parser(
        description="Label the same clips with every engine and say how far they agree.",
        usage=usage.format("parity"),
    )
    parity.add_argument("--num_clips", type=int, default=64, help="how many clips are labelled")
    report = ArgumentParser(description="Write report.json and report.html again from the ledger.")
    report.add_argument("output", type=Path, help="folder of a finished run")
    report.add_argument(
        "--thresholds",
        type=list[float],
        default=list(SWEEP),
        help="values of filter.max_wer to try, for example [0.05,0.1]",
    )
    explain = ArgumentParser(description="Say why a clip was kept, was rejected or failed.")
    explain.add_argument("output", type=Path, help="folder of a run")
    explain.add_argument("id", type=str, help="id of a clip or utterance")
    hints = get_type_hints(FilterConfig)
    for name in (f.name for f in dataclasses.fields(FilterConfig)):
        explain.add_argument(
            f"--{name}", type=hints[name] | None, default=None, help=f"suppose filter.{name} is so"
        )
    commands.add_subcommand("plan", plan, help="what would be done: blocks, hours, licences")
    commands.add_subcommand("run", run, help="label, filter, write shards, index and report")
    commands.add_subcommand("parity", parity, help="how far the teacher's engines agree")
    commands.add_subcommand("report", report, help="write the report again, without the teacher")
    commands.add_subcommand("explain", explain, help="why a clip was kept, rejected or failed")
    return parser, {"plan": plan, "run": run, "parity": parity}


def _plan(config: PipelineConfig, *, as_json: bool) -> int:
    """Print what a run would do."""
    forecast = make_forecast(config)
    if as_json:
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
    if forecast.teacher_hours is not None and forecast.blocks_to_label:
        console.print(
            f"About {forecast.teacher_hours:.2f} h of teacher compute, at RTFx "
            f"{forecast.rtfx:.1f} as measured in {config.output}.",
            highlight=False,
        )
    elif forecast.blocks_to_label:
        console.print(
            "Time and cost are not known yet: they are measured by the first labelled block, "
            "so start the run, and plan again.",
            highlight=False,
        )
    return 0


def _run(config: PipelineConfig) -> int:
    """Bring a dataset up to date and say what became of it."""
    # Beam takes seconds to import and logs while it is; nothing else here needs it.
    from pipeline.run import run

    outcome = run(config)
    output = Path(config.output)
    if outcome.rebuilt == 0:
        print(
            f"Nothing to do: all {outcome.blocks} blocks are labelled by this teacher and filtered "
            f"with these limits; {output / 'index.json'} is up to date."
        )
        return 0
    totals = outcome.totals
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
    # torch takes seconds to import; no other command of this process needs it.
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


def _report(output: Path, thresholds: Sequence[float]) -> int:
    """Write the report again."""
    write_report(output, limits=thresholds)
    print(f"Wrote {output / 'report.json'} and {output / 'report.html'}.")
    return 0


def _explain(options: Namespace) -> int:
    """Print what became of a clip or utterance, or would with other options of the filter."""
    names = [f.name for f in dataclasses.fields(FilterConfig)]
    supposed = {name: options[name] for name in names if options[name] is not None}
    print("\n\n".join(explain(options.output, options.id, **supposed)))
    return 0


def _fail(error: object, code: int) -> int:
    """Print a message for the user and return the exit code."""
    print(f"whisper-pipeline: error: {error}", file=sys.stderr)
    return code


def _set_up_logging() -> None:
    """Log what this package does and warnings of others; of Beam nothing, it raises its errors."""
    on_terminal = RichHandler(console=CONSOLE, show_time=False, show_path=False, markup=False)
    handler = on_terminal if CONSOLE.is_terminal else logging.StreamHandler()
    handler.addFilter(lambda record: "apitools" not in record.getMessage())  # optional in Beam
    logging.basicConfig(
        level=logging.WARNING,
        format="%(message)s" if CONSOLE.is_terminal else "%(levelname)s %(message)s",
        handlers=[handler],
        force=True,
    )
    logging.getLogger("pipeline").setLevel(logging.INFO)
    logging.getLogger("apache_beam").setLevel(logging.CRITICAL)


if __name__ == "__main__":
    sys.exit(main())

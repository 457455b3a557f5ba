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
from typing import TYPE_CHECKING

from jsonargparse import Namespace
from rich.console import Console
from rich.logging import RichHandler
from rich.table import Table

from pipeline import LOG_TIME, how_to_install, table_width
from pipeline.commands import make_parser
from pipeline.config import PipelineConfig
from pipeline.config_files import from_values
from pipeline.files import path_of
from pipeline.limits import FilterConfig
from pipeline.logs import choose_format, formatted, is_json
from pipeline.publishing.config import PublishConfig

# Everything else is imported by the command that needs it, so that --help does not wait for torch.
if TYPE_CHECKING:
    from pipeline.forecast import Estimate
    from pipeline.parts import Part
    from pipeline.schema import Totals

logger = logging.getLogger("pipeline")
_KEPT = "what is committed is kept, run again to finish"


class _TerminatedError(KeyboardInterrupt):
    """SIGTERM, as a scheduler sends it before it takes a machine away; it ends a run as Ctrl-C."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    parser, configured = make_parser()
    values = parser.parse_args(arguments)
    command = values.subcommand
    if command is None:
        parser.error("give a command; whisper-pipeline --help lists them")
    if values[command].get("log_format"):
        choose_format(values[command].log_format)
    signal.signal(signal.SIGTERM, _terminate)
    try:
        _set_up_logging()
        options = values[command]
        if command in configured:
            config = from_values(configured[command], options)
            return {"plan": _plan, "run": _run, "parity": _parity}[command](config, options)
        return {
            "report": _report,
            "explain": _explain,
            "relabel": _relabel,
            "publish": _publish,
        }[command](options)
    except ModuleNotFoundError as error:
        return _fail(how_to_install(error, "pipeline"), 1)
    except (FileNotFoundError, ValueError) as error:
        return _fail(error, 2)
    except (OSError, RuntimeError) as error:
        return _fail(error, 1)
    except Exception as error:
        from pipeline.storage import service_error

        known = service_error(error, str(values[command].get("output")))
        if known is None:
            raise
        return _fail(known, 1)
    except _TerminatedError:
        return _fail(f"terminated; {_KEPT}", 143)
    except KeyboardInterrupt:
        return _fail(f"interrupted; {_KEPT}", 130)


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

    measured = options.get("measure", 0)
    if measured < 0:
        raise ValueError(f"--measure takes a number of utterances, got {measured}")
    forecast = make_forecast(config, measure=measured)
    if options.get("json"):
        print(json.dumps(dataclasses.asdict(forecast), indent=2, ensure_ascii=False))
        return 0
    table = Table("corpus", "split", "language", "licence", "utterances", "hours", "blocks")
    for c in forecast.corpora:
        hours = f"{c.duration_seconds / 3600:.2f}"
        counts = str(c.num_utterances), hours, str(c.num_blocks)
        table.add_row(c.name, c.split, c.language, c.licence, *counts)
    console = Console(width=table_width())
    console.print(table)
    if forecast.changed:
        changed = "; ".join(forecast.changed)
        console.print(
            f"Other options than {config.output} was made with: {changed}.",
            markup=False,
            highlight=False,
        )
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


def _cost(totals: "Totals") -> str:
    """Say what a dataset cost, where a price was given."""
    if totals.cost is None:
        return ""
    per_hour = totals.cost_per_kept_hour
    return f"; cost {totals.cost:.2f}" + (
        "" if per_hour is None else f", {per_hour:.2f} a kept hour"
    )


def _run(config: PipelineConfig, options: Namespace) -> int:
    """Bring a dataset up to date and say what became of it."""
    from pipeline.progress import clock
    from pipeline.run import run, run_part

    output, part = path_of(config.output), _part(options)
    how = {name: options.get(name, False) for name in ("verify", "retry_failed")}
    how["metrics_file"] = options.get("metrics_file")
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
    if outcome.nothing_to_do:
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
    console = Console(width=table_width())
    console.print(table)
    speed = f"; RTFx of the teacher {totals.rtfx:.1f}" if outcome.labelled else ""
    console.print(
        f"{outcome.labelled} of {outcome.blocks} blocks labelled, {outcome.rebuilt} shards written "
        f"in {clock(totals.wall_seconds)}{speed}{_cost(totals)}.\n"
        f"Read {output / 'report.html'}, or train from {output}.",
        highlight=False,
        soft_wrap=True,
    )
    return 0


def _parity(config: PipelineConfig, options: Namespace) -> int:
    """Print how far the engines agree."""
    from pipeline.parity import parity

    table = Table("engine", "clips", "identical text", "WER", "difference")
    for found in parity(config, options.num_clips):
        table.add_row(
            found.engine,
            str(found.clips),
            f"{found.identical:.1%}",
            f"{found.wer:.4f}",
            f"{found.wer_difference:+.4f}",
        )
    Console(width=table_width()).print(table)
    return 0


def _report(options: Namespace) -> int:
    """Write the report again."""
    from pipeline.report import write_report

    output = path_of(options.output)
    if per_cent := [limit for limit in options.thresholds if 2 < limit <= 100]:
        logger.warning("threshold %g is a fraction: 0.1 is 10 %% WER", per_cent[0])
    write_report(output, limits=options.thresholds)
    print(f"Wrote {output / 'report.json'} and {output / 'report.html'}.")
    return 0


def _relabel(options: Namespace) -> int:
    """Write the labels of a second teacher beside the shards."""
    from pipeline.relabelling import write_sidecar

    output = path_of(options.output)
    done = write_sidecar(output, path_of(options.second), options.name)
    print(
        f"{done.labelled} clips have a label in {output / f'labels@{options.name}'}, "
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
    output = path_of(options.output)
    print(describe((compare if options.dry_run else publish)(output, config)))
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
        rich = RichHandler(
            console=CONSOLE,
            log_time_format=LOG_TIME,
            omit_repeated_times=False,
            show_path=False,
            markup=False,
        )
        handler = formatted(rich, "%(message)s")  # it writes time and level itself
    else:
        handler = formatted(logging.StreamHandler())
    handler.addFilter(lambda record: "apitools" not in record.getMessage())  # optional in Beam
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("pipeline").setLevel(logging.INFO)
    logging.getLogger("apache_beam").setLevel(logging.CRITICAL)


if __name__ == "__main__":
    sys.exit(main())

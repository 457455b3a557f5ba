"""From corpora to shards. The whole flow stands on this page; every stage is a verb.

Like `make`, a run does only what is not done yet: it labels blocks that no committed ledger part
covers, writes shards that no commit record covers, and touches nothing else. Only references to
blocks cross Beam's one shuffle. A block is read, labelled, filtered and committed inside one stage,
because audio through a shuffle costs four to eleven times its size in memory, and because Beam's
in-process runner starts nothing behind a shuffle before everything in front of it is done.
"""

import dataclasses
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.runner import PipelineResult

from pipeline import __version__, files
from pipeline.admission import read_canary
from pipeline.backlog import Backlog, clean, find_backlog, find_orphans, withdraw
from pipeline.block_stage import ProcessBlock
from pipeline.changes import changes, say
from pipeline.config import PipelineConfig
from pipeline.config_files import to_yaml
from pipeline.context import needs_ledger
from pipeline.files import AnyPath, path_of
from pipeline.labels import ledger_context
from pipeline.layout import Layout
from pipeline.locking import locked
from pipeline.measurement import expected
from pipeline.metrics import MetricsFile
from pipeline.parts import Part
from pipeline.plan import Block, Plan, make_plan
from pipeline.progress import Tracker, display
from pipeline.report import write_report
from pipeline.schema import SCHEMA_VERSION, Index, Totals, read_index, to_json
from pipeline.teacher import (
    check_dtype,
    check_teacher,
    resolve_revision,
    settle,
    uses_accelerator,
)
from pipeline.totals import LabelBudget, add_up, check_budget, commit_records
from pipeline.verify import withdraw_damaged
from pipeline.workers import (
    check_job_server,
    num_workers,
    pipeline_options,
    resource_hints,
    runner,
    watch,
)

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Work:
    """What a run found and did."""

    blocks: int
    labelled: int
    """Blocks labelled by this run."""
    rebuilt: int
    """Shards written by this run, those of the newly labelled blocks included."""


@dataclass(frozen=True, kw_only=True)
class Outcome(Work):
    """A dataset that is finished."""

    totals: Totals
    indexed: bool
    """Index and report were written: something changed, or an earlier run did not get there."""

    @property
    def nothing_to_do(self) -> bool:
        """Everything was up to date, the index too."""
        return self.rebuilt == 0 and not self.indexed


@dataclass(frozen=True, kw_only=True)
class Manner:
    """How a run goes about it."""

    verify: bool
    retry_failed: bool
    still_held: Callable[[], None]
    """Raises where the output is not this run's any more."""
    metrics: MetricsFile | None


def run(
    config: PipelineConfig,
    *,
    verify: bool = False,
    retry_failed: bool = False,
    metrics_file: str | AnyPath | None = None,
) -> Outcome:
    """Label what is not labelled, filter, write shards, index and report.

    Args:
        config: what to make of what.
        verify: read all that is committed and make again what is damaged.
        retry_failed: try again what could not be read or labelled.
        metrics_file: where to say how far the run is, for Prometheus.

    Raises:
        FileNotFoundError: a corpus or the teacher does not exist.
        ValueError: the configuration cannot work.
        OSError: the output cannot be written to.
        RuntimeError: the run stopped; the message says why and what to do.
    """
    started = time.monotonic()
    config, plan, layout = _prepare(config)
    with locked(layout.output) as still_held:
        how = Manner(
            verify=verify,
            retry_failed=retry_failed,
            still_held=still_held,
            metrics=_metrics(metrics_file, config.output),
        )
        work = _work_on(plan, plan, config, layout, how)
        index, indexed = _write_index(config, plan, layout, time.monotonic() - started)
    return Outcome(**vars(work), totals=index.totals, indexed=indexed)


def run_part(
    config: PipelineConfig,
    part: Part,
    *,
    verify: bool = False,
    retry_failed: bool = False,
    metrics_file: str | AnyPath | None = None,
) -> Work:
    """Do a share of the blocks, beside other processes that do the others.

    Index and report are left to a `run`, which then finds everything done.

    Raises:
        as `run`.
    """
    config, plan, layout = _prepare(config)
    with locked(layout.output, part) as still_held:
        how = Manner(
            verify=verify,
            retry_failed=retry_failed,
            still_held=still_held,
            metrics=_metrics(metrics_file, config.output, f"{part.number} of {part.of}"),
        )
        return _work_on(part.of_plan(plan), plan, config, layout, how)


def _prepare(config: PipelineConfig) -> tuple[PipelineConfig, Plan, Layout]:
    """Settle what the configuration leaves open, and plan."""
    if (limit := config.filter.max_wer) is not None and 2 < limit < 100:
        logger.warning("filter.max_wer is %g, a fraction: 0.1 keeps labels up to 10 %% WER", limit)
    teacher = settle(config.teacher)
    if config.teacher.dtype == "auto" and config.workers_elsewhere:
        logger.warning(
            "teacher.dtype auto is settled on this machine: all workers will run %s with %s. Name "
            "the number format where theirs is another, float16 for most GPUs",
            teacher.engine,
            teacher.dtype,
        )
    config = dataclasses.replace(config, teacher=teacher)
    plan = make_plan(config, resolve_revision(config.teacher))
    return config, plan, Layout(path_of(config.output))


def _work_on(
    mine: Plan,
    plan: Plan,
    config: PipelineConfig,
    layout: Layout,
    how: Manner,
) -> Work:
    """Bring the blocks of a part, or of all, up to date."""
    alone = not needs_ledger(config.filter)  # what is kept of a block depends on no other
    builds = alone or mine is plan
    label_budget = LabelBudget(plan, layout, config.max_failed_fraction)

    def check() -> None:
        if not alone:
            label_budget.check()
        check_budget(layout, plan.keys, plan.num_utterances, config.max_failed_fraction)

    if how.verify:
        withdraw_damaged(mine, layout)
    backlog = find_backlog(mine, layout, retry_failed=how.retry_failed)
    orphans = find_orphans(plan, layout)
    say(
        changes(layout, config, plan.keys),
        layout,
        to_label=len(backlog.to_label),
        to_build=len(backlog.blocks) - len(backlog.to_label),
        to_remove=len(orphans) if mine is plan else 0,
    )
    if backlog.to_label:
        languages = {code for corpus in plan.corpora for code in corpus.languages}
        if not config.workers_elsewhere:
            check_dtype(config.teacher)
        check_teacher(config.teacher, plan.keys.teacher_revision, languages)
    if backlog.blocks:
        check_job_server(_options(config, backlog))
    if mine is plan:  # nobody else is at work here
        clean(orphans, layout)
    withdraw(backlog, layout)
    files.write_text(layout.plan, to_json(plan) + "\n")
    files.write_text(layout.config, to_yaml(config))

    if not how.retry_failed:
        check()
    if how.metrics:
        how.metrics.write(Tracker(mine, layout).progress(), now=True)
    to_build = backlog
    if backlog.blocks:
        process = ProcessBlock(config, plan.keys, plan.num_utterances, retry=how.retry_failed)
        with display(mine, layout, how.metrics and how.metrics.write) as draw:

            def on_tick() -> None:
                how.still_held()
                draw()

            if not alone:
                _run_beam(backlog, process.labelling_only(), config, on_tick)
                label_budget.check()
                # Where another try found rows, these are all blocks: see `retry_block`.
                to_build = find_backlog(mine, layout, retry_failed=False)
                if mine is plan and to_build.blocks:
                    process = process.knowing(ledger_context(config.filter, plan, layout))
            if builds and to_build.blocks:
                _run_beam(to_build, process, config, on_tick)
        how.still_held()
        if how.metrics:
            how.metrics.write(Tracker(mine, layout).progress(), now=True)
    check()
    return Work(
        blocks=len(mine.blocks),
        labelled=len(backlog.to_label),
        rebuilt=len(to_build.blocks) if builds else 0,
    )


def _metrics(path: str | AnyPath | None, output: str, part: str = "") -> MetricsFile | None:
    return MetricsFile(path=path, labels={"output": output, "shard": part}) if path else None


def _options(config: PipelineConfig, backlog: Backlog) -> PipelineOptions:
    """Choose the number of workers by what there is to do."""
    heavy = len(backlog.to_label) + len(backlog.to_retry)
    accelerated = bool(heavy) and uses_accelerator(config.teacher)
    workers = num_workers(len(backlog.blocks), heavy, accelerated=accelerated)
    return pipeline_options(config.beam, workers)


def _run_beam(
    backlog: Backlog, process: ProcessBlock, config: PipelineConfig, on_tick: Callable[[], None]
) -> None:
    """Run the graph: references of blocks in, committed files out."""
    options = _options(config, backlog)  # each run has its own, for `runner` changes them
    hints = resource_hints(options)
    jobs: list[PipelineResult] = []

    def work() -> None:
        graph = beam.Pipeline(runner(options), options)
        build_graph(graph, backlog.blocks, process, hints)
        jobs.append(graph.run())
        jobs[0].wait_until_finish()

    watch(work, on_tick, cancel=lambda: [job.cancel() for job in jobs])


def build_graph(
    graph: beam.Pipeline, blocks: Sequence[Block], process: ProcessBlock, hints: dict[str, str]
) -> None:
    """Lay out the whole graph; only its last stage needs an accelerator or much memory."""
    _ = (
        graph
        | "list blocks" >> beam.Create(blocks)
        | "spread blocks" >> beam.Reshuffle()
        | "label, filter, commit" >> beam.ParDo(process).with_resource_hints(**hints)
    )


def _write_index(
    config: PipelineConfig, plan: Plan, layout: Layout, wall_seconds: float
) -> tuple[Index, bool]:
    """Write index and report, unless they already say the same; tell whether it was needed."""
    heard = read_canary(layout.canary(plan.keys.label_key))
    index = Index(
        schema_version=SCHEMA_VERSION,
        created_with=f"whisper-distillery {__version__}",
        teacher=dataclasses.asdict(config.teacher) | {"revision": plan.keys.teacher_revision},
        decoding=dataclasses.asdict(config.decoding),
        clips=dataclasses.asdict(config.clips),
        filter=dataclasses.asdict(config.filter),
        label_key=plan.keys.label_key,
        shard_key=plan.keys.shard_key,
        shards=tuple(r.shard for r in commit_records(plan, layout) if r.shard),
        totals=add_up(plan, layout, wall_seconds, config.price_per_hour),
        canary=dataclasses.asdict(heard.result) if heard else None,
        estimate=expected(plan, layout, config.price_per_hour),
    )
    if written := _written_index(layout):
        same_time = dataclasses.replace(index.totals, wall_seconds=written.totals.wall_seconds)
        if to_json(dataclasses.replace(index, totals=same_time)) == to_json(written):
            return written, False
    write_report(layout.output, index)
    files.write_text(layout.index, to_json(index) + "\n")
    return index, True


def _written_index(layout: Layout) -> Index | None:
    """Read the index of an earlier run; None where there is none that can be read."""
    if not layout.index.is_file():
        return None
    try:
        return read_index(layout.output)
    except ValueError as error:
        logger.warning("index and report are written again: %s", error)
        return None

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

from pipeline import __version__, files
from pipeline.admission import read_canary
from pipeline.backlog import Backlog, clean, find_backlog, withdraw
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
from pipeline.scoring import language_code
from pipeline.teacher import check_teacher, resolve_revision, settle, uses_accelerator
from pipeline.totals import add_up, check_budget, commit_records
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
        clean(plan, layout)
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
    config = dataclasses.replace(config, teacher=settle(config.teacher))
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

    def check() -> None:
        check_budget(layout, plan.keys, plan.num_utterances, config.max_failed_fraction)

    if how.verify:
        withdraw_damaged(mine, layout)
    backlog = find_backlog(mine, layout, retry_failed=how.retry_failed)
    say(
        changes(layout, config, plan.keys),
        layout,
        to_label=len(backlog.to_label),
        to_build=len(backlog.blocks) - len(backlog.to_label),
    )
    if backlog.to_label:
        languages = {language_code(corpus.language) for corpus in config.corpora}
        check_teacher(config.teacher, plan.keys.teacher_revision, languages)
    options = _options(config, backlog)
    if backlog.blocks:
        check_job_server(options)
    withdraw(backlog, layout)
    files.write_text(layout.plan, to_json(plan) + "\n")
    files.write_text(layout.config, to_yaml(config))

    if not how.retry_failed:
        check()
    if how.metrics:
        how.metrics.write(Tracker(mine, layout).progress(), now=True)
    to_build = backlog.blocks
    if backlog.blocks:
        process = ProcessBlock(config, plan.keys, plan.num_utterances, retry=how.retry_failed)
        with display(mine, layout, how.metrics and how.metrics.write) as draw:

            def on_tick() -> None:
                how.still_held()
                draw()

            if needs_ledger(config.filter):  # what is kept of a block depends on the others
                _run_beam(backlog.blocks, process.labelling_only(), options, on_tick)
                # Where another try found rows, these are all blocks: see `retry_block`.
                to_build = find_backlog(mine, layout, retry_failed=False).blocks
                if mine is plan and to_build:
                    process = process.knowing(ledger_context(config.filter, plan, layout))
            if to_build and (mine is plan or not needs_ledger(config.filter)):
                _run_beam(to_build, process, options, on_tick)
        how.still_held()
        if how.metrics:
            how.metrics.write(Tracker(mine, layout).progress(), now=True)
    check()
    return Work(blocks=len(mine.blocks), labelled=len(backlog.to_label), rebuilt=len(to_build))


def _metrics(path: str | AnyPath | None, output: str, part: str = "") -> MetricsFile | None:
    return MetricsFile(path=path, labels={"output": output, "shard": part}) if path else None


def _options(config: PipelineConfig, backlog: Backlog) -> PipelineOptions:
    """Choose the number of workers by what there is to do."""
    heavy = len(backlog.to_label) + len(backlog.to_retry)
    accelerated = bool(heavy) and uses_accelerator(config.teacher)
    workers = num_workers(len(backlog.blocks), heavy, accelerated=accelerated)
    return pipeline_options(config.beam, workers)


def _run_beam(
    blocks: Sequence[Block],
    process: ProcessBlock,
    options: PipelineOptions,
    on_tick: Callable[[], None],
) -> None:
    """Run the graph: references of blocks in, committed files out."""

    def work() -> None:
        with beam.Pipeline(runner(options), options) as graph:
            build_graph(graph, blocks, process, hints)

    hints = resource_hints(options)
    watch(work, on_tick)


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
    if layout.index.is_file():
        written = read_index(layout.output)
        same_time = dataclasses.replace(index.totals, wall_seconds=written.totals.wall_seconds)
        if to_json(dataclasses.replace(index, totals=same_time)) == to_json(written):
            return written, False
    write_report(layout.output, index)
    files.write_text(layout.index, to_json(index) + "\n")
    return index, True

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
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions

from pipeline import __version__, files
from pipeline.blocks import committed, is_labelled, process_block
from pipeline.config import PipelineConfig, to_yaml
from pipeline.layout import Layout
from pipeline.plan import Block, Keys, Plan, make_plan
from pipeline.progress import display
from pipeline.report import write_report
from pipeline.schema import SCHEMA_VERSION, Index, Totals, read_index, to_json
from pipeline.scoring import language_code
from pipeline.teacher import check_teacher, resolve_revision, settle, uses_accelerator
from pipeline.totals import TooManyFailuresError, add_up, check_budget, commit_records
from pipeline.workers import num_workers, pipeline_options, runner, watch

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a run found and did."""

    blocks: int
    labelled: int
    """Blocks labelled by this run."""
    rebuilt: int
    """Shards written by this run, those of the newly labelled blocks included."""
    totals: Totals

    @property
    def nothing_to_do(self) -> bool:
        """Everything was up to date."""
        return self.rebuilt == 0


def run(config: PipelineConfig) -> Outcome:
    """Label what is not labelled, filter, write shards, index and report.

    Raises:
        FileNotFoundError: a corpus or the teacher does not exist.
        ValueError: the configuration cannot work.
        RuntimeError: the run stopped; the message says why and what to do.
    """
    started = time.monotonic()
    config = dataclasses.replace(config, teacher=settle(config.teacher))
    layout = Layout(Path(config.output))
    plan = make_plan(config, resolve_revision(config.teacher))
    to_build = [b for b in plan.blocks if not committed(b, layout, plan.keys)]
    to_label = [b for b in to_build if not is_labelled(b, layout, plan.keys)]
    if to_label:
        languages = {language_code(corpus.language) for corpus in config.corpora}
        check_teacher(config.teacher, plan.keys.teacher_revision, languages)
    accelerated = bool(to_label) and uses_accelerator(config.teacher)
    workers = num_workers(len(to_build), len(to_label), accelerated=accelerated)
    options = pipeline_options(config.beam, workers)

    orphans = _orphans(plan, layout)
    if to_build or orphans:
        layout.index.unlink(missing_ok=True)  # from here on it would not tell the truth
    for path in orphans:
        logger.info("removing %s, its block is no longer planned", path)
        path.unlink()
    files.write_text(layout.plan, to_json(plan) + "\n")
    files.write_text(layout.config, to_yaml(config))
    for block in to_build:  # what an outdated record says of failures must not count any more
        layout.commit_record(block.id).unlink(missing_ok=True)

    check_budget(layout, plan.keys, plan.num_utterances, config.max_failed_fraction)
    if to_build:
        process = ProcessBlock(config, plan.keys, plan.num_utterances)
        with display(plan, layout) as on_tick:
            _run_beam(to_build, process, options, on_tick)
    check_budget(layout, plan.keys, plan.num_utterances, config.max_failed_fraction)
    index = _write_index(config, plan, layout, time.monotonic() - started)
    return Outcome(
        blocks=len(plan.blocks),
        labelled=len(to_label),
        rebuilt=len(to_build),
        totals=index.totals,
    )


class ProcessBlock(beam.DoFn):
    """The fused stage: a block's reference goes in, its files are committed, its id comes out."""

    def __init__(self, config: PipelineConfig, keys: Keys, num_planned: int) -> None:
        """Take along what every worker has to know; all of it is small."""
        self._config, self._keys, self._num_planned = config, keys, num_planned
        self._over_budget = False

    def process(self, block: Block) -> Iterator[str]:
        """Bring one block up to date, unless too much has failed; `run` then says so.

        To raise here would print Beam's traceback over the message.
        """
        if self._over_budget:
            return
        record = process_block(block, self._config, self._keys)
        if record.failed:
            try:
                check_budget(
                    Layout(Path(self._config.output)),
                    self._keys,
                    self._num_planned,
                    self._config.max_failed_fraction,
                )
            except TooManyFailuresError:
                self._over_budget = True
        yield record.block


def _run_beam(
    blocks: Sequence[Block],
    process: ProcessBlock,
    options: PipelineOptions,
    on_tick: Callable[[], None],
) -> None:
    """Run the graph: references of blocks in, committed files out."""

    def work() -> None:
        with beam.Pipeline(runner(options), options) as graph:
            _ = (
                graph
                | "list blocks" >> beam.Create(blocks)
                | "spread blocks" >> beam.Reshuffle()
                | "label, filter, commit" >> beam.ParDo(process)
            )

    watch(work, on_tick)


def _orphans(plan: Plan, layout: Layout) -> list[Path]:
    """Find shards of blocks that are no longer planned; a reader that globs must not see them.

    Their ledger parts stay: they were paid for, and the corpus may come back.
    """
    planned = {block.id for block in plan.blocks}
    found = sorted([*layout.shards.glob("*.json"), *layout.shards.glob("*.tar")])
    return [path for path in found if path.stem not in planned]


def _write_index(config: PipelineConfig, plan: Plan, layout: Layout, wall_seconds: float) -> Index:
    """Write index and report, unless they already say the same; return the index."""
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
        totals=add_up(plan, layout, wall_seconds),
    )
    if layout.index.is_file():
        written = read_index(layout.output)
        same_time = dataclasses.replace(index.totals, wall_seconds=written.totals.wall_seconds)
        if to_json(dataclasses.replace(index, totals=same_time)) == to_json(written):
            return written
    write_report(layout.output, index)
    files.write_text(layout.index, to_json(index) + "\n")
    return index

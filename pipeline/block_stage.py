"""The one stage of the graph that works: a block's reference goes in, its files are committed."""

import copy
import time
from collections.abc import Iterator

import apache_beam as beam
from apache_beam.metrics.metric import Metrics

from pipeline.blocks import label_block, process_block
from pipeline.config import PipelineConfig
from pipeline.context import Context
from pipeline.files import path_of
from pipeline.labels import read_plan
from pipeline.layout import Layout
from pipeline.ledger import read_failures
from pipeline.plan import Block, Keys
from pipeline.retry import retry_block
from pipeline.shards import CommitRecord
from pipeline.totals import LabelBudget, TooManyFailuresError, check_budget


class ProcessBlock(beam.DoFn):
    """The fused stage: a block's reference goes in, its files are committed, its id comes out."""

    def __init__(
        self, config: PipelineConfig, keys: Keys, num_planned: int, *, retry: bool = False
    ) -> None:
        """Take along what every worker has to know; all of it is small."""
        self._config, self._keys, self._num_planned = config, keys, num_planned
        self._retry = retry
        self._label_only = False
        self._label_budget: LabelBudget | None = None
        self._context: Context | None = None
        self._over_budget = False

    def labelling_only(self) -> "ProcessBlock":
        """Return the stage without the filter, for labels that must all be there before it."""
        changed = copy.copy(self)
        changed._label_only = True
        return changed

    def knowing(self, context: Context) -> "ProcessBlock":
        """Return the stage with what the filter has to know of the whole ledger."""
        changed = copy.copy(self)
        changed._retry, changed._context = False, context
        return changed

    def process(self, block: Block) -> Iterator[str]:
        """Bring one block up to date, unless too much has failed; `run` then says so.

        To raise here would print Beam's traceback over the message.
        """
        if self._over_budget:
            return
        if self._retry:
            retry_block(block, self._config, self._keys)
        if self._label_only:
            label_block(block, self._config, self._keys)
            self._over_budget = not self._retry and self._labels_over_budget(block)
            return
        started = time.monotonic()
        record = process_block(block, self._config, self._keys, self._context)
        _count(record, time.monotonic() - started)
        if record.failed and not self._retry:  # what was not retried yet does not count
            try:
                check_budget(
                    Layout(path_of(self._config.output)),
                    self._keys,
                    self._num_planned,
                    self._config.max_failed_fraction,
                )
            except TooManyFailuresError:
                self._over_budget = True
        yield record.block

    def _labels_over_budget(self, block: Block) -> bool:
        """Tell whether a block that was just labelled has spent the budget."""
        layout = Layout(path_of(self._config.output))
        if not read_failures(layout.failures(self._keys.label_key, block.id)):
            return False
        if self._label_budget is None:
            limit = self._config.max_failed_fraction
            self._label_budget = LabelBudget(read_plan(layout), layout, limit)
        try:
            self._label_budget.check()
        except TooManyFailuresError:
            return True
        return False


def _count(record: CommitRecord, seconds: float) -> None:
    """Show a runner's page what was done; what counts are the committed files."""
    name = ProcessBlock.__name__
    counts = {"kept": record.kept, "rejected": sum(record.rejected.values())}
    for what, count in (counts | {"failed": sum(record.failed.values())}).items():
        Metrics.counter(name, f"utterances_{what}").inc(count)
    Metrics.distribution(name, "block_milliseconds").update(round(seconds * 1000))
    Metrics.distribution(name, "block_kept_seconds").update(round(record.kept_seconds))

"""What the filter knows beyond the row it judges: other rows, other models, other sets.

A context is made once and handed to every call of the filter, which stays a pure function. What
the configuration names in files is read by `read_context`; what only the whole ledger can tell is
added by `with_ledger`, after labelling and before the first shard.
"""

import dataclasses
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from pipeline.acceptance import Acceptance, read_acceptance
from pipeline.agreement import disagreements
from pipeline.duplicates import (
    Contamination,
    RowKey,
    find_duplicates,
    read_evaluation_sets,
    row_key,
)
from pipeline.files import path_of
from pipeline.layout import Layout
from pipeline.ledger import read_ledger
from pipeline.limits import FilterConfig
from pipeline.pieces import pieces
from pipeline.schema import Sample, read_index
from pipeline.speaking_rate import RateBounds, characters_per_second, ledger_bounds

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Context:
    """Everything a rule may look at besides its row and its options."""

    rates: Mapping[str, RateBounds] = field(default_factory=dict)
    """Bounds of the ledger's own languages."""
    duplicates: Mapping[RowKey, RowKey] = field(default_factory=dict)
    """Rows that repeat another, with that other."""
    contamination: Contamination | None = None
    second: Mapping[RowKey, Sample] = field(default_factory=dict)
    """Rows of the second teacher."""
    acceptance: Acceptance | None = None

    def disagreement(self, row: Sample) -> float | None:
        """Return how far a row is from the second teacher; None where that one has no such row."""
        other = self.second.get(row_key(row))
        return disagreements([row], [other]).get(row_key(row)) if other else None


NOTHING = Context()


def read_context(config: FilterConfig) -> Context:
    """Read what the options name in files.

    Raises:
        FileNotFoundError: one of them does not exist.
        ValueError: one of them is not what it should be.
    """
    context = Context(
        contamination=read_evaluation_sets(config.evaluation_sets, config.contamination_words)
        if config.evaluation_sets
        else None,
        second=_second_ledger(config.second_ledger) if config.second_ledger else {},
        acceptance=read_acceptance(config.acceptance_model) if config.acceptance_model else None,
    )
    if context.acceptance:
        context.acceptance.threshold(config.acceptance_precision)  # refused now, not at row 1
    return context


def named_files(config: FilterConfig) -> list[str]:
    """List the files and folders that the options name."""
    return [
        name
        for name in (*config.evaluation_sets, config.acceptance_model, config.second_ledger)
        if name
    ]


def needs_ledger(config: FilterConfig) -> bool:
    """Tell whether a decision about one row depends on others, so all must be labelled first."""
    return config.drop_duplicates or config.speaking_rate == "ledger"


def with_ledger(
    context: Context, config: FilterConfig, rows: Callable[[], Iterable[Sample]]
) -> Context:
    """Add what only the whole ledger can tell; `rows` starts a pass over it, in plan order."""
    if config.speaking_rate == "ledger":
        rates = (
            (row.language, characters_per_second(row.pseudo_label, row.duration_seconds))
            for row in rows()
        )
        context = dataclasses.replace(context, rates=ledger_bounds(rates))
    if config.drop_duplicates:
        # An evaluation split comes first: what is in both has to leave the training part.
        order = (
            row
            for judged in (False, True)
            for row in rows()
            if (row.split in config.splits) == judged
        )
        context = dataclasses.replace(context, duplicates=find_duplicates(order))
    return context


def warn_of_strangers(
    name: str, rows: Iterable[Sample], config: FilterConfig, context: Context
) -> None:
    """Say so where most of a block is unknown to the second teacher, as no rule would.

    What it has not heard passes, so a run over other corpora, or with other `clips` options, would
    go unnoticed.
    """
    if config.max_disagreement is None:
        return
    judged = [piece for row in rows if row.split in config.splits for piece in pieces(row)]
    heard = sum(context.disagreement(piece) is not None for piece in judged)
    if 2 * heard < len(judged):
        logger.warning(
            "filter.second_ledger %s has labels for %d of the %d clips of %s, and "
            "filter.max_disagreement lets the others pass; label the same corpora with the same "
            "`clips` options there",
            config.second_ledger,
            heard,
            len(judged),
            name,
        )


def _second_ledger(output: str) -> dict[RowKey, Sample]:
    """Read what the last finished run in a folder says of each piece; older labels stay there."""
    try:
        key = read_index(output).label_key
        parts = sorted(Layout(path_of(output)).ledger(key, "any").parent.glob("*.parquet"))
    except FileNotFoundError:
        parts = []
    if not parts:
        raise FileNotFoundError(
            f"filter.second_ledger {output} holds no finished run; give the output folder of a run "
            "that labelled the same corpora with another teacher"
        )
    return {
        row_key(piece): piece
        for part in parts
        for row in read_ledger(part)[0]
        for piece in pieces(row)
    }

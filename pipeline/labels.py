"""What a run has committed, read back: what it was told, its labels, and what they say together."""

from collections.abc import Iterator

from pipeline.config import PipelineConfig
from pipeline.config_files import load_config
from pipeline.context import Context, needs_ledger, read_context, with_ledger
from pipeline.layout import Layout
from pipeline.ledger import Failure, LedgerRow, read_failures, read_ledger
from pipeline.limits import FilterConfig
from pipeline.pieces import pieces
from pipeline.plan import Plan
from pipeline.schema import from_json


def read_run(layout: Layout) -> tuple[PipelineConfig, Plan]:
    """Read what the last run in a folder was told and had planned.

    Raises:
        FileNotFoundError: the folder holds no run.
        ValueError: one of the two files is damaged.
    """
    if not layout.plan.is_file() or not layout.config.is_file():
        raise FileNotFoundError(
            f"{layout.output} holds no run: there is no plan.json and config.yaml in it. "
            "Give the folder that a config names as `output`."
        )
    return load_config(layout.config), read_plan(layout)


def read_plan(layout: Layout) -> Plan:
    """Read what the last run in a folder had planned.

    Raises:
        FileNotFoundError: the folder holds no run.
        ValueError: the file is damaged.
    """
    try:
        return from_json(Plan, layout.plan.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(
            f"{layout.plan} is damaged or of another release ({error}); run the pipeline again"
        ) from error


def labels(plan: Plan, layout: Layout) -> Iterator[tuple[list[LedgerRow], list[Failure]]]:
    """Yield the ledger rows and the failures of each block, one block in memory at a time."""
    key = plan.keys.label_key
    for block in plan.blocks:
        rows, _ = read_ledger(layout.ledger(key, block.id))
        yield rows, read_failures(layout.failures(key, block.id))


def ledger_context(config: FilterConfig, plan: Plan, layout: Layout) -> Context:
    """Return what the filter knows beyond a row, of a ledger that is complete.

    Raises:
        FileNotFoundError: a file that the options name does not exist.
        ValueError: it is not what it should be.
    """
    context = read_context(config)
    if not needs_ledger(config):
        return context
    return with_ledger(
        context,
        config,
        lambda: (
            piece for rows, _ in labels(plan, layout) for row in rows for piece in pieces(row)
        ),
    )

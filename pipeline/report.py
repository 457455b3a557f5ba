"""What a dataset holds and what other thresholds would make of it, from the ledger alone.

`report.json` is for programs, `report.html` for people: one self-contained file with the same
numbers. Neither needs the teacher or the audio, so both can be made again at any time.
"""

import dataclasses
import json
import math
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import jinja2

from pipeline import files
from pipeline.config import PipelineConfig, load_config
from pipeline.filters import FilterConfig, rejection
from pipeline.layout import Layout
from pipeline.ledger import Failure, LedgerRow, read_failures, read_ledger
from pipeline.plan import Plan
from pipeline.schema import from_json
from pipeline.shards import CommitRecord
from pipeline.totals import add_up, commit_records

SWEEP = (0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.75, 1.0)
"""Values of `filter.max_wer` for which the report says what would be kept."""

HISTOGRAM_EDGES = (0.0, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1.0)
"""Upper edges of the bins, inclusive; one more bin holds the rest."""


@dataclass(frozen=True, kw_only=True)
class SplitReport:
    """The numbers of one split of one corpus; counts are of utterances."""

    corpus: str
    split: str
    licence: str
    planned: int
    kept: int
    rejected: dict[str, int]
    failed: dict[str, int]
    hours_planned: float
    hours_kept: float


@dataclass(frozen=True, kw_only=True)
class Bin:
    """Labelled clips whose error rate is at most `upper` and above the bin before."""

    upper: float | None
    """None for the last bin, which has no upper edge."""
    clips: int
    hours: float


@dataclass(frozen=True, kw_only=True)
class SweepPoint:
    """What of the filtered splits another threshold would keep."""

    max_wer: float
    clips: int
    hours: float


@dataclass(frozen=True, kw_only=True)
class Report:
    """`report.json`."""

    planned: int
    kept: int
    rejected: dict[str, int]
    failed: dict[str, int]
    hours_planned: float
    hours_kept: float
    teacher: str
    teacher_revision: str
    teacher_seconds: float
    rtfx: float
    max_wer: float
    splits: tuple[SplitReport, ...]
    histogram: tuple[Bin, ...]
    """Of the splits that are filtered."""
    sweep: tuple[SweepPoint, ...]


def write_report(output: Path) -> Report:
    """Write `report.json` and `report.html` of a dataset whose blocks are all committed.

    Raises:
        FileNotFoundError: the folder holds no run.
        AssertionError: the run is not finished.
    """
    layout = Layout(Path(output))
    config, plan = read_run(layout)
    report = make_report(config, plan, layout)
    text = json.dumps(dataclasses.asdict(report), indent=2, ensure_ascii=False)
    files.write_text(layout.report_json, text + "\n")
    files.write_text(layout.report_html, render(report))
    return report


def read_run(layout: Layout) -> tuple[PipelineConfig, Plan]:
    """Read what the last run in a folder was told and had planned.

    Raises:
        FileNotFoundError: the folder holds no run.
    """
    if not layout.plan.is_file() or not layout.config.is_file():
        raise FileNotFoundError(
            f"{layout.output} holds no run: there is no plan.json and config.yaml in it. "
            "Give the folder that a config names as `output`."
        )
    plan = from_json(Plan, layout.plan.read_text(encoding="utf-8"))
    return load_config(layout.config), plan


def make_report(config: PipelineConfig, plan: Plan, layout: Layout) -> Report:
    """Count kept, rejected and failed by split, and try other thresholds."""
    totals = add_up(plan, layout, wall_seconds=0.0)
    judged = [
        (_error_rate(row), row.duration_seconds, _is_only_judged_by_wer(row, config.filter))
        for rows, _ in labels(plan, layout)
        for row in rows
        if row.split in config.filter.splits and row.metric
    ]
    return Report(
        planned=totals.planned,
        kept=totals.kept,
        rejected=totals.rejected,
        failed=totals.failed,
        hours_planned=totals.hours_planned,
        hours_kept=totals.hours_kept,
        teacher=config.teacher.model,
        teacher_revision=plan.keys.teacher_revision,
        teacher_seconds=totals.teacher_seconds,
        rtfx=totals.rtfx,
        max_wer=config.filter.max_wer,
        splits=_by_split(plan, commit_records(plan, layout)),
        histogram=_histogram([(rate, seconds) for rate, seconds, _ in judged]),
        sweep=_sweep([(rate, seconds) for rate, seconds, fit in judged if fit]),
    )


def labels(plan: Plan, layout: Layout) -> Iterator[tuple[list[LedgerRow], list[Failure]]]:
    """Yield the ledger rows and the failures of each block, one block in memory at a time."""
    key = plan.keys.label_key
    for block in plan.blocks:
        rows, _ = read_ledger(layout.ledger(key, block.id))
        yield rows, read_failures(layout.failures(key, block.id))


def render(report: Report) -> str:
    """Return the report as one HTML page that needs no other file."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("pipeline"), autoescape=True, undefined=jinja2.StrictUndefined
    )
    return environment.get_template("report.html").render(report=report)


def _by_split(plan: Plan, records: list[CommitRecord]) -> tuple[SplitReport, ...]:
    """Add up the blocks of each split."""
    grouped: defaultdict[tuple[str, str], list[CommitRecord]] = defaultdict(list)
    for block, record in zip(plan.blocks, records, strict=True):
        grouped[block.corpus, block.split].append(record)
    reports = []
    for corpus in plan.corpora:
        rejected: Counter[str] = Counter()
        failed: Counter[str] = Counter()
        for record in grouped[corpus.name, corpus.split]:
            rejected.update(record.rejected)
            failed.update(record.failed)
        mine = grouped[corpus.name, corpus.split]
        reports.append(
            SplitReport(
                corpus=corpus.name,
                split=corpus.split,
                licence=corpus.licence,
                planned=corpus.num_utterances,
                kept=sum(record.kept for record in mine),
                rejected=dict(sorted(rejected.items())),
                failed=dict(sorted(failed.items())),
                hours_planned=_hours(corpus.duration_seconds),
                hours_kept=_hours(sum(record.kept_seconds for record in mine)),
            )
        )
    return tuple(reports)


def _error_rate(row: LedgerRow) -> float:
    """Return the rate by which the filter judges a row."""
    rate = row.cer if row.wer is not None == "cer" else row.wer
    assert rate is not None, f"{row.id} has a metric and no rate"
    return rate


def _is_only_judged_by_wer(row: LedgerRow, config: FilterConfig) -> bool:
    """Tell whether no rule but the threshold would reject a row."""
    return rejection(row, dataclasses.replace(config, max_wer=math.inf)) is None


def _histogram(judged: list[tuple[float, float]]) -> tuple[Bin, ...]:
    """Count (rate, seconds) pairs in bins of rate."""
    clips = [0] * (len(HISTOGRAM_EDGES) + 1)
    seconds = [0.0] * len(clips)
    for rate, duration in judged:
        position = bisect_left(HISTOGRAM_EDGES, rate)
        clips[position] += 1
        seconds[position] += duration
    uppers = [*HISTOGRAM_EDGES, None]
    return tuple(
        Bin(upper=upper, clips=n, hours=_hours(s))
        for upper, n, s in zip(uppers, clips, seconds, strict=True)
    )


def _sweep(judged: list[tuple[float, float]]) -> tuple[SweepPoint, ...]:
    """Say for each threshold what it would keep."""
    points = []
    for limit in SWEEP:
        kept = [duration for rate, duration in judged if rate <= limit]
        points.append(SweepPoint(max_wer=limit, clips=len(kept), hours=_hours(sum(kept))))
    return tuple(points)


def _hours(seconds: float) -> float:
    return round(seconds / 3600, 4)

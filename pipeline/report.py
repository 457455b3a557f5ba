"""What a dataset holds and what other thresholds would make of it, from the ledger alone.

`report.json` is for programs, `report.html` for people: one self-contained file with the same
numbers. Neither needs the teacher, so both can be made again at any time; the page plays the clips
that it shows where the corpus can still be read.
"""

import dataclasses
import json
import math
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import jinja2
import numpy as np

from pipeline import files
from pipeline.acceptance import (
    FEATURES,
    Acceptance,
    features,
    fit_acceptance,
    write_acceptance,
)
from pipeline.config import PipelineConfig
from pipeline.config_files import load_config
from pipeline.context import Context, needs_ledger, read_context, with_ledger
from pipeline.cutting import pieces
from pipeline.examples import Example, audio_of, choose, fetch, make_example
from pipeline.files import AnyPath, path_of
from pipeline.layout import Layout
from pipeline.ledger import Failure, LedgerRow, read_failures, read_ledger, read_table
from pipeline.limits import FilterConfig
from pipeline.measures import RuleMeasure, measure_planted
from pipeline.plan import Block, Plan
from pipeline.plots import bars, curve
from pipeline.schema import Index, from_json, read_index
from pipeline.shards import CommitRecord
from pipeline.sweep import (
    DURATION_EDGES,
    SWEEP,
    Judged,
    RuleCount,
    SweepPoint,
    count_rules,
    hours,
    judge_parts,
    sweep,
    sweep_groups,
)
from pipeline.totals import commit_records

HISTOGRAM_EDGES = (0.0, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1.0)
"""Upper edges of the bins, inclusive; one more bin holds the rest."""

MAX_CLIPS_TO_LEARN_FROM = 50_000


@dataclass(frozen=True, kw_only=True)
class SplitReport:
    """The numbers of one split of one corpus; counts are of utterances."""

    corpus: str
    split: str
    language: str
    licence: str
    planned: int
    kept: int
    rejected: dict[str, int]
    failed: dict[str, int]
    hours_planned: float
    hours_kept: float


@dataclass(frozen=True, kw_only=True)
class LanguageReport:
    """The filtered clips of one language."""

    language: str
    clips: int
    kept: int
    hours: float
    hours_kept: float
    wer: float | None
    """Of all its clips with a reference: summed errors over summed words."""
    wer_kept: float | None


@dataclass(frozen=True, kw_only=True)
class Bin:
    """Filtered clips whose value is at most `upper` and above the bin before."""

    upper: float | None
    """None for the last bin, which has no upper edge."""
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
    wall_seconds: float
    rtfx: float
    max_wer: float
    splits: tuple[SplitReport, ...]
    languages: tuple[LanguageReport, ...]
    histogram: tuple[Bin, ...]
    """Of error rates, of the splits that are filtered."""
    durations: tuple[Bin, ...]
    sweep: tuple[SweepPoint, ...]
    sweep_by: dict[str, dict[str, tuple[SweepPoint, ...]]]
    """The same for each corpus, language and bucket of duration."""
    rules: tuple[RuleCount, ...]
    measured: tuple[RuleMeasure, ...]
    """What the rules are worth on the planted defects of the embedded corpus; else empty."""
    acceptance: Acceptance | None
    """How well evidence alone reproduces the reference's decision; None with too few clips."""
    examples: tuple[Example, ...]
    canary: dict[str, Any] | None
    """What the teacher made of clips with known content; None where it was not asked."""
    configuration: dict[str, Any]


def write_report(
    output: str | AnyPath, index: Index | None = None, limits: Sequence[float] = SWEEP
) -> Report:
    """Write `report.json` and `report.html` of a dataset whose blocks are all committed.

    `index` is given by the run that is about to write it; `limits` are the thresholds to try.

    Raises:
        FileNotFoundError: the folder holds no run, or one that is not finished.
        ValueError: a threshold is out of range, or a file is damaged or of another release.
    """
    layout = Layout(path_of(output))
    config, plan = read_run(layout)
    index = index or read_index(layout.output)
    report, audio = make_report(config, plan, layout, index, limits)
    text = json.dumps(dataclasses.asdict(report), indent=2, ensure_ascii=False)
    files.write_text(layout.report_json, text + "\n")
    files.write_text(layout.report_html, render(report, audio))
    if report.acceptance:
        write_acceptance(layout.output / "acceptance.json", report.acceptance)
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


def make_report(
    config: PipelineConfig, plan: Plan, layout: Layout, index: Index, limits: Sequence[float]
) -> tuple[Report, dict[str, str]]:
    """Return the numbers, and the audio of the examples as data URIs by id."""
    parts = _filtered_parts(plan, layout, config.filter)
    context = ledger_context(config.filter, plan, layout)
    judged = judge_parts([part for _, part in parts], config.filter, context)
    totals = index.totals
    chosen = choose(judged, config.filter.max_wer)
    shown = fetch(parts, [int(judged.rows[i]) for _, i in chosen])
    report = Report(
        planned=totals.planned,
        kept=totals.kept,
        rejected=totals.rejected,
        failed=totals.failed,
        hours_planned=totals.hours_planned,
        hours_kept=totals.hours_kept,
        teacher=config.teacher.model,
        teacher_revision=plan.keys.teacher_revision,
        teacher_seconds=totals.teacher_seconds,
        wall_seconds=totals.wall_seconds,
        rtfx=totals.rtfx,
        max_wer=config.filter.max_wer,
        splits=_by_split(plan, commit_records(plan, layout)),
        languages=_by_language(judged),
        histogram=_histogram(judged.rates, judged.seconds, HISTOGRAM_EDGES),
        durations=_histogram(judged.seconds, judged.seconds, DURATION_EDGES[1:]),
        sweep=sweep(judged, limits),
        sweep_by=sweep_groups(judged, limits),
        rules=count_rules(judged),
        measured=measure_planted(
            [part for _, part in parts],
            judged,
            [corpus.name for corpus in config.corpora if corpus.kind == "embedded"],
            config.filter.max_wer,
        ),
        acceptance=_learn([part for _, part in parts], judged, config.filter.max_wer),
        examples=tuple(
            make_example(group, shown[int(judged.rows[i])][0], int(judged.verdicts[i]))
            for group, i in chosen
        ),
        canary=index.canary,
        configuration=_plain(dataclasses.asdict(config)),
    )
    return report, audio_of(list(shown.values()), config)


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


def render(report: Report, audio: dict[str, str]) -> str:
    """Return the report as one HTML page that needs no other file."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("pipeline"), autoescape=True, undefined=jinja2.StrictUndefined
    )
    learnt = report.acceptance
    plots = {
        "sweep": curve(
            [(100 * p.max_wer, p.hours) for p in report.sweep],
            "Hours kept by threshold",
            "hours kept, by the highest error rate that is kept, %",
            marked=100 * report.max_wer,
        ),
        "rates": bars(
            _bin_labels(report.histogram, 100),
            [b.clips for b in report.histogram],
            "Clips by error rate",
            "clips, by error rate up to, %",
        ),
        "durations": bars(
            _bin_labels(report.durations, 1),
            [b.clips for b in report.durations],
            "Clips by duration",
            "clips, by seconds up to",
        ),
        "calibration": curve(
            sorted((p.predicted, p.observed) for p in learnt.calibration),
            "Predicted and observed share of clips that the reference keeps",
            "share that the reference keeps, by predicted probability",
            diagonal=True,
        )
        if learnt
        else "",
    }
    return environment.get_template("report.html").render(
        report=report,
        plots=plots,
        audio=audio,
        configuration=json.dumps(report.configuration, indent=2, ensure_ascii=False),
    )


def _filtered_parts(
    plan: Plan, layout: Layout, config: FilterConfig
) -> list[tuple[Block, AnyPath]]:
    """Return the ledger parts of the filtered splits with their blocks, in plan order."""
    key = plan.keys.label_key
    return [(b, layout.ledger(key, b.id)) for b in plan.blocks if b.split in config.splits]


def _by_split(plan: Plan, records: list[CommitRecord]) -> tuple[SplitReport, ...]:
    """Add up the blocks of each split."""
    grouped: defaultdict[tuple[str, str], list[CommitRecord]] = defaultdict(list)
    for block, record in zip(plan.blocks, records, strict=True):
        grouped[block.corpus, block.split].append(record)
    reports = []
    for corpus in plan.corpora:
        mine = grouped[corpus.name, corpus.split]
        reports.append(
            SplitReport(
                corpus=corpus.name,
                split=corpus.split,
                language=corpus.language,
                licence=corpus.licence,
                planned=corpus.num_utterances,
                kept=sum(record.kept for record in mine),
                rejected=_sum(record.rejected for record in mine),
                failed=_sum(record.failed for record in mine),
                hours_planned=hours(corpus.duration_seconds),
                hours_kept=hours(sum(record.kept_seconds for record in mine)),
            )
        )
    return tuple(reports)


def _sum(counts: Iterable[dict[str, int]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for count in counts:
        total.update(count)
    return dict(sorted(total.items()))


def _by_language(judged: Judged) -> tuple[LanguageReport, ...]:
    """Say of each language how much there is, how much is kept, and how wrong it is."""
    reports = []
    for code, language in enumerate(judged.language_names):
        mine = judged.languages == code
        kept = mine & judged.kept
        reports.append(
            LanguageReport(
                language=language,
                clips=int(mine.sum()),
                kept=int(kept.sum()),
                hours=hours(float(judged.seconds[mine].sum())),
                hours_kept=hours(float(judged.seconds[kept].sum())),
                wer=_corpus_rate(judged, mine),
                wer_kept=_corpus_rate(judged, kept),
            )
        )
    return tuple(sorted(reports, key=lambda r: -r.hours))


def _corpus_rate(judged: Judged, where: np.ndarray) -> float | None:
    words = float(np.nansum(judged.lengths[where]))
    return round(float(np.nansum(judged.errors[where])) / words, 5) if words else None


def _histogram(values: np.ndarray, seconds: np.ndarray, edges: Sequence[float]) -> tuple[Bin, ...]:
    """Count clips in bins of a value; those without a value are in none."""
    clips = [0] * (len(edges) + 1)
    lengths = [0.0] * len(clips)
    for value, duration in zip(values.tolist(), seconds.tolist(), strict=True):
        if not math.isnan(value):
            position = bisect_left(edges, value)
            clips[position] += 1
            lengths[position] += duration
    return tuple(
        Bin(upper=upper, clips=n, hours=hours(s))
        for upper, n, s in zip([*edges, None], clips, lengths, strict=True)
    )


def _bin_labels(bins: Sequence[Bin], factor: float) -> list[str]:
    return ["more" if b.upper is None else f"{b.upper * factor:g}" for b in bins]


def _learn(parts: Sequence[AnyPath], judged: Judged, max_wer: float) -> Acceptance | None:
    """Learn from the clips with a reference what evidence says about its decision.

    Evidence is of whole clips, so packs are left out.
    """
    _, first, utterances = np.unique(judged.rows, return_index=True, return_counts=True)
    positions = first[(utterances == 1) & ~np.isnan(judged.rates[first])]
    if len(positions) > MAX_CLIPS_TO_LEARN_FROM:
        generator = np.random.default_rng(0)
        positions = np.sort(generator.choice(positions, MAX_CLIPS_TO_LEARN_FROM, replace=False))
    wanted = judged.rows[positions]
    values: list[tuple[float, ...]] = []
    start = 0
    columns = [
        "pseudo_label",
        "duration_seconds",
        *(name for name in FEATURES if not name.startswith("log_")),
    ]
    for part in parts:
        table = read_table(part, columns)
        mine = wanted[(wanted >= start) & (wanted < start + table.num_rows)] - start
        values += [features(SimpleNamespace(**row)) for row in table.take(mine).to_pylist()]
        start += table.num_rows
    if not values:
        return None
    return fit_acceptance(np.array(values), judged.rates[positions] <= max_wer, max_wer)


def _plain(value: Any) -> Any:
    """Turn tuples into lists, as JSON has them."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value

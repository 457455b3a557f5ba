"""What a dataset holds and what other thresholds would make of it, from the ledger alone.

`report.json` is for programs, `report.html` for people: one self-contained file with the same
numbers. Neither needs the teacher, so both can be made again at any time; the page plays the clips
that it shows where the corpus can still be read.
"""

import dataclasses
import json
from collections.abc import Sequence
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
from pipeline.breakdown import (
    HISTOGRAM_EDGES,
    Bin,
    LanguageReport,
    SplitReport,
    by_language,
    by_split,
    histogram,
)
from pipeline.config import PipelineConfig
from pipeline.duplicates import RowKey
from pipeline.examples import Example, audio_of, choose, fetch, make_example
from pipeline.files import AnyPath, path_of
from pipeline.labels import ledger_context, read_run
from pipeline.layout import Layout
from pipeline.ledger import read_table
from pipeline.limits import FilterConfig
from pipeline.measures import RuleMeasure, measure_planted
from pipeline.plan import Block, Plan
from pipeline.plots import bars, calibration, trade_off
from pipeline.schema import Index, read_index
from pipeline.stopwatch import STAGES
from pipeline.sweep import (
    DURATION_EDGES,
    SWEEP,
    Judged,
    RuleCount,
    SweepPoint,
    count_rules,
    judge_parts,
    sweep,
    sweep_groups,
)
from pipeline.totals import commit_records

MAX_CLIPS_TO_LEARN_FROM = 50_000


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
    cost: float | None
    """At the price of an hour of one worker; None where the configuration has none."""
    cost_per_kept_hour: float | None
    stage_seconds: dict[str, float]
    """Work by stage, summed over workers and runs."""
    padding_fraction: float
    """Share of the teacher's windows that was silence behind the clips."""
    ledger_bytes: int
    shard_bytes: int
    estimate: dict[str, Any] | None
    """What `plan --measure` expected of the same; None where it was not asked."""
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
    """Of clips as they are judged; `rejected` counts utterances, of which a clip is a part or has
    several."""
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


def make_report(
    config: PipelineConfig, plan: Plan, layout: Layout, index: Index, limits: Sequence[float]
) -> tuple[Report, dict[RowKey, str]]:
    """Return the numbers, and the audio of the examples as data URIs."""
    parts = _filtered_parts(plan, layout, config.filter)
    context = ledger_context(config.filter, plan, layout)
    judged = judge_parts([part for _, part in parts], config.filter, context)
    totals = index.totals
    embedded = [corpus.name for corpus in config.corpora if corpus.kind == "embedded"]
    chosen = choose(judged, config.filter.max_wer)
    shown = fetch(parts, judged, [i for _, i in chosen])
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
        cost=totals.cost,
        cost_per_kept_hour=totals.cost_per_kept_hour,
        stage_seconds={s: totals.stage_seconds[s] for s in STAGES if s in totals.stage_seconds},
        padding_fraction=totals.padding_fraction,
        ledger_bytes=totals.ledger_bytes,
        shard_bytes=totals.shard_bytes,
        estimate=index.estimate,
        max_wer=config.filter.max_wer,
        splits=by_split(plan, commit_records(plan, layout)),
        languages=by_language(judged),
        histogram=histogram(judged.rates, judged.seconds, HISTOGRAM_EDGES),
        durations=histogram(judged.seconds, judged.seconds, DURATION_EDGES[1:]),
        sweep=sweep(judged, limits),
        sweep_by=sweep_groups(judged, limits),
        rules=count_rules(judged),
        measured=measure_planted(
            [part for block, part in parts if block.corpus in embedded],
            judged,
            embedded,
            config.filter.max_wer,
        ),
        acceptance=_learn([part for _, part in parts], judged, config.filter.max_wer),
        examples=tuple(
            make_example(group, shown[i][0], int(judged.verdicts[i])) for group, i in chosen
        ),
        canary=index.canary,
        configuration=_plain(dataclasses.asdict(config)),
    )
    return report, audio_of(shown.values(), config)


def render(report: Report, audio: dict[RowKey, str]) -> str:
    """Return the report as one HTML page that needs no other file."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("pipeline"), autoescape=True, undefined=jinja2.StrictUndefined
    )
    learnt = report.acceptance
    plots = {
        "sweep": trade_off(
            sorted(
                (100 * p.max_wer, p.hours, None if p.mean_wer is None else 100 * p.mean_wer)
                for p in report.sweep
            ),
            100 * report.max_wer,
            "Hours kept and error rate of what is kept, by threshold",
        ),
        "rates": bars(
            _bin_labels(report.histogram, 100),
            [b.clips for b in report.histogram],
            "Clips by error rate",
            "error rate between label and reference, %",
        ),
        "durations": bars(
            _bin_labels(report.durations, 1),
            [b.clips for b in report.durations],
            "Clips by duration",
            "duration, seconds",
        ),
        "calibration": calibration(
            sorted((p.predicted, p.observed) for p in learnt.calibration),
            "Predicted and observed share of clips that the reference keeps",
        )
        if learnt
        else "",
    }
    return environment.get_template("report.html").render(
        report=report,
        plots=plots,
        audio=audio,
        bins=[
            ("error rate, %", _bin_labels(report.histogram, 100), report.histogram),
            ("duration, seconds", _bin_labels(report.durations, 1), report.durations),
        ],
        configuration=json.dumps(report.configuration, indent=2, ensure_ascii=False),
    )


def _filtered_parts(
    plan: Plan, layout: Layout, config: FilterConfig
) -> list[tuple[Block, AnyPath]]:
    """Return the ledger parts of the filtered splits with their blocks, in plan order."""
    key = plan.keys.label_key
    return [(b, layout.ledger(key, b.id)) for b in plan.blocks if b.split in config.splits]


def _bin_labels(bins: Sequence[Bin], factor: float) -> list[str]:
    """Name bins by their edges: "0", "0–5", "5–10", "> 10"."""
    labels, lower = [], 0.0
    for b in bins:
        if b.upper is None:
            labels.append(f"> {lower:g}")
            continue
        upper = b.upper * factor
        labels.append(f"{lower:g}–{upper:g}" if upper > lower else f"{upper:g}")
        lower = upper
    return labels


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

"""The closing table of `make quickstart`: `python -m pipeline.embedded.summary runs/quickstart`.

It reads finished files only (index, ledger, shards, the list of planted defects, the results of
`whisper-distill evaluate`), so it shows what a run left behind and not what a run says of itself. A
planted defect counts as caught when its utterance is in no shard, whatever the reason.
"""

import json
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from pipeline import table_width
from pipeline.corpora.utterance import RULE_STAGE
from pipeline.filters import rejection
from pipeline.labels import labels, read_run
from pipeline.layout import Layout
from pipeline.schema import EMBEDDED_FOLDER, Index, Totals, read_index
from pipeline.shards import read_shard

TRAIN = "train"
"""The only split with planted defects, and the only one that is filtered."""


@dataclass(frozen=True, kw_only=True)
class Planted:
    """What became of the planted defects and of the good clips around them."""

    defects: dict[str, int]
    """Planted, by kind."""
    caught: dict[str, int]
    """Of those, in no shard; by kind."""
    good: int
    """Utterances of the train part without a defect."""
    good_lost: int
    """Of those, in no shard."""


@dataclass(frozen=True, kw_only=True)
class Summary:
    """Everything the table shows."""

    totals: Totals
    hours_lost: dict[str, float]
    """Of what was not kept, by reason or stage."""
    planted: Planted
    train_hours: tuple[float, float]
    """Of the part that is filtered: in and kept."""
    results: dict[str, Any] | None
    """`results.json`; None where the student has not been evaluated."""


def summarise(folder: Path, corpus: Path = EMBEDDED_FOLDER) -> Summary:
    """Read what a finished quickstart left in `folder`.

    Raises:
        FileNotFoundError: `folder` is not a finished dataset.
        ValueError: it does not hold the embedded train part, so nothing can be said of its defects.
    """
    index = read_index(folder)
    planned = {line["id"] for line in read_lines(corpus / f"{TRAIN}.jsonl")}
    if missing := planned - seen_ids(folder):
        raise ValueError(
            f"{folder} was not made from the embedded train part: {len(missing)} of its "
            f"{len(planned)} utterances are not in the ledger. Give the output of a run on it."
        )
    shards = [folder / "shards" / shard.name for shard in index.shards if shard.split == TRAIN]
    kept = {
        utterance.id
        for shard in shards
        for sample, _ in read_shard(shard)
        for utterance in sample.utterances
    }
    results = folder / "evaluation" / "results.json"
    return Summary(
        totals=index.totals,
        hours_lost=sum_hours_lost(folder),
        planted=count_planted(
            kept=kept,
            defects={line["id"]: line["defect"] for line in read_lines(corpus / "planted.jsonl")},
            planned=planned,
        ),
        train_hours=train_hours(folder, index),
        results=json.loads(results.read_text(encoding="utf-8")) if results.is_file() else None,
    )


def seen_ids(folder: Path) -> set[str]:
    """Return the ids of all utterances that were labelled or failed."""
    layout = Layout(folder)
    _, plan = read_run(layout)
    return {
        id_
        for rows, failures in labels(plan, layout)
        for ids in (
            *((u.id for u in r.utterances) for r in rows),
            *(f.utterance_ids for f in failures),
        )
        for id_ in ids
    }


def sum_hours_lost(folder: Path) -> dict[str, float]:
    """Add up what the filter rejects and what failed, by the same names as in the index."""
    layout = Layout(folder)
    config, plan = read_run(layout)
    seconds: defaultdict[str, float] = defaultdict(float)
    for rows, failures in labels(plan, layout):
        for row in rows:
            if reason := rejection(row, config.filter):
                seconds[reason] += row.duration_seconds
        for failure in failures:
            name = failure.error if failure.stage == RULE_STAGE else failure.stage
            seconds[name] += failure.duration_seconds
    return {name: total / 3600 for name, total in seconds.items()}


def train_hours(folder: Path, index: Index) -> tuple[float, float]:
    """Return the hours of the train part: what was planned, and what is in shards."""
    _, plan = read_run(Layout(folder))
    planned = sum(b.duration_seconds for b in plan.blocks if b.split == TRAIN)
    kept = sum(shard.duration_seconds for shard in index.shards if shard.split == TRAIN)
    return planned / 3600, kept / 3600


def count_planted(kept: set[str], defects: dict[str, str], planned: set[str]) -> Planted:
    """Compare the ids that are in the shards with those that should be."""
    good = planned - defects.keys()
    return Planted(
        defects=dict(Counter(defects.values())),
        caught=dict(Counter(kind for id_, kind in defects.items() if id_ not in kept)),
        good=len(good),
        good_lost=len(good - kept),
    )


def read_lines(path: Path) -> Iterable[dict[str, Any]]:
    """Read a JSONL file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]


def make_table(summary: Summary) -> Table:
    """Lay the summary out, one measure a row."""
    table = Table(title="Quickstart", title_justify="left", show_header=False)
    table.add_column("measure")
    table.add_column("value", justify="right")
    table.add_column("detail")
    for rows in (
        _corpus_rows(summary),
        _planted_rows(summary.planted),
        _model_rows(summary.results),
    ):
        for row in rows:
            table.add_row(*row)
        table.add_section()
    return table


Row = tuple[str, str, str]


def _corpus_rows(summary: Summary) -> list[Row]:
    totals, (train_in, train_kept) = summary.totals, summary.train_hours
    train = summary.planted.good + sum(summary.planted.defects.values())

    def row(measure: str, name: str, count: int) -> Row:
        share = f"{count} of the {train} utterances of train ({_percent(count, train)})"
        return measure, f"{summary.hours_lost.get(name, 0.0):.2f} h", share

    return [
        (
            "speech in",
            f"{totals.hours_planned:.2f} h",
            f"{totals.planned} utterances; {train_in:.2f} h are train, which alone is filtered",
        ),
        (
            "speech kept",
            f"{totals.hours_kept:.2f} h",
            f"{totals.kept} utterances; {train_kept:.2f} h of train",
        ),
        *(row(f"rejected: {name}", name, n) for name, n in sorted(totals.rejected.items())),
        *(row(f"failed: {name}", name, n) for name, n in sorted(totals.failed.items())),
        ("teacher speed", f"{totals.rtfx:.1f} x", "seconds of speech per second of teacher"),
    ]


def _planted_rows(planted: Planted) -> list[Row]:
    rows = [
        (f"planted {kind} caught", _percent(caught, count), f"{caught} of {count}")
        for kind, count in sorted(planted.defects.items())
        for caught in [planted.caught.get(kind, 0)]
    ]
    lost = f"{planted.good_lost} of {planted.good} in the train part"
    return [*rows, ("good clips lost", _percent(planted.good_lost, planted.good), lost)]


def _model_rows(results: dict[str, Any] | None) -> list[Row]:
    if results is None:
        return [("teacher and student", "-", "no results.json: run `whisper-distill evaluate`")]
    rows: list[Row] = []
    models = dict(zip(("teacher", "student"), results["models"], strict=False))
    for role, model in models.items():
        rates = model["rates"]
        interval = f"95 % interval {rates['wer_low']:.1%} to {rates['wer_high']:.1%}"
        size = f"{model['parameters'] / 1e6:.2f} M"
        speed = f"decodes {model['rtfx']:.0f} times faster than real time"
        rows += [(f"{role} WER", f"{rates['wer']:.1%}", interval)]
        rows += [(f"{role} parameters", size, speed)]
    clips = f"on {results['num_clips']} clips, {results['audio_seconds'] / 60:.1f} min of the "
    if student := models.get("student"):
        difference = student["comparison"]["wer_difference"]
        rows += [
            (
                "student - teacher WER",
                f"{100 * difference:+.1f} points",
                f"{clips}{results['split']} part",
            ),
            (
                "decode speed",
                f"{student['relative_speed']:.2f} x",
                "student relative to teacher, on the same clips",
            ),
        ]
    return rows


def _percent(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if whole else "-"


def main(arguments: list[str] | None = None) -> int:
    """Print the table; 0 when it could be made, 1 when the run does not allow it, 2 on misuse."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if len(arguments) != 1 or arguments[0].startswith("-"):
        print("usage: python -m pipeline.embedded.summary OUTPUT", file=sys.stderr)
        return 2
    try:
        summary = summarise(Path(arguments[0]))
    except (FileNotFoundError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    Console(width=table_width()).print(make_table(summary))
    return 0


if __name__ == "__main__":
    sys.exit(main())

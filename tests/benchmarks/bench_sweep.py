"""What thresholds keep of real speech whose references are wrong in a fifth of the clips.

    python -m tests.benchmarks.bench_sweep [--clips 800] [--output result.json]
    python -m tests.benchmarks.bench_sweep --quickstart runs/quickstart

The second reads what a finished quickstart made of the planted defects. The first needs the speech
and the teacher of `tests/shared_data.py` and labels a share of each corpus, through the real
pipeline. Both print the sweep as Markdown: hours kept, error rate of what is kept, and how many of
the defects are kept with it; then what each rule is worth, and how well evidence alone tells good
from bad.
"""

import argparse
import dataclasses
import json
import logging
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.config import BlocksConfig, CorpusConfig, FilterConfig, PipelineConfig, TeacherConfig
from pipeline.config_files import load_config
from pipeline.labels import read_run
from pipeline.layout import Layout
from pipeline.ledger import read_table
from pipeline.measures import measure
from pipeline.report import write_report
from pipeline.run import run
from pipeline.schema import EMBEDDED_FOLDER
from pipeline.scoring import score_batch
from pipeline.sweep import SWEEP, judge_parts, sweep
from tests.corrupted import Corrupted, corrupt
from tests.shared_data import ABSENT, SPEECH, TEACHER

CORPORA = {"en_speechocean_train": "cc-by-4.0", "en_kathleen": "cc0-1.0"}


def label(folder: Path, num_clips: int) -> tuple[PipelineConfig, dict[str, Corrupted]]:
    """Corrupt a share of each corpus and label it."""
    corrupted = {
        name: corrupt(SPEECH / name / "manifest.jsonl", folder / f"{name}.jsonl", num_clips)
        for name in CORPORA
    }
    config = PipelineConfig(
        output=str(folder / "out"),
        corpora=[
            CorpusConfig(
                name=name,
                kind="manifest",
                path=str(corrupted[name].manifest),
                language="en",
                licence=licence,
            )
            for name, licence in CORPORA.items()
        ],
        teacher=TeacherConfig(
            model=str(TEACHER), engine="ctranslate2", dtype="int8_float32", window="clip"
        ),
        blocks=BlocksConfig(minutes=5),
        filter=FilterConfig(max_wer=0.10),
    )
    run(config)
    return config, corrupted


def quickstart(output: Path) -> tuple[PipelineConfig, dict[str, Corrupted]]:
    """Read a finished run on the embedded corpus, and which defects are planted there."""
    config = dataclasses.replace(load_config(output / "config.yaml"), output=str(output))
    train, planted = (
        [json.loads(line) for line in (EMBEDDED_FOLDER / name).open(encoding="utf-8")]
        for name in ("train.jsonl", "planted.jsonl")
    )
    spoken = {line["id"]: line["text"] for line in train}
    spoken |= {d["id"]: d["spoken"] for d in planted if d["defect"] == "wrong_reference"}
    (name,) = {corpus.name for corpus in config.corpora}
    defects = Corrupted(
        manifest=EMBEDDED_FOLDER / "train.jsonl",
        kinds={d["id"]: d["defect"] for d in planted},
        spoken=spoken,
    )
    return config, {name: defects}


def measure_all(config: PipelineConfig, corrupted: dict[str, Corrupted]) -> dict[str, Any]:
    """Sweep the thresholds and measure every rule against what was really said."""
    layout = Layout(Path(config.output))
    _, plan = read_run(layout)
    filtered = [block for block in plan.blocks if block.split in config.filter.splits]
    parts = [layout.ledger(plan.keys.label_key, block.id) for block in filtered]
    judged = judge_parts(parts, config.filter)
    rows = [
        row
        for part in parts
        for row in read_table(part, ["id", "corpus", "pseudo_label"]).to_pylist()
    ]
    wrong = np.array([row["id"] in corrupted[row["corpus"]].kinds for row in rows])
    said = [corrupted[row["corpus"]].spoken[row["id"]] for row in rows]
    true_scores = score_batch(said, [row["pseudo_label"] for row in rows], "en")
    bad = wrong | (np.array([s.rate for s in true_scores]) > config.filter.max_wer)
    whole = np.ones(len(rows), dtype=bool)
    groups = {name: judged.corpora == code for code, name in enumerate(judged.corpus_names)}
    if len(groups) > 1:
        groups = {"all": whole} | groups
    free = judged.only_wer_may_reject
    result: dict[str, Any] = {
        "clips": len(rows),
        "hours": round(float(judged.seconds.sum()) / 3600, 3),
        "corrupted": int(wrong.sum()),
        "teacher_wer": round(
            sum(s.errors for s in true_scores) / sum(s.reference_length for s in true_scores), 4
        ),
        "sweep": {
            name: [
                dataclasses.asdict(point)
                | {
                    "of": int(where.sum()),
                    "corrupted": int((wrong & where).sum()),
                    "corrupted_kept": int(
                        (free & where & wrong & (judged.rates <= point.max_wer)).sum()
                    ),
                }
                for point in sweep(judged, SWEEP, where)
            ]
            for name, where in groups.items()
        },
        "rules": [dataclasses.asdict(m) for m in measure(judged.verdicts, bad)],
    }
    learnt = write_report(config.output).acceptance
    result["auc_of_evidence_alone"] = learnt and learnt.auc
    return result


def markdown(result: dict[str, Any]) -> str:
    """Lay the result out for the README."""
    lines = [
        f"{result['clips']} clips, {result['hours']:.2f} h, {result['corrupted']} with a "
        f"planted defect; the teacher's WER against what was said is {result['teacher_wer']:.1%}.",
        "",
        "| corpus | `max_wer` | clips kept | hours | WER kept | defects kept |",
        "|---|---|---|---|---|---|",
    ]
    for name, points in result["sweep"].items():
        for p in points:
            rate = "–" if p["mean_wer"] is None else f"{p['mean_wer']:.1%}"
            lines.append(
                f"| {name} | {p['max_wer']} | {p['clips']} of {p['of']} | {p['hours']:.2f} | "
                f"{rate} | {p['corrupted_kept']} of {p['corrupted']} |"
            )
    lines += ["", "| rule | rejects | precision | recall | adds |", "|---|---|---|---|---|"]
    lines += [
        f"| {m['reason']} | {m['rejected']} | {m['precision']:.1%} | {m['recall']:.1%} | "
        f"{m['adds']} |"
        for m in result["rules"]
    ]
    auc = result["auc_of_evidence_alone"]
    if auc is not None:  # too few clips teach nothing
        lines += ["", f"Evidence alone reproduces the references' decision with an AUC of {auc}."]
    return "\n".join(lines)


def main() -> None:
    """Label, sweep, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=int, default=800, help="of each corpus")
    parser.add_argument("--quickstart", type=Path, help="output of a run on the embedded corpus")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    if not options.quickstart and not TEACHER.is_dir():
        raise SystemExit(ABSENT)
    logging.getLogger("apache_beam").setLevel(logging.CRITICAL)  # as the command does
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        made = (
            quickstart(options.quickstart)
            if options.quickstart
            else label(Path(folder), options.clips)
        )
        result = measure_all(*made)
    result["wall_seconds"] = round(time.perf_counter() - started, 1)
    print(markdown(result))
    if options.output:
        options.output.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

"""What share of a block's time is not the teacher's: at most 5 %, on real speech.

    WHISPER_DISTILLERY_TEST_DATA=DIR python -m tests.benchmarks.bench_block

One process labels one block of short utterances, alone and packed, with CTranslate2 in int8, and
writes its shard. Reading and features run beside the teacher, so their own seconds overlap with its
own; what counts is how much longer the block took than the teacher was at work. Loading the teacher
is not counted, a worker does that once.
"""

import argparse
import itertools
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

from pipeline.blocks import build_shard, label_block, loaded_teacher
from pipeline.config import (
    BlocksConfig,
    ClipConfig,
    CorpusConfig,
    DecodingConfig,
    PipelineConfig,
    TeacherConfig,
)
from pipeline.layout import Layout
from pipeline.plan import make_plan
from pipeline.teacher import resolve_revision
from pipeline.timings import read_timings
from tests.shared_data import ABSENT, SPEECH, TEACHER

CORPUS = SPEECH / "en_kathleen"


def write_manifest(path: Path, minutes: float) -> None:
    """Write the first utterances of the corpus, with absolute paths."""
    with (CORPUS / "manifest.jsonl").open(encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    until = itertools.accumulate(row["duration"] for row in rows)
    chosen = [row for row, end in zip(rows, until, strict=True) if end <= minutes * 60]
    with path.open("w", encoding="utf-8") as manifest:
        for row in chosen:
            row["audio_filepath"] = str(CORPUS / row["audio_filepath"])
            manifest.write(json.dumps(row) + "\n")


def measure(folder: Path, minutes: float, clips: ClipConfig) -> dict[str, Any]:
    """Label one block and write its shard; return seconds and shares."""
    folder.mkdir()
    write_manifest(folder / "train.jsonl", minutes)
    corpus = CorpusConfig(
        name="kathleen", kind="manifest", path=str(folder / "train.jsonl"), language="en",
        licence="cc0-1.0", split="train",
    )  # fmt: skip
    config = PipelineConfig(
        output=str(folder / "out"),
        corpora=[corpus],
        clips=clips,
        teacher=TeacherConfig(
            model=str(TEACHER), engine="ctranslate2", dtype="int8_float32", device="cpu",
            num_threads=os.cpu_count() or 1, canary=False,
        ),
        decoding=DecodingConfig(timestamps=False, temperatures=(0.0,)),
        blocks=BlocksConfig(minutes=10 * minutes),
    )  # fmt: skip
    revision = resolve_revision(config.teacher)
    plan = make_plan(config, revision)
    (block,) = plan.blocks
    loaded_teacher(config, plan.keys)
    started = time.perf_counter()
    label_block(block, config, plan.keys)
    labelled = time.perf_counter()
    build_shard(block, config, plan.keys)
    written = time.perf_counter()
    layout = Layout(Path(config.output))
    spent = read_timings([layout.ledger(plan.keys.label_key, block.id)], [layout.timing(block.id)])
    teacher = spent.seconds["teacher"]
    return {
        "pack": clips.pack,
        "utterances": block.num_utterances,
        "audio_seconds": round(spent.audio_seconds, 1),
        "stage_seconds": {stage: round(s, 2) for stage, s in spent.seconds.items()},
        "label_seconds": round(labelled - started, 2),
        "shard_seconds": round(written - labelled, 2),
        "outside_of_labelling": round(1 - teacher / (labelled - started), 4),
        "outside_of_all": round(1 - teacher / (written - started), 4),
    }


def main() -> None:
    """Measure both ways and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=15.0, help="audio of the block")
    options = parser.parse_args()
    if not TEACHER.is_dir():
        parser.error(ABSENT)
    ways = {"single": ClipConfig(), "packed": ClipConfig(pack="before_label", pack_seconds=20.0)}
    with tempfile.TemporaryDirectory() as name:
        found = [measure(Path(name) / k, options.minutes, way) for k, way in ways.items()]
    print(json.dumps({"figure": "outside_of_all, at most 0.05", "blocks": found}, indent=2))


if __name__ == "__main__":
    main()

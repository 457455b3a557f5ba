"""What a shard rebuild spends its time on: at least 90 % should be reading and encoding audio.

    python -m tests.benchmarks.bench_rebuild [--corpus DIR] [--output result.json]

A corpus is labelled once, by a teacher that needs no time, and its shards are then built again with
another `filter.max_wer`, in one process. The shares are of the processor's time, so what else runs
on the machine is not counted; waiting for the disk to flush is, as the difference to the wall.
Without `--corpus`, a folder with NeMo's `manifest.jsonl`, it is the train part of the embedded one,
whose clips are short (4.4 s), which makes everything but audio weigh more.
"""

import argparse
import dataclasses
import json
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipeline import blocks, shards
from pipeline.config import CorpusConfig, FilterConfig, PipelineConfig
from pipeline.plan import make_plan
from tests.benchmarks.instant.teacher import InstantTeacher
from tests.benchmarks.scale import configure

ROUNDS = 3
KEEP_ALL = FilterConfig(
    max_wer=1000.0, compression_min_characters=10_000, speaking_rate="off", stock_phrases=False
)
"""The teacher says the same of every clip, so no rule may look at it."""


class Clocks:
    """Processor seconds inside functions that are replaced by timed ones."""

    def __init__(self) -> None:
        """Start from nothing."""
        self.seconds: defaultdict[str, float] = defaultdict(float)

    def timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function that does the same and adds its time to the name's."""

        def run(*arguments: Any, **options: Any) -> Any:
            started = time.process_time()
            try:
                return function(*arguments, **options)
            finally:
                self.seconds[name] += time.process_time() - started

        return run


def rebuild(config: PipelineConfig) -> tuple[float, float, int, float]:
    """Build every shard again; return processor and wall seconds, clips kept and their seconds."""
    plan = make_plan(config, "revision")
    processor, wall = time.process_time(), time.perf_counter()
    records = [blocks.build_shard(block, config, plan.keys) for block in plan.blocks]
    processor, wall = time.process_time() - processor, time.perf_counter() - wall
    return processor, wall, sum(r.kept for r in records), sum(r.kept_seconds for r in records)


def measure(corpus: CorpusConfig, folder: Path) -> dict[str, Any]:
    """Label a corpus, build its shards several times and say where the median round spent it."""
    config = dataclasses.replace(configure(folder, corpus, 5.0), filter=KEEP_ALL)
    plan = make_plan(config, "revision")
    blocks._teacher = lambda *_: InstantTeacher()  # type: ignore[assignment]
    for block in plan.blocks:
        blocks.label_block(block, config, plan.keys)
    rebuild(config)
    inner = {
        (blocks, "load_span"): "read_audio",
        (shards, "encode_flac"): "encode_audio",
        (blocks, "read_ledger"): "read_ledger",
        (blocks, "reasons"): "filter",
        (blocks, "entries"): "list_corpus",
        (shards, "to_json"): "write_json",
        (shards, "_write_members"): "write_tar",
        (shards, "file_sha256"): "read_back",
    }
    whole = {place: getattr(*place) for place in inner}
    rounds = []
    for number in range(ROUNDS):
        clocks = Clocks()
        for place, function in whole.items():
            setattr(*place, clocks.timed(inner[place], function))
        changed = dataclasses.replace(config.filter, max_wer=999.0 - number)
        processor, wall, kept, seconds = rebuild(dataclasses.replace(config, filter=changed))
        audio = clocks.seconds["read_audio"] + clocks.seconds["encode_audio"]
        rounds.append(
            {
                "audio_share": round(audio / processor, 4),
                "shares": {k: round(v / processor, 4) for k, v in clocks.seconds.items()},
                "processor_seconds": round(processor, 3),
                "wall_seconds": round(wall, 3),
                "clips": kept,
                "mean_clip_seconds": round(seconds / kept, 2),
                "audio_seconds_per_processor_second": round(seconds / processor, 1),
            }
        )
    for place, function in whole.items():
        setattr(*place, function)
    return sorted(rounds, key=lambda r: r["audio_share"])[ROUNDS // 2]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--corpus", type=Path, help="a folder with NeMo's manifest.jsonl")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    corpus = (
        CorpusConfig(
            name=options.corpus.name,
            kind="manifest",
            path=str(options.corpus / "manifest.jsonl"),
            licence="unknown",
        )
        if options.corpus
        else CorpusConfig(name="embedded", kind="embedded", licence="cc0-1.0")
    )
    with tempfile.TemporaryDirectory() as folder:
        text = json.dumps(measure(corpus, Path(folder)), indent=2)
    print(text)
    if options.output:
        options.output.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

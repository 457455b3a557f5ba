"""How fast batches are made from shards, against plain webdataset over the same shards.

    python -m tests.benchmarks.loading runs/quickstart --output runs/benchmark-loading.json

Both read, decode FLAC and compute log-mel features of full windows in one process, in turn; the
plain way is `webdataset.WebDataset`, with the same feature extractor on batches of the same number
of clips, and without targets. The seconds of audio a second are to be compared with what a training
step consumes (`tests/benchmarks/training.py`: 30 s for each clip of a step).
"""

import argparse
import io
import itertools
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import soundfile
import torch
import webdataset

from distill.data import BatchStream
from distill.data_config import DataConfig
from distill.run_card import describe_hardware, library_versions
from distill.shards import shard_paths
from distill.student import load_processor


def ours(folder: str, processor: Any, clips: int) -> Iterator[int]:
    """Yield the number of clips of each batch."""
    config = DataConfig(shards=[folder], batch_seconds=30.0 * clips, num_workers=0)
    for batch in BatchStream(config, processor, 0):
        yield len(batch["input_features"])


def plain(folder: str, processor: Any, clips: int) -> Iterator[int]:
    """Yield the number of clips of each batch."""
    urls = [str(path) for path in shard_paths([folder], "train")]
    reader = webdataset.WebDataset(urls, shardshuffle=False, empty_check=False)  # pyright: ignore
    while True:
        samples = iter(reader)
        while chunk := list(itertools.islice(samples, clips)):
            sounds = [soundfile.read(io.BytesIO(s["flac"]), dtype="float32")[0] for s in chunk]
            for sample in chunk:
                json.loads(sample["json"])
            features = processor.feature_extractor(
                sounds, sampling_rate=16_000, return_tensors="pt"
            ).input_features
            yield len(features)


def audio_rate(batches: Iterator[int], wanted: int) -> float:
    """Return seconds of window made per second, after one batch that pays for set-up."""
    next(batches)
    started, made = time.perf_counter(), 0
    while made < wanted:
        made += next(batches)
    return 30.0 * made / (time.perf_counter() - started)


def main() -> None:
    """Parse, measure in turn, and print or write JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", help="a dataset that whisper-pipeline finished")
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--clips", type=int, default=8, help="in a batch")
    parser.add_argument("--wanted", type=int, default=200, help="clips in each round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    processor = load_processor(arguments.model)
    rates: dict[str, list[float]] = {"ours": [], "plain": []}
    for _ in range(arguments.rounds):
        for name, make in (("ours", ours), ("plain", plain)):
            batches = make(arguments.folder, processor, arguments.clips)
            rates[name].append(audio_rate(batches, arguments.wanted))
    best = {name: max(found) for name, found in rates.items()}
    found = {
        "benchmark": "loader",
        "seconds_of_window_per_second": best,
        "over_plain": best["ours"] / best["plain"],
        "rounds": rates,
        "hardware": describe_hardware(),
        "versions": library_versions(),
    }
    print(json.dumps(found, indent=2))
    if arguments.output is not None:
        arguments.output.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()

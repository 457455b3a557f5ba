"""Planning a manifest of a million rows: at most 60 s and 1 GB on two cores.

    python -m tests.benchmarks.bench_planning [--rows 1000000] [--output result.json]

Writes the manifest to a temporary folder, plans it in a fresh process (so that the peak memory is
that of planning alone) and prints JSON. With `--files` every row has a recording of its own that
exists, as an empty file, so that looking at each is part of the time.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TEXT = "the quick brown fox jumps over the lazy dog and runs back home again"


def write_manifest(path: Path, rows: int, *, files: bool) -> None:
    """Write rows as NeMo would, 7.3 s each."""
    with path.open("w", encoding="utf-8") as file:
        for i in range(rows):
            name = f"wav/{i // 1000:04d}/{i:07d}.flac"
            if files:
                recording = path.parent / name
                recording.parent.mkdir(parents=True, exist_ok=True)
                recording.touch()
            line = {"audio_filepath": name, "text": f"{TEXT} {i}", "duration": 7.3}
            file.write(json.dumps(line | {"speaker": f"s{i // 100}"}) + "\n")


def plan(path: Path) -> dict[str, float]:
    """Plan the manifest and measure it."""
    from pipeline.config import CorpusConfig, PipelineConfig
    from pipeline.plan import entries, make_plan

    corpus = CorpusConfig(name="big", kind="manifest", path=str(path), licence="cc0-1.0")
    config = PipelineConfig(output="unused", corpora=[corpus])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started, cpu = time.perf_counter(), time.process_time()
    made = make_plan(config, "revision")
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.perf_counter()
    entries(made.blocks[-1], config)
    return {
        "rows": made.num_utterances,
        "blocks": len(made.blocks),
        "seconds": round(seconds, 2),
        "cpu_seconds": round(cpu, 2),
        "rows_per_second": round(made.num_utterances / seconds),
        "peak_megabytes": round(peak / 1024),
        "megabytes_before": round(before / 1024),
        "last_block_seconds": round(time.perf_counter() - started, 4),
    }


def main() -> None:
    """Write, plan in a process of its own, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--files", action="store_true")
    parser.add_argument("--output", type=Path)
    parser.add_argument("--plan", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.plan:
        print(json.dumps(plan(options.plan)))
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "train.jsonl"
        write_manifest(path, options.rows, files=options.files)
        command = [sys.executable, "-m", "tests.benchmarks.bench_planning", "--plan", str(path)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
    result = json.loads(done.stdout) | {"files": options.files}
    text = json.dumps(result, indent=2)
    print(text)
    if options.output:
        options.output.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

"""What it costs to be large: memory, Beam, workers, and a restart with nothing to do.

    python -m tests.benchmarks.scale memory     peak memory at 1 and 10 hours: at most 10 % more
    python -m tests.benchmarks.scale overhead   share of the time that is Beam's: at most 3 %
    python -m tests.benchmarks.scale workers    two worker processes: at least 1.7 times one
    python -m tests.benchmarks.scale restart    10,000 finished blocks again: at most 10 s

Each prints JSON (`--output FILE` keeps it) and takes some three minutes on two idle cores. Only for
`overhead` the teacher is a real one; else it is one that needs no time, while the audio is real
bytes that are decoded, encoded and written. `--size` makes a smaller one: hours, minutes or blocks.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import soundfile

from pipeline.config import BlocksConfig, CorpusConfig, PipelineConfig, TeacherConfig
from pipeline.config_files import to_yaml
from pipeline.schema import SAMPLE_RATE
from tests.benchmarks.instant.teacher import SENTENCE, InstantTeacher

REPOSITORY = Path(__file__).parents[2]
INSTANT = Path(__file__).parent / "instant"
NUM_RECORDINGS = 30
RECORDING_SECONDS = 60
UTTERANCE_SECONDS = 10


def write_corpus(folder: Path, rows: int, seconds: float = UTTERANCE_SECONDS) -> CorpusConfig:
    """Write recordings of noise and a manifest of spans of them, which come again and again."""
    rng = np.random.default_rng(0)
    for number in range(NUM_RECORDINGS):
        noise = 0.1 * rng.standard_normal(RECORDING_SECONDS * SAMPLE_RATE)
        soundfile.write(folder / f"{number}.flac", noise, SAMPLE_RATE)
    spans = int(RECORDING_SECONDS // seconds)
    path = folder / "train.jsonl"
    with path.open("w", encoding="utf-8") as manifest:
        for row in range(rows):
            line = {
                "id": f"u{row:07d}",
                "audio_filepath": f"{row % NUM_RECORDINGS}.flac",
                "text": SENTENCE,
                "offset": row // NUM_RECORDINGS % spans * seconds,
                "duration": seconds,
            }
            manifest.write(json.dumps(line) + "\n")
    return CorpusConfig(name="noise", kind="manifest", path=str(path), licence="cc0-1.0")


def configure(folder: Path, corpus: CorpusConfig, minutes: float, **fields: Any) -> PipelineConfig:
    """Return a configuration whose teacher is there to be named and is never loaded."""
    return PipelineConfig(
        output=str(folder / "out"),
        corpora=[corpus],
        teacher=TeacherConfig(model="embedded", engine="transformers", device="cpu", canary=False),
        blocks=BlocksConfig(minutes=minutes),
        **fields,
    )


def label(config: PipelineConfig, folder: Path) -> tuple[float, dict[str, float]]:
    """Run the command with the instant teacher; return its seconds, and the peaks in megabytes.

    The peaks are those of the kernel's own counter, so nothing between two looks is missed.
    """
    path = folder / "config.yaml"
    path.write_text(to_yaml(config), encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": f"{INSTANT}{os.pathsep}{REPOSITORY}"}
    started = time.perf_counter()
    with (folder / "log").open("w") as log:
        run = subprocess.Popen(
            [sys.executable, "-m", "pipeline", "run", "--config", str(path)],
            cwd=REPOSITORY,
            env=environment,
            stdout=log,
            stderr=log,
        )
        peaks: defaultdict[str, float] = defaultdict(float)
        while run.poll() is None:
            for process in [psutil.Process(run.pid), *_children(run.pid)]:
                role = "driver" if process.pid == run.pid else _role(process)
                peaks[role] = max(peaks[role], _peak_megabytes(process.pid))
            time.sleep(0.1)
    seconds = time.perf_counter() - started
    if run.returncode:
        raise RuntimeError((folder / "log").read_text())
    return seconds, {role: round(peak, 1) for role, peak in peaks.items()}


def _children(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def _role(process: psutil.Process) -> str:
    try:
        return "decoder" if "decoder_process" in " ".join(process.cmdline()) else "worker"
    except psutil.NoSuchProcess:
        return "worker"


def _peak_megabytes(pid: int) -> float:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0.0
    found = [line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")]
    return int(found[0]) / 1024 if found else 0.0


def workers_are(count: int) -> dict[str, Any]:
    """Return Beam's options for so many processes beside the driver, even where it is one."""
    return {"direct_num_workers": count, "direct_running_mode": "multi_processing"}


def memory(size: float) -> dict[str, Any]:
    """Compare the peaks of a corpus and of one that is ten times as large."""
    result: dict[str, Any] = {}
    for hours in (size / 10, size):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            corpus = write_corpus(folder, round(hours * 3600 / UTTERANCE_SECONDS))
            config = configure(folder, corpus, minutes=size, beam=workers_are(1))
            seconds, peaks = label(config, folder)
        result[f"{hours:g} h"] = {"seconds": round(seconds, 1), "peak_megabytes": peaks}
    small, large = (measured["peak_megabytes"] for measured in result.values())
    growth = {role: round(large[role] / small[role] - 1, 4) for role in small}
    return {"figure": "growth, at most 0.1", **result, "growth": growth}


def overhead(size: float) -> dict[str, Any]:
    """Measure how much of the time inside Beam is not spent in the stage that does the work."""
    from pipeline import run as page

    spent: defaultdict[str, float] = defaultdict(float)

    def timed(name: str, function: Any) -> Any:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            started = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                spent[name] += time.perf_counter() - started

        return wrapped

    page._run_beam = timed("beam", page._run_beam)
    page.ProcessBlock.process = _exhausted(timed, page.ProcessBlock.process)
    with tempfile.TemporaryDirectory() as name:
        corpus = CorpusConfig(
            name="embedded", kind="embedded", licence="cc0-1.0", language="en", split="test"
        )
        config = PipelineConfig(
            output=f"{name}/out",
            corpora=[corpus],
            teacher=TeacherConfig(model="embedded", device="cpu"),
            blocks=BlocksConfig(minutes=size),
            max_failed_fraction=1.0,
            beam={"direct_num_workers": 1},
        )
        started = time.perf_counter()
        outcome = page.run(config)
        wall = time.perf_counter() - started
    return {
        "figure": "overhead, at most 0.03",
        "blocks": outcome.blocks,
        "wall_seconds": round(wall, 2),
        "in_beam_seconds": round(spent["beam"], 2),
        "at_work_seconds": round(spent["work"], 2),
        "overhead": round((spent["beam"] - spent["work"]) / wall, 4),
    }


def _exhausted(timed: Any, process: Any) -> Any:
    """Have a generator do its work at once, so that it can be timed."""
    work = timed("work", lambda *args: list(process(*args)))
    return lambda *args: iter(work(*args))


def workers(size: float) -> dict[str, Any]:
    """Compare one and two worker processes, start and end of the processes included."""
    seconds = {}
    with tempfile.TemporaryDirectory() as name:
        corpus = write_corpus(Path(name), round(size * 3600 / UTTERANCE_SECONDS))
        for count in (1, 2):
            folder = Path(name) / str(count)
            folder.mkdir()
            config = configure(folder, corpus, minutes=10, beam=workers_are(count))
            seconds[count], _ = label(config, folder)
    return {
        "figure": "speedup, at least 1.7",
        "hours": size,
        "seconds": {str(count): round(spent, 1) for count, spent in seconds.items()},
        "speedup": round(seconds[1] / seconds[2], 3),
    }


_AGAIN = """
import json, sys, time
started, cpu = time.perf_counter(), time.process_time()
from pipeline.config_files import load_config
from pipeline.run import run
loaded, loaded_cpu = time.perf_counter(), time.process_time()
outcome = run(load_config(sys.argv[1]))
assert outcome.nothing_to_do, outcome
decided, decided_cpu = time.perf_counter(), time.process_time()
print(json.dumps({
    "import_seconds": loaded - started,
    "decide_seconds": decided - loaded,
    "import_cpu_seconds": loaded_cpu - cpu,
    "decide_cpu_seconds": decided_cpu - loaded_cpu,
}))
"""


def restart(size: float) -> dict[str, Any]:
    """Finish a run of many small blocks, then start it again in a process of its own."""
    from pipeline import blocks, files
    from pipeline.plan import make_plan
    from pipeline.run import run
    from pipeline.teacher import resolve_revision

    blocks.load_teacher = lambda config, decoding, revision: InstantTeacher()
    blocks._teacher.cache_clear()
    blocks._teacher = blocks.load_teacher
    files._flush = lambda path: None  # a power cut does not matter here
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        corpus = write_corpus(folder, round(size), seconds=1.0)
        config = configure(folder, corpus, minutes=1 / 60, beam={"direct_num_workers": 1})
        plan = make_plan(config, resolve_revision(config.teacher))
        started = time.perf_counter()
        for block in plan.blocks:
            blocks.process_block(block, config, plan.keys)
        labelled = time.perf_counter()
        run(config)
        finished = time.perf_counter()
        path = folder / "config.yaml"
        path.write_text(to_yaml(config), encoding="utf-8")
        command = [sys.executable, "-c", _AGAIN, str(path)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        whole = time.perf_counter() - finished
    spent = {key: round(value, 2) for key, value in json.loads(done.stdout).items()}
    return {
        "figure": "seconds, at most 10",
        "blocks": len(plan.blocks),
        "seconds": round(whole, 2),
        **spent,
        "setting_up": {
            "blocks_seconds": round(labelled - started, 1),
            "index_seconds": round(finished - labelled, 1),
        },
    }


BENCHMARKS = {
    "memory": (memory, 10.0, "hours of the larger corpus"),
    "overhead": (overhead, 5.0, "minutes of a block"),
    "workers": (workers, 10.0, "hours"),
    "restart": (restart, 10_000, "blocks"),
}


def main() -> None:
    """Measure one thing and print it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="name", required=True)
    for name, (function, default, unit) in BENCHMARKS.items():
        command = commands.add_parser(name, help=function.__doc__)
        command.add_argument("--size", type=float, default=default, help=unit)
        command.add_argument("--output", type=Path)
    options = parser.parse_args()
    measure, _, _ = BENCHMARKS[options.name]
    text = json.dumps(measure(options.size), indent=2)
    print(text)
    if options.output:
        options.output.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

"""A run that is killed at any point is finished by running it again, and loses and repeats nothing.

The kill is a SIGKILL of the real command at seeded points of its work: around every write, rename,
flush and removal, the loading of the teacher, every batch, clip and tar member. FAULT_POINTS says
how many points are tried; `make faults` tries many.
"""

import os
import random
import re
import shutil
import signal
import subprocess
from collections import Counter, defaultdict
from pathlib import Path
from types import SimpleNamespace

import pytest

from pipeline import stopwatch
from pipeline.config_files import load_config, to_yaml
from pipeline.ledger import read_failures
from pipeline.run import run
from pipeline.schema import read_index
from tests.pipeline import killing

NUM_POINTS = int(os.environ.get("FAULT_POINTS", "2"))


@pytest.fixture
def job(corpus, configure, tones, tmp_path, monkeypatch):
    """A corpus of four blocks with clips to keep, to reject and to fail, and its config file."""
    monkeypatch.setattr(stopwatch, "time", SimpleNamespace(perf_counter=lambda: 0.0))
    (tmp_path / "bad.wav").write_text("this is no audio")
    lines = [
        *tones(5),
        {"audio_filepath": "tone0.wav", "text": "something else", "id": "odd"},
        {"audio_filepath": "bad.wav", "text": "x", "duration": 1},
    ]
    config = configure(corpus(*lines), max_failed_fraction=0.5)
    path = tmp_path / "config.yaml"
    path.write_text(to_yaml(config), encoding="utf-8")
    return path, Path(config.output)


def points(trace: list[str], count: int, seed: int = 0) -> list[str]:
    """Choose points from a trace, of as many kinds as possible; the same ones each time."""
    occurrences: defaultdict[str, list[str]] = defaultdict(list)
    for kind in trace:
        occurrences[kind].append(f"{kind}:{len(occurrences[kind]) + 1}")
    rng = random.Random(seed)
    for several in occurrences.values():
        rng.shuffle(several)
    kinds = sorted(occurrences)
    rng.shuffle(kinds)
    chosen: list[str] = []
    while len(chosen) < min(count, len(trace)):
        for kind in kinds:
            if occurrences[kind] and len(chosen) < count:
                chosen.append(occurrences[kind].pop())
    return chosen


def test_points_are_spread_over_the_kinds_and_none_comes_twice():
    trace = ["write", "rename"] * 5 + ["load"]
    assert len({p.split(":")[0] for p in points(trace, 3)}) == 3
    assert Counter(points(trace, 99)) == Counter(points(trace, 99, seed=1))
    assert len(set(points(trace, 99))) == len(trace)


def test_killed_anywhere_the_next_run_finishes_the_same_dataset(job, tmp_path):
    config_file, output = job
    trace = tmp_path / "trace"
    whole = killing.start(config_file, output, FAULT_TRACE=str(trace))
    printed, _ = whole.communicate()
    assert whole.returncode == 0, printed
    undisturbed = killing.tree(output)
    blocks = len(killing.ledger(output))
    config = load_config(config_file)
    for point in points(trace.read_text().splitlines(), NUM_POINTS):
        shutil.rmtree(output)
        killed = killing.start(config_file, output, FAULT_AT=point)
        printed, _ = killed.communicate()
        assert killed.returncode == -signal.SIGKILL, f"{point}: {printed}"
        committed = killing.ledger(output)
        outcome = run(config)
        after = killing.ledger(output)
        assert {name: after[name] for name in committed} == committed, point
        assert outcome.labelled == blocks - len(committed), point
        assert killing.tree(output) == undisturbed, point


def start_two_workers(config_file: Path, output: Path, **variables: str) -> subprocess.Popen[str]:
    return killing.start(config_file, output, "--beam.direct_num_workers=2", **variables)


def finish(config_file: Path, output: Path) -> None:
    """Run again after a fault: what was committed stays, and all of it is there at the end."""
    committed = killing.ledger(output)
    totals = run(load_config(config_file)).totals
    assert (totals.kept, totals.rejected, totals.failed) == (5, {"wer": 1}, {"read": 1})
    assert {name: killing.ledger(output)[name] for name in committed} == committed
    assert not [path.name for path in output.rglob(".*")]


def test_sigterm_ends_the_run_at_once_and_the_next_one_finishes_it(job):
    config_file, output = job
    started = killing.start(config_file, output, FAULT_AT="before batch:2", FAULT_SIGNAL="SIGTERM")
    printed, _ = started.communicate(timeout=300)
    assert started.returncode == 143, printed
    assert "error: terminated; what is committed is kept, run again to finish" in printed
    assert "Traceback" not in printed
    assert len(killing.ledger(output)) == 1
    finish(config_file, output)


def test_a_slow_disk_and_a_clock_that_jumps_change_no_byte(job):
    config_file, output = job
    run(load_config(config_file))
    undisturbed = killing.tree(output)
    shutil.rmtree(output)
    for done in ("blocks labelled", "Nothing to do"):
        started = killing.start(config_file, output, FAULT_SLOW="0.05", FAULT_CLOCK="1")
        printed, _ = started.communicate(timeout=300)
        assert started.returncode == 0, printed
        assert done in printed
        assert "-1 day" not in printed
        assert not re.search(r"ETA -\d", printed)
        assert killing.tree(output) == undisturbed


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_clip_that_crashes_its_decoder_costs_itself_and_nothing_else(job, workers):
    config_file, output = job
    option = f"--beam.direct_num_workers={workers}"
    started = killing.start(config_file, output, option, FAULT_POISON="tone1.wav")
    printed, _ = started.communicate(timeout=300)
    assert started.returncode == 0, printed
    index = read_index(output)
    assert (index.totals.kept, index.totals.failed) == (4, {"read": 2})
    failed = [f for path in output.glob("failures/*/*.jsonl") for f in read_failures(path)]
    (crashed,) = [f for f in failed if f.error == "CrashError"]
    assert (crashed.id, crashed.attempts) == ("tone1", 2)
    assert "2 processes ended while decoding it (signal SIGSEGV)" in crashed.message


@pytest.mark.slow
def test_sigterm_stops_the_workers_too(job):
    config_file, output = job
    started = start_two_workers(
        config_file, output, FAULT_AT="before batch:1", FAULT_SIGNAL="SIGTERM"
    )
    printed, _ = started.communicate(timeout=300)  # ends when all have closed their output
    assert started.returncode == 143, printed
    assert "Traceback" not in printed
    finish(config_file, output)


@pytest.mark.slow
def test_workers_end_when_their_launcher_is_killed(job):
    config_file, output = job
    started = start_two_workers(
        config_file, output, FAULT_AT="before batch:1", FAULT_SIGNAL="SIGKILL"
    )
    printed, _ = started.communicate(timeout=300)
    assert started.returncode == -signal.SIGKILL, printed
    finish(config_file, output)


@pytest.mark.slow
def test_launcher_notices_that_a_worker_was_killed(job):
    config_file, output = job
    started = start_two_workers(config_file, output, FAULT_AT="after batch:1")
    printed, _ = started.communicate(timeout=300)
    assert started.returncode == 1, printed
    assert "error: a worker process died" in printed
    finish(config_file, output)

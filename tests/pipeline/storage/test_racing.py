"""Two workers are given one block, as a runner does that takes the first for dead."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.config_files import to_yaml
from pipeline.files import path_of
from pipeline.layout import Layout
from pipeline.ledger import read_failures, read_ledger
from pipeline.limits import FilterConfig
from pipeline.plan import make_plan
from pipeline.run import run
from pipeline.shards import read_record, read_shard
from pipeline.teacher import resolve_revision
from tests.pipeline.killing import REPOSITORY

WORKER = """
import os, sys, time
from pathlib import Path
from pipeline import blocks
from pipeline.config_files import load_config
from pipeline.plan import make_plan
from pipeline.storage import leases
from pipeline.teacher import resolve_revision
from tests.benchmarks.instant.teacher import InstantTeacher, _label
from dataclasses import replace

leases.RENEW_SECONDS = leases.SETTLE_SECONDS = 0.2
name = sys.argv[2]

class SaysItsName(InstantTeacher):
    "Says who it is; each fails on another clip, so that two of them would not agree on anything."
    def label(self, clips, language):
        print("labelling", flush=True)
        time.sleep(float(sys.argv[3]))
        audio = getattr(clips, "clips", clips)
        if any(a.size == {"first": 16_000, "second": 24_000}[name] for a in audio):
            raise RuntimeError("not this one")
        return [replace(_label(1.0, language), text=name) for _ in audio]

blocks._teacher = lambda *_: SaysItsName()
config = load_config(sys.argv[1])
plan = make_plan(config, resolve_revision(config.teacher))
print("ready", flush=True)
sys.stdin.readline()
blocks.process_block(plan.blocks[0], config, plan.keys)
"""


def start(config_file: Path, name: str, seconds: float) -> subprocess.Popen[str]:
    started = subprocess.Popen(
        [sys.executable, "-c", WORKER, str(config_file), name, str(seconds)],
        cwd=REPOSITORY,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert said(started) == "ready"
    return started


def said(worker: subprocess.Popen[str]) -> str:
    assert worker.stdout is not None
    return worker.stdout.readline().strip()


def go(worker: subprocess.Popen[str]) -> None:
    assert worker.stdin is not None
    worker.stdin.write("\n")
    worker.stdin.flush()


@pytest.fixture(params=["disk", pytest.param("bucket", marks=pytest.mark.slow)])
def job(request, corpus, configure, tones, tmp_path):
    """One block, and where its configuration is."""
    place = {} if request.param == "disk" else {"output": f"{request.getfixturevalue('s3')}/mine"}
    config = configure(
        corpus(*tones(3)), max_failed_fraction=1.0, filter=FilterConfig(max_wer=100.0), **place
    )
    path = tmp_path / "config.yaml"
    path.write_text(to_yaml(config), encoding="utf-8")
    plan = make_plan(config, resolve_revision(config.teacher))
    return path, config, plan


def outcome(config, plan) -> str:
    """Check that ledger, failures, shard and record are of one worker; return which."""
    layout, key, block = Layout(path_of(config.output)), plan.keys.label_key, plan.blocks[0]
    rows, _ = read_ledger(layout.ledger(key, block.id))
    failed = {f.id for f in read_failures(layout.failures(key, block.id))}
    (name,) = {row.pseudo_label for row in rows}
    labelled = {row.id for row in rows}
    assert failed == ({"tone0"} if name == "first" else {"tone1"}) & (labelled | failed)
    assert not failed & labelled
    record = read_record(layout.commit_record(block.id))
    assert record is not None
    assert record.planned == block.num_utterances
    assert {s.pseudo_label for s, _ in read_shard(layout.shard(block.id))} == {name}
    assert [path.name for path in layout.shards.glob(".*")] == []
    return name


def test_the_second_worker_waits_and_finds_the_block_done(job):
    config_file, config, plan = job
    workers = [start(config_file, name, 2.0) for name in ("first", "second")]
    for worker in workers:
        go(worker)
    printed = [worker.communicate(timeout=120)[0] for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0]
    labelled = [name for name, text in zip(("first", "second"), printed, strict=True) if text]
    assert labelled == [outcome(config, plan)]


def test_a_worker_that_is_killed_leaves_its_block_to_the_one_that_waits(job):
    config_file, config, plan = job
    if "://" in config.output:
        pytest.skip("there a lock is watched for a minute; test_output.py has that")
    first, second = start(config_file, "first", 600.0), start(config_file, "second", 0.0)
    go(first)
    assert said(first) == "labelling"
    go(second)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    second.communicate(timeout=120)
    assert second.returncode == 0
    assert outcome(config, plan) == "second"


def test_the_lock_of_a_block_whose_worker_was_killed_is_collected(job):
    _, config, plan = job
    layout = Layout(path_of(config.output))
    run(config)
    lock = layout.lock(plan.blocks[0].id)
    lock.write_bytes(json.dumps({"holder": "a worker", "token": "t", "renewed": 3}).encode())
    assert run(config).nothing_to_do
    assert not lock.exists()

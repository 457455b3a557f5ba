"""A dataset in a bucket is the dataset on a disk, and a run goes on there as it does here."""

import dataclasses
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from upath import UPath

from pipeline.config import PipelineConfig
from pipeline.explain import explain
from pipeline.files import path_of
from pipeline.limits import FilterConfig
from pipeline.locking import LockedError, locked
from pipeline.parts import Part
from pipeline.report import write_report
from pipeline.run import run
from pipeline.schema import read_index
from pipeline.shards import read_shard
from pipeline.storage import leases

Configure = Callable[..., PipelineConfig]


@pytest.fixture
def config(configure: Configure, corpus: Callable, tones: Callable) -> PipelineConfig:
    return configure(corpus(*tones(5)), filter=FilterConfig(max_wer=100.0))


@pytest.fixture
def there(config: PipelineConfig, s3: str) -> PipelineConfig:
    return dataclasses.replace(config, output=f"{s3}/sets/mine")


def shard_files(output: str) -> dict[str, bytes]:
    folder = path_of(output) / "shards"
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_shards_and_records_in_a_bucket_are_those_on_a_disk(
    config: PipelineConfig, there: PipelineConfig
):
    here = run(config)
    outcome = run(there)

    assert outcome.totals.kept == here.totals.kept > 0
    assert shard_files(there.output) == shard_files(config.output)
    index = read_index(there.output)
    assert index.shards == read_index(config.output).shards
    kept = [s.id for e in index.shards for s, _ in read_shard(f"{there.output}/shards/{e.name}")]
    assert len(kept) == sum(entry.num_samples for entry in index.shards)


def test_a_corpus_in_a_bucket_becomes_a_dataset_in_a_bucket(
    config: PipelineConfig, there: PipelineConfig, s3: str, tmp_path: Path
):
    run(config)
    (mine,) = there.corpora
    for path in [Path(mine.path), *tmp_path.glob("*.wav")]:
        (path_of(f"{s3}/corpus") / path.name).write_bytes(path.read_bytes())
    remote = dataclasses.replace(mine, path=f"{s3}/corpus/{Path(mine.path).name}")
    there = dataclasses.replace(there, corpora=[remote])
    assert run(there).labelled > 1
    assert shard_files(there.output) == shard_files(config.output)
    assert run(there).nothing_to_do


def test_a_bucket_that_cannot_be_reached_is_said_and_not_taken_for_missing_credentials(
    config: PipelineConfig, s3: str, monkeypatch: pytest.MonkeyPatch
):
    import s3fs

    with monkeypatch.context() as away:
        away.setattr(s3fs.S3FileSystem, "retries", 1)
        away.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
        away.setenv("AWS_MAX_ATTEMPTS", "1")
        s3fs.S3FileSystem.clear_instance_cache()
        with pytest.raises(OSError, match=r"s3://corpora/x/.*does not answer.*AWS_ENDPOINT_URL"):
            run(dataclasses.replace(config, output=f"{s3}/x"))
    s3fs.S3FileSystem.clear_instance_cache()


def test_a_second_run_in_a_bucket_does_nothing_and_a_damaged_shard_is_mended(
    there: PipelineConfig,
):
    first = run(there)
    before = shard_files(there.output)
    assert first.labelled == first.blocks
    assert run(there).nothing_to_do

    shard: Any = next(p for p in (path_of(there.output) / "shards").iterdir() if p.suffix == ".tar")
    shard.write_bytes(b"\x01" + before[shard.name][1:])
    again = run(there, verify=True)
    assert (again.labelled, again.rebuilt) == (0, 1)
    assert shard_files(there.output) == before


def test_a_block_without_its_record_is_filtered_again_and_not_labelled(there: PipelineConfig):
    run(there)
    before = shard_files(there.output)
    record: Any = next(
        p for p in (path_of(there.output) / "shards").iterdir() if p.suffix == ".json"
    )
    record.unlink()

    again = run(there)
    assert (again.labelled, again.rebuilt) == (0, 1)
    assert shard_files(there.output) == before


def test_report_and_explanation_are_read_from_a_bucket(there: PipelineConfig):
    run(there)
    write_report(there.output)
    assert "<html" in (UPath(there.output) / "report.html").read_text()
    (text,) = explain(there.output, "tone0")
    assert "tone0" in text


@pytest.mark.parametrize("output", ["s3://nowhere-at-all/x", "gopher://host/x"])
def test_an_output_that_cannot_be_written_is_said_before_anything_is_labelled(
    config: PipelineConfig, s3: str, output: str
):
    with pytest.raises((OSError, ValueError), match=output.partition("/x")[0]):
        run(dataclasses.replace(config, output=output))


def test_nothing_of_a_run_to_a_bucket_is_left_on_the_disk(
    there: PipelineConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    run(there)
    assert not (tmp_path / "s3:").exists()


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a holder be known for alive at once; a slow machine must not let it seem dead."""
    monkeypatch.setattr(leases, "RENEW_SECONDS", 0.2)
    monkeypatch.setattr(leases, "SETTLE_SECONDS", 0.2)


def leave_a_lock(output: str) -> None:
    text = json.dumps({"holder": "a run, process 1 on gone", "token": "t", "renewed": 3})
    (path_of(output) / ".lock").write_bytes(text.encode())


def objects(output: str) -> list[str]:
    return sorted(p.name for p in path_of(output).rglob(".*"))


def test_a_second_run_in_a_bucket_is_refused_and_told_who_is_at_work(s3: str, hurried: None):
    output = path_of(f"{s3}/sets/held")
    with (
        locked(output) as still_held,
        pytest.raises(LockedError, match=r"in use by a run, process \d+ on"),
        locked(output),
    ):
        pass
    still_held()
    assert objects(f"{s3}/sets/held") == []


def test_parts_share_a_bucket_and_a_whole_run_and_parts_exclude_each_other(s3: str, hurried: None):
    output = path_of(f"{s3}/sets/parts")
    with locked(output, Part(number=0, of=2)), locked(output, Part(number=1, of=2)):
        for part in (None, Part(number=1, of=2)):
            with pytest.raises(LockedError, match="the run of shard"):
                locked(output, part).__enter__()
    with locked(output), pytest.raises(LockedError, match="a run, process"):
        locked(output, Part(number=0, of=2)).__enter__()
    assert objects(f"{s3}/sets/parts") == []


def test_the_lock_of_a_run_that_was_killed_is_taken_over(
    there: PipelineConfig, hurried: None, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(leases, "LEASE_SECONDS", 1.0)
    leave_a_lock(there.output)
    assert run(there).totals.kept > 0
    assert objects(there.output) == []


def _take_over(output: str, still_held: Callable[[], None]) -> None:
    for _ in range(500):
        leave_a_lock(output)  # again, for its holder may be about to write
        time.sleep(0.1)
        still_held()


def test_a_holder_that_slept_too_long_is_told_that_another_run_has_begun(s3: str, hurried: None):
    output = path_of(f"{s3}/sets/asleep")
    with locked(output) as still_held:
        still_held()
        with pytest.raises(LockedError, match="another run has begun"):
            _take_over(str(output), still_held)
    assert objects(str(output)) == [".lock"]

"""A dataset in a bucket is the dataset on a disk, and a run goes on there as it does here."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from upath import UPath

from pipeline.config import PipelineConfig
from pipeline.explain import explain
from pipeline.files import path_of
from pipeline.limits import FilterConfig
from pipeline.report import write_report
from pipeline.run import run
from pipeline.schema import read_index
from pipeline.shards import read_shard

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

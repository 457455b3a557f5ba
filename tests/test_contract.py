"""Both packages read the same committed shard; what it lacks or they refuse breaks old datasets."""

import json
import runpy
import shutil
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from webdataset.compat import WebDataset

from pipeline.audio import decode_flac
from pipeline.schema import SCHEMA_VERSION, Sample, from_json, read_index, sample_key
from pipeline.shards import file_sha256, read_shard

distill_shards = pytest.importorskip("distill.shards", reason="the extra distill is not installed")

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """A finished dataset whose only shard is the golden one."""
    (tmp_path / "shards").mkdir()
    shutil.copy(GOLDEN / "shard.tar", tmp_path / "shards")
    shutil.copy(GOLDEN / "index.json", tmp_path)
    return tmp_path


def test_the_index_describes_the_shard():
    index = read_index(GOLDEN)
    (entry,) = index.shards
    samples = [sample for sample, _ in read_shard(GOLDEN / entry.name)]
    assert index.schema_version == SCHEMA_VERSION
    assert entry.num_samples == index.totals.kept == len(samples) == 6
    assert entry.duration_seconds == sum(sample.duration_seconds for sample in samples)
    assert entry.sha256 == file_sha256(GOLDEN / entry.name)
    assert entry.size_bytes == (GOLDEN / entry.name).stat().st_size


def test_the_audio_is_as_long_as_the_sample_says():
    for sample, flac in read_shard(GOLDEN / "shard.tar"):
        assert decode_flac(flac).size == sample.duration_seconds * 16_000


def test_only_error_rates_are_null_and_not_in_the_first_five_samples():
    later = {"orthographic_wer"}  # the golden shard is older, and has to stay readable
    names = [field.name for field in fields(Sample) if field.name not in later]
    samples = [sample for sample, _ in read_shard(GOLDEN / "shard.tar")]
    nulls = [{n for n in names if getattr(sample, n) is None} for sample in samples]
    assert nulls == [set()] * 5 + [{"wer", "cer", "substitutions", "deletions", "insertions"}]


def test_plain_webdataset_reads_the_shard():
    samples = list(WebDataset(str(GOLDEN / "shard.tar"), shardshuffle=False))
    ids = [json.loads(sample["json"])["id"] for sample in samples]
    assert ids == ["a/golden.wav-000", *(f"golden-00{n}" for n in range(1, 6))]
    assert [sample["__key__"] for sample in samples] == [sample_key(clip_id) for clip_id in ids]
    assert all(decode_flac(sample["flac"]).size for sample in samples)


def test_the_writer_still_writes_the_golden_shard(tmp_path):
    """Labels byte for byte, audio sample by sample: FLAC bytes may change with libFLAC."""
    runpy.run_path(str(GOLDEN.parent / "make_golden.py"))["write_golden"](tmp_path)
    pairs = zip(read_shard(tmp_path / "shard.tar"), read_shard(GOLDEN / "shard.tar"), strict=True)
    for (new, new_flac), (old, old_flac) in pairs:
        assert new == old
        # A sine of another C library may round the last of the 16 bits the other way.
        assert np.abs(decode_flac(new_flac) - decode_flac(old_flac)).max() <= 1 / 32768


def test_a_reader_ignores_what_a_later_writer_adds():
    dataset = WebDataset(str(GOLDEN / "shard.tar"), shardshuffle=False)
    text = next(iter(dataset))["json"].replace(b"{", b'{"added_later":[1],', 1)
    assert from_json(Sample, text).id == "a/golden.wav-000"


def test_distill_finds_every_clip_of_the_train_split(dataset):
    (shard,) = distill_shards.shard_paths([str(dataset)], "train")
    assert len(list(distill_shards.read_shard(shard))) == 6


def test_distill_says_which_splits_there_are(dataset):
    with pytest.raises(ValueError, match=r"no samples of split 'test' .* there are \['train'\]"):
        distill_shards.shard_paths([str(dataset)], "test")

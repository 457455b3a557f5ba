"""Training from a bucket, on an S3 server on loopback, is training from a folder."""

from pathlib import Path

import fsspec
import pytest

from distill.data_config import DataConfig
from distill.remote import cache_folder, local_copy
from distill.shards import read_shard, shard_passes, shard_paths
from tests.distill.material import make_clips, write_dataset
from tests.pipeline.storage.conftest import s3, s3_endpoint  # noqa: F401 - fixtures


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    return write_dataset(tmp_path / "set", make_clips(), make_clips("dev"))


@pytest.fixture
def bucket(s3: str, dataset: Path, tmp_path: Path, monkeypatch) -> str:  # noqa: F811
    monkeypatch.setenv("WHISPER_DISTILLERY_CACHE", str(tmp_path / "cache"))
    fsspec.filesystem("s3").put(f"{dataset}/", "corpora/set/", recursive=True)
    return f"{s3}/set"


def cached() -> list[Path]:
    return sorted(cache_folder().glob("*")) if cache_folder().exists() else []


def test_shards_in_a_bucket_have_the_clips_of_those_in_a_folder(bucket: str, dataset: Path):
    (there,) = shard_paths([bucket], "train")
    (here,) = shard_paths([str(dataset)], "train")
    assert cached() == [], "nothing is fetched before it is read"
    assert list(read_shard(there)) == list(read_shard(here))


def test_a_shard_is_fetched_once(bucket: str):
    (there,) = shard_paths([bucket], "train")
    first = list(read_shard(there))
    fsspec.filesystem("s3").rm("corpora/set/shards", recursive=True)
    assert list(read_shard(there)) == first
    assert len(cached()) == 1


def test_a_copy_that_was_cut_off_is_fetched_again(bucket: str):
    (there,) = shard_paths([bucket], "train")
    path = local_copy(there)  # type: ignore[arg-type]
    whole = path.read_bytes()
    path.write_bytes(whole[:100])
    assert local_copy(there).read_bytes() == whole  # type: ignore[arg-type]


def test_a_shard_that_is_not_what_the_index_says_is_refused_and_not_kept(bucket: str):
    (there,) = shard_paths([bucket], "train")
    fsspec.filesystem("s3").pipe_file(str(there), b"something else")
    with pytest.raises(ValueError, match="train-00000.tar has another content than its index"):
        list(read_shard(there))
    assert cached() == []


def test_a_bucket_without_a_dataset_is_named(bucket: str):
    with pytest.raises(FileNotFoundError, match="nothing-here"):
        shard_paths([f"{bucket}/nothing-here"], "train")


def test_other_labels_of_a_dataset_in_a_bucket_are_refused_with_what_to_do(bucket: str):
    with pytest.raises(ValueError, match="copy the dataset"):
        shard_passes(DataConfig(shards=[bucket], labels="second"))

"""Where shards lie in a repository, and how licences and sizes are named there."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.publishing.card import size_category
from pipeline.publishing.layout import (
    MAX_FILE_BYTES,
    MAX_FOLDER_FILES,
    check_limits,
    configurations,
    is_shard,
    path_of,
    published_entry,
)
from pipeline.publishing.licences import REDISTRIBUTABLE, hub_name
from pipeline.schema import ShardEntry
from pipeline.upload import public_name

NAMES = st.text(f"{string.ascii_letters}{string.digits}_-", min_size=1, max_size=12)


def entry(number: int = 0, corpus: str = "mine", split: str = "train", size: int = 1) -> ShardEntry:
    return ShardEntry(
        name=f"{corpus}-{split}-{number:05d}.tar",
        corpus=corpus,
        split=split,
        num_samples=1,
        duration_seconds=1.0,
        size_bytes=size,
        sha256="0",
    )


@given(st.integers(0, 10**6), NAMES, NAMES)
def test_every_shard_has_a_path_that_is_known_as_one(number: int, corpus: str, split: str):
    path = path_of(published_entry(entry(number, corpus, split)))
    assert is_shard(path)
    assert path.startswith(f"shards/{corpus}/{split}/")


def test_no_folder_has_more_files_than_allowed_and_none_move_as_the_dataset_grows():
    paths = [path_of(published_entry(entry(n))) for n in range(2 * MAX_FOLDER_FILES + 1)]
    folders = [path.rsplit("/", 1)[0] for path in paths]
    assert {folders.count(folder) for folder in set(folders)} == {MAX_FOLDER_FILES, 1}
    assert len(set(paths)) == len(paths)
    assert folders[MAX_FOLDER_FILES - 1] == "shards/mine/train"
    assert folders[MAX_FOLDER_FILES] == "shards/mine/train/part-001"


def test_every_folder_of_a_split_is_named_in_its_configuration():
    entries = [published_entry(entry(n)) for n in (0, MAX_FOLDER_FILES)]
    (files,) = configurations(entries)[1]["data_files"]
    assert files["path"] == ["shards/mine/train/*.tar", "shards/mine/train/part-001/*.tar"]


def test_a_corpus_called_default_does_not_hide_the_whole():
    names = [c["config_name"] for c in configurations([published_entry(entry(0, "default"))])]
    assert names == ["default", "default-corpus"]


def test_a_shard_larger_than_the_hub_takes_is_refused():
    check_limits([entry(size=MAX_FILE_BYTES)])
    with pytest.raises(ValueError, match=r"blocks\.minutes"):
        check_limits([entry(size=MAX_FILE_BYTES + 1)])


@pytest.mark.parametrize(
    "path",
    ["README.md", "shards/x.tar", "shards/a/b/c/d.tar", "data/a/b/c.tar", "shards/a/b/c.json"],
)
def test_other_files_are_not_taken_for_shards(path: str):
    assert not is_shard(path)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("openai/whisper-large-v3", "openai/whisper-large-v3"),
        ("embedded", "embedded"),
        ("/home/me/models/large/", "large"),
        ("../models/large", "large"),
        ("a/b/c", "c"),
        ("file:///home/me/models/large", "large"),
        ("https://host/sets/eval.jsonl?X-Amz-Signature=a/b", "eval.jsonl"),
        ("https://host/eval.jsonl?id=1", "eval.jsonl"),
    ],
)
def test_local_paths_are_shown_by_their_last_part(name: str, shown: str):
    assert public_name(name) == shown


@pytest.mark.parametrize(
    ("licence", "name"),
    [("CC-BY-4.0", "cc-by-4.0"), ("public-domain", "other"), ("made up", "other"), ("mit", "mit")],
)
def test_licences_have_the_names_of_the_hub(licence: str, name: str):
    assert hub_name(licence) == name


def test_no_licence_against_derivatives_passes_by_itself():
    assert not [name for name in REDISTRIBUTABLE if "-nd" in name]


@pytest.mark.parametrize(
    ("clips", "name"),
    [(0, "n<1K"), (999, "n<1K"), (1000, "1K<n<10K"), (10**9 - 1, "100M<n<1B")],
)
def test_sizes_have_the_names_of_the_hub(clips: int, name: str):
    assert size_category(clips) == name

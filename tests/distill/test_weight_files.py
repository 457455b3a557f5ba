"""By what the weights of a model are known again."""

import os
from pathlib import Path

import pytest

from distill.weight_files import file_identity, weight_files, weights_identity, weights_sha256


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    for part in (1, 2):
        (folder / f"model-0000{part}-of-00002.safetensors").write_bytes(b"part %d" % part)
    return folder


def test_the_weights_of_a_folder_are_all_parts_of_one_kind(model: Path):
    (model / "pytorch_model.bin").write_bytes(b"the same as a pickle")
    assert [file.name for file in weight_files(str(model))] == [
        "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
    ]  # fmt: skip


def test_a_hash_is_of_every_part_and_of_nothing_beside_them(model: Path):
    before = weights_sha256(str(model))
    (model / "config.json").write_text('{"changed": true}')
    copy = model.rename(model.with_name("elsewhere"))
    assert weights_sha256(str(copy)) == before
    (copy / "model-00002-of-00002.safetensors").write_bytes(b"part 3")
    assert weights_sha256(str(copy)) != before


def test_a_name_that_is_no_folder_has_no_hash(tmp_path: Path):
    assert weights_sha256(str(tmp_path / "nothing")) is None
    assert weight_files("owner/model") == []


def test_an_identity_notices_a_file_of_the_same_size(model: Path):
    file = model / "model-00001-of-00002.safetensors"
    before, size = weights_identity(str(model)), file.stat().st_size
    file.write_bytes(b"x" * size)
    os.utime(file, ns=(1, 2))
    assert file_identity(file) == {"size_bytes": size, "modified_ns": 2}
    assert weights_identity(str(model)) != before

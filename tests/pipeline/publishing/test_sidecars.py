"""Labels of other teachers that lie beside shards."""

from pathlib import Path

import pytest

from pipeline.publishing.contents import CheckedShard
from pipeline.publishing.sidecars import is_sidecar, sidecar_files, sidecar_teachers
from pipeline.schema import ShardEntry, SidecarLabel, sidecar_path, to_json


def shard(number: int) -> CheckedShard:
    entry = ShardEntry(
        name=f"c-train-{number:05d}.tar",
        corpus="c",
        split="train",
        num_samples=1,
        duration_seconds=1.0,
        size_bytes=1,
        sha256="0",
    )
    return CheckedShard(entry=entry, path=Path(entry.name), portions=())


def write(output: Path, name: str, number: int, teacher: str = "owner/large") -> Path:
    label = SidecarLabel(
        id="a",
        pseudo_label="hello",
        tokens=(1,),
        segments=(),
        wer=None,
        cer=None,
        metric="",
        substitutions=None,
        deletions=None,
        insertions=None,
        avg_logprob=-0.1,
        no_speech_prob=0.0,
        compression_ratio=1.0,
        temperature=0.0,
        truncated=False,
        teacher=teacher,
        teacher_revision="r1",
    )
    path = sidecar_path(output, name, shard(number).entry.name)
    path.parent.mkdir(exist_ok=True)
    path.write_text(to_json(label) + "\n")
    return path


def test_labels_go_where_their_shards_go(tmp_path: Path):
    held = write(tmp_path, "large", 0), write(tmp_path, "large", 1)
    files = sidecar_files(tmp_path, (shard(0), shard(1)))
    assert [file.source for file in files] == list(held)
    assert [file.path for file in files] == [
        f"labels@large/c/train/c-train-{n:05d}.jsonl" for n in range(2)
    ]
    assert all(is_sidecar(file.path) for file in files)


def test_without_other_labels_nothing_goes_up(tmp_path: Path):
    assert sidecar_files(tmp_path, (shard(0),)) == []
    assert sidecar_teachers(tmp_path, (shard(0),)) == {}


def test_a_shard_without_its_labels_is_named(tmp_path: Path):
    write(tmp_path, "large", 0)
    with pytest.raises(FileNotFoundError, match=r"c-train-00001\.jsonl is missing.*relabel"):
        sidecar_files(tmp_path, (shard(0), shard(1)))


@pytest.mark.parametrize(
    "teacher",
    ["/home/anna/secret/model", "file:///home/anna/model", "../model", "C:\\models\\large"],
)
def test_paths_of_this_machine_in_labels_are_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, teacher: str
):
    write(tmp_path, "large", 0)
    assert sidecar_files(tmp_path, (shard(0),))
    assert not caplog.text
    path = write(tmp_path, "large", 0, teacher=teacher)
    with path.open("a") as file, write(tmp_path, "small", 0).open() as other:
        file.write(other.read())
    assert sidecar_files(tmp_path, (shard(0),))
    assert f"such as {teacher}" in caplog.text


def test_labels_with_a_signed_link_are_refused_and_the_signature_is_not_shown(tmp_path: Path):
    write(tmp_path, "large", 0, teacher="https://b.s3/model?X-Amz-Signature=0f0f")
    with pytest.raises(ValueError, match=r"names https://b\.s3/model by a signed link") as caught:
        sidecar_files(tmp_path, (shard(0),))
    assert "0f0f" not in str(caught.value)


def test_damaged_labels_do_not_go_up(tmp_path: Path):
    write(tmp_path, "large", 0).write_text('{"id": "a"}\n')
    with pytest.raises(ValueError, match=r"c-train-00000\.jsonl is damaged .*relabel"):
        sidecar_files(tmp_path, (shard(0),))


def test_the_teacher_is_named_by_the_first_label_there_is(tmp_path: Path):
    write(tmp_path, "large", 0).write_text("")
    write(tmp_path, "large", 1, teacher="/home/somebody/my-model")
    write(tmp_path, "small", 0)
    found = sidecar_teachers(tmp_path, (shard(0), shard(1)))
    assert found == {"large": "my-model (r1)", "small": "owner/large (r1)"}


@pytest.mark.parametrize(
    "path",
    ["labels@a.jsonl", "labels@a/c-0.jsonl", "labels@a/../c/t/x.jsonl", "labels@a/c/t/x.tar", "x"],
)
def test_other_files_are_not_taken_for_labels(path: str):
    assert not is_sidecar(path)

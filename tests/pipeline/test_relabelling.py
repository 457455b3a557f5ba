"""Another teacher's labels lie beside the shards, and the shards are not touched."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from distill.config import DataConfig
from distill.data import read_labels, shard_passes
from pipeline.__main__ import main
from pipeline.config import ColumnsConfig, CorpusConfig, PipelineConfig, TeacherConfig
from pipeline.labels import read_plan
from pipeline.layout import Layout
from pipeline.ledger import read_ledger, write_ledger
from pipeline.relabelling import write_sidecar
from pipeline.run import run
from pipeline.schema import read_index, sidecar_path, with_label
from pipeline.shards import read_shard
from tests.pipeline.conftest import SENTENCE, write_teacher

OTHER = "a boat on the river"

Configure = Callable[..., PipelineConfig]


@pytest.fixture
def first(corpus: Any, tones: Any, configure: Configure) -> Path:
    """A dataset of three clips in several shards."""
    config = configure(corpus(*tones(3)))
    run(config)
    return Path(config.output)


@pytest.fixture
def second(first: Path, configure: Configure, tmp_path: Path) -> Path:
    """A run of another teacher over its shards, whose filter keeps nothing."""
    teacher = write_teacher(tmp_path / "second teacher", OTHER)
    again = CorpusConfig(
        name="again",
        kind="webdataset",
        path=str(first / "shards" / "*.tar"),
        licence="cc0-1.0",
        columns=ColumnsConfig(text="reference", duration="duration_seconds"),
    )
    config = configure(
        again,
        output=str(tmp_path / "second"),
        teacher=TeacherConfig(
            model=str(teacher), engine="transformers", device="cpu", canary=False
        ),
    )
    run(config)
    return Path(config.output)


def test_every_clip_has_the_second_teachers_label_and_the_shards_are_the_same(
    first: Path, second: Path
):
    before = {path: path.read_bytes() for path in (first / "shards").iterdir()}
    done = write_sidecar(first, second, "other")
    assert (done.labelled, done.missing) == (3, 0)
    assert {path: path.read_bytes() for path in (first / "shards").iterdir()} == before
    config = DataConfig(shards=[str(first)], labels="other")
    for reading in shard_passes(config):
        assert reading.labels
        labels = read_labels(reading.labels)
        for sample, _ in read_shard(str(reading.path)):
            changed = with_label(sample, labels[sample.id])
            assert sample.pseudo_label.strip() == SENTENCE
            assert changed.pseudo_label.strip() == OTHER
            assert changed.reference == sample.reference
            assert changed.wer
            assert changed.wer > 0.1, "kept though the second run's filter rejected it"
            assert changed.teacher_revision != sample.teacher_revision
            assert changed.previous_pseudo_label is None


def test_the_command_says_how_many_clips_have_a_label(
    first: Path, second: Path, capsys: pytest.CaptureFixture[str]
):
    arguments = ["relabel", str(first), "--second", str(second), "--name", "other"]
    assert main(arguments) == 0
    assert "3 clips have a label" in capsys.readouterr().out
    assert main([*arguments[:-1], "../other"]) == 2
    assert "letters, digits" in capsys.readouterr().err


def test_a_run_over_other_clips_is_refused(first: Path):
    index = read_index(first)
    path = first / "shards" / index.shards[0].name
    assert sum(1 for _ in read_shard(path))
    assert write_sidecar(first, first, "own").labelled == 3
    plan = json.loads((first / "plan.json").read_text())
    plan["blocks"] = []
    (first / "plan.json").write_text(json.dumps(plan))
    with pytest.raises(ValueError, match="no label for any clip"):
        write_sidecar(first, first, "none")


def texts_of(output: Path, name: str) -> dict[str, str]:
    return {path.name: path.read_text() for path in (output / f"labels@{name}").iterdir()}


def test_labels_that_are_there_stay_where_the_second_run_is_refused(first: Path):
    write_sidecar(first, first, "own")
    before = texts_of(first, "own")
    plan = json.loads((first / "plan.json").read_text())
    (first / "plan.json").write_text(json.dumps(plan | {"blocks": []}))
    with pytest.raises(ValueError, match="no label for any clip"):
        write_sidecar(first, first, "own")
    assert texts_of(first, "own") == before


def test_labels_that_are_there_stay_where_a_later_clip_does_not_fit(
    first: Path, configure: Configure, corpus: Any, tones: Any, tmp_path: Path
):
    write_sidecar(first, first, "own")
    before = texts_of(first, "own")
    lines = tones(3)
    lines[-1]["text"] = "of another corpus"
    config = configure(corpus(*lines), output=str(tmp_path / "other"))
    run(config)
    with pytest.raises(ValueError, match=r"clip 'tone2' of .* of another corpus"):
        write_sidecar(first, Path(config.output), "own")
    assert texts_of(first, "own") == before


def test_the_same_id_in_two_splits_gets_the_label_of_its_own_clip(
    corpus: Any, tones: Any, configure: Configure, tmp_path: Path
):
    (line,) = tones(1)
    twice = [corpus(line, split=split) for split in ("train", "test")]
    first = configure(*twice, output=str(tmp_path / "first"))
    run(first)
    shards = tmp_path / "first" / "shards"
    teacher = write_teacher(tmp_path / "second teacher", OTHER)
    second = configure(
        *(
            CorpusConfig(
                name="again",
                split=split,
                kind="webdataset",
                path=str(shards / f"mine-{split}-*.tar"),
                licence="cc0-1.0",
                columns=ColumnsConfig(text="reference", duration="duration_seconds"),
            )
            for split in ("train", "test")
        ),
        output=str(tmp_path / "second"),
        teacher=TeacherConfig(
            model=str(teacher), engine="transformers", device="cpu", canary=False
        ),
    )
    run(second)
    # The other teacher hears the same in all clips, so what it said of one is marked.
    layout = Layout(Path(second.output))
    key = read_plan(layout).keys.label_key
    for path in layout.ledger(key, "").parent.glob("again-test-*.parquet"):
        rows, said = read_ledger(path)
        write_ledger(path, [replace(row, pseudo_label="in the test") for row in rows], said)
    assert write_sidecar(Path(first.output), Path(second.output), "other").labelled == 2
    found = {
        name: [json.loads(line)["pseudo_label"].strip() for line in text.splitlines()]
        for name, text in texts_of(Path(first.output), "other").items()
    }
    assert found == {"mine-train-00000.jsonl": [OTHER], "mine-test-00000.jsonl": ["in the test"]}
    with pytest.raises(ValueError, match="several clips have the id 'tone0'"):
        write_sidecar(Path(first.output), Path(first.output), "own")


def test_labels_that_are_not_there_are_asked_for_by_name(first: Path):
    with pytest.raises(FileNotFoundError, match="whisper-pipeline relabel"):
        shard_passes(DataConfig(shards=[str(first)], labels="other"))


def test_a_damaged_label_is_named(tmp_path: Path):
    path = sidecar_path(tmp_path, "other", "a/b.tar")
    assert path == tmp_path / "labels@other" / "a" / "b.jsonl"
    path.parent.mkdir(parents=True)
    path.write_text('{"id": "x"}\n')
    with pytest.raises(ValueError, match=r"b.jsonl is damaged \(SidecarLabel lacks"):
        read_labels(path)

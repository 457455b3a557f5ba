from pathlib import Path
from typing import Any

import pytest

from pipeline.config import (
    BlocksConfig,
    ClipConfig,
    CorpusConfig,
    DecodingConfig,
    PipelineConfig,
    TeacherConfig,
)
from pipeline.config_files import load_config, to_yaml

SMALLEST = """
output: runs/mine
corpora:
  - {name: mine, kind: manifest, path: data/train.jsonl, licence: cc0-1.0, split: train}
teacher: {model: embedded}
filter: {max_wer: 0.10}
blocks: {minutes: 60}
max_failed_fraction: 0.05
"""


def load(tmp_path: Path, text: str) -> PipelineConfig:
    path = tmp_path / "config.yaml"
    path.write_text(text, encoding="utf-8")
    return load_config(path)


def mine(**fields: Any) -> CorpusConfig:
    return CorpusConfig(**{"name": "mine", "kind": "embedded", "licence": "cc0-1.0", **fields})


def test_smallest_config_that_works(tmp_path: Path):
    config = load(tmp_path, SMALLEST)
    assert config.corpora == [mine(kind="manifest", path="data/train.jsonl")]
    assert config.filter.max_wer == 0.10
    assert config.teacher == TeacherConfig()


def test_written_config_reads_back_the_same(tmp_path: Path):
    config = load(tmp_path, SMALLEST + "beam: {direct_num_workers: 2}\n")
    assert load(tmp_path, to_yaml(config)) == config


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ("bogus: 1", "bogus"),
        ("filter: {max_werr: 0.1}", "max_werr"),
        ("teacher: {modell: x}", "modell"),
        ("corpora: [{name: a, kind: embedded, licence: x, pfad: y}]", "pfad"),
    ],
)
def test_unknown_key_is_refused_by_name(tmp_path: Path, wrong: str, named: str):
    key = wrong.split(":")[0]
    kept = [line for line in SMALLEST.splitlines() if not line.startswith((key, "  - "))]
    text = "\n".join([*kept, wrong])
    if key != "corpora":
        text += "\ncorpora: [{name: a, kind: embedded, licence: x}]"
        text = text.replace("\ncorpora:\n", "\n")
    with pytest.raises(ValueError, match=named):
        load(tmp_path, text)


def test_missing_key_is_refused_by_name(tmp_path: Path):
    with pytest.raises(ValueError, match="output"):
        load(tmp_path, SMALLEST.replace("output: runs/mine", ""))


def test_missing_file_is_said_so(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"nothing\.yaml does not exist"):
        load_config(tmp_path / "nothing.yaml")


def test_value_out_of_range_is_refused_when_loaded(tmp_path: Path):
    with pytest.raises(ValueError, match="max_wer"):
        load(tmp_path, SMALLEST.replace("max_wer: 0.10", "max_wer: -1"))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": "my corpus"}, "letters, digits"),
        ({"split": "train.clean"}, "letters, digits"),
        ({"kind": "manifest"}, "give its file as `path`"),
        ({"kind": "hub"}, "give the dataset's id as `path`"),
        ({"kind": "kaldi"}, "give where it is as `path`"),
        ({"channel": -1}, "channels count from 0"),
        ({"subset": "clean"}, "kind embedded has none"),
        ({"licence": ""}, "has no licence"),
        ({"language": "klingonese"}, "not known"),
    ],
)
def test_corpus_that_cannot_work_is_refused(fields: dict[str, str], message: str):
    with pytest.raises(ValueError, match=message):
        mine(**fields)


@pytest.mark.parametrize(
    ("first", "second"),
    [(("mine", "train"), ("mine", "train")), (("cv", "en-train"), ("cv-en", "train"))],
)
def test_two_corpora_that_would_write_the_same_files_are_refused(first, second):
    corpora = [mine(name=name, split=split) for name, split in (first, second)]
    with pytest.raises(ValueError, match=f"both write files {'-'.join(first)}-…; give one"):
        PipelineConfig(output="x", corpora=corpora)


def test_two_splits_of_a_corpus_are_fine():
    config = PipelineConfig(output="x", corpora=[mine(), mine(split="test")])
    assert config.corpus("mine", "test").split == "test"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PipelineConfig(output="x", corpora=[]), "corpora is empty"),
        (
            lambda: PipelineConfig(output="x", corpora=[mine()], max_failed_fraction=5),
            "fraction from 0 to 1",
        ),
        (
            lambda: PipelineConfig(output="x", corpora=[mine()], licences=[]),
            "allows nothing",
        ),
        (lambda: BlocksConfig(minutes=0), "above 0"),
        (lambda: ClipConfig(max_seconds=31), "max <= 30"),
        (lambda: TeacherConfig(batch_size=0), "at least 1"),
        (lambda: DecodingConfig(num_beams=0), "at least 1"),
    ],
)
def test_setting_out_of_range_is_refused(make: Any, message: str):
    with pytest.raises(ValueError, match=message):
        make()

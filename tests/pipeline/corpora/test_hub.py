import time
from pathlib import Path

import pytest

from pipeline import corpora
from pipeline.audio import load_audio
from pipeline.config import ColumnsConfig
from tests.hub_server import no_hub
from tests.pipeline.corpora.material import check_positions, configured, read_all
from tests.pipeline.corpora.test_parquet import hub_rows, write
from tests.pipeline.corpora.test_webdataset import sample, write_tar

CARD = """\
---
configs:
- config_name: clean
  data_files:
  - {split: train.100, path: clean/train-*.parquet}
  - {split: test, path: clean/test.parquet}
---
"""


def peoples_speech(root: Path) -> Path:
    """A subset with two splits, as a clone of a dataset repository is laid out."""
    write(root / "clean/train-00000.parquet", hub_rows(4))
    write(root / "clean/train-00001.parquet", hub_rows(2, first=4))
    write(root / "clean/test.parquet", hub_rows(1))
    (root / "README.md").write_text(CARD)
    return root


def test_local_copy_of_a_dataset(tmp_path: Path):
    config = configured(
        "hub",
        peoples_speech(tmp_path),
        subset="clean",
        source_split="train.100",
        columns=ColumnsConfig(duration="duration_ms"),
    )
    found = read_all(config)
    assert [u.id for u in found] == [f"u{i}" for i in range(6)]
    assert load_audio(found[5].path).size == 9600
    check_positions(config)


def test_unknown_split_is_refused_with_those_there_are(tmp_path: Path):
    config = configured("hub", peoples_speech(tmp_path), subset="clean", split="dev")
    with pytest.raises(
        ValueError, match=r"no split 'dev'; choose source_split from train\.100, test"
    ):
        list(corpora.read(config))


def test_dataset_of_tars(tmp_path: Path):
    (tmp_path / "data").mkdir()
    write_tar(tmp_path / "data/train-0.tar", sample("x") + sample("y"))
    found = read_all(configured("hub", tmp_path))
    assert [u.reference for u in found] == ["X", "Y"]


def test_missing_dataset_is_said_so(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="gone"):
        list(corpora.read(configured("hub", tmp_path / "gone")))


def test_a_hub_that_is_away_is_said_and_not_waited_for(monkeypatch: pytest.MonkeyPatch):
    no_hub(monkeypatch)
    monkeypatch.setattr(time, "sleep", lambda _: pytest.fail("it waits to ask again"))
    with pytest.raises(corpora.CorpusError, match=r"dataset 'owner/away': the Hub does not answer"):
        list(corpora.read(configured("hub", Path("owner/away"))))

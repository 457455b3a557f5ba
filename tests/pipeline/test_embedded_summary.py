"""The closing table counts planted defects and lost clips from what is in the shards."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from pipeline.blocks import build_shard
from pipeline.config import CorpusConfig, PipelineConfig
from pipeline.config_files import to_yaml
from pipeline.embedded.summary import Planted, count_planted, main, make_table, summarise
from pipeline.layout import Layout
from pipeline.ledger import write_failures, write_ledger
from pipeline.plan import make_plan
from pipeline.schema import SAMPLE_RATE, SCHEMA_VERSION, ClipUtterance, Index, Sample, to_json
from pipeline.totals import add_up

RESULTS = {
    "split": "test",
    "num_clips": 2,
    "audio_seconds": 120.0,
    "models": [
        {"model": "embedded", "rates": {"wer": 0.05, "wer_low": 0.04, "wer_high": 0.06},
         "comparison": None, "parameters": 4_000_000, "rtfx": 30.0, "relative_speed": 1.0},
        {"model": "student", "rates": {"wer": 0.07, "wer_low": 0.06, "wer_high": 0.08},
         "comparison": {"wer_difference": 0.02}, "parameters": 3_000_000, "rtfx": 60.0,
         "relative_speed": 2.0},
    ],
}  # fmt: skip


def make_sample(id_: str, wer: float) -> Sample:
    return Sample(
        id=id_, corpus="embedded", split="train", language="en", language_probability=1.0,
        speaker="s", licence="cc0-1.0", recording="tone.wav", start_seconds=0.0,
        duration_seconds=1.0,
        utterances=(ClipUtterance(id=id_, start=0.0, duration=1.0, reference="a b"),),
        reference="a b", pseudo_label="a b", tokens=(1, 2), segments=(), previous_pseudo_label="",
        wer=wer, cer=wer, metric="wer", substitutions=0, deletions=0, insertions=0,
        avg_logprob=-0.1, no_speech_prob=0.0, compression_ratio=1.0, temperature=0.0,
        truncated=False, teacher="embedded", teacher_revision="x",
    )  # fmt: skip


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Four utterances of a train part; the last two are planted defects of different kinds."""
    folder = tmp_path / "corpus"
    folder.mkdir()
    soundfile.write(folder / "tone.wav", np.zeros(SAMPLE_RATE, dtype=np.float32), SAMPLE_RATE)
    lines = [{"id": f"u{n}", "audio_filepath": "tone.wav", "text": "a b"} for n in range(4)]
    (folder / "train.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
    (folder / "planted.jsonl").write_text(
        '{"id": "u2", "defect": "wrong_reference"}\n{"id": "u3", "defect": "no_speech"}\n'
    )
    return folder


@pytest.fixture
def output(tmp_path: Path, corpus: Path) -> Path:
    """A finished dataset: of the four, the filter keeps a good clip and one with a defect."""
    path = str(corpus / "train.jsonl")
    manifest = CorpusConfig(name="embedded", kind="manifest", path=path, licence="cc0-1.0")
    config = PipelineConfig(output=str(tmp_path / "output"), corpora=[manifest])
    layout, plan = Layout(Path(config.output)), make_plan(config, "x")
    (block,), keys = plan.blocks, plan.keys
    rows = [make_sample(f"u{n}", wer) for n, wer in enumerate((0.0, 0.5, 0.5, 0.0))]
    about = {"fingerprint": block.fingerprint, "teacher_seconds": "1.0", "audio_seconds": "4.0"}
    write_failures(layout.failures(keys.label_key, block.id), [])
    write_ledger(layout.ledger(keys.label_key, block.id), rows, about)
    record = build_shard(block, config, keys)
    assert record.shard
    layout.plan.write_text(to_json(plan))
    layout.config.write_text(to_yaml(config))
    index = Index(
        schema_version=SCHEMA_VERSION, created_with="test", teacher={}, decoding={}, clips={},
        filter={}, label_key=keys.label_key, shard_key=keys.shard_key, shards=(record.shard,),
        totals=add_up(plan, layout, wall_seconds=1.0),
    )  # fmt: skip
    layout.index.write_text(to_json(index))
    return tmp_path / "output"


def text_of(table) -> str:
    return "\n".join(" | ".join(map(str, column.cells)) for column in table.columns)


def test_a_defect_is_caught_when_it_is_in_no_shard(output: Path, corpus: Path):
    planted = summarise(output, corpus).planted
    assert planted.defects == {"wrong_reference": 1, "no_speech": 1}
    assert planted.caught == {"wrong_reference": 1}


def test_a_good_clip_is_lost_when_it_is_in_no_shard(output: Path, corpus: Path):
    planted = summarise(output, corpus).planted
    assert (planted.good, planted.good_lost) == (2, 1)


def test_a_kept_defect_is_not_a_lost_clip():
    planted = count_planted(kept={"a", "b"}, defects={"b": "no_speech"}, planned={"a", "b"})
    assert planted == Planted(defects={"no_speech": 1}, caught={}, good=1, good_lost=0)


def test_hours_lost_have_the_names_of_the_index(output: Path, corpus: Path):
    summary = summarise(output, corpus)
    assert summary.hours_lost == {"wer": pytest.approx(2 / 3600)}
    assert summary.totals.rejected == {"wer": 2}


def test_the_table_shows_both_models_once_they_are_evaluated(output: Path, corpus: Path):
    (output / "evaluation").mkdir()
    (output / "evaluation" / "results.json").write_text(json.dumps(RESULTS))
    text = text_of(make_table(summarise(output, corpus)))
    assert "5.0%" in text
    assert "7.0%" in text
    assert "+2.0 points" in text
    assert "2.00 x" in text


def test_the_table_says_what_is_missing_before_the_evaluation(output: Path, corpus: Path):
    assert "whisper-distill evaluate" in text_of(make_table(summarise(output, corpus)))


def test_an_unfinished_folder_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main([str(tmp_path)]) == 1
    assert "not a finished dataset" in capsys.readouterr().err


def test_a_run_on_another_corpus_is_refused(output: Path, capsys: pytest.CaptureFixture[str]):
    assert main([str(output)]) == 1
    assert "embedded train part" in capsys.readouterr().err

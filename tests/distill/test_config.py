from pathlib import Path
from typing import Any

import pytest

from distill.__main__ import main
from distill.config import InitConfig, TrainConfig
from distill.data_config import DataConfig, ReadFilterConfig, Stage
from distill.loss_config import LossConfig
from distill.study_config import StudyConfig

DATA = DataConfig(shards=["runs/mine"])


def training(**fields: Any) -> TrainConfig:
    return TrainConfig(**{"output": "out", "data": DATA, "student": "init", **fields})


def test_defaults_are_the_papers():
    config = training()
    assert (config.learning_rate, config.warmup_steps, config.schedule) == (1e-4, 50, "linear")
    assert config.loss.weights == (1.0, 0.8, False)
    assert config.loss.temperature == 2.0
    assert (config.freeze_encoder, config.freeze_positions) == (True, True)
    assert DATA.timestamp_probability == 0.5
    assert DATA.curriculum == [Stage(from_batch=0, max_seconds=30.0, full_windows=1.0)]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"shards": []}, "data.shards is empty"),
        ({"weights": [1.0, 2.0]}, "2.0. for 1 folders"),
        ({"weights": [0.0]}, "above 0"),
        ({"timestamp_probability": 1.1}, "data.timestamp_probability is 1.1"),
        ({"prompt_probability": -0.1}, "data.prompt_probability is -0.1"),
        ({"wrong_token_probability": 2}, "data.wrong_token_probability is 2"),
        ({"batch_seconds": 29.0}, "at least 30 holds the longest clip"),
        ({"num_workers": -1}, "data.num_workers is -1"),
        ({"curriculum": []}, "no stage with from_batch 0"),
        ({"curriculum": [Stage(from_batch=5)]}, "no stage with from_batch 0"),
    ],
)
def test_data_that_cannot_be_is_refused(fields: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        DataConfig(**{"shards": ["runs/mine"], **fields})


@pytest.mark.parametrize(
    ("fields", "message"),
    [({"from_batch": -1}, "from_batch is -1"), ({"full_windows": 2.0}, "full_windows is 2.0")],
)
def test_a_stage_that_cannot_be_is_refused(fields: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        Stage(**fields)


@pytest.mark.parametrize(
    ("fields", "message"),
    [({"max_wer": -0.1}, "max_wer is -0.1"), ({"share": 0.0}, "share is 0.0")],
)
def test_a_filter_that_cannot_be_is_refused(fields: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        ReadFilterConfig(**fields)


def test_a_number_of_layers_and_a_list_of_another_length_contradict_each_other():
    with pytest.raises(ValueError, match="decoder_layers is 3, but layers names 2"):
        InitConfig(decoder_layers=3, layers=[0, 3])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"temperature": 0.0}, "loss.temperature is 0.0"),
        ({"ctc_weight": -0.5}, "ctc_weight is -0.5"),
        ({"label_smoothing": 1.0}, "label_smoothing is 1.0"),
        ({"kl_weight": -1.0}, "neither may be negative"),
        ({"ce_weight": 0.0, "kl_weight": 0.0}, "one must be above 0"),
    ],
)
def test_a_loss_that_cannot_be_is_refused(fields: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        LossConfig(**fields)


def test_a_kl_term_needs_a_teacher():
    with pytest.raises(ValueError, match="needs a teacher"):
        training(teacher=None)
    assert training(teacher=None, loss=LossConfig(preset="labels-only")).teacher is None
    assert training(teacher=None, loss=LossConfig(kl_weight=0.0)).teacher is None


@pytest.mark.parametrize("name", ["max_steps", "save_steps", "gradient_accumulation_steps"])
def test_a_training_without_steps_is_refused(name: str):
    with pytest.raises(ValueError, match=f"{name} is 0"):
        training(**{name: 0})


@pytest.mark.parametrize("path", sorted(Path("configs/study").glob("*.yaml")), ids=str)
def test_every_study_that_ships_is_accepted(path: Path, monkeypatch: pytest.MonkeyPatch):
    read: list[Any] = []
    monkeypatch.setattr("distill.__main__._call", read.append)
    assert main(["study", f"--config={path}"]) == 0
    assert isinstance(read[0], StudyConfig)

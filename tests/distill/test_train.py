import dataclasses
import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from distill.__main__ import main
from distill.config import InitConfig, LossConfig, Stage, TrainConfig
from distill.student import load_model, load_processor
from distill.train import init, last_checkpoint, train

Configure = Callable[..., TrainConfig]


@pytest.fixture(scope="module")
def student_folder(teacher_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("student")
    return init(InitConfig(teacher=str(teacher_folder), output=str(output), decoder_layers=2))


@pytest.fixture
def configure(data_config, student_folder: Path, teacher_folder: Path, tmp_path: Path) -> Configure:
    """A short training on short windows that gives the same twice."""

    def make(**fields: Any) -> TrainConfig:
        data = data_config(curriculum=[Stage(max_seconds=4.0, full_windows=0.0)])
        return dataclasses.replace(
            TrainConfig(
                output=str(tmp_path / "run"),
                data=data,
                student=str(student_folder),
                teacher=str(teacher_folder),
                device="cpu",
                max_steps=4,
                save_steps=2,
                logging_steps=1,
                warmup_steps=0,
                schedule="constant_with_warmup",
            ),
            **fields,
        )

    return make


def weights(folder: Path | str) -> dict[str, torch.Tensor]:
    return load_model(str(folder)).state_dict()


def assert_same_weights(one: Path, other: Path) -> None:
    first, second = weights(one), weights(other)
    assert first.keys() == second.keys()
    for name, weight in first.items():
        torch.testing.assert_close(second[name], weight, rtol=1e-6, atol=1e-7)


def history(output: Path | str) -> list[dict[str, float]]:
    """The log of a run as its last checkpoint has it."""
    states = sorted(Path(output).glob("checkpoints/*/trainer_state.json"))
    logs = [json.loads(path.read_text()) for path in states]
    return max(logs, key=lambda log: log["global_step"])["log_history"]


def test_init_writes_a_student_that_loads(student_folder: Path, teacher_folder: Path):
    assert load_model(str(student_folder)).config.decoder_layers == 2
    last = weights(teacher_folder)["model.decoder.layers.3.fc1.weight"]
    assert torch.equal(weights(student_folder)["model.decoder.layers.1.fc1.weight"], last)
    assert load_processor(str(student_folder)).tokenizer.get_vocab()["<|startoftranscript|>"]


def test_training_changes_the_decoder_and_nothing_that_is_frozen(
    configure: Configure, student_folder: Path
):
    before, after = weights(student_folder), weights(train(configure()))
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert "model.decoder.layers.0.fc1.weight" in changed
    assert "model.decoder.embed_tokens.weight" in changed
    assert not [n for n in changed if "encoder.layers" in n or n.startswith("model.encoder")]
    assert not [n for n in changed if "embed_positions" in n]


def test_a_trained_student_keeps_its_generation_settings(configure: Configure):
    folder = train(configure(max_steps=1))
    settings = load_model(str(folder)).generation_config.to_dict()
    assert settings["is_multilingual"]
    assert settings["lang_to_id"]
    features = torch.randn(1, 80, 3000)
    load_model(str(folder)).generate(features, language="en", task="transcribe")


def test_the_resolved_configuration_stands_beside_the_student(configure: Configure, tmp_path: Path):
    config = configure(max_steps=1)
    train(config)
    path = tmp_path / "run" / "train.yaml"
    assert yaml.safe_load(path.read_text()) == dataclasses.asdict(config)
    shutil.rmtree(tmp_path / "run" / "student")
    assert main(["train", f"--config={path}"]) == 0
    assert (tmp_path / "run" / "student" / "model.safetensors").is_file()


def test_a_resumed_run_ends_where_an_uninterrupted_one_does(
    configure: Configure, tmp_path: Path, caplog
):
    caplog.set_level(logging.INFO)
    whole = train(configure(output=str(tmp_path / "whole")))
    train(configure(max_steps=2))
    resumed = train(configure())
    assert "going on from" in caplog.text
    assert [entry["step"] for entry in history(tmp_path / "run") if "loss" in entry] == [1, 2, 3, 4]
    assert_same_weights(whole, resumed)


def test_a_finished_run_is_not_trained_further(configure: Configure, tmp_path: Path):
    folder = train(configure())
    kept = shutil.copytree(folder, tmp_path / "kept")
    shutil.rmtree(folder)
    assert train(configure()) == folder
    assert_same_weights(kept, folder)
    assert not list(Path(configure().output).glob("checkpoints/checkpoint-5"))


def test_a_half_written_checkpoint_is_passed_over(configure: Configure):
    config = configure()
    train(config)
    newest = Path(config.output) / "checkpoints" / "checkpoint-4"
    (newest / "trainer_state.json").unlink()
    found, steps_done = last_checkpoint(config)
    assert (found, steps_done) == (newest.with_name("checkpoint-2"), 2)


def test_a_run_may_be_told_not_to_resume(configure: Configure):
    config = configure(max_steps=2)
    train(config)
    assert last_checkpoint(config)[1] == 2
    assert last_checkpoint(dataclasses.replace(config, resume=False)) == (None, 0)


def test_accumulated_batches_also_end_at_max_steps(configure: Configure):
    config = configure(max_steps=2, gradient_accumulation_steps=3)
    train(config)
    assert last_checkpoint(config)[1] == 2


@pytest.mark.parametrize(
    "loss",
    [LossConfig(preset="labels-only"), LossConfig(ce_weight=0.0, kl_weight=1.0), LossConfig()],
    ids=["labels", "teacher", "both"],
)
def test_the_loss_falls_on_a_few_clips(configure: Configure, loss: LossConfig):
    teacher = None if loss.weights[1] == 0 else configure().teacher
    config = configure(
        loss=loss, teacher=teacher, max_steps=20, learning_rate=3e-3, logging_steps=2, save_steps=20
    )
    train(config)
    losses = [entry["loss"] for entry in history(config.output) if "loss" in entry]
    assert losses[-1] < 0.8 * losses[0]


def test_references_can_be_learnt_without_a_teacher_and_with_the_encoder(configure: Configure):
    config = configure()
    config = dataclasses.replace(
        config,
        data=dataclasses.replace(config.data, target="reference", num_workers=1),
        loss=LossConfig(preset="labels-only"),
        teacher=None,
        freeze_encoder=False,
        freeze_positions=False,
    )
    before, after = weights(config.student), weights(train(config))
    still = {name for name in before if torch.equal(before[name], after[name])}
    assert still == {"model.encoder.embed_positions.weight"}


def test_training_in_bfloat16_writes_float32_weights(configure: Configure):
    folder = train(configure(dtype="bfloat16", max_steps=2))
    assert json.loads((folder / "config.json").read_text())["dtype"] == "float32"
    model = load_model(str(folder))
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert model.config._attn_implementation == "sdpa"


def test_wrong_shards_are_said_before_any_model_is_loaded(configure: Configure, tmp_path: Path):
    data = dataclasses.replace(configure().data, shards=[str(tmp_path / "nowhere")])
    with pytest.raises(FileNotFoundError, match="not a finished dataset"):
        train(configure(data=data, teacher="no/such/teacher"))
    assert not (tmp_path / "run").exists()

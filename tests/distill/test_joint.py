"""Quantisation in a training: the schedule, guided selection, checkpoints, and what is written."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from transformers import TrainerState, WhisperForConditionalGeneration

from distill.config import TrainConfig
from distill.distillation import Distillation
from distill.hidden_config import HiddenConfig
from distill.joint import FILE_NAME, quantise_in_training
from distill.layer_matching import LayerMatching
from distill.loss_config import LossConfig
from distill.quantization import inspect, load
from distill.quantization.config import QuantizationConfig
from distill.quantization.fake import activate, plan, prepare, quantised_layers
from distill.quantization.presets import Grid, Rule
from distill.quantization.schedule import (
    QuantisationSchedule,
    block_of,
    most_hurt_blocks,
    next_blocks,
    num_quantised,
    planned,
)
from distill.student import load_model, make_student
from distill.train import train
from tests.distill.material import KilledError, kill_at, make_training_batch, narrow

Whisper = WhisperForConditionalGeneration
Configure = Callable[..., TrainConfig]


@pytest.fixture
def configure(short_training: TrainConfig) -> Configure:
    joint: dict[str, Any] = {
        "hidden": HiddenConfig(matching="dynamic_dp"),
        "quantization": QuantizationConfig(preset="w4", start_step=1, ramp_steps=2),
    }
    return lambda **fields: dataclasses.replace(short_training, **(joint | fields))


@pytest.fixture(scope="module")
def narrow_folder(
    teacher_folder: Path, processor: Any, tmp_path_factory: pytest.TempPathFactory
) -> str:
    """A student of another width than its teacher, so that a projection has something to do."""
    folder = tmp_path_factory.mktemp("narrow")
    narrow(load_model(str(teacher_folder)), 64).save_pretrained(folder)
    processor.save_pretrained(folder)
    return str(folder)


def active_layers(model: Whisper) -> set[str]:
    return {name for name, layer in quantised_layers(model) if layer.active}


@given(st.integers(0, 60), st.integers(1, 12), st.integers(0, 20), st.integers(0, 30))
def test_blocks_join_one_after_another_and_all_are_quantised_in_the_end(
    step: int, blocks: int, start: int, ramp: int
):
    now = num_quantised(step, blocks, start, ramp)
    assert now <= num_quantised(step + 1, blocks, start, ramp)
    assert (now == 0) == (step < start)
    if step >= start + ramp:
        assert now == blocks


def test_guided_selection_takes_the_best_aligned_block_next_and_never_lets_one_go():
    order = torch.tensor([0.4, 0.1, 0.9, 0.2])
    assert next_blocks([], [0, 1, 2, 3], 1, order) == [1]
    assert next_blocks([1], [0, 1, 2, 3], 3, order) == [0, 1, 3]
    assert next_blocks([2], [0, 2], 1, order) == [2]
    assert next_blocks([2], [0, 2], 2, order) == [0, 2]


def test_guided_selection_distils_the_blocks_that_quantisation_hurts_most():
    errors = {
        "model.decoder.layers.0.fc1": 0.1,
        "model.decoder.layers.0.fc2": 0.3,
        "model.decoder.layers.1.fc1": 0.5,
        "model.decoder.layers.2.fc1": 0.01,
        "model.decoder.embed_tokens": 0.9,
    }
    assert most_hurt_blocks(errors, 2) == [0, 1]


def test_quantisation_chooses_what_is_distilled_and_distillation_what_is_quantised(
    teacher: Whisper,
):
    student = make_student(teacher, 3)
    with torch.no_grad():  # one weight that dwarfs its group: the others are rounded away
        weight = student.get_parameter("model.decoder.layers.1.fc2.weight")
        weight[:, ::32] = 20 * weight.std()
    matching = LayerMatching(HiddenConfig(), student, teacher)
    step = Distillation(student, teacher, LossConfig(), True, True, hidden_loss=matching)
    config = QuantizationConfig(
        preset="w4", guided=True, ramp_steps=3, distilled_blocks=1, guide_every=2
    )
    joint = quantise_in_training(step, config)
    assert joint.schedule is not None
    logging = SimpleNamespace(logging_steps=2)
    matching.alignment.copy_(torch.tensor([0.5, 0.9, 0.1]))
    quantised = []
    for number in range(3):
        joint.on_step_begin(logging, TrainerState(global_step=number), None)
        quantised.append(joint.schedule.active.nonzero().flatten().tolist())
        assert matching.distilled.tolist() == [False, True, False]
    assert quantised == [[2], [0, 2], [0, 1, 2]]


@pytest.mark.parametrize(("blocks", "expected"), [("all", 4), ("even", 2), ("first", 1)])
def test_the_controls_leave_blocks_out_for_ever(teacher: Whisper, blocks: Any, expected: int):
    grids = planned(teacher, QuantizationConfig(preset="paper", blocks=blocks))
    found = {block_of(name) for name in grids} - {None}
    assert found == set(range(0, 4, 2 if blocks == "even" else 1)[:expected])
    assert "model.decoder.embed_tokens" in grids


def test_the_training_is_in_float_first(teacher: Whisper):
    config = QuantizationConfig(preset="paper", start_step=3, ramp_steps=4)
    schedule = QuantisationSchedule(teacher, config)
    assert schedule.update(2) == []
    assert not active_layers(teacher)
    alignment = torch.tensor([0.4, 0.1, 0.9, 0.2])
    assert schedule.update(3, alignment) == [1]
    assert {block_of(name) for name in active_layers(teacher)} == {1, None}
    assert schedule.update(5, -alignment) == [0, 1, 2]
    assert schedule.update(7) == [0, 1, 2, 3]
    assert len(active_layers(teacher)) == len(schedule.grids)


def test_the_teacher_hears_with_exact_weights_though_the_encoder_is_shared(teacher: Whisper):
    step = Distillation(make_student(teacher, 2), teacher, LossConfig(), True, True)
    assert step.share_encoder
    quantise_in_training(step, QuantizationConfig(preset="w4")).schedule.update(0)  # pyright: ignore
    assert not step.share_encoder


def test_learned_steps_are_trained_where_the_weights_are(teacher: Whisper):
    step = Distillation(make_student(teacher, 2), teacher, LossConfig(), True, True)
    joint = quantise_in_training(step, QuantizationConfig(preset="w4", learn_scale=True))
    joint.schedule.update(0)  # pyright: ignore
    learned = joint.learned_steps()
    assert not any(name.startswith("model.encoder") for name in learned)
    step(**make_training_batch())["loss"].backward()
    assert all(s.grad is not None and s.grad.abs().sum() > 0 for s in learned.values())
    assert {id(s) for s in learned.values()} <= {id(p) for p in step.parameters()}


def test_a_training_writes_the_small_file_of_what_it_trained(configure: Configure):
    folder = train(configure())
    assert not (folder / "model.safetensors").exists()
    student = load_model(str(folder))
    report = inspect(folder)
    assert report.float16_ratio > 1.2
    latent = load_model(str(folder.parent / "checkpoints" / "checkpoint-4"))
    prepare(latent, grids := plan(latent, QuantizationConfig(preset="w4").chosen_rules))
    for name in grids:
        seen: Any = latent.get_submodule(name)
        assert torch.equal(student.get_parameter(f"{name}.weight"), seen.seen_weight())
    found = json.loads((folder.parent / "alignment.json").read_text())
    assert sum(map(sum, found["histogram"])) == 4 * 2
    assert len(found["last"]) == 2
    assert 0 < found["gradient_share"] < 1


@pytest.mark.parametrize("learn_scale", [False, True])
def test_a_training_resumed_twice_is_the_undisturbed_one_in_all_that_it_learns_beside_the_student(
    configure: Configure, tmp_path: Path, narrow_folder: str, learn_scale: bool
):
    """Projection, averaged distances, histogram, learned steps, and which blocks are quantised."""
    quantization = QuantizationConfig(
        preset="w4", start_step=1, ramp_steps=4, guided=True, learn_scale=learn_scale
    )
    fields: dict[str, Any] = {
        "student": narrow_folder, "quantization": quantization, "max_steps": 6, "save_steps": 2,
        "schedule": "linear",
    }  # fmt: skip
    whole = train(configure(**fields, output=str(tmp_path / "whole")))
    for step in (3, 5):
        with pytest.MonkeyPatch.context() as patch:
            kill_at(patch, step)
            with pytest.raises(KilledError):
                train(configure(**fields))
    resumed = train(configure(**fields))
    ends = [tmp_path / run / "checkpoints" / "checkpoint-6" for run in ("whole", "run")]
    for name in (FILE_NAME, "model.safetensors"):
        first, second = (load_file(end / name) for end in ends)
        assert first.keys() == second.keys()
        assert all(torch.equal(second[key], value) for key, value in first.items()), name
    joint = load_file(ends[0] / FILE_NAME)
    assert joint["hidden_loss.projections.0.weight"].shape == (64, 128)
    assert joint["hidden_loss.histogram"].sum() == 6 * 2
    assert any(name.startswith("quantisation.steps.") for name in joint) == learn_scale
    expected, found = load(whole).state_dict(), load(resumed).state_dict()
    assert all(torch.equal(found[name], value) for name, value in expected.items())


def test_a_checkpoint_of_another_joint_training_is_refused(configure: Configure):
    config = configure(max_steps=2)
    train(config)
    other = dataclasses.replace(config, max_steps=4, hidden=None)
    with pytest.raises(ValueError, match="hidden"):
        train(other)


def test_zero_steps_of_quantised_training_are_post_training_quantisation(configure: Configure):
    never = QuantizationConfig(preset="w8", start_step=1000)
    student = load(train(configure(quantization=never)))
    latent = load_model(str(Path(configure().output) / "checkpoints" / "checkpoint-4"))
    prepare(latent, plan(latent, never.chosen_rules))
    activate(latent, None)
    name = "model.decoder.layers.1.fc2"
    seen: Any = latent.get_submodule(name)
    assert torch.equal(student.get_parameter(f"{name}.weight"), seen.seen_weight())


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_training_on_the_grid_wins_back_what_rounding_lost(teacher: Whisper, seed: int):
    torch.manual_seed(seed)
    student, batch = make_student(teacher, 2), make_training_batch()
    step = Distillation(student, teacher, LossConfig(), False, True)

    def fit(steps: int) -> float:
        optimizer = torch.optim.Adam([p for p in student.parameters() if p.requires_grad], lr=2e-3)
        for _ in range(steps):
            optimizer.zero_grad()
            step(**batch)["loss"].backward()
            optimizer.step()
        with torch.no_grad():
            return step(**batch)["loss"].item()

    fit(30)
    rules = (Rule(layers="*", grid=Grid(bits=3, group=16)),)
    prepare(student, plan(student, rules))
    rounded = fit(0)
    assert fit(30) < rounded


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"start_step": -1}, "quantization.start_step is -1"),
        ({"guided": True}, "set quantization.ramp_steps"),
        ({"guide_every": 0}, "must be at least 1"),
    ],
)
def test_a_wrong_schedule_is_refused(fields: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        QuantizationConfig(**fields)


def test_what_hidden_states_need_and_do_not_allow_is_refused(configure: Configure):
    with pytest.raises(ValueError, match="needs the distances that hidden measures"):
        configure(hidden=None, quantization=QuantizationConfig(guided=True, ramp_steps=3))
    with pytest.raises(ValueError, match="set gradient_checkpointing to false"):
        configure(gradient_checkpointing=True)
    with pytest.raises(ValueError, match="hidden needs a teacher"):
        configure(teacher=None, loss=LossConfig(preset="labels-only"))

"""Hidden-state distillation: features with a known answer, and real decoders."""

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import WhisperForConditionalGeneration

from distill.distillation import Distillation
from distill.hidden import HiddenStates, capturing
from distill.hidden_config import HiddenConfig
from distill.layer_matching import LayerMatching
from distill.loss_config import LossConfig
from distill.matching import MODES
from distill.student import make_student
from tests.distill.material import make_training_batch, narrow

Whisper = WhisperForConditionalGeneration


def distillation(student: Whisper, teacher: Whisper, **fields: Any) -> Distillation:
    matching = LayerMatching(HiddenConfig(**fields), student, teacher)
    return Distillation(student, teacher, LossConfig(), True, True, hidden_loss=matching)


def states(features: list[Tensor]) -> HiddenStates:
    return HiddenStates(intermediates=features, outputs=features, cross_attentions=features)


def matching_of(teacher: Whisper, layers: int, **fields: Any) -> LayerMatching:
    config = HiddenConfig(**{"smoothing": 0.0, **fields})
    return LayerMatching(config, make_student(teacher, layers), teacher)


@pytest.mark.parametrize("feature", ["ffn", "block", "cross_attention"])
@pytest.mark.parametrize("mode", ["uniform", "dynamic_greedy", "dynamic_dp", "dynamic_free"])
def test_a_copy_of_the_teacher_learns_each_layer_from_itself_at_no_distance(
    teacher: Whisper, mode: Any, feature: Any
):
    step = distillation(make_student(teacher, 4), teacher, matching=mode, feature=feature)
    found = step(**make_training_batch())
    assert step.hidden_loss.mapping == [0, 1, 2, 3]  # pyright: ignore
    assert found["hidden"].item() == pytest.approx(0, abs=1e-9)
    assert found["kl"].item() == pytest.approx(0, abs=1e-7)


@pytest.mark.parametrize("distance", ["ln_mse", "cosine", "cka", "softmax_mse"])
@pytest.mark.parametrize("planted", [(0, 1, 3), (1, 2, 2), (3, 0, 2)])
def test_a_planted_map_is_found(teacher: Whisper, distance: Any, planted: tuple[int, ...]):
    generator = torch.Generator().manual_seed(0)
    theirs = [torch.randn(100, 64, generator=generator) for _ in range(4)]
    ours = [theirs[j] + 0.01 * torch.randn(100, 64, generator=generator) for j in planted]
    for mode in ("dynamic_free", "dynamic_greedy", "dynamic_strict", "dynamic_dp"):
        matching = matching_of(teacher, 3, matching=mode, distance=distance)
        matching(states(ours), states(theirs))
        in_order = planted == (0, 1, 3) or (planted == (1, 2, 2) and mode != "dynamic_strict")
        if mode == "dynamic_free" or in_order:
            assert matching.mapping == list(planted)
        else:
            assert matching.mapping == sorted(matching.mapping)


@pytest.mark.parametrize("mode", MODES)
def test_every_matching_trains_a_student_of_another_width(teacher: Whisper, mode: Any):
    step = distillation(narrow(teacher), teacher, matching=mode)
    assert not step.share_encoder
    step(**make_training_batch())["loss"].backward()
    (projection,) = step.hidden_loss.projections  # pyright: ignore
    assert projection.weight.shape == (64, 32)
    assert projection.weight.grad.abs().sum() > 0
    assert step.student.get_parameter("model.decoder.layers.0.fc1.weight").grad is not None


@pytest.mark.parametrize("direction", ["student-to-teacher", "teacher-to-student"])
@pytest.mark.parametrize("distance", ["ln_mse", "softmax_mse", "cka", "weight_l1"])
def test_either_side_can_be_projected(teacher: Whisper, direction: Any, distance: Any):
    step = distillation(narrow(teacher), teacher, projection=direction, distance=distance)
    found = step(**make_training_batch())["hidden"]
    assert found > 0
    parameters = dict(step.hidden_loss.named_parameters())  # pyright: ignore
    rows = (64, 32) if direction == "student-to-teacher" else (32, 64)
    assert parameters["projections.0.weight"].shape == rows
    assert ("columns.weight" in parameters) == (distance == "weight_l1")


def test_by_default_the_loss_cannot_fall_by_moving_the_teacher(teacher: Whisper):
    """The papers project the teacher: with a projection of nothing, both sides are nothing."""
    zero = [torch.zeros(5, 32)] * 2
    theirs = [torch.randn(5, 64, generator=torch.Generator().manual_seed(0))] * 4
    found = {}
    for direction in (HiddenConfig().projection, "teacher-to-student"):
        matching = LayerMatching(
            HiddenConfig(projection=direction, distance="softmax_mse", matching="uniform"),
            narrow(teacher),
            teacher,
        ).eval()
        torch.nn.init.zeros_(matching.projections[0].weight)  # pyright: ignore
        found[direction] = matching(states(zero), states(theirs))["hidden"].item()
    assert found["student-to-teacher"] > 0
    assert found["teacher-to-student"] == 0


def test_the_first_projection_is_fitted_so_that_the_first_choices_are_not_noise(teacher: Whisper):
    generator = torch.Generator().manual_seed(0)
    student = narrow(teacher)
    matching = LayerMatching(HiddenConfig(smoothing=0.0), student, teacher)
    ours = [torch.randn(400, 32, generator=generator) for _ in range(2)]
    mixed = torch.randn(32, 64, generator=generator)
    theirs = [torch.randn(400, 64, generator=generator) for _ in range(4)]
    theirs[1], theirs[3] = ours[0] @ mixed, ours[1] @ mixed
    found = matching(states(ours), states(theirs))["hidden"] / 400
    assert matching.mapping == [1, 3]
    assert found < 0.05
    before = matching.projections[0].weight.clone()  # pyright: ignore
    matching(states(ours), states(theirs))
    assert torch.equal(matching.projections[0].weight, before)  # pyright: ignore


def test_the_loss_is_a_mean_over_tokens_however_a_batch_is_split(teacher: Whisper):
    generator = torch.Generator().manual_seed(0)
    ours, theirs = ([torch.randn(30, 64, generator=generator) for _ in range(n)] for n in (2, 4))
    matching = matching_of(teacher, 2, matching="uniform")
    whole = matching(states(ours), states(theirs))["hidden"]
    parts = sum(
        matching(states([o[rows] for o in ours]), states([t[rows] for t in theirs]))["hidden"]
        for rows in (slice(10), slice(10, 30))
    )
    torch.testing.assert_close(torch.as_tensor(parts), whole)


def test_a_batch_without_labels_has_no_distance(teacher: Whisper):
    matching = matching_of(teacher, 2)
    empty = [torch.zeros(0, 64)] * 4
    found = matching(states(empty[:2]), states(empty))["hidden"]
    found.backward()
    assert found == 0


@pytest.mark.parametrize("distance", ["ln_mse", "cosine", "cka", "softmax_mse"])
def test_padding_of_the_text_changes_no_term_of_the_loss(teacher: Whisper, distance: Any):
    step = distillation(narrow(teacher), teacher, distance=distance).eval()
    batch = make_training_batch()
    with torch.no_grad():
        before = step(**batch)
        longer = {
            "decoder_input_ids": torch.nn.functional.pad(batch["decoder_input_ids"], (0, 3)),
            "labels": torch.nn.functional.pad(batch["labels"], (0, 3), value=-100),
        }
        after = step(**batch | longer)
    assert after.keys() == before.keys() == {"loss", "ce", "kl", "hidden"}
    for name, value in before.items():
        torch.testing.assert_close(after[name], value)


def test_logits_are_the_same_with_and_without_the_loss_and_layers_run_once(teacher: Whisper):
    runs: list[int] = []
    student = make_student(teacher, 2)
    student.model.decoder.layers[1].register_forward_hook(lambda *_: runs.append(1))
    batch = make_training_batch()
    plain = Distillation(student, teacher, LossConfig(), True, True)(**batch)
    step = distillation(student, teacher)
    found = step(**batch)
    assert torch.equal(found["ce"], plain["ce"])
    assert torch.equal(found["kl"], plain["kl"])
    assert len(runs) == 2
    weight = found["loss"] - plain["loss"]
    torch.testing.assert_close(weight, found["hidden"], atol=1e-5, rtol=1e-4)


def test_attention_to_the_sound_is_captured_and_sees_no_later_token(teacher: Whisper):
    batch = make_training_batch()
    kept = torch.ones_like(batch["labels"], dtype=torch.bool)
    found = []
    for last in (1, 2):
        ids = batch["decoder_input_ids"].clone()
        ids[:, -1] = last
        with torch.no_grad(), capturing(teacher, kept, True) as captured:
            teacher.model.decoder(input_ids=ids, encoder_hidden_states=torch.ones(3, 50, 32))
        found.append(torch.stack(captured.cross_attentions).unflatten(1, (3, 9)))
    assert found[0].shape == (4, 3, 9, 32)
    assert torch.equal(found[0][:, :, :-1], found[1][:, :, :-1])


def test_evaluation_changes_neither_map_nor_histogram(teacher: Whisper):
    step = distillation(make_student(teacher, 2), teacher, smoothing=0.9)
    step(**make_training_batch())
    before = {n: v.clone() for n, v in step.hidden_loss.state_dict().items()}  # pyright: ignore
    step.eval()(**make_training_batch())
    after = step.hidden_loss.state_dict()  # pyright: ignore
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert before["histogram"].sum() == 2


def test_only_the_chosen_blocks_learn(teacher: Whisper):
    matching = matching_of(teacher, 2, matching="uniform")
    matching.distilled[0] = False
    ours = [torch.randn(5, 64, requires_grad=True) for _ in range(2)]
    matching(states(ours), states([torch.randn(5, 64) for _ in range(4)]))["hidden"].backward()
    assert torch.as_tensor(ours[0].grad).abs().sum() == 0
    assert torch.as_tensor(ours[1].grad).abs().sum() > 0


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"weight": 0}, "hidden.weight is 0"),
        ({"smoothing": 1.0}, "hidden.smoothing is 1.0"),
        ({"distance": "weight_l1", "feature": "block"}, "feature ffn"),
        (
            {"projection": "teacher-to-student", "shared_projection": False},
            "set hidden.shared_projection",
        ),
    ],
)
def test_a_wrong_configuration_is_refused(fields: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        HiddenConfig(**fields)


def test_one_projection_for_each_layer_is_possible(teacher: Whisper):
    step = distillation(narrow(teacher), teacher, shared_projection=False)
    step(**make_training_batch())["loss"].backward()
    projections = list(step.hidden_loss.projections)  # pyright: ignore
    assert len(projections) == 2
    assert all(p.weight.grad.abs().sum() > 0 for p in projections)
    assert not any(torch.equal(a.weight, b.weight) for a, b in itertools.pairwise(projections))


def gradient_share(teacher: Whisper, **fields: Any) -> float:
    step = distillation(make_student(teacher, 2), teacher, matching="uniform", **fields).train()
    step(**make_training_batch())
    assert step.gradient_share is None, "not asked for"
    step.measuring = True
    step(**make_training_batch())["loss"].backward()
    assert step.gradient_share is not None
    return step.gradient_share


def test_the_share_of_the_gradient_is_taken_apart_from_that_of_the_other_terms(teacher: Whisper):
    """Twice the weight has twice the gradient, and leaves that of the others alone."""
    once, twice = (gradient_share(teacher, weight=weight) for weight in (1.0, 2.0))
    assert 0 < once < twice < 1
    assert twice / (1 - twice) == pytest.approx(2 * once / (1 - once), rel=1e-4)


def test_the_share_shows_that_the_papers_distance_does_next_to_nothing(teacher: Whisper):
    papers, ours = (gradient_share(teacher, distance=name) for name in ("softmax_mse", "ln_mse"))
    assert papers < ours / 10


def test_measuring_gradients_changes_none(teacher: Whisper):
    found = []
    for measuring in (False, True):
        step = distillation(make_student(teacher, 2), teacher).train()
        step.measuring = measuring
        step(**make_training_batch())["loss"].backward()
        found.append([p.grad for p in step.parameters() if p.grad is not None])
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))

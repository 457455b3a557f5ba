from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from distill import projection
from distill.loss_config import LossConfig
from distill.losses import distillation_loss
from distill.projection import projected_loss
from distill.quantization.fake import QuantisedLinear, learned_steps, prepare
from distill.quantization.presets import Grid

TOKENS, WIDTH, TEACHER_WIDTH, WORDS = 23, 8, 12, 50


class Rounded(nn.Module):
    """A weight that is rounded when it is used; its gradient goes straight through."""

    def forward(self, weight: Tensor) -> Tensor:
        return weight + ((weight * 8).round() / 8 - weight).detach()


class RoundedLinear(nn.Linear):
    def forward(self, input: Tensor) -> Tensor:
        return nn.functional.linear(input, Rounded()(self.weight))


class Material:
    """Hidden states, projections and labels; the same each time."""

    def __init__(self, kind: type[nn.Linear] = nn.Linear) -> None:
        torch.manual_seed(0)
        self.student = torch.randn(TOKENS, WIDTH, requires_grad=True)
        self.teacher = torch.randn(TOKENS, TEACHER_WIDTH)
        self.ours = kind(WIDTH, WORDS, bias=False)
        self.theirs = nn.Linear(TEACHER_WIDTH, WORDS, bias=False).requires_grad_(False)
        self.labels = torch.randint(WORDS, (TOKENS,))

    def chunked(self, options: dict[str, Any], tokens: int = TOKENS) -> dict[str, Tensor]:
        models = (self.student, self.ours, self.teacher, self.theirs)
        return projected_loss(*models, self.labels, tokens, options)

    def whole(self, options: dict[str, Any], tokens: int = TOKENS) -> dict[str, Tensor]:
        student, teacher = self.ours(self.student), self.theirs(self.teacher)
        return distillation_loss(student, teacher, self.labels, **options, num_tokens=tokens)

    def gradients(self, loss: Tensor) -> tuple[Tensor, ...]:
        return torch.autograd.grad(loss, [self.student, *self.ours.parameters()])


@pytest.fixture(params=[1, 7, TOKENS, 1000])
def chunk(request, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(projection, "CHUNK_ELEMENTS", request.param * WORDS)
    return request.param


@pytest.mark.parametrize(
    "config",
    [
        LossConfig(),
        LossConfig(preset="released-code"),
        LossConfig(preset="labels-only"),
        LossConfig(divergence="jensen-shannon", label_smoothing=0.1),
    ],
)
def test_chunks_give_the_loss_and_the_gradients_of_the_whole(chunk: int, config: LossConfig):
    material = Material()
    found, expected = material.chunked(config.options), material.whole(config.options)
    assert found.keys() == expected.keys()
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-7)
    ours, theirs = (material.gradients(3 * loss["loss"]) for loss in (found, expected))
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("parametrized", [False, True])
def test_a_projection_that_rounds_its_weights_is_used_as_it_is(chunk: int, parametrized: bool):
    material = Material(nn.Linear if parametrized else RoundedLinear)
    if parametrized:
        parametrize.register_parametrization(material.ours, "weight", Rounded())
    options = LossConfig().options
    found, expected = material.chunked(options), material.whole(options)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-7)
    ours, theirs = (material.gradients(loss["loss"]) for loss in (found, expected))
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("learned", [False, True])
def test_weights_are_put_on_their_grid_once_and_not_for_each_chunk(
    chunk: int, learned: bool, monkeypatch: pytest.MonkeyPatch
):
    material, grid = Material(), Grid(bits=4)
    model = nn.ModuleDict({"head": material.ours})
    steps = learned_steps(model, {"head": grid}) if learned else {}
    prepare(model, {"head": grid}, steps)
    options = LossConfig().options
    expected = material.whole(options)
    calls = []
    seen_weight = QuantisedLinear.seen_weight
    monkeypatch.setattr(
        QuantisedLinear, "seen_weight", lambda layer: calls.append(layer) or seen_weight(layer)
    )
    found = material.chunked(options)
    assert len(calls) == 1
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-7)
    trained = [material.student, material.ours.weight, *steps.values()]
    ours, theirs = (torch.autograd.grad(loss["loss"], trained) for loss in (found, expected))
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-7)


def test_logits_never_exist_for_more_than_a_chunk(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(projection, "CHUNK_ELEMENTS", 5 * WORDS)
    sizes = []

    def watched(student: Tensor, *arguments: Any, **options: Any) -> dict[str, Tensor]:
        sizes.append(len(student))
        return distillation_loss(student, *arguments, **options)

    monkeypatch.setattr(projection, "labelled_loss", watched)
    Material().chunked(LossConfig().options)
    assert sizes == [5, 5, 5, 5, 3]


def test_without_gradients_none_are_computed(chunk: int):
    material = Material()
    with torch.no_grad():
        found = material.chunked(LossConfig().options)["loss"]
    assert not found.requires_grad
    torch.testing.assert_close(found, material.whole(LossConfig().options)["loss"].detach())


def test_a_batch_without_labels_has_no_loss_and_a_gradient_of_zero():
    material = Material()
    material.labels = material.labels[:0]
    material.student, material.teacher = material.student[:0], material.teacher[:0]
    loss = material.chunked(LossConfig().options)["loss"]
    assert loss.item() == 0
    assert material.gradients(loss)[1].abs().sum() == 0


def test_bfloat16_autocast_rounds_the_logits_and_sums_in_float32(chunk: int):
    material, options = Material(), LossConfig().options
    with torch.autocast("cpu", torch.bfloat16):
        found = material.chunked(options)["loss"]
    assert found.dtype == torch.float32
    exact = material.whole(options)["loss"]
    assert found.item() != exact.item()
    torch.testing.assert_close(found, exact, rtol=2e-2, atol=0)
    ours, theirs = (material.gradients(loss) for loss in (found, exact))
    assert [g.dtype for g in ours] == [torch.float32] * 2
    torch.testing.assert_close(ours, theirs, rtol=0.1, atol=5e-3)

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.config import LossConfig
from distill.losses import (
    IGNORED,
    count_labels,
    cross_entropy,
    kl_divergence,
    label_positions,
    spelling_loss,
)

# three tokens over a vocabulary of two: probabilities of 1/2, 3/4 and 1/4 for token 0
STUDENT = torch.log(torch.tensor([[0.5, 0.5], [0.75, 0.25], [0.25, 0.75]]))
TEACHER = torch.log(torch.tensor([[0.9, 0.1], [0.75, 0.25], [0.5, 0.5]]))
LABELS = torch.tensor([0, 0, 1])


def kl(p: float, q: float) -> float:
    return p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))


def tempered(p: float, temperature: float) -> float:
    a, b = p ** (1 / temperature), (1 - p) ** (1 / temperature)
    return a / (a + b)


def test_cross_entropy_is_the_sum_computed_by_hand():
    expected = -math.log(0.5) - math.log(0.75) - math.log(0.75)
    assert cross_entropy(STUDENT, LABELS).item() == pytest.approx(expected, rel=1e-6)


def test_kl_is_from_teacher_to_student_as_computed_by_hand():
    expected = kl(0.9, 0.5) + 0 + kl(0.5, 0.25)
    assert kl_divergence(STUDENT, TEACHER, 1.0, False).item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(("squared", "factor"), [(False, 1.0), (True, 4.0)])
def test_temperature_softens_both_sides(squared: bool, factor: float):
    softened = [
        kl(tempered(teacher, 2.0), tempered(student, 2.0))
        for teacher, student in ((0.9, 0.5), (0.75, 0.75), (0.5, 0.25))
    ]
    found = kl_divergence(STUDENT, TEACHER, 2.0, squared).item()
    assert found == pytest.approx(factor * sum(softened), rel=1e-6)


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 1000), temperature=st.floats(0.5, 8))
def test_kl_of_identical_logits_is_zero_and_never_negative(seed: int, temperature: float):
    generator = torch.Generator().manual_seed(seed)
    one, other = torch.randn(2, 5, 11, generator=generator) * 4
    assert kl_divergence(one, one, temperature, True).item() == pytest.approx(0, abs=1e-6)
    assert kl_divergence(one, other, temperature, True).item() >= 0


def test_losses_of_bfloat16_logits_are_summed_in_float32():
    logits = torch.randn(50, 100, dtype=torch.bfloat16)
    labels = torch.randint(100, (50,))
    assert cross_entropy(logits, labels).dtype == torch.float32
    assert kl_divergence(logits, logits, 2.0, True).dtype == torch.float32


def test_only_labelled_positions_are_counted():
    labels = torch.tensor([[IGNORED, 3, 0], [4, IGNORED, IGNORED]])
    assert label_positions(labels).tolist() == [[False, True, True], [True, False, False]]
    assert count_labels(labels).item() == 3


@pytest.mark.parametrize(
    ("config", "weights"),
    [
        (LossConfig(), (1.0, 0.8, False)),
        (LossConfig(preset="paper"), (1.0, 0.8, False)),
        (LossConfig(preset="released-code"), (0.8, 1.0, True)),
        (LossConfig(preset="labels-only"), (1.0, 0.0, False)),
        (LossConfig(preset="paper", kl_weight=0.5), (1.0, 0.5, False)),
        (LossConfig(preset="released-code", times_temperature_squared=False), (0.8, 1.0, False)),
    ],
)
def test_presets_fill_what_is_not_given(config: LossConfig, weights: tuple[float, float, bool]):
    assert config.weights == weights
    assert config.temperature == 2.0


def test_a_spelling_the_sound_says_costs_nothing_and_another_one_costs_much():
    letters = torch.eye(4) * 100.0
    said = torch.tensor([[1, 0, 2, 2, 0, 3]])
    sound = torch.nn.functional.one_hot(said, 4).float()
    right = spelling_loss(sound, letters, torch.tensor([[1, 2, 3, 0]]))
    wrong = spelling_loss(sound, letters, torch.tensor([[3, 2, 1, 0]]))
    assert right.item() == pytest.approx(0.0, abs=1e-4)
    assert wrong.item() > 100


def test_a_clip_without_text_is_spelled_with_blanks_only():
    silence = torch.nn.functional.one_hot(torch.zeros(1, 5, dtype=torch.long), 3).float()
    loss = spelling_loss(silence, torch.eye(3) * 100.0, torch.zeros(1, 1, dtype=torch.long))
    assert loss.item() == pytest.approx(0.0, abs=1e-4)

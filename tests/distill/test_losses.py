import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.loss_config import LossConfig
from distill.losses import (
    IGNORED,
    count_labels,
    cross_entropy,
    distillation_loss,
    jensen_shannon_divergence,
    kl_divergence,
    label_positions,
    reverse_kl_divergence,
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


def test_reverse_kl_is_from_student_to_teacher_as_computed_by_hand():
    expected = kl(0.5, 0.9) + 0 + kl(0.25, 0.5)
    found = reverse_kl_divergence(STUDENT, TEACHER, 1.0, False).item()
    assert found == pytest.approx(expected, rel=1e-6)


def test_jensen_shannon_is_the_mean_divergence_from_the_mixture_as_computed_by_hand():
    pairs = [(0.9, 0.5), (0.75, 0.75), (0.5, 0.25)]
    expected = sum((kl(p, (p + q) / 2) + kl(q, (p + q) / 2)) / 2 for p, q in pairs)
    found = jensen_shannon_divergence(STUDENT, TEACHER, 1.0, False).item()
    assert found == pytest.approx(expected, rel=1e-6)
    assert jensen_shannon_divergence(TEACHER, STUDENT, 1.0, False).item() == pytest.approx(found)


def test_jensen_shannon_never_exceeds_log_two_for_a_token():
    opposed = torch.tensor([[200.0, -200.0]])
    found = jensen_shannon_divergence(opposed, -opposed, 1.0, False).item()
    assert found == pytest.approx(math.log(2), rel=1e-6)


@pytest.mark.parametrize("measure", [reverse_kl_divergence, jensen_shannon_divergence])
def test_every_divergence_is_zero_for_the_same_and_scales_with_temperature_squared(measure):
    assert measure(TEACHER, TEACHER, 2.0, True).item() == pytest.approx(0, abs=1e-6)
    plain, squared = (measure(STUDENT, TEACHER, 3.0, s).item() for s in (False, True))
    assert squared == pytest.approx(9 * plain, rel=1e-6)


def test_label_smoothing_mixes_the_label_with_the_even_distribution():
    even = -sum(math.log(p) + math.log(1 - p) for p in (0.5, 0.75, 0.25)) / 2
    expected = 0.9 * cross_entropy(STUDENT, LABELS).item() + 0.1 * even
    assert cross_entropy(STUDENT, LABELS, 0.1).item() == pytest.approx(expected, rel=1e-6)


OPTIONS = [
    LossConfig(preset="paper"),
    LossConfig(preset="released-code"),
    LossConfig(preset="labels-only"),
    LossConfig(divergence="reverse-kl", label_smoothing=0.1),
    LossConfig(divergence="jensen-shannon", times_temperature_squared=True),
]


@pytest.mark.parametrize("config", OPTIONS)
@given(cut=st.integers(0, 12))
@settings(deadline=None, max_examples=10)
def test_the_loss_does_not_depend_on_how_a_batch_is_split(config: LossConfig, cut: int):
    generator = torch.Generator().manual_seed(1)
    student, teacher = torch.randn(2, 12, 50, generator=generator)
    labels = torch.randint(50, (12,), generator=generator)
    labels[::3] = IGNORED
    whole = distillation_loss(student, teacher, labels, **config.options)
    parts = [
        distillation_loss(
            student[rows],
            teacher[rows],
            labels[rows],
            **config.options,
            num_tokens=count_labels(labels),
        )
        for rows in (slice(None, cut), slice(cut, None))
    ]
    for name, value in whole.items():
        total = sum(part[name].item() for part in parts)
        assert total == pytest.approx(value.item(), rel=1e-6)


def test_the_public_loss_takes_batches_and_leaves_masked_positions_out():
    student, teacher = torch.randn(2, 3, 5, 20)
    labels = torch.full((3, 5), IGNORED)
    labels[0, :2], labels[2, 4] = 7, 3
    found = distillation_loss(student.requires_grad_(), teacher, labels)
    kept = labels != IGNORED
    expected = distillation_loss(student[kept], teacher[kept], labels[kept])
    torch.testing.assert_close(found, expected)
    found["loss"].backward()
    assert student.grad is not None
    assert torch.equal(student.grad.abs().sum(-1) > 0, kept)
    by_hand = cross_entropy(student[kept], labels[kept]) / 3
    by_hand = by_hand + 0.8 * kl_divergence(student[kept], teacher[kept], 2.0, False) / 3
    torch.testing.assert_close(found["loss"], by_hand)


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

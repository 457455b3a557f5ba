"""Distillation losses on the tokens that count.

    L = ce_weight · CE(student, labels)
      + kl_weight · s · D(softmax(teacher / T), softmax(student / T))

with s = T² or 1 (Distil-Whisper, arXiv 2311.00430, section 3.3 and appendix B.1), and D the forward
Kullback-Leibler divergence of that paper, the reverse one, or Jensen and Shannon's. Everything is a
sum over tokens that is divided once by the number of tokens of the whole optimiser step, so the
loss does not depend on how a batch was split over micro-batches and devices.
"""

# N label tokens of a batch (masked positions are already dropped), V vocabulary

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

Divergence = Literal["forward-kl", "reverse-kl", "jensen-shannon"]

IGNORED = -100
"""The label of positions that take no part in the loss."""


def distillation_loss(
    student_logits: Tensor,
    teacher_logits: Tensor | None,
    labels: Tensor,
    *,
    ce_weight: float = 1.0,
    kl_weight: float = 0.8,
    temperature: float = 2.0,
    times_temperature_squared: bool = False,
    divergence: Divergence = "forward-kl",
    label_smoothing: float = 0.0,
    num_tokens: Tensor | int | None = None,
) -> dict[str, Tensor]:
    """Return `loss` with its gradient, and its parts `ce` and `kl` without; the paper's by default.

    Logits are (..., vocabulary) and labels (...), `IGNORED` where a position takes no part. All are
    divided by `num_tokens`, the labels of the whole optimiser step (default: of this call). Without
    a teacher, or with a weight of 0, there is no `kl`.
    """
    kept = label_positions(labels)
    return labelled_loss(
        student_logits[kept],
        None if teacher_logits is None else teacher_logits[kept],
        labels[kept],
        ce_weight=ce_weight,
        kl_weight=kl_weight,
        temperature=temperature,
        times_temperature_squared=times_temperature_squared,
        divergence=divergence,
        label_smoothing=label_smoothing,
        num_tokens=torch.count_nonzero(kept) if num_tokens is None else num_tokens,
    )


def labelled_loss(
    student_NV: Tensor,
    teacher_NV: Tensor | None,
    labels_N: Tensor,
    *,
    ce_weight: float,
    kl_weight: float,
    temperature: float,
    times_temperature_squared: bool,
    divergence: Divergence,
    label_smoothing: float,
    num_tokens: Tensor | int,
) -> dict[str, Tensor]:
    """Return what `distillation_loss` does where every position has a label; copies no logits."""
    ce = cross_entropy(student_NV, labels_N, label_smoothing) / num_tokens
    parts = {"ce": ce.detach()}
    loss = ce_weight * ce
    if teacher_NV is not None and kl_weight:
        measure = DIVERGENCES[divergence]
        kl = measure(student_NV, teacher_NV, temperature, times_temperature_squared) / num_tokens
        parts["kl"] = kl.detach()
        loss = loss + kl_weight * kl
    return {"loss": loss, **parts}


def cross_entropy(student_NV: Tensor, labels_N: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Sum the negative log-likelihood of the labels (sequence-level distillation, Eq. 4).

    Smoothing spreads that share of each label evenly over the vocabulary.
    """
    return functional.cross_entropy(
        student_NV.float(), labels_N, reduction="sum", label_smoothing=label_smoothing
    )


def kl_divergence(
    student_NV: Tensor, teacher_NV: Tensor, temperature: float, times_temperature_squared: bool
) -> Tensor:
    """Sum KL(teacher ‖ student) at a softmax temperature (word-level distillation, Eq. 5).

    The factor T² keeps the scale of the gradient when the temperature changes (Hinton et al.,
    2015); the paper's formula does not have it, the released code does.
    """
    student, teacher = _log_probabilities(student_NV, teacher_NV, temperature)
    return _kl(teacher, student) * _scale(temperature, times_temperature_squared)


def reverse_kl_divergence(
    student_NV: Tensor, teacher_NV: Tensor, temperature: float, times_temperature_squared: bool
) -> Tensor:
    """Sum KL(student ‖ teacher): the student is punished for what its teacher would not say."""
    student, teacher = _log_probabilities(student_NV, teacher_NV, temperature)
    return _kl(student, teacher) * _scale(temperature, times_temperature_squared)


def jensen_shannon_divergence(
    student_NV: Tensor, teacher_NV: Tensor, temperature: float, times_temperature_squared: bool
) -> Tensor:
    """Sum the mean divergence of both from their mixture: symmetric, at most log 2 for a token."""
    student, teacher = _log_probabilities(student_NV, teacher_NV, temperature)
    mixture = torch.logaddexp(student, teacher) - math.log(2)
    both = (_kl(teacher, mixture) + _kl(student, mixture)) / 2
    return both * _scale(temperature, times_temperature_squared)


DIVERGENCES: dict[str, Callable[[Tensor, Tensor, float, bool], Tensor]] = {
    "forward-kl": kl_divergence,
    "reverse-kl": reverse_kl_divergence,
    "jensen-shannon": jensen_shannon_divergence,
}


def _log_probabilities(
    student_NV: Tensor, teacher_NV: Tensor, temperature: float
) -> tuple[Tensor, Tensor]:
    student = functional.log_softmax(student_NV.float() / temperature, dim=-1)
    return student, functional.log_softmax(teacher_NV.float() / temperature, dim=-1)


def _kl(log_p: Tensor, log_q: Tensor) -> Tensor:
    return functional.kl_div(log_q, log_p, reduction="sum", log_target=True)


def _scale(temperature: float, times_temperature_squared: bool) -> float:
    return temperature**2 if times_temperature_squared else 1.0


def spelling_loss(sound_BTD: Tensor, letters_LD: Tensor, spelling_BS: Tensor) -> Tensor:
    """Sum the CTC loss of spelling the text from the encoder's output.

    Attention alone is slow to find the words in the sound; together with connectionist temporal
    classification it finds them soon (Watanabe et al., 2017). Frames are scored with the decoder's
    own embeddings of the letters, so the model gets no new weight.

    Args:
        sound_BTD: encoder output, (batch, positions, width).
        letters_LD: embeddings of the blank and of each letter.
        spelling_BS: rows of `letters_LD`, 0 behind a spelling's end, (batch, letters).
    """
    scores_TBL = functional.log_softmax((sound_BTD @ letters_LD.T).float(), dim=-1).transpose(0, 1)
    positions = torch.full((len(sound_BTD),), sound_BTD.shape[1])
    lengths = torch.count_nonzero(spelling_BS, dim=1)
    return functional.ctc_loss(
        scores_TBL, spelling_BS, positions, lengths, blank=0, reduction="sum", zero_infinity=True
    )


def label_positions(labels_BT: Tensor) -> Tensor:
    """Return the boolean mask (batch, tokens) of the positions that have a label."""
    return labels_BT != IGNORED


def count_labels(labels_BT: Tensor) -> Tensor:
    """Count the tokens that take part in the loss."""
    return torch.count_nonzero(label_positions(labels_BT))

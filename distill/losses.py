"""Distillation losses on the tokens that count.

    L = ce_weight · CE(student, labels)
      + kl_weight · s · KL(softmax(teacher / T) ‖ softmax(student / T))

with s = T² or 1 (Distil-Whisper, arXiv 2311.00430, section 3.3 and appendix B.1). Each function
returns a sum over tokens: the caller divides once by the number of tokens of the whole optimiser
step, so the loss does not depend on how a batch was split over micro-batches and devices.
"""

# N label tokens of a batch (masked positions are already dropped), V vocabulary

import torch
from torch import Tensor
from torch.nn import functional

IGNORED = -100
"""The label of positions that take no part in the loss."""


def cross_entropy(student_NV: Tensor, labels_N: Tensor) -> Tensor:
    """Sum the negative log-likelihood of the labels (sequence-level distillation, Eq. 4)."""
    return functional.cross_entropy(student_NV.float(), labels_N, reduction="sum")


def kl_divergence(
    student_NV: Tensor, teacher_NV: Tensor, temperature: float, times_temperature_squared: bool
) -> Tensor:
    """Sum KL(teacher ‖ student) at a softmax temperature (word-level distillation, Eq. 5).

    The factor T² keeps the scale of the gradient when the temperature changes (Hinton et al.,
    2015); the paper's formula does not have it, the released code does.
    """
    teacher = functional.log_softmax(teacher_NV.float() / temperature, dim=-1)
    student = functional.log_softmax(student_NV.float() / temperature, dim=-1)
    divergence = functional.kl_div(student, teacher, reduction="sum", log_target=True)
    return divergence * temperature**2 if times_temperature_squared else divergence


def label_positions(labels_BT: Tensor) -> Tensor:
    """Return the boolean mask (batch, tokens) of the positions that have a label."""
    return labels_BT != IGNORED


def count_labels(labels_BT: Tensor) -> Tensor:
    """Count the tokens that take part in the loss."""
    return torch.count_nonzero(label_positions(labels_BT))

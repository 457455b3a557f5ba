"""How far a student's hidden states are from a teacher's: pure functions of two matrices.

Each returns a mean over tokens, so that the weight of the loss does not depend on how many there
are; the released code of DQ-Whisper sums. Its distance, between softmaxed features, is here for
fidelity, but its gradient is more than twenty times smaller than that of `ln_mse`
(`tests/distill/test_distances.py`), so it is not the default.
"""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

DistanceName = Literal["ln_mse", "cosine", "cka", "softmax_mse"]


def softmax_mse(student_ND: Tensor, teacher_ND: Tensor, temperature: float = 1.0) -> Tensor:
    """T² times the squared difference of softmaxed features, summed over channels (DQ-Whisper)."""
    student = functional.softmax(student_ND.float() / temperature, dim=-1)
    teacher = functional.softmax(teacher_ND.float() / temperature, dim=-1)
    return (student - teacher).square().sum(-1).mean() * temperature**2


def ln_mse(student_ND: Tensor, teacher_ND: Tensor) -> Tensor:
    """Mean squared difference of features with each token's mean and variance taken out."""
    width = student_ND.shape[-1:]
    student = functional.layer_norm(student_ND.float(), width)
    teacher = functional.layer_norm(teacher_ND.float(), width)
    return functional.mse_loss(student, teacher)


def cosine(student_ND: Tensor, teacher_ND: Tensor) -> Tensor:
    """One minus the cosine between the features of a token."""
    return 1 - functional.cosine_similarity(student_ND.float(), teacher_ND.float(), dim=-1).mean()


def cka(student_ND: Tensor, teacher_NE: Tensor) -> Tensor:
    """One minus linear centred kernel alignment (Kornblith et al., 2019); widths may differ.

    It compares how the tokens of a batch lie to each other, so unlike the others it is not a mean
    of one number for each token. A batch with fewer tokens than channels looks more alike than it
    is. One token has no spread: the distance is then 1.
    """
    student = student_ND.float() - student_ND.float().mean(0)
    teacher = teacher_NE.float() - teacher_NE.float().mean(0)
    common = (teacher.T @ student).square().sum()
    own = (student.T @ student).norm() * (teacher.T @ teacher).norm()
    return 1 - common / own.clamp_min(1e-12)


def weight_l1(student_RC: Tensor, teacher_RC: Tensor) -> Tensor:
    """Mean absolute difference of weight matrices, softmaxed over their columns (Whisper-KDQ)."""
    student = functional.softmax(student_RC.float(), dim=-1)
    teacher = functional.softmax(teacher_RC.float(), dim=-1)
    return (student - teacher).abs().mean()


DISTANCES: dict[DistanceName, Callable[[Tensor, Tensor], Tensor]] = {
    "ln_mse": ln_mse,
    "cosine": cosine,
    "cka": cka,
    "softmax_mse": softmax_mse,
}


@torch.no_grad()
def distance_matrix(
    students: list[Tensor], teachers: list[Tensor], distance: Callable[[Tensor, Tensor], Tensor]
) -> Tensor:
    """Measure every student layer against every teacher layer, (student layers, teacher layers)."""
    return torch.stack([torch.stack([distance(s, t) for t in teachers]) for s in students]).cpu()

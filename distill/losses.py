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

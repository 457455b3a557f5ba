"""The vocabulary projection and the loss behind it, a few tokens at a time.

Logits are the largest thing in the training of a small Whisper: 51 865 numbers for each token, of
student and teacher, and softmaxes and gradients of the same size. Here they exist for one chunk of
tokens only: the chunk's gradient is taken at once and folded into those of the hidden states and of
the projection, so the peak does not grow with the batch and nothing is computed twice.
"""

# N label tokens of a batch, D width of the student, E of the teacher, V vocabulary

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from distill.losses import labelled_loss
from distill.quantization.fake import QuantisedLinear, seen_weight

CHUNK_ELEMENTS = 2**22
"""Logits in a chunk on a CPU: 16 MB in float32, 80 tokens of Whisper's vocabulary. The C library
reuses blocks of that size; larger ones it gets from the system anew each time, page by page."""
GPU_CHUNK_ELEMENTS = 2**26
"""Logits in a chunk on a GPU, which wants more to do at once: 256 MB."""

LossOfLogits = Callable[[Tensor, Tensor | None, Tensor], dict[str, Tensor]]


def projected_loss(
    student_ND: Tensor,
    student_projection: nn.Module,
    teacher_NE: Tensor | None,
    teacher_projection: nn.Module | None,
    labels_N: Tensor,
    num_tokens: Tensor | int,
    options: dict[str, Any],
) -> dict[str, Tensor]:
    """Return what `distillation_loss` returns for the projected states, and the same gradients.

    The weights of a projection on a grid are put on it once, not once for each chunk. A projection
    that is not linear is called as a module and computed again in the backward pass.
    """
    elements = CHUNK_ELEMENTS if student_ND.device.type == "cpu" else GPU_CHUNK_ELEMENTS
    size = max(1, elements // vocabulary_size(student_projection))
    loss = functools.partial(labelled_loss, num_tokens=num_tokens, **options)
    if _is_linear(student_projection) and _is_linear(teacher_projection):
        teacher_VE = None if teacher_projection is None else seen_weight(teacher_projection)
        names = ["loss", "ce"] if teacher_NE is None or not options["kl_weight"] else PARTS
        teaching = torch.is_grad_enabled()
        student_VD = seen_weight(student_projection)
        found: Any = _FusedLoss.apply(
            student_ND, student_VD, teacher_NE, teacher_VE, labels_N, size, loss, teaching
        )
        return dict(zip(names, found, strict=False))

    def chunk_loss(student: Tensor, teacher: Tensor | None, labels: Tensor) -> dict[str, Tensor]:
        theirs = None
        if teacher is not None and teacher_projection is not None:
            with torch.no_grad():
                theirs = teacher_projection(teacher)
        return loss(student_projection(student), theirs, labels)

    totals: dict[str, Tensor] = {}
    for rows in _chunks(len(labels_N), size):
        teacher = None if teacher_NE is None else teacher_NE[rows]
        parts: Any = checkpoint(
            chunk_loss, student_ND[rows], teacher, labels_N[rows], use_reentrant=False
        )
        totals = {name: totals.get(name, 0.0) + part for name, part in parts.items()}
    return totals


PARTS = ["loss", "ce", "kl"]


def vocabulary_size(projection: nn.Module) -> int:
    """Return how many logits a projection gives for a token."""
    return int(projection.out_features)  # pyright: ignore[reportArgumentType]


def _is_linear(projection: nn.Module | None) -> bool:
    """Tell whether a projection is its weight; one with a parametrised weight is, too."""
    if projection is None:
        return True
    forward = getattr(type(projection), "forward", None)
    hooked = projection._forward_hooks or projection._forward_pre_hooks
    linear = forward in (nn.Linear.forward, QuantisedLinear.forward)
    return linear and projection.bias is None and not hooked


def _chunks(num_tokens: int, size: int) -> list[slice]:
    # at least one, so that a batch without labels has a loss of zero that a gradient can follow
    return [slice(first, first + size) for first in range(0, max(num_tokens, 1), size)]


class _FusedLoss(torch.autograd.Function):
    """Takes the gradient chunk by chunk in the forward pass; the backward pass only scales it."""

    @staticmethod
    def forward(
        ctx: Any,
        student_ND: Tensor,
        student_VD: Tensor,
        teacher_NE: Tensor | None,
        teacher_VE: Tensor | None,
        labels_N: Tensor,
        size: int,
        loss: LossOfLogits,
        teaching: bool,
    ) -> tuple[Tensor, ...]:
        device = student_ND.device.type
        rounded = torch.is_autocast_enabled(device)
        dtype = torch.get_autocast_dtype(device) if rounded else student_VD.dtype
        wants_hidden, wants_weight = (teaching and needed for needed in ctx.needs_input_grad[:2])
        hidden_gradient = torch.zeros_like(student_ND) if wants_hidden else None
        weight_gradient = torch.zeros_like(student_VD) if wants_weight else None
        totals = student_ND.new_zeros(len(PARTS), dtype=torch.float32)
        with torch.autocast(device, enabled=False):
            weight = student_VD.to(dtype)
            theirs = None if teacher_VE is None else teacher_VE.to(dtype)
            for rows in _chunks(len(labels_N), size):
                hidden = student_ND[rows].to(dtype)
                logits = functional.linear(hidden, weight).float().requires_grad_()
                teacher = None
                if teacher_NE is not None and theirs is not None:
                    teacher = functional.linear(teacher_NE[rows].to(dtype), theirs)
                with torch.enable_grad():
                    parts = loss(logits, teacher, labels_N[rows])
                for place, name in enumerate(PARTS):
                    totals[place] += parts[name].detach() if name in parts else 0.0
                if not (wants_hidden or wants_weight):
                    continue
                (gradient,) = torch.autograd.grad(parts["loss"], logits)
                del logits, parts, teacher
                gradient = gradient.to(dtype)
                if hidden_gradient is not None:
                    hidden_gradient[rows] = functional.linear(gradient, weight.T)
                if weight_gradient is not None and dtype == weight_gradient.dtype:
                    weight_gradient.addmm_(gradient.T, hidden)
                elif weight_gradient is not None:
                    weight_gradient += gradient.T @ hidden
        ctx.gradients = hidden_gradient, weight_gradient
        loss_total, *others = (total.clone() for total in totals)
        ctx.mark_non_differentiable(*others)
        return loss_total, *others

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight = (None if g is None else g * gradients[0] for g in ctx.gradients)
        return hidden, weight, None, None, None, None, None, None

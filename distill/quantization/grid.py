"""Weights on a grid: quantise, dequantise, and both at once with a straight-through gradient.

    scale   = round_to_storage(absmax / largest)        1 where a row is all zeros
    integer = clamp(round_half_even(weight / scale), -largest, largest)
    weight' = integer · scale                           in float32

The scale is rounded to the type it is stored in before it is used: that makes the weights that a
training sees and those that a file gives back the same, bit for bit. It is made of the absolute
maximum; the released code of DQ-Whisper takes the signed maximum and does not clamp, which leaves
the 8-bit range for nearly half of all symmetric weights.
"""

# W weights (rows R, columns C), S scales (rows or 1, groups G), Q integers (rows R, columns C)

from typing import Any

import torch
from torch import Tensor

from distill.quantization.presets import Grid

DTYPES = {"float16": torch.float16, "float32": torch.float32}
FLOAT16_SPACING = 2.0**-24
"""Between neighbouring float16 numbers below 2⁻¹⁴."""
SMALLEST_LEARNED = 2.0**-20
"""A learned scale goes no lower: float16 would make it zero."""


def absmax_scale(weight_RC: Tensor, grid: Grid) -> Tensor:
    """Return scales, rounded through their storage type, as float32 (rows or 1, groups).

    Each scale is used up: some weight gets the largest integer. Below 2⁻¹⁴ float16 has few digits,
    and rounding upwards could leave the largest integer unused; another runtime would then choose
    another scale, so it is rounded downwards there.
    """
    weight = weight_RC.detach().float()
    if grid.per_tensor:
        absmax = weight.abs().amax().view(1, 1)
    else:
        absmax = _grouped(weight, grid).abs().amax(-1)
    scale = (absmax / grid.largest).to(DTYPES[grid.scale]).float()
    unused = (absmax / scale).round() < grid.largest
    return _without_zeros(torch.where(unused, scale - FLOAT16_SPACING, scale))


def stored_scale(scale_RG: Tensor, grid: Grid) -> Tensor:
    """Round scales as the file does."""
    return _without_zeros(scale_RG.to(DTYPES[grid.scale]).float())


def _without_zeros(scale_RG: Tensor) -> Tensor:
    """Replace a scale that vanishes by 1; the weights that it stands for are then zeros."""
    return torch.where(scale_RG == 0, torch.ones_like(scale_RG), scale_RG)


def quantize(weight_RC: Tensor, grid: Grid, scale_RG: Tensor | None = None) -> Tensor:
    """Return int8 integers (rows, columns).

    Args:
        weight_RC: weights.
        grid: bits and grouping.
        scale_RG: scales to use; the absolute maximum's where none are given.
    """
    scale = absmax_scale(weight_RC, grid) if scale_RG is None else scale_RG
    steps = _grouped(weight_RC.detach().float(), grid) / scale.unsqueeze(-1)
    return steps.round().clamp(-grid.largest, grid.largest).to(torch.int8).view(weight_RC.shape)


def dequantize(integers_RC: Tensor, scale_RG: Tensor, grid: Grid) -> Tensor:
    """Return the float32 weights that integers stand for."""
    weight = _grouped(integers_RC.float(), grid) * scale_RG.float().unsqueeze(-1)
    return weight.view(integers_RC.shape)


def round_trip(weight_RC: Tensor, grid: Grid, scale_RG: Tensor | None = None) -> Tensor:
    """Quantise and dequantise, without gradient."""
    scale = absmax_scale(weight_RC, grid) if scale_RG is None else scale_RG
    return dequantize(quantize(weight_RC, grid, scale), scale, grid)


def fake_quantize(weight_RC: Tensor, grid: Grid) -> Tensor:
    """Quantise and dequantise; the gradient passes as if nothing had happened (straight-through).

    Not `weight + (rounded - weight).detach()`, which is not bit for bit the rounded weight.
    """
    rounded: Any = _StraightThrough.apply(weight_RC, grid)
    return rounded


def fake_quantize_learned(weight_RC: Tensor, scale_RG: Tensor, grid: Grid) -> Tensor:
    """Quantise and dequantise with a scale that learns, too (LSQ, arXiv 1902.08153).

    The weight's gradient passes where it is inside the range and is zero outside; the scale's is
    the rounding error inside and the largest integer outside, times 1 / sqrt(n · largest) with
    n weights to a scale.
    """
    rounded: Any = _LearnedStep.apply(weight_RC, scale_RG, grid)
    return rounded


def first_learned_scale(weight_RC: Tensor, grid: Grid) -> Tensor:
    """Return the scale that learning begins with: 2 · mean |w| / sqrt(largest), as LSQ has it."""
    weight = weight_RC.detach().float()
    if grid.per_tensor:
        mean = weight.abs().mean().view(1, 1)
    else:
        mean = _grouped(weight, grid).abs().mean(-1)
    return 2 * mean / grid.largest**0.5


def pack_nibbles(integers_RC: Tensor) -> Tensor:
    """Pack integers from -8 to 7 into bytes (rows, columns / 2), the even column in the low half.

    Raises:
        ValueError: an odd number of columns.
    """
    if integers_RC.shape[1] % 2:
        raise ValueError(f"{integers_RC.shape[1]} columns cannot share bytes in pairs")
    shifted = (integers_RC + 8).to(torch.uint8)
    return shifted[:, 0::2] | (shifted[:, 1::2] << 4)


def unpack_nibbles(packed: Tensor) -> Tensor:
    """Return the integers (rows, 2 · columns) of packed bytes."""
    pairs = torch.stack([packed & 15, packed >> 4], dim=-1)
    return pairs.view(packed.shape[0], -1).to(torch.int8) - 8


def _grouped(matrix_RC: Tensor, grid: Grid) -> Tensor:
    """View a matrix as (rows, groups, columns in a group)."""
    rows, columns = matrix_RC.shape
    return matrix_RC.reshape(rows, -1, grid.group or columns)


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, grid: Grid) -> Tensor:
        return round_trip(weight, grid).to(weight.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0], None


class _LearnedStep(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, scale: Tensor, grid: Grid) -> Tensor:
        used = stored_scale(scale.detach().clamp_min(SMALLEST_LEARNED), grid)
        ctx.save_for_backward(weight, used)
        ctx.grid = grid
        return round_trip(weight, grid, used).to(weight.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        weight, scale = ctx.saved_tensors
        grid: Grid = ctx.grid
        steps = _grouped(weight.float(), grid) / scale.unsqueeze(-1)
        inside = steps.abs() <= grid.largest
        limits = steps.clamp(-grid.largest, grid.largest)
        slope = torch.where(inside, steps.round() - steps, limits)
        upstream = _grouped(gradients[0].float(), grid)
        sharing = weight.numel() / scale.numel()
        each = upstream * slope / (sharing * grid.largest) ** 0.5
        of_scale = each.sum((0, 2)).view(1, 1) if grid.per_tensor else each.sum(-1)
        of_weight = torch.where(inside, upstream, torch.zeros_like(upstream))
        return of_weight.view(weight.shape).to(weight.dtype), of_scale, None

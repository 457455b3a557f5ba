"""The arithmetic of the grid, on single matrices."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.quantization.grid import (
    absmax_scale,
    dequantize,
    fake_quantize,
    fake_quantize_learned,
    first_learned_scale,
    pack_nibbles,
    quantize,
    round_trip,
    unpack_nibbles,
)
from distill.quantization.presets import Grid

GRIDS = [
    Grid(bits=8),
    Grid(bits=8, scale="float32"),
    Grid(bits=8, group=32),
    Grid(bits=8, per_tensor=True),
    Grid(bits=4, group=32),
    Grid(bits=3),
]


def weights(seed: int = 0, rows: int = 6, columns: int = 64) -> torch.Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed)) * 0.05


grids = pytest.mark.parametrize("grid", GRIDS, ids=str)


@grids
@given(seed=st.integers(0, 10_000), size=st.floats(1e-3, 100))
@settings(max_examples=20, deadline=None)
def test_integers_stay_in_range_and_each_scale_is_used_up(grid: Grid, seed: int, size: float):
    weight = weights(seed) * size
    integers = quantize(weight, grid)
    assert integers.abs().max() <= grid.largest
    if grid.per_tensor:
        assert integers.abs().max() == grid.largest
    else:
        grouped = integers.abs().view(len(weight), -1, grid.group or weight.shape[1])
        assert (grouped.amax(-1) == grid.largest).all()
    assert all(len(row.unique()) <= 2 * grid.largest + 1 for row in integers)


@grids
@given(seed=st.integers(0, 10_000))
@settings(max_examples=20, deadline=None)
def test_rounding_twice_is_rounding_once(grid: Grid, seed: int):
    once = round_trip(weights(seed), grid)
    assert torch.equal(round_trip(once, grid), once)
    assert torch.equal(quantize(once, grid), quantize(weights(seed), grid))


@grids
def test_no_weight_moves_by_more_than_half_a_step(grid: Grid):
    weight = weights()
    scale = absmax_scale(weight, grid).repeat_interleave(grid.group or 64, 1)
    # A scale that float16 rounded down leaves the largest weight a little outside the range.
    slack = weight.abs().amax() * 2**-11
    assert ((weight - round_trip(weight, grid)).abs() <= scale / 2 + slack).all()


def test_the_scale_is_made_of_the_absolute_maximum():
    weight = torch.tensor([[-1.0, 0.1, 0.2, 0.3]])  # the signed maximum gives integers below -128
    grid = Grid(bits=8)
    assert quantize(weight, grid)[0, 0] == -127
    assert round_trip(weight, grid)[0, 0] == pytest.approx(-1, rel=1e-3)


def test_the_scale_is_rounded_to_its_storage_before_it_is_used():
    weight = weights()
    half, full = absmax_scale(weight, Grid()), absmax_scale(weight, Grid(scale="float32"))
    assert torch.equal(half, half.half().float())
    assert not torch.equal(half, full)
    assert torch.equal(
        round_trip(weight, Grid()), dequantize(quantize(weight, Grid()), half, Grid())
    )


def test_ties_go_to_the_even_integer():
    weight = torch.tensor([[127.0, 0.5, 1.5, 2.5, -0.5]])
    assert quantize(weight, Grid()).tolist() == [[127, 0, 2, 2, 0]]


@grids
def test_a_matrix_of_zeros_stays_zeros(grid: Grid):
    assert torch.equal(round_trip(torch.zeros(2, 64), grid), torch.zeros(2, 64))


def test_the_gradient_passes_straight_through():
    weight = weights().requires_grad_()
    grid = Grid(bits=4, group=32)
    seen = fake_quantize(weight, grid)
    assert torch.equal(seen, round_trip(weight, grid))
    leaf = seen.detach().clone().requires_grad_()
    for value in (seen, leaf):
        (value.sin() * torch.arange(64)).sum().backward()
    assert torch.equal(torch.as_tensor(weight.grad), torch.as_tensor(leaf.grad))


def test_the_gradient_is_the_slope_of_the_loss_of_the_rounded_model():
    weight, grid = weights().double().requires_grad_(), Grid(bits=8)
    (fake_quantize(weight, grid) ** 3).sum().backward()
    rounded, step = round_trip(weight, grid).double(), 1e-6
    nudged = rounded.clone()
    nudged[2, 5] += step
    slope = ((nudged**3).sum() - (rounded**3).sum()) / step
    assert torch.as_tensor(weight.grad)[2, 5] == pytest.approx(slope.item(), rel=1e-3, abs=1e-8)


@pytest.mark.parametrize("grid", [Grid(bits=4, group=32), Grid(bits=3)], ids=str)
def test_a_learned_step_finds_a_smaller_error_than_the_absolute_maximum(grid: Grid):
    weight = weights(columns=64)
    step = torch.nn.Parameter(first_learned_scale(weight, grid))
    optimizer = torch.optim.Adam([step], lr=1e-3)
    for _ in range(300):
        optimizer.zero_grad()
        (fake_quantize_learned(weight, step, grid) - weight).square().sum().backward()
        optimizer.step()
    learned = (fake_quantize_learned(weight, step, grid) - weight).square().sum()
    assert learned < (round_trip(weight, grid) - weight).square().sum()


def test_a_learned_step_gets_the_published_gradient():
    weight = torch.tensor([[0.26, -0.9, 0.1, 0.05]], requires_grad=True)
    step = torch.tensor([[0.25]], requires_grad=True)
    grid = Grid(bits=2, scale="float32")  # integers from -1 to 1
    fake_quantize_learned(weight, step, grid).sum().backward()
    # 0.26 / 0.25 is just outside, so it counts as the largest integer, 1.
    expected = (1 - 1 + (0 - 0.4) + (0 - 0.2)) / (4 * 1) ** 0.5
    assert torch.as_tensor(step.grad).item() == pytest.approx(expected, rel=1e-5)
    assert torch.as_tensor(weight.grad).tolist() == [[0, 0, 1, 1]]


def test_every_byte_unpacks_and_packs_to_itself():
    every = torch.arange(256, dtype=torch.uint8).view(16, 16)
    integers = unpack_nibbles(every)
    assert integers.shape == (16, 32)
    assert (integers.min(), integers.max()) == (-8, 7)
    assert torch.equal(pack_nibbles(integers), every)


def test_the_even_column_is_in_the_low_half():
    assert pack_nibbles(torch.tensor([[-7, 7]], dtype=torch.int8)).tolist() == [[0xF1]]


def test_an_odd_number_of_columns_does_not_pack():
    with pytest.raises(ValueError, match="3 columns cannot share bytes"):
        pack_nibbles(torch.zeros(1, 3, dtype=torch.int8))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"bits": 1}, "bits is 1; a grid has 2 to 8"),
        ({"bits": 16}, "bits is 16"),
        ({"group": 31}, "group is 31; it must be an even number"),
        ({"group": 0}, "group is 0"),
        ({"group": 32, "per_tensor": True}, "either group or per_tensor"),
        ({"scale": "bfloat16"}, "scale is 'bfloat16'; it must be float16 or float32"),
    ],
)
def test_an_impossible_grid_is_refused(fields: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        Grid(**fields)


@pytest.mark.parametrize(
    ("grid", "shape", "message"),
    [
        (Grid(group=48), (4, 64), "fc1 has 64 columns, which groups of 48 do not fill"),
        (Grid(bits=4), (4, 63), "fc1 has 63 columns; two 4-bit weights share a byte"),
        (Grid(), (4, 8, 3), r"fc1 has a weight of shape \[4, 8, 3\]; only matrices fit"),
    ],
)
def test_a_weight_that_does_not_fit_is_refused(grid: Grid, shape: Any, message: str):
    with pytest.raises(ValueError, match=message):
        grid.check("fc1", shape)


def test_the_ggml_grid_is_lossless_under_q8_0():
    quants = pytest.importorskip("gguf").quants
    kind = pytest.importorskip("gguf").GGMLQuantizationType.Q8_0
    ours = round_trip(weights(rows=64, columns=384), Grid(bits=8, group=32)).numpy()
    theirs = quants.dequantize(quants.quantize(ours, kind), kind)
    assert np.array_equal(ours, theirs)

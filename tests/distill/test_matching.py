import itertools
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from distill.matching import (
    MODES,
    coverage,
    entropy,
    match_layers,
    smooth,
    total_distance,
)

TRAP = [[0.9, 0.8, 0.1], [0.1, 0.2, 0.9], [0.1, 0.2, 0.9]]


def matrices(most: int = 5) -> st.SearchStrategy[np.ndarray]:
    shape = st.tuples(st.integers(1, 4), st.integers(1, most))
    return shape.flatmap(lambda s: arrays(np.float64, s, elements=st.floats(0, 1)))


def blank(students: int, teachers: int) -> np.ndarray:
    return np.zeros((students, teachers))


@pytest.mark.parametrize(
    ("mode", "shape", "expected"),
    [
        ("uniform", (6, 12), [1, 3, 5, 7, 9, 11]),
        ("uniform", (4, 12), [2, 5, 8, 11]),  # 2i + 1 would never reach the top
        ("uniform", (2, 5), [1, 4]),
        ("uniform", (4, 3), [0, 0, 1, 2]),
        ("skip", (5, 12), [1, 3, 5, 7, 9]),
        ("skip", (2, 3), [0, 1]),
        ("last", (4, 12), [8, 9, 10, 11]),
        ("first", (4, 12), [0, 1, 2, 3]),
        ("reverse", (4, 12), [11, 8, 5, 2]),
    ],
)
def test_a_fixed_map_is_the_published_one(mode: Any, shape: tuple[int, int], expected: list[int]):
    assert match_layers(blank(*shape), mode) == expected


def test_the_random_map_is_drawn_from_its_seed_without_repeats():
    drawn = [match_layers(blank(4, 12), "random", seed=seed) for seed in range(8)]
    assert drawn[3] == match_layers(blank(4, 12), "random", seed=3)
    assert all(len(set(mapping)) == 4 for mapping in drawn)
    assert len({tuple(mapping) for mapping in drawn}) > 1


def test_greedy_walks_into_the_trap_that_the_optimum_avoids():
    greedy, best = (match_layers(TRAP, m) for m in ("dynamic_greedy", "dynamic_dp"))
    assert greedy == [2, 2, 2]
    assert best == [0, 0, 0]
    assert total_distance(TRAP, greedy) == pytest.approx(1.9)
    assert total_distance(TRAP, best) == pytest.approx(1.1)


@given(matrices(), st.booleans())
def test_the_optimum_is_what_brute_force_finds(distances: np.ndarray, strict: bool):
    students, teachers = distances.shape
    if strict and students > teachers:
        with pytest.raises(ValueError, match="teacher layer of its own"):
            match_layers(distances, "dynamic_dp", strict=True)
        return
    kinds = itertools.combinations if strict else itertools.combinations_with_replacement
    least = min(total_distance(distances, m) for m in kinds(range(teachers), students))
    found = match_layers(distances, "dynamic_dp", strict=strict)
    assert total_distance(distances, found) == pytest.approx(least, abs=1e-12)


@given(matrices())
def test_dynamic_maps_keep_their_order_and_their_ranking(distances: np.ndarray):
    students, teachers = distances.shape
    maps = {
        mode: match_layers(distances, mode)
        for mode in MODES
        if students <= teachers or mode in ("uniform", "dynamic_greedy", "dynamic_dp")
    }
    maps["dynamic_free"] = match_layers(distances, "dynamic_free")
    for mapping in maps.values():
        assert len(mapping) == students
        assert all(0 <= j < teachers for j in mapping)
    for mode in ("dynamic_greedy", "dynamic_dp", "uniform"):
        assert maps[mode] == sorted(maps[mode])
    if "dynamic_strict" in maps:
        strict = maps["dynamic_strict"]
        assert strict == sorted(set(strict))
    free, best, greedy = (
        total_distance(distances, maps[m]) for m in ("dynamic_free", "dynamic_dp", "dynamic_greedy")
    )
    assert free <= best + 1e-12
    assert best <= greedy + 1e-12


@pytest.mark.parametrize("mode", ["dynamic_free", "dynamic_greedy", "dynamic_strict", "dynamic_dp"])
def test_of_equally_near_layers_the_lowest_is_taken(mode: Any):
    expected = [0, 1] if mode == "dynamic_strict" else [0, 0]
    assert match_layers(blank(2, 4), mode) == expected


def test_distances_may_come_from_torch_with_gradients():
    distances = torch.tensor(TRAP, dtype=torch.bfloat16, requires_grad=True)
    assert match_layers(distances, "dynamic_dp") == [0, 0, 0]  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("distances", "mode", "message"),
    [
        (TRAP, "dynamic_best", "no matching is called 'dynamic_best'; choose from uniform"),
        ([1.0, 2.0], "uniform", r"shape \(2,\); give a row for each student layer"),
        (np.zeros((0, 3)), "uniform", "give a row for each student layer"),
        ([[1.0, float("nan")]], "dynamic_free", "not a finite number"),
        (blank(3, 2), "first", "3 for 2; use uniform"),
        (blank(3, 2), "skip", "3 for 2; use uniform"),
        (blank(3, 2), "dynamic_strict", "3 for 2; use uniform"),
    ],
)
def test_what_cannot_be_matched_is_refused(distances: Any, mode: Any, message: str):
    with pytest.raises(ValueError, match=message):
        match_layers(distances, mode)


def test_smoothing_lets_one_odd_batch_pass():
    usual, odd = [[0.1, 0.5]], [[0.9, 0.0]]
    average = smooth(None, usual, 0.9)
    assert average.tolist() == usual
    average = smooth(average, odd, 0.9)
    assert average[0, 0] == pytest.approx(0.9 * 0.1 + 0.1 * 0.9)
    assert match_layers(average, "dynamic_free") == [0]
    for _ in range(20):
        average = smooth(average, odd, 0.9)
    assert match_layers(average, "dynamic_free") == [1]


def test_a_decay_of_one_that_would_never_learn_is_refused():
    with pytest.raises(ValueError, match="the decay of distances is 1"):
        smooth(None, TRAP, 1)


def test_the_histogram_tells_a_settled_map_from_a_wandering_and_a_collapsed_one():
    settled = [[0, 10, 0, 0], [0, 0, 0, 10]]
    wandering, collapsed = [[5, 5, 0, 0], [0, 0, 5, 5]], [[0, 0, 0, 9], [0, 0, 0, 9]]
    assert [entropy(h) for h in (settled, wandering, collapsed)] == pytest.approx([0, 1, 0])
    assert [coverage(h) for h in (settled, wandering, collapsed)] == [0.5, 1.0, 0.25]
    assert entropy(blank(2, 4)) == 0

"""Which teacher layer each student layer learns from: fixed maps, and maps found from distances.

`match_layers` is pure: a matrix of distances in, a list of teacher layers out. The maps called
dynamic choose anew whenever distances are measured. The one of DQ-Whisper (arXiv 2305.10788 v2,
after the authors' released code) goes up greedily, never below the layer it has reached;
`dynamic_dp` keeps that order and finds the map of least total distance instead. Clever maps are
worth little on average (arXiv 2502.04499), so a reversed and a random map are there as controls.
"""

import math
from collections.abc import Sequence
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

Mode = Literal[
    "uniform",
    "last",
    "skip",
    "first",
    "reverse",
    "random",
    "dynamic_free",
    "dynamic_greedy",
    "dynamic_strict",
    "dynamic_dp",
]
MODES: tuple[Mode, ...] = get_args(Mode)


def match_layers(
    distances: ArrayLike, mode: Mode, *, strict: bool = False, seed: int = 0
) -> list[int]:
    """Return the teacher layer (from 0) for each student layer.

    | mode | student layer i of S learns from teacher layer, of T |
    |---|---|
    | `uniform` | floor((i + 1) · T / S) − 1: evenly spread, the last from the last |
    | `skip` | (i + 1) · floor(T / S) − 1: every so many from the bottom (PKD) |
    | `last`, `first` | T − S + i; i |
    | `reverse` | `uniform` upside down, a control |
    | `random` | drawn once from `seed`, without order, repeated only if S > T; a control |
    | `dynamic_free` | the nearest |
    | `dynamic_greedy` | the nearest that is not below the one before (DQ-Whisper) |
    | `dynamic_strict` | the nearest above the one before that leaves enough for the rest |
    | `dynamic_dp` | of all maps that never go down, the one of least total distance |

    The lowest layer is taken of several that are equally near.

    Args:
        distances: (student layers, teacher layers); fixed maps look at the shape only.
        mode: one of `MODES`.
        strict: `dynamic_dp` uses no teacher layer twice.
        seed: of `random`.

    Raises:
        ValueError: no such mode, not a matrix of finite numbers, or fewer teacher than student
            layers where none may be used twice.
    """
    matrix = _matrix(distances)
    layers, teachers = matrix.shape
    match mode:
        case "uniform":
            return _uniform(layers, teachers)
        case "reverse":
            return _uniform(layers, teachers)[::-1]
        case "skip":
            return [(i + 1) * max(teachers // layers, 1) - 1 for i in _few(layers, teachers, mode)]
        case "last":
            return [teachers - layers + i for i in _few(layers, teachers, mode)]
        case "first":
            return list(_few(layers, teachers, mode))
        case "random":
            generator = np.random.default_rng(seed)
            return generator.choice(teachers, size=layers, replace=layers > teachers).tolist()
        case "dynamic_free":
            return matrix.argmin(axis=1).tolist()
        case "dynamic_greedy":
            return _greedy(matrix)
        case "dynamic_strict":
            _few(layers, teachers, mode)
            return _greedy_upwards(matrix)
        case "dynamic_dp":
            if strict:
                _few(layers, teachers, "dynamic_dp (strict)")
            return _cheapest(matrix, strict)
        case _:
            raise ValueError(f"no matching is called {mode!r}; choose from {', '.join(MODES)}")


def _matrix(distances: Any) -> NDArray[np.float64]:
    """Return distances as an array, detached where they come from torch."""
    if hasattr(distances, "detach"):
        distances = distances.detach().float().cpu().numpy()
    matrix = np.asarray(distances, dtype=np.float64)
    if matrix.ndim != 2 or 0 in matrix.shape:
        raise ValueError(
            f"distances have the shape {matrix.shape}; give a row for each student layer and a "
            "column for each teacher layer"
        )
    if not np.isfinite(matrix).all():
        raise ValueError("a distance is not a finite number, so no layer is the nearest")
    return matrix


def _few(layers: int, teachers: int, mode: str) -> range:
    """Return the student's layers where each needs a teacher layer of its own."""
    if layers > teachers:
        raise ValueError(
            f"{mode} gives each student layer a teacher layer of its own, but there are {layers} "
            f"for {teachers}; use uniform, dynamic_greedy or dynamic_dp"
        )
    return range(layers)


def _uniform(layers: int, teachers: int) -> list[int]:
    return [max((i + 1) * teachers // layers - 1, 0) for i in range(layers)]


def _greedy(matrix: NDArray[np.float64]) -> list[int]:
    mapping, lowest = [], 0
    for row in matrix:
        lowest += int(row[lowest:].argmin())
        mapping.append(lowest)
    return mapping


def _greedy_upwards(matrix: NDArray[np.float64]) -> list[int]:
    layers, teachers = matrix.shape
    mapping, lowest = [], 0
    for i, row in enumerate(matrix):
        left_for_the_rest = layers - 1 - i
        mapping.append(lowest + int(row[lowest : teachers - left_for_the_rest].argmin()))
        lowest = mapping[-1] + 1
    return mapping


def _cheapest(matrix: NDArray[np.float64], strict: bool) -> list[int]:
    """Find the map by dynamic programming over (student layer, teacher layer), O(S · T)."""
    layers, teachers = matrix.shape
    cost = matrix[0].copy()
    origins = []
    for row in matrix[1:]:
        origin, best = np.zeros(teachers, dtype=int), np.full(teachers, np.inf)
        lowest = 0
        for j in range(int(strict), teachers):
            reached = j - int(strict)
            if cost[reached] < cost[lowest]:
                lowest = reached
            origin[j], best[j] = lowest, cost[lowest]
        origins.append(origin)
        cost = row + best
    mapping = [int(cost.argmin())]
    for origin in reversed(origins):
        mapping.append(int(origin[mapping[-1]]))
    return mapping[::-1]


def smooth(average: ArrayLike | None, distances: ArrayLike, decay: float) -> NDArray[np.float64]:
    """Take a matrix into an exponential average, so that one odd batch does not turn the map.

    The first matrix, when there is no average yet, is taken as it is.

    Raises:
        ValueError: a decay that is not from 0 to below 1, or not matrices of finite numbers.
    """
    if not 0 <= decay < 1:
        raise ValueError(f"the decay of distances is {decay}; it must be from 0 to below 1")
    matrix = _matrix(distances)
    return matrix if average is None else decay * _matrix(average) + (1 - decay) * matrix


def entropy(histogram: ArrayLike) -> float:
    """Return how much a map wandered: mean entropy in bits of each student layer's choices.

    Args:
        histogram: how often each student layer was given each teacher layer.
    """
    counts = _matrix(histogram)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    logarithms = np.log2(shares, out=np.zeros_like(shares), where=shares > 0)
    return float(-(shares * logarithms).sum(axis=1).mean()) + 0.0


def coverage(histogram: ArrayLike) -> float:
    """Return the share of teacher layers that were used at all; low where a map has collapsed."""
    return float((_matrix(histogram).sum(axis=0) > 0).mean())


def total_distance(distances: ArrayLike, mapping: Sequence[int]) -> float:
    """Sum the distances that a map picks."""
    matrix = _matrix(distances)
    return math.fsum(matrix[i, j] for i, j in enumerate(mapping))

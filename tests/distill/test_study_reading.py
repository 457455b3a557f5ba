"""What a study may claim: as much as the interval, and nothing that was not asked."""

from typing import Any

import pytest

from distill.study_reading import reading


def compared(name: str, against: str, low: float, high: float) -> dict[str, Any]:
    """A comparison in points of WER; its CER differs by ten times as many percent."""
    middle = (low + high) / 2
    wer = {"value": middle / 100, "low": low / 100, "high": high / 100}
    cer = {
        f"relative{end}": 10 * value
        for end, value in zip(("", "_low", "_high"), wer.values(), strict=True)
    }
    return {"name": name, "against": against, "wer": wer, "cer": cer}


def test_nothing_is_said_of_what_was_not_asked():
    assert reading([], "layers-2") == []
    assert reading([compared("data-25", "layers-2", 1, 2)], "layers-2") == []


@pytest.mark.parametrize(
    ("low", "high", "claim"),
    [
        (-0.5, 1.0, "is within one point of its teacher"),
        (-0.5, 1.1, "may be within one point of its teacher or not"),
        (1.1, 2.0, "is more than one point behind its teacher"),
    ],
)
def test_a_student_is_near_its_teacher_only_if_the_whole_interval_is(
    low: float, high: float, claim: str
):
    (found,) = reading([compared("layers-2", "teacher", low, high)], "layers-2")
    assert claim in found


@pytest.mark.parametrize(
    ("greedy", "claim"),
    [
        ((-2, -0.1), "has fewer errors than an even map with dynamic_greedy: WER"),
        ((-2, 0), "Choosing layers dynamically is not shown to help"),
        ((-2, 0.1), "Choosing layers dynamically is not shown to help"),
        ((0.1, 2), "Choosing layers dynamically is not shown to help"),
    ],
)
def test_dynamic_matching_helps_only_if_the_interval_says_so(
    greedy: tuple[float, float], claim: str
):
    pairs = [
        compared("matching-dynamic_greedy", "matching-uniform", *greedy),
        compared("matching-dynamic_dp", "matching-uniform", -1, 1),
        # better than no matching at all is no reason to say that choosing helps
        compared("matching-dynamic_dp", "layers-2", -3, -2),
    ]
    (found,) = reading(pairs, "layers-2")
    assert claim in found
    assert "dynamic_dp +0.0 (-1.0 to +1.0)" in found


def test_controls_that_do_as_well_are_said_to():
    pairs = [
        compared("matching-dynamic_dp", "matching-uniform", -1, 1),
        compared("matching-reverse", "matching-uniform", -1, 0.5),
        compared("matching-random", "matching-uniform", -1, 0.5),
    ]
    assert "not shown to matter which layer learns from which" in reading(pairs, "layers-2")[1]
    pairs[2] = compared("matching-random", "matching-uniform", 0.5, 1)
    assert "layer learns from which: random has more errors" in reading(pairs, "layers-2")[1]


def test_bits_and_training_on_a_grid_are_judged_by_their_intervals():
    pairs = [
        compared("w8-rounded", "layers-2", -0.1, 0.1),
        compared("w4-rounded", "layers-2", 0.2, 1.0),
        compared("w4-trained", "layers-2", -0.1, 0.4),
        compared("w4-trained", "w4-rounded", -0.9, -0.1),
    ]
    found = reading(pairs, "layers-2")
    assert found == [
        "**Bits.** `w8-rounded`: no cost is shown, WER +0.0 (-0.1 to +0.1) against float weights.",
        "**Bits.** `w4-rounded`: costs accuracy, WER +0.6 (+0.2 to +1.0) against float weights.",
        "**Bits.** `w4-trained`: no cost is shown, WER +0.2 (-0.1 to +0.4) against float weights.",
        "**w4.** Training on the grid is better than rounding: WER -0.5 (-0.9 to -0.1).",
    ]


@pytest.mark.parametrize(
    ("low", "high", "claim"),
    [
        (-3.0, -1.2, "reaches what the paper reports"),
        (-3.0, 1.0, "neither reaches nor misses for certain"),
        (-1.0, 1.0, "does not reach what the paper reports"),
    ],
)
def test_the_gain_over_the_same_size_without_a_teacher_is_held_against_the_papers(
    low: float, high: float, claim: str
):
    (found,) = reading([compared("w8-matched", "w8-labels-only", low, high)], "layers-2")
    assert claim in found
    assert f"({10 * low:+.1f} to {10 * high:+.1f})" in found
    assert "11.3 % (base) and 14.0 % (tiny)" in found

import numpy as np
import pytest

from distill.study_statistics import CER, Difference, difference, interval, rates, resampled


def counts(*seeds: list[tuple[int, int]]) -> np.ndarray:
    """Word errors and words of each clip; twice as many characters with as many errors."""
    return np.array([[(e, n, e, 2 * n) for e, n in clips] for clips in seeds])


def test_a_rate_is_errors_over_words_for_each_seed():
    found = counts([(1, 10), (3, 10)], [(0, 10), (2, 10)])
    assert rates(found).tolist() == [0.2, 0.1]
    assert rates(found, CER).tolist() == [0.1, 0.05]


def test_an_interval_holds_the_rate_and_is_none_where_nothing_varies():
    rng = np.random.default_rng(0)
    lengths = rng.integers(5, 20, size=200)
    varied = counts(
        *(list(zip(rng.binomial(lengths, p), lengths, strict=True)) for p in (0.1, 0.12, 0.14))
    )
    even = counts(*[[(1, 10)] * 200] * 3)
    draws = resampled({"varied": varied, "even": even}, np.arange(200) // 10, 300)
    low, high = interval(draws["varied"])
    assert low < rates(varied).mean() < high
    assert 0.01 < high - low < 0.1
    assert interval(draws["even"]) == pytest.approx((0.1, 0.1))
    assert interval(draws["varied"] - draws["varied"]) == (0.0, 0.0)


def test_a_paired_difference_is_seen_where_single_intervals_overlap():
    """Clips differ much more than the two students do, one error a clip."""
    rng = np.random.default_rng(0)
    errors = rng.integers(0, 9, size=40)
    one = counts([(int(e) + 1, 20) for e in errors])
    other = counts([(int(e), 20) for e in errors])
    draws = resampled({"one": one, "other": other}, np.arange(40), 500)
    assert interval(draws["one"])[0] < interval(draws["other"])[1]
    found = difference(
        float(rates(one).mean()), draws["one"], float(rates(other).mean()), draws["other"]
    )
    assert (found.value, found.low, found.high) == pytest.approx((0.05, 0.05, 0.05))
    assert found.verdict == "more errors"
    assert found.relative_low < found.relative < found.relative_high


def test_a_student_with_one_seed_is_compared_with_one_of_three():
    three = counts(*[[(seed, 10)] * 4 for seed in (1, 2, 3)])
    draws = resampled({"one": three[:1], "three": three}, np.arange(4), 200)
    assert set(draws["one"]) == {0.1}
    assert len(set(draws["three"])) > 1


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (0.01, 0.02, "more errors"),
        (-0.02, -0.01, "fewer errors"),
        (-0.01, 0.01, "no difference shown"),
        (0.0, 0.01, "no difference shown"),
        (-0.01, 0.0, "no difference shown"),
    ],
)
def test_a_difference_is_claimed_only_where_the_interval_leaves_out_zero(
    low: float, high: float, verdict: str
):
    found = Difference(
        value=0.0, low=low, high=high, relative=0.0, relative_low=0.0, relative_high=0.0
    )
    assert found.verdict == verdict


def test_against_a_student_without_errors_nothing_is_divided_by_zero():
    none, some = counts([(0, 10)] * 3), counts([(1, 10)] * 3)
    draws = resampled({"none": none, "some": some}, np.arange(3), 20)
    found = difference(0.1, draws["some"], 0.0, draws["none"])
    assert np.isfinite(found.relative)
    same = difference(0.0, draws["none"], 0.0, draws["none"])
    assert same.relative == same.relative_low == same.relative_high == 0.0

"""What the card of a dataset says of its filter."""

import dataclasses

import pytest

from pipeline.publishing.card import limits_of, mean_rate_text, perfect_words
from pipeline.sweep import SweepPoint


@pytest.mark.parametrize(
    ("limit", "words"), [(0.1, 9), (0.3, 3), (0.2, 4), (0.05, 19), (0.0, 0), (1.0, 0), (100.0, 0)]
)
def test_short_references_that_must_be_perfect_are_counted_by_the_limit(limit: float, words: int):
    assert perfect_words({"max_wer": limit}) == words
    if words:
        assert 1 / words > limit >= 1 / (words + 1) - 1e-12
    assert perfect_words({"max_wer": limit, "error_budget": 1}) == 0


def test_limits_that_are_off_are_not_told():
    options = {
        "max_wer": 0.0,
        "splits": ["train"],
        "drop_duplicates": False,
        "min_seconds": 0.0,
        "max_disagreement": None,
        "acceptance_precision": 0.9,
        "acceptance_model": "",
        "contamination_words": 10,
        "evaluation_sets": ["test.jsonl"],
        "error_budget": 0,
        "error_budget_min_length": 4,
    }
    assert limits_of(options) == [
        ("max_wer", "`0.0`"),
        ("contamination_words", "`10`"),
        ("evaluation_sets", "`test.jsonl`"),
    ]


def test_a_mean_rate_is_named_where_two_metrics_judge_and_absent_without_references():
    point = SweepPoint(max_wer=0.1, clips=3, hours=1.0, mean_wer=None)
    assert mean_rate_text(point) == ""
    both = dataclasses.replace(point, mean_rates={"wer": 0.125, "cer": 0.05})
    assert mean_rate_text(both) == "0.1250 (wer), 0.0500 (cer)"
    of_an_earlier_release = dataclasses.replace(point, mean_wer=0.02)
    assert mean_rate_text(of_an_earlier_release) == "0.0200"

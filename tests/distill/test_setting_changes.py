"""What differs between two configurations is named as the command line names it."""

from distill.evaluate_config import EvaluateConfig
from distill.setting_changes import changes, defaults_of, describe_changes


def test_each_setting_that_differs_is_named_with_both_values():
    before = {"seed": 0, "longform": {"timestamps": True, "temperatures": [0.0, 0.2]}}
    now = {"seed": 1, "longform": {"timestamps": True, "temperatures": [0.0]}}
    assert describe_changes(before, now) == (
        "longform.temperatures (was [0.0, 0.2], now [0.0]), seed (was 0, now 1)"
    )
    assert describe_changes(now, now) == ""


def test_a_setting_that_was_not_noted_had_its_default_nested_ones_too():
    defaults = defaults_of(EvaluateConfig)
    assert describe_changes({"longform": {}}, {"longform": {"timestamps": True}}, defaults) == ""
    assert list(changes({}, {"seed": 3}, defaults)) == [("seed", 0, 3)]

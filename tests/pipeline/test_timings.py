import dataclasses
import json
from pathlib import Path

import pytest

from pipeline.ledger import write_ledger
from pipeline.run import run
from pipeline.schema import read_index
from pipeline.stopwatch import Stopwatch
from pipeline.timings import read_timings, write_timing


def test_index_says_what_each_stage_took_and_how_much_was_padding(corpus, configure, tones):
    config = configure(corpus(*tones(4)))
    run(config)
    totals = read_index(config.output).totals
    assert set(totals.stage_seconds) == {"read", "features", "teacher", "score", "write"}
    assert all(seconds > 0 for seconds in totals.stage_seconds.values())
    assert totals.stage_seconds["teacher"] == totals.teacher_seconds
    assert totals.padding_fraction == pytest.approx(1 - 7 / (4 * 30), abs=1e-4)


def test_index_and_report_say_what_a_kept_hour_cost_where_a_price_was_given(
    corpus, configure, tones
):
    config = configure(corpus(*tones(4)))
    run(config)
    report = Path(config.output) / "report.json"
    before = read_index(config.output).totals
    assert (before.cost, before.cost_per_kept_hour) == (None, None)
    assert "Cost per kept hour" not in report.with_suffix(".html").read_text()

    outcome = run(dataclasses.replace(config, price_per_hour=360.0))
    assert outcome.rebuilt == 0
    totals = read_index(config.output).totals
    assert totals.cost == pytest.approx(sum(totals.stage_seconds.values()) / 10, abs=1e-5)
    assert totals.cost is not None
    assert totals.cost_per_kept_hour == pytest.approx(totals.cost / (7 / 3600), rel=1e-3)
    written = json.loads(report.read_text())
    assert written["cost"] == totals.cost
    assert written["cost_per_kept_hour"] == totals.cost_per_kept_hour
    assert "Cost per kept hour" in report.with_suffix(".html").read_text()


def test_where_nothing_is_kept_a_kept_hour_has_no_price(corpus, configure, tones):
    config = configure(corpus(*tones(2, text="something else entirely")), price_per_hour=1.0)
    totals = run(config).totals
    assert totals.kept == 0
    assert totals.cost is not None
    assert totals.cost_per_kept_hour is None


@pytest.mark.parametrize("price", [-1.0, float("inf"), float("nan")])
def test_a_price_that_none_could_have_is_refused(configure, corpus, tones, price: float):
    with pytest.raises(ValueError, match="price_per_hour is .*0 or more"):
        configure(corpus(*tones(1)), price_per_hour=price)


def test_parts_add_up_and_what_is_missing_counts_nothing(tmp_path: Path):
    for number in range(2):
        spent = {"read_seconds": "1", "teacher_seconds": "2", "score_seconds": "3"}
        about = {"audio_seconds": "40.0", "full_windows": "2"}
        write_ledger(tmp_path / f"{number}.parquet", [], spent | about)
        write_timing(tmp_path / f"{number}.json", 0.5)
    parts = [tmp_path / f"{number}.parquet" for number in range(3)]
    total = read_timings(parts, [part.with_suffix(".json") for part in parts])
    assert total.seconds == {
        "read": 2.0, "features": 0.0, "teacher": 4.0, "score": 6.0, "write": 1.0,
    }  # fmt: skip
    assert (total.rtfx, total.padding_fraction) == (20.0, pytest.approx(1 / 3))


def test_parts_of_an_older_release_know_the_teacher_only(tmp_path: Path):
    part = tmp_path / "a.parquet"
    write_ledger(part, [], {"audio_seconds": "40.0", "teacher_seconds": "2"})
    total = read_timings([part])
    assert (total.rtfx, total.padding_fraction, total.seconds["read"]) == (20.0, 0.0, 0.0)


def test_nothing_labelled_has_no_speed():
    assert read_timings([]).rtfx is None


def test_stopwatch_goes_on_from_what_was_spent():
    stopwatch = Stopwatch({"read": 5.0})
    with stopwatch.stage("read"), stopwatch.stage("write"):
        pass
    assert stopwatch["read"] > 5.0
    assert stopwatch["write"] > 0
    assert stopwatch["score"] == 0

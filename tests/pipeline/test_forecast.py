import dataclasses
from pathlib import Path

import pytest

from pipeline.filters import FilterConfig
from pipeline.forecast import make_forecast
from pipeline.run import run


def test_forecast_of_a_new_corpus_knows_hours_and_no_speed(corpus, configure, tones):
    config = configure(corpus(*tones(4)))
    forecast = make_forecast(config)
    assert (forecast.blocks, forecast.blocks_to_label, forecast.blocks_done) == (3, 3, 0)
    assert forecast.hours == forecast.hours_to_label == pytest.approx(7 / 3600)
    assert forecast.rtfx is None
    assert not Path(config.output).exists()


def test_forecast_of_a_finished_run_has_nothing_to_do(corpus, configure, tones):
    config = configure(corpus(*tones(4)))
    run(config)
    forecast = make_forecast(config)
    assert (forecast.blocks_to_label, forecast.blocks_to_filter, forecast.blocks_done) == (0, 0, 3)


def test_forecast_of_another_threshold_is_filtering(corpus, configure, tones):
    config = configure(corpus(*tones(4)))
    run(config)
    forecast = make_forecast(dataclasses.replace(config, filter=FilterConfig(max_wer=0.5)))
    assert (forecast.blocks_to_label, forecast.blocks_to_filter) == (0, 3)


def test_forecast_uses_the_speed_that_was_measured(corpus, configure, tones):
    lines = tones(4)
    config = configure(corpus(*lines))
    run(config)
    corpus(*lines, *(dict(line, id=f"new-{i}") for i, line in enumerate(lines)))
    forecast = make_forecast(config)
    assert forecast.blocks_to_label > 0
    assert forecast.rtfx is not None
    assert forecast.hours_to_label > 0
    assert forecast.teacher_hours == pytest.approx(forecast.hours_to_label / forecast.rtfx)

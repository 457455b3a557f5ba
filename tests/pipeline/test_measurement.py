from pathlib import Path

import pytest

from pipeline import blocks
from pipeline.forecast import make_forecast
from pipeline.measurement import measure
from pipeline.plan import make_plan
from pipeline.run import run
from pipeline.teacher import resolve_revision, settle
from tests.pipeline.test_retry import FailsAlways


def test_sample_goes_through_every_stage_and_nothing_of_it_is_kept(corpus, configure, tones):
    config = configure(corpus(*tones(6)), price_per_hour=2.0)
    forecast = make_forecast(config, measure=4)
    estimate = forecast.estimate
    assert estimate is not None
    assert (estimate.sample_utterances, forecast.blocks_to_label) == (4, forecast.blocks)
    assert list(estimate.stage_seconds) == ["read", "features", "teacher", "score", "write"]
    assert all(seconds > 0 for seconds in estimate.stage_seconds.values())
    per_second = sum(estimate.stage_seconds.values()) / estimate.sample_seconds
    assert estimate.compute_hours == pytest.approx(forecast.hours * per_second)
    assert estimate.cost == pytest.approx(2 * estimate.compute_hours)
    assert forecast.rtfx is not None
    assert not Path(config.output).exists()


def test_disk_is_estimated_of_the_right_size(corpus, configure, tones):
    config = configure(corpus(*tones(6)))
    estimate = make_forecast(config, measure=6).estimate
    assert estimate is not None
    run(config)
    shards = sum(p.stat().st_size for p in Path(config.output).glob("shards/*.tar"))
    assert shards / 4 < estimate.shard_bytes < shards * 4
    assert estimate.cost is None


def test_when_all_is_labelled_nothing_is_left_to_pay(corpus, configure, tones):
    config = configure(corpus(*tones(2)), price_per_hour=1.0)
    run(config)
    estimate = make_forecast(config, measure=2).estimate
    assert estimate is not None
    assert (estimate.compute_hours, estimate.cost) == (0.0, 0.0)
    assert estimate.shard_bytes > 0


def test_sample_that_cannot_be_labelled_says_why(corpus, configure, tones, monkeypatch):
    config = configure(corpus(*tones(2)))
    monkeypatch.setattr(blocks, "_teacher", lambda *_: FailsAlways())
    teacher = settle(config.teacher)
    plan = make_plan(config, resolve_revision(teacher))
    with pytest.raises(RuntimeError, match="none of 2 utterances could be labelled.*away"):
        measure(plan.blocks, config, plan.keys, 2)

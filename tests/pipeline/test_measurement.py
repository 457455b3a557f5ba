import dataclasses
import json
import re
from pathlib import Path

import pytest

from pipeline import blocks
from pipeline.clips import make_clips
from pipeline.config import BlocksConfig, ClipConfig
from pipeline.forecast import make_forecast
from pipeline.measurement import measure, take_sample
from pipeline.plan import make_plan
from pipeline.run import run
from pipeline.schema import read_index
from pipeline.teacher import resolve_revision, settle
from tests.pipeline.conftest import write_teacher
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
    assert [path.name for path in Path(config.output).iterdir()] == ["estimate.json"]


def test_neighbours_share_clips_in_a_sample_as_they_do_in_a_run(corpus, configure):
    lines = [
        {"audio_filepath": f"{i}.wav", "text": "x", "duration": 2, "speaker": f"s{i // 8}"}
        for i in range(64)
    ]
    config = configure(
        corpus(*lines),
        clips=ClipConfig(pack="before_label", pack_seconds=4.0),
        blocks=BlocksConfig(minutes=0.27),
    )
    plan = make_plan(config, "r")
    assert [block.num_utterances for block in plan.blocks] == [8] * 8
    sample = take_sample(plan.blocks, config, 8)
    clips = make_clips(sample, config.clips, lambda *_: []).clips
    assert [len(clip.spans) for clip in clips] == [2] * 4
    assert len({utterance.speaker for utterance in sample}) == 4


def test_a_sample_has_the_size_that_was_asked_for_where_there_are_as_many(corpus, configure):
    long = [{"audio_filepath": f"{i}.wav", "text": "x", "duration": 60} for i in range(2)]
    many = [{"audio_filepath": f"{i}.wav", "text": "x", "duration": 1} for i in range(2, 22)]
    config = configure(corpus(*long, *many), blocks=BlocksConfig(minutes=1))
    plan = make_plan(config, "r")
    assert [block.num_utterances for block in plan.blocks] == [1, 1, 20]
    for count, taken in ((1, 1), (2, 2), (9, 9), (22, 22), (99, 22)):
        sample = take_sample(plan.blocks, config, count)
        assert len({utterance.id for utterance in sample}) == len(sample) == taken


def test_index_and_report_say_what_was_expected_beside_what_it_took(corpus, configure, tones):
    config = configure(corpus(*tones(6)), price_per_hour=2.0)
    assert run(config).indexed
    assert read_index(config.output).estimate is None
    make_forecast(config, measure=3)
    outcome = run(config)
    assert (outcome.labelled, outcome.rebuilt, outcome.indexed) == (0, 0, True)
    index = read_index(config.output)
    totals, expected = index.totals, index.estimate
    assert expected is not None
    assert expected["stage_seconds"].keys() == totals.stage_seconds.keys()
    assert expected["cost"] == pytest.approx(
        sum(expected["stage_seconds"].values()) / 1800, abs=1e-4
    )
    assert totals.shard_bytes == sum(shard.size_bytes for shard in index.shards)
    parts = list(Path(config.output).glob("ledger/*/*.parquet"))
    assert totals.ledger_bytes == sum(path.stat().st_size for path in parts) > 0
    assert totals.ledger_bytes / 2 < expected["ledger_bytes"] < totals.ledger_bytes * 2
    assert totals.shard_bytes / 4 < expected["shard_bytes"] < totals.shard_bytes * 4
    report = json.loads((Path(config.output) / "report.json").read_text())
    assert (report["estimate"], report["stage_seconds"]) == (expected, totals.stage_seconds)
    page = (Path(config.output) / "report.html").read_text()
    assert "beside what a sample of 3 utterances let expect" in page
    table = page.partition('<table id="took">')[2].partition("</table>")[0]
    for stage, seconds in totals.stage_seconds.items():
        row = table.partition(f"Work: {stage}, s</th>")[2].partition("</tr>")[0]
        assert re.findall(r"<td>([\d.]+)</td>", row) == [
            f"{expected['stage_seconds'][stage]:.1f}",
            f"{seconds:.1f}",
        ]
    assert f"{100 * totals.padding_fraction:.1f} %" in page
    assert run(config).nothing_to_do


def test_an_estimate_of_another_teacher_is_not_put_beside_this_one(
    corpus, configure, tones, tmp_path
):
    config = configure(corpus(*tones(2)))
    make_forecast(config, measure=2)
    teacher = dataclasses.replace(
        config.teacher, model=str(write_teacher(tmp_path / "other", "a box of ropes"))
    )
    run(dataclasses.replace(config, teacher=teacher))
    assert read_index(config.output).estimate is None


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

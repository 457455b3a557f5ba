import logging
from pathlib import Path

import pytest
from rich.console import Console

from pipeline import progress
from pipeline.blocks import label_block, process_block
from pipeline.layout import Layout
from pipeline.plan import make_plan
from pipeline.progress import Progress, Tracker, clock, display, line, table
from pipeline.teacher import resolve_revision


@pytest.fixture
def started(corpus, configure, tones):
    config = configure(corpus(*tones(4), "{oops"))
    plan = make_plan(config, resolve_revision(config.teacher))
    return config, plan, Layout(Path(config.output))


def test_progress_is_read_from_the_committed_files(started):
    config, plan, layout = started
    tracker = Tracker(plan, layout)
    before = tracker.progress()
    assert (before.blocks_done, before.blocks) == (0, 3)
    assert (before.hours_labelled, before.rtfx, before.eta_seconds) == (0, None, None)
    process_block(plan.blocks[0], config, plan.keys)
    label_block(plan.blocks[1], config, plan.keys)
    now = tracker.progress()
    assert now.blocks_done == 1
    assert now.hours_labelled * 3600 == pytest.approx(2.5 + 2)
    assert now.hours_kept * 3600 == pytest.approx(2.5)
    assert now.rtfx is not None
    assert now.eta_seconds is not None
    assert now.utterances_failed == 0
    process_block(plan.blocks[2], config, plan.keys)
    assert tracker.progress().utterances_failed == 1


def test_blocks_of_an_earlier_run_are_done_and_do_not_make_the_eta_rosy(started):
    config, plan, layout = started
    process_block(plan.blocks[0], config, plan.keys)
    now = Tracker(plan, layout).progress()
    assert now.blocks_done == 1
    assert now.eta_seconds is None


def test_without_a_terminal_each_finished_block_is_a_line(started, caplog, monkeypatch):
    config, plan, layout = started
    monkeypatch.setattr(progress, "CONSOLE", Console(force_terminal=False))
    caplog.set_level(logging.INFO)
    with display(plan, layout) as on_tick:
        on_tick()
        process_block(plan.blocks[0], config, plan.keys)
        on_tick()
        on_tick()
    assert [r.message.split(",")[0] for r in caplog.records] == ["1 of 3 blocks"]


def test_on_a_terminal_there_is_a_table(started, monkeypatch, capsys):
    _, plan, layout = started
    monkeypatch.setattr(progress, "CONSOLE", Console(force_terminal=True, width=100))
    with display(plan, layout) as on_tick:
        on_tick()
    shown = capsys.readouterr().out
    for heading in ("blocks", "hours labelled", "hours kept", "RTFx", "ETA"):
        assert heading in shown


def test_a_moment_in_words():
    moment = Progress(
        blocks_done=2,
        blocks=8,
        utterances_failed=3,
        hours_planned=8,
        hours_labelled=2,
        hours_kept=1.5,
        rtfx=40.0,
        eta_seconds=3725,
    )
    assert line(moment) == (
        "2 of 8 blocks, 2.00 of 8.00 h labelled, 1.50 h kept, 3 failed, RTFx 40.0, ETA 1:02:05"
    )
    assert table(moment).row_count == 1


def test_clock_rounds_to_seconds():
    assert [clock(s) for s in (None, 0, 59.6, 3600)] == ["-", "0:00:00", "0:01:00", "1:00:00"]

import logging
from typing import Any

import pytest
from transformers import TrainerState

from distill.progress import ShowProgress, duration


def test_a_line_has_the_figures_and_the_time_that_is_left_at_this_pace(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    """A resumed training counts its own steps only: 10 in 50 s, and 40 to go."""
    now = 100.0
    monkeypatch.setattr("distill.progress.time.monotonic", lambda: now)
    shown, nothing = ShowProgress(), None
    with caplog.at_level(logging.INFO, logger="distill.progress"):
        shown.on_train_begin(nothing, TrainerState(global_step=50, max_steps=100), nothing)
        now = 150.0
        logs: dict[str, Any] = {"loss": 1.23456, "eval_wer": 0.0512, "epoch": 0.4}
        shown.on_log(nothing, TrainerState(global_step=60, max_steps=100), nothing, logs)
    assert caplog.messages == ["step 60 of 100: loss 1.235, wer 5.12%, 0:03:20 left"]


def test_a_time_is_written_in_hours_minutes_and_seconds():
    assert [duration(seconds) for seconds in (0.4, 61, 3661)] == ["0:00:00", "0:01:01", "1:01:01"]

from pathlib import Path

import pytest

from pipeline.clips import RULE_STAGE, Clip, make_clip
from pipeline.config import ClipConfig
from pipeline.corpora import Utterance
from pipeline.ledger import Failure
from tests.pipeline.conftest import write_tone


def utterance(path: Path | str, start: float = 0.0, duration: float | None = None) -> Utterance:
    return Utterance(
        id="u1",
        corpus="mine",
        split="train",
        language="en",
        licence="cc0-1.0",
        speaker="",
        recording=str(path),
        path=str(path),
        start_seconds=start,
        duration_seconds=duration,
        reference="x",
    )


def test_length_is_measured_where_the_corpus_does_not_say(tmp_path: Path):
    clip = make_clip(utterance(write_tone(tmp_path / "a.wav", 2.5), start=0.5), ClipConfig())
    assert isinstance(clip, Clip)
    assert clip.duration_seconds == 2.0


def test_exactly_thirty_seconds_is_a_clip():
    assert isinstance(make_clip(utterance("a.wav", duration=30.0), ClipConfig()), Clip)


@pytest.mark.parametrize(
    ("duration", "reason"), [(30.001, "too_long"), (31.0, "too_long"), (0.05, "too_short")]
)
def test_other_lengths_are_rejected_by_rule(duration: float, reason: str):
    rejected = make_clip(utterance("a.wav", duration=duration), ClipConfig())
    assert isinstance(rejected, Failure)
    assert (rejected.stage, rejected.error) == (RULE_STAGE, reason)
    assert rejected.duration_seconds == duration


def test_unreadable_recording_fails_to_be_read():
    failed = make_clip(utterance("no/such.wav"), ClipConfig())
    assert isinstance(failed, Failure)
    assert (failed.stage, failed.error) == ("read", "AudioError")


def test_offset_behind_the_end_fails_to_be_read(tmp_path: Path):
    failed = make_clip(utterance(write_tone(tmp_path / "a.wav", 1), start=2.0), ClipConfig())
    assert isinstance(failed, Failure)
    assert (failed.stage, failed.error) == ("read", "AudioError")

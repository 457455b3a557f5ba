import dataclasses
from pathlib import Path

import numpy as np
import pytest
import soundfile

from pipeline.clips import Span
from pipeline.longform import MAX_UNREADABLE, finished, label_sequentially
from pipeline.rows import Labelled
from pipeline.schema import Segment
from pipeline.teacher import Label
from tests.pipeline.test_clips import utterance


def label(*segments: tuple[float, float]) -> Label:
    return Label(
        text="x",
        tokens=(),
        segments=tuple(Segment(start=a, end=b, text="x") for a, b in segments),
        language="en",
        language_probability=1.0,
        avg_logprob=0.0,
        no_speech_prob=0.0,
        compression_ratio=1.0,
        temperature=0.0,
        truncated=False,
    )


@pytest.mark.parametrize(
    ("segments", "end", "num_kept"),
    [
        # The window ends within the last segment: that one is heard again, whole.
        ([(0.0, 12.0), (12.4, 30.0)], 12.4, 1),
        ([(0.0, 12.0), (12.4, 29.98)], 12.4, 1),
        # Everything was finished: the rest of the window is heard again.
        ([(0.0, 12.0), (12.4, 25.0)], 25.0, 2),
        ([(3.0, 25.0)], 25.0, 1),
        # One segment that has no end, or nothing at all: go on behind the window.
        ([(0.0, 30.0)], 30.0, 1),
        ([], 30.0, 0),
        # Never a step so small that a recording takes for ever.
        ([(0.0, 0.4)], 30.0, 1),
        ([(0.0, 0.4), (0.6, 30.0)], 30.0, 2),
    ],
)
def test_the_next_window_begins_behind_the_last_finished_segment(segments, end, num_kept):
    found, kept = finished(label(*segments), 30.0)
    assert found == end
    assert len(kept) == num_kept


def wholly(windows):
    """Label windows without timestamps, so that each is followed by the next 30 s."""
    return [Labelled(heard=heard, label=label()) for heard, _ in windows], []


def long_span(path: Path, seconds: float) -> Span:
    whole = utterance(path, duration=seconds)
    return Span(utterance=whole, start_seconds=0.0, duration_seconds=seconds)


def test_a_recording_goes_on_behind_a_window_that_cannot_be_read(tmp_path: Path):
    samples = np.full(8_000 * 110, 0.1, dtype=np.float32)
    samples[8_000 * 40] = np.nan
    soundfile.write(tmp_path / "a.wav", samples, 8_000, subtype="FLOAT")
    done, failures = label_sequentially([long_span(tmp_path / "a.wav", 110.0)], wholly, 30.0, 4)
    assert [item.heard.clip.spans[0].start_seconds for item in done] == [0.0, 60.0, 90.0]
    assert [(failure.id, failure.stage) for failure in failures] == [("u1", "read")]


def test_a_recording_of_which_nothing_more_can_be_read_is_given_up(tmp_path: Path):
    soundfile.write(tmp_path / "a.wav", np.full(8_000 * 20, 0.1), 8_000)
    spans = [long_span(tmp_path / "a.wav", 36_000.0), long_span(tmp_path / "none.wav", 36_000.0)]
    spans[1] = dataclasses.replace(
        spans[1], utterance=dataclasses.replace(spans[1].utterance, id="u2")
    )
    done, failures = label_sequentially(spans, wholly, 10.0, 4)
    assert len(done) == 2
    assert [failure.id for failure in failures].count("u1") == MAX_UNREADABLE
    assert [failure.id for failure in failures].count("u2") == MAX_UNREADABLE
    assert f"nothing behind {10 * MAX_UNREADABLE + 20} s is labelled" in failures[-1].message


@pytest.mark.parametrize(("language", "text"), [("ja", "昨日映画"), ("en", "昨日 映画")])
def test_the_text_of_a_cut_window_is_joined_as_its_language_is_written(language, text, tmp_path):
    soundfile.write(tmp_path / "a.wav", np.full(8_000 * 14, 0.1), 8_000)
    segments = [(0.0, 2.0, "昨日"), (2.0, 5.0, "映画"), (5.0, 10.0, "を見")]
    said = dataclasses.replace(
        label(),
        language=language,
        segments=tuple(Segment(start=a, end=b, text=t) for a, b, t in segments),
    )

    def cut_off(windows):
        return [Labelled(heard=heard, label=said) for heard, _ in windows], []

    done, _ = label_sequentially([long_span(tmp_path / "a.wav", 14.0)], cut_off, 10.0, 1)
    assert done[0].label.text == text

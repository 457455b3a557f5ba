import pytest

from pipeline.longform import finished
from pipeline.schema import Segment
from pipeline.teacher import Label


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

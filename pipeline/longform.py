"""Label recordings that are longer than Whisper's window, one window after the other.

Whisper's own sequential algorithm (Radford et al. 2022, section 3.8): label 30 s, cut behind the
last segment that is finished, go on from there. Every window becomes one clip with the teacher's
timestamps. Several recordings advance side by side, so that windows still fill a batch.
"""

import dataclasses
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from pipeline.clips import Clip, Heard, Span, audio_sha256, part_id, read_clip
from pipeline.ledger import Failure
from pipeline.rows import Labelled, join_texts
from pipeline.schema import SAMPLE_RATE, Segment
from pipeline.teacher import Label

LabelBatch = Callable[[Sequence[tuple[Heard, np.ndarray]]], tuple[list[Labelled], list[Failure]]]

MAX_UNREADABLE = 10
"""Windows in a row that cannot be read before a recording is given up; 5 minutes."""

_AT_THE_END_SECONDS = 0.05  # a segment that ends here was cut off by the window
_SHORTEST_STEP_SECONDS = 1.0


def label_sequentially(
    spans: Sequence[Span],
    label: LabelBatch,
    window_seconds: float,
    batch_size: int,
) -> tuple[list[Labelled], list[Failure]]:
    """Label long spans; return their clips in the order they were labelled, and what failed.

    A window that fails is passed over; the recording goes on behind it. A recording of which many
    windows in a row cannot be read is given up: it ends there, whatever its header says.
    """
    done: list[Labelled] = []
    failures: list[Failure] = []
    unreadable: Counter[str] = Counter()  # windows in a row, by utterance
    waiting = list(spans)
    while waiting:
        batch, waiting = waiting[:batch_size], waiting[batch_size:]
        windows: list[tuple[Heard, np.ndarray]] = []
        rests: dict[str, Span] = {}
        for rest in batch:
            window = dataclasses.replace(
                rest, duration_seconds=min(window_seconds, rest.duration_seconds)
            )
            read, bad = read_clip(Clip(id=part_id(window), spans=(window,)))
            rests[part_id(window)] = rest
            if read:
                windows.append(read)
                unreadable[rest.utterance.id] = 0
                continue
            unreadable[rest.utterance.id] += 1
            if unreadable[rest.utterance.id] == MAX_UNREADABLE:
                del rests[part_id(window)]
                bad = [_given_up(failure, window) for failure in bad]
            failures += bad
        labelled, bad = label(windows)
        failures += bad
        audio = {heard.clip.id: samples for heard, samples in windows}
        steps = dict.fromkeys(rests, window_seconds)
        for item in labelled:
            rest = rests[item.heard.clip.id]
            is_last = rest.duration_seconds <= window_seconds
            if not is_last:
                item = cut_at_last_finished(item, audio[item.heard.clip.id])
                steps[item.heard.clip.id] = item.heard.num_samples / SAMPLE_RATE
            done.append(item)
        ahead = [_advance(rest, steps[name]) for name, rest in rests.items()]
        waiting = [rest for rest in ahead if rest] + waiting
    return done, failures


def cut_at_last_finished(item: Labelled, audio: np.ndarray) -> Labelled:
    """Shorten a labelled window to its last finished segment, as the next window begins there."""
    window_seconds = item.heard.num_samples / SAMPLE_RATE
    end, segments = finished(item.label, window_seconds)
    if end == window_seconds:
        return item
    num_samples = round(end * SAMPLE_RATE)
    (span,) = item.heard.clip.spans
    heard = Heard(
        clip=dataclasses.replace(
            item.heard.clip, spans=(dataclasses.replace(span, duration_seconds=end),)
        ),
        starts=(0,),
        lengths=(num_samples,),
        hashes=(audio_sha256(audio[:num_samples]),),
    )
    label = item.label
    if len(segments) < len(label.segments):
        text = join_texts([segment.text for segment in segments], label.language)
        label = dataclasses.replace(
            label, text=text, segments=segments, tokens=(), token_logprobs=()
        )
    return Labelled(heard=heard, label=label)


def finished(label: Label, window_seconds: float) -> tuple[float, tuple[Segment, ...]]:
    """Return where the next window begins, in seconds from the start of this, and what is before.

    Without timestamps, or with one unfinished segment only, that is the end of the window.
    """
    segments = label.segments
    if len(segments) > 1 and segments[-1].end >= window_seconds - _AT_THE_END_SECONDS:
        end, segments = segments[-1].start, segments[:-1]
    elif segments:
        end = segments[-1].end
    else:
        return window_seconds, ()
    if end < _SHORTEST_STEP_SECONDS or end >= window_seconds - _AT_THE_END_SECONDS:
        return window_seconds, label.segments
    return end, segments


def _given_up(failure: Failure, window: Span) -> Failure:
    """Add that this was the last try."""
    end_seconds = window.start_seconds + window.duration_seconds
    given_up = f"{MAX_UNREADABLE} windows in a row: nothing behind {end_seconds:g} s is labelled"
    return dataclasses.replace(failure, message=f"{failure.message}; {given_up}")


def _advance(rest: Span, seconds: float) -> Span | None:
    """Return what is left of a span behind a window; less than a word's length is nothing."""
    left = rest.duration_seconds - seconds
    if left < 0.1:
        return None
    return dataclasses.replace(
        rest, start_seconds=rest.start_seconds + seconds, duration_seconds=left
    )

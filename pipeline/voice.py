"""Find speech in long recordings and cut it at pauses into spans of at most 30 s.

Silero's model gives the probability of speech for every 32 ms; what is made of it here is plain
arithmetic: speech begins above one threshold and ends below a lower one, short pauses are bridged,
neighbours share a span while it fits, and speech without a pause is cut where it is least likely.
The recording is read a minute at a time, so ten hours take no more memory than one.
"""

import itertools
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from pipeline.clips import Span
from pipeline.guard import stream_audio
from pipeline.schema import SAMPLE_RATE

FRAME_SAMPLES = 512
"""What the model hears at once, 32 ms at 16 kHz."""
FRAME_SECONDS = FRAME_SAMPLES / SAMPLE_RATE

_READ_SECONDS = 64.0  # a whole number of frames
_ONSET, _OFFSET = 0.5, 0.35  # Silero's own thresholds
_SHORTEST_SPEECH_SECONDS = 0.25
_SHORTEST_PAUSE_SECONDS = 0.3
_PADDING_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 2.0  # inside a span; Whisper invents text in longer ones

Frames = tuple[int, int]


def find_speech(span: Span, max_seconds: float) -> list[Span]:
    """Cut a long span at its pauses; no span is longer than `max_seconds`, none holds no speech.

    Raises:
        AudioError: the recording cannot be read.
        ModuleNotFoundError: the extra `vad` is not installed; the message says how to get it.
    """
    probabilities = np.fromiter(speech_probabilities(span), dtype=np.float32)
    cuts = cut(speech(probabilities), probabilities, round(max_seconds / FRAME_SECONDS - 1))
    end_seconds = span.start_seconds + span.duration_seconds
    spans = []
    for first, last in pad(cuts, round(max_seconds / FRAME_SECONDS - 1), len(probabilities)):
        start = span.start_seconds + first * FRAME_SECONDS
        duration = min(last * FRAME_SECONDS + span.start_seconds, end_seconds) - start
        spans.append(Span(utterance=span.utterance, start_seconds=start, duration_seconds=duration))
    return spans


def speech_probabilities(span: Span) -> Iterator[float]:
    """Yield the probability of speech of each 32 ms of a span."""
    import torch

    model = _model()
    model.reset_states()
    utterance = span.utterance
    blocks = stream_audio(
        utterance.path,
        span.start_seconds,
        span.duration_seconds,
        channel=utterance.channel,
        block_seconds=_READ_SECONDS,
    )
    for audio in blocks:
        padded = np.pad(audio, (0, -audio.size % FRAME_SAMPLES))
        with torch.inference_mode():
            for frame in torch.from_numpy(padded).split(FRAME_SAMPLES):
                yield float(model(frame, SAMPLE_RATE))


def speech(probabilities: np.ndarray) -> list[Frames]:
    """Return the stretches of speech, each as its first frame and the one behind its last.

    Pauses under 0.3 s do not end a stretch, stretches under 0.25 s are none.
    """
    found: list[Frames] = []
    speaking = False
    for frame, probability in enumerate(probabilities):
        if probability >= _ONSET or (speaking and probability >= _OFFSET):
            gap = frame - found[-1][1] if found else None
            if speaking or (gap is not None and gap * FRAME_SECONDS < _SHORTEST_PAUSE_SECONDS):
                found[-1] = (found[-1][0], frame + 1)
            else:
                found.append((frame, frame + 1))
            speaking = True
        else:
            speaking = False
    return [(a, b) for a, b in found if (b - a) * FRAME_SECONDS >= _SHORTEST_SPEECH_SECONDS]


def cut(stretches: Sequence[Frames], probabilities: np.ndarray, max_frames: int) -> list[Frames]:
    """Cut what is longer than `max_frames`, then join neighbours while they fit together.

    A long stretch is cut at the frame of its last third, before the limit, where speech is least
    likely.
    """
    short: list[Frames] = []
    for first, last in stretches:
        while last - first > max_frames:
            earliest = first + max_frames * 2 // 3
            place = earliest + int(np.argmin(probabilities[earliest : first + max_frames])) + 1
            short.append((first, place))
            first = place
        short.append((first, last))
    joined: list[Frames] = []
    for first, last in short:
        if (
            joined
            and last - joined[-1][0] <= max_frames
            and (first - joined[-1][1]) * FRAME_SECONDS <= _LONGEST_PAUSE_SECONDS
        ):
            joined[-1] = (joined[-1][0], last)
        else:
            joined.append((first, last))
    return joined


def pad(cuts: Sequence[Frames], max_frames: int, num_frames: int) -> list[Frames]:
    """Widen each cut by 0.1 s on both sides, but not into its neighbour nor over the limit.

    A cut that is as long as the limit stays as it is: there is no room in front of it either.
    """
    most = round(_PADDING_SECONDS / FRAME_SECONDS)
    if not cuts:
        return []
    borders = [0, *((a[1] + b[0]) // 2 for a, b in itertools.pairwise(cuts)), num_frames]
    padded = []
    for (first, last), (low, high) in zip(cuts, itertools.pairwise(borders), strict=True):
        first = max(low, first - most, last - max_frames)
        padded.append((first, min(high, last + most, first + max_frames)))
    return padded


_of_thread = threading.local()


def _model() -> Any:
    """Return this thread's model: it remembers what it has heard so far."""
    if not hasattr(_of_thread, "model"):
        _of_thread.model = _load()
    return _of_thread.model


def _load() -> Any:
    """Load the model; its weights come with the package."""
    try:
        from silero_vad import load_silero_vad
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "clips.long: vad needs silero-vad: pip install 'whisper-distillery[vad]'"
        ) from error
    return load_silero_vad()

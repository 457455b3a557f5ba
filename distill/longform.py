"""How a recording becomes windows and windows become a transcript.

An algorithm is a generator: it yields the windows it wants to hear and is sent what was heard, and
returns the transcript. So it knows neither models nor batches, and whoever drives it can fill a
batch with windows of many recordings. Here are the two that go window by window: `short`, for what
fits one, and `sequential`, OpenAI's algorithm for what does not.
"""

from collections.abc import Generator
from dataclasses import dataclass, field

import numpy as np

from distill.transcribe_config import LongformConfig
from distill.transcript import Draft, Job
from distill.windows import (
    MAX_PROMPT_TOKENS,
    TIMESTAMP_SECONDS,
    WINDOW_SAMPLES,
    Audio,
    Heard,
    Region,
    Vocabulary,
    Window,
)
from pipeline.schema import SAMPLE_RATE

_TIMESTAMP_SAMPLES = round(TIMESTAMP_SECONDS * SAMPLE_RATE)
_SILENCE = 1e-5
"""Peak below which there is no sound at all (-100 dB), and a model could only invent text."""
_RESET_TEMPERATURE = 0.5
"""Text that was sampled at a higher one is not given to the next window."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """What is common to all algorithms."""

    longform: LongformConfig = field(default_factory=LongformConfig)
    language: str | None = None
    timestamps: bool = False
    """Segments are wanted, not only text."""
    words: bool = False
    regions: list[Region] | None = None
    """Where speech is; None hears everything."""
    num_samples: int | None = None
    """Length of the recording, where it is known that not all of it will be heard."""


def short(audio: Audio, vocabulary: Vocabulary, options: Options) -> Job:
    """Hear a recording of up to 30 s in one window; what is longer is cut there."""
    samples = audio.read(0, WINDOW_SAMPLES)
    draft = Draft(vocabulary=vocabulary, language=options.language)
    if is_silent(samples):
        return draft.finish(len(samples))
    window = Window(
        samples=samples,
        language=options.language,
        timestamps=options.timestamps,
        words=options.words,
    )
    (heard,) = yield [window]
    draft.note(heard)
    if not is_no_speech(heard, options.longform):
        cut_segments(draft, heard, 0.0, len(samples) / SAMPLE_RATE, keep_rest=True)
    return draft.finish(len(samples))


def sequential(audio: Audio, vocabulary: Vocabulary, options: Options) -> Job:
    """Hear window after window, each beginning where the last one's text ended."""
    longform = options.longform
    draft = Draft(vocabulary=vocabulary, language=options.language)
    history = vocabulary.encode(longform.initial_prompt) if longform.initial_prompt else []
    position = 0
    while True:
        speech = _next_speech(position, options.regions)
        if speech is None:
            break
        position = speech
        samples = audio.read(position, WINDOW_SAMPLES)
        if len(samples) < _TIMESTAMP_SAMPLES and (position > 0 or not len(samples)):
            break
        samples = samples[: _speech_end(position, len(samples), options.regions)]
        if is_silent(samples):
            position += len(samples)
            continue
        heard = yield from _with_fallback(
            Window(
                samples=samples,
                language=draft.language,
                previous=tuple(history[-MAX_PROMPT_TOKENS:]),
                timestamps=longform.timestamps,
                words=options.words,
            ),
            draft,
            longform,
        )
        if is_no_speech(heard, longform):
            position += len(samples)
            continue
        before = len(draft.segments)
        seconds = len(samples) / SAMPLE_RATE
        heard_seconds = cut_segments(draft, heard, position / SAMPLE_RATE, seconds)
        step = round(heard_seconds / TIMESTAMP_SECONDS) * _TIMESTAMP_SAMPLES
        position += step if 0 < step < len(samples) else len(samples)
        if not longform.condition_on_previous or heard.temperature > _RESET_TEMPERATURE:
            history = []
        else:
            for segment in draft.segments[before:]:
                history += segment.tokens
    return draft.finish(position if options.num_samples is None else options.num_samples)


def cut_segments(
    draft: Draft, heard: Heard, offset: float, seconds: float, *, keep_rest: bool = False
) -> float:
    """Append a window's text, cut where two timestamps meet.

    As OpenAI's Whisper: text after the last pair of timestamps is unfinished and is left to the
    next window, unless a single timestamp closes it, or there is no next window (`keep_rest`).

    Returns:
        How much of the window has been dealt with, in seconds.
    """
    first = draft.vocabulary.first_timestamp
    tokens = list(heard.tokens)
    times = list(heard.token_times)
    is_time = [token >= first for token in tokens]
    meets = [i for i in range(1, len(tokens)) if is_time[i - 1] and is_time[i]]
    closed = len(tokens) >= 2 and is_time[-2:] == [False, True]

    def add(piece: list[int], start: float, end: float, first_text: int) -> int:
        text = [token for token in piece if token < draft.vocabulary.end]
        spoken = times[first_text : first_text + len(text)]
        spoken = [(offset + a, offset + b) for a, b in spoken]
        draft.segment(offset + start, offset + min(end, seconds), text, spoken, heard)
        return first_text + len(text)

    def place(token: int) -> float:  # text stands at the beginning where no time is before it
        return max(token - first, 0) * TIMESTAMP_SECONDS

    if not meets:
        begins = place(tokens[0]) if tokens else 0.0
        ends = [place(token) for token in tokens if place(token) > begins]
        add(tokens, begins, ends[-1] if ends else seconds, 0)
        return seconds
    ends = [*meets, len(tokens)] if closed else meets
    last, first_text = 0, 0
    for end in ends:
        piece = tokens[last:end]
        first_text = add(piece, place(piece[0]), place(piece[-1]), first_text)
        last = end
    if keep_rest and not closed:
        stops = place(tokens[-1]) if is_time[-1] else seconds
        add(tokens[last:], place(tokens[last]), stops, first_text)
        return seconds
    return seconds if closed else place(tokens[last - 1])


def is_silent(samples: np.ndarray) -> bool:
    """Tell whether there is no sound at all."""
    return len(samples) == 0 or float(np.abs(samples).max()) < _SILENCE


def is_no_speech(heard: Heard, config: LongformConfig) -> bool:
    """Tell whether a window is silence: the model hears none, and does not believe in its text."""
    return (
        heard.no_speech_prob > config.no_speech_threshold
        and heard.avg_logprob <= config.min_avg_logprob
    )


def _with_fallback(
    window: Window, draft: Draft, config: LongformConfig
) -> Generator[list[Window], list[Heard], Heard]:
    """Hear a window, again at higher temperatures while its text looks wrong."""
    heard = None
    for temperature in config.temperatures:
        attempt = Window(**{**vars(window), "temperature": temperature})
        (heard,) = yield [attempt]
        draft.note(heard)
        if not _needs_fallback(heard, config):
            break
    assert heard is not None
    return heard


def _needs_fallback(heard: Heard, config: LongformConfig) -> bool:
    unsure = heard.avg_logprob < config.min_avg_logprob
    if unsure and heard.no_speech_prob > config.no_speech_threshold:
        return False
    return unsure or heard.compression_ratio > config.max_compression_ratio


def _next_speech(position: int, regions: list[Region] | None) -> int | None:
    """Return the first sample at or after `position` that is speech; None where none is left."""
    if regions is None:
        return position
    return next((max(position, start) for start, end in regions if position < end), None)


def _speech_end(position: int, num_samples: int, regions: list[Region] | None) -> int:
    """Return how many samples of a window there are until its last speech ends."""
    if regions is None:
        return num_samples
    stop = position + num_samples
    inside = [min(end, stop) for start, end in regions if start < stop and end > position]
    return max(inside, default=stop) - position

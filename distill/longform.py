"""How a recording becomes windows and windows become a transcript.

An algorithm is a generator: it yields the windows it wants to hear and is sent what was heard, and
returns the transcript. So it knows neither models nor batches, and whoever drives it can fill a
batch with windows of many recordings. Here are the two that go window by window: `short`, for what
fits one, and `sequential`, OpenAI's algorithm for what does not.
"""

import zlib
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from distill.transcribe_config import LongformConfig
from pipeline.schema import SAMPLE_RATE

WINDOW_SAMPLES = 30 * SAMPLE_RATE
TIMESTAMP_SECONDS = 0.02
_TIMESTAMP_SAMPLES = round(TIMESTAMP_SECONDS * SAMPLE_RATE)
MAX_PROMPT_TOKENS = 223
_SILENCE = 1e-5
"""Peak below which there is no sound at all (-100 dB), and a model could only invent text."""
_RESET_TEMPERATURE = 0.5
"""Text that was sampled at a higher one is not given to the next window."""


@dataclass(frozen=True, kw_only=True)
class Window:
    """Up to 30 s that a model shall hear."""

    samples: np.ndarray
    """float32 mono at 16 kHz."""
    language: str | None = None
    """None to be detected."""
    previous: tuple[int, ...] = ()
    """Tokens of what was said before."""
    timestamps: bool = False
    temperature: float = 0.0
    words: bool = False
    """Say when each token was spoken."""


@dataclass(frozen=True, kw_only=True)
class Heard:
    """What a model made of a window."""

    tokens: tuple[int, ...]
    text: str
    avg_logprob: float = 0.0
    no_speech_prob: float = 0.0
    temperature: float = 0.0
    language: str = ""
    language_probability: float = 1.0
    truncated: bool = False
    token_times: tuple[tuple[float, float], ...] = ()
    """Start and end in the window, for each text token, where they were asked for."""
    num_steps: int = 0
    num_drafted: int = 0
    num_accepted: int = 0

    @property
    def compression_ratio(self) -> float:
        """Bytes per compressed byte of the text, as OpenAI's Whisper computes it."""
        data = self.text.encode()
        return len(data) / len(zlib.compress(data))


@dataclass(frozen=True, kw_only=True)
class Word:
    """A word with its place in the recording, in seconds."""

    start: float
    end: float
    text: str


@dataclass(frozen=True, kw_only=True)
class TranscriptSegment:
    """A piece of a transcript with its place in the recording, in seconds, and its evidence."""

    start: float
    end: float
    text: str
    tokens: tuple[int, ...] = ()
    words: tuple[Word, ...] = ()
    avg_logprob: float = 0.0
    no_speech_prob: float = 0.0
    compression_ratio: float = 0.0
    temperature: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Transcript:
    """What is said in a recording."""

    text: str
    language: str
    language_probability: float
    duration_seconds: float
    segments: tuple[TranscriptSegment, ...]
    num_steps: int = 0
    """Steps of the decoder, summed over windows."""
    num_drafted: int = 0
    num_accepted: int = 0


class Vocabulary(Protocol):
    """What the algorithms need to know of a model's tokens."""

    first_timestamp: int
    """The id of `<|0.00|>`; text has smaller ids."""
    end: int
    """The id of `<|endoftext|>`; text has smaller ids."""

    def encode(self, text: str) -> list[int]:
        """Return the tokens of a text."""
        ...

    def decode(self, tokens: list[int]) -> str:
        """Return the text of tokens, special ones left out."""
        ...

    def split_words(self, tokens: list[int], language: str) -> list[list[int]]:
        """Group text tokens by word."""
        ...


class Audio(Protocol):
    """A recording that can be read forward."""

    def read(self, start: int, num_samples: int) -> np.ndarray:
        """Return samples from `start` on; fewer at the end, none after it."""
        ...


Job = Generator[list[Window], list[Heard], Transcript]
"""An algorithm at work on one recording."""
Region = tuple[int, int]
"""First and last-but-one sample of speech."""


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


@dataclass(kw_only=True)
class Draft:
    """A transcript that is being written."""

    vocabulary: Vocabulary
    language: str | None
    language_probability: float = 1.0
    segments: list[TranscriptSegment] = field(default_factory=list)
    num_steps: int = 0
    num_drafted: int = 0
    num_accepted: int = 0

    def note(self, heard: Heard) -> None:
        """Count a window, and settle the language by the first one."""
        if self.language is None:
            self.language = heard.language
            self.language_probability = heard.language_probability
        self.num_steps += heard.num_steps
        self.num_drafted += heard.num_drafted
        self.num_accepted += heard.num_accepted

    def segment(
        self,
        start: float,
        end: float,
        tokens: list[int],
        times: list[tuple[float, float]],
        heard: Heard,
    ) -> None:
        """Append text tokens spoken from `start` to `end`; `times` are theirs in the recording."""
        text = self.vocabulary.decode(tokens).strip()
        if not text or end <= start:
            return
        words = []
        if times:
            first = 0
            for group in self.vocabulary.split_words(tokens, self.language or "en"):
                last = first + len(group) - 1
                word = self.vocabulary.decode(group).strip()
                if word:
                    begins = min(max(times[first][0], start), end)
                    ends = min(max(times[last][1], begins), end)
                    words.append(Word(start=round(begins, 2), end=round(ends, 2), text=word))
                first = last + 1
        self.segments.append(
            TranscriptSegment(
                start=round(start, 2), end=round(end, 2), text=text, tokens=tuple(tokens),
                words=tuple(words), avg_logprob=round(heard.avg_logprob, 4),
                no_speech_prob=round(heard.no_speech_prob, 4),
                compression_ratio=round(heard.compression_ratio, 4),
                temperature=heard.temperature,
            )
        )  # fmt: skip

    def finish(self, num_samples: int, text: str | None = None) -> Transcript:
        """Return the transcript."""
        tokens = [token for segment in self.segments for token in segment.tokens]
        return Transcript(
            text=self.vocabulary.decode(tokens).strip() if text is None else text,
            language=self.language or "",
            language_probability=round(self.language_probability, 4),
            duration_seconds=round(num_samples / SAMPLE_RATE, 3),
            segments=tuple(self.segments),
            num_steps=self.num_steps,
            num_drafted=self.num_drafted,
            num_accepted=self.num_accepted,
        )


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
    if not _is_no_speech(heard, options.longform):
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
                timestamps=True,
                words=options.words,
            ),
            draft,
            longform,
        )
        if _is_no_speech(heard, longform):
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
    return draft.finish(position)


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


def _is_no_speech(heard: Heard, config: LongformConfig) -> bool:
    return (
        heard.no_speech_prob > config.no_speech_threshold
        and heard.avg_logprob <= config.min_avg_logprob
    )


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

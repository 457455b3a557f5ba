"""Models hear the clips of an evaluation; only their own work is timed.

Every batch is heard by all models one after another, each of them being the first now and then, so
that what else the machine does falls on all of them alike and their speeds can be compared.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import numpy as np
import torch

from distill.ctranslate2_recognizer import CTranslate2Recognizer
from distill.evaluate_data import EvaluationClip
from distill.longform import Options, sequential
from distill.longform_chunked import chunked
from distill.transcribe import run
from distill.transcript import Job
from distill.whisper_recognizer import WhisperRecognizer
from distill.windows import Heard, Window
from pipeline.audio import AudioError

AnyRecognizer = WhisperRecognizer | CTranslate2Recognizer


@dataclass(kw_only=True)
class Hearing:
    """What several models made of the same clips, and where the time went."""

    clips: list[EvaluationClip] = field(default_factory=list)
    """Those whose audio could be read, in the order given."""
    texts: list[list[str]]
    """By model, then by clip."""
    seconds: list[float]
    """Of each model: encoder and decoding."""
    reading_seconds: float = 0.0
    features_seconds: float = 0.0
    unreadable: dict[str, str] = field(default_factory=dict)
    """Why the other clips could not be read, by their ids."""


def hear_in_turns(
    recognizers: list[AnyRecognizer], clips: list[EvaluationClip], batch_size: int
) -> Hearing:
    """Decode clips greedily with several models; a clip that cannot be read is left out for all."""
    found = Hearing(texts=[[] for _ in recognizers], seconds=[0.0] * len(recognizers))
    warm: set[int] = set()
    for number, batch in enumerate(batches(clips, batch_size)):
        started = time.perf_counter()
        windows = []
        for clip in batch:
            samples = read(clip, found.unreadable)
            if samples is not None:
                found.clips.append(clip)
                windows.append(Window(samples=samples, language=clip.language))
        found.reading_seconds += time.perf_counter() - started
        if not windows:
            continue
        first = number % len(recognizers)
        for place in (*range(first, len(recognizers)), *range(first)):
            recognizer = recognizers[place]
            started = time.perf_counter()
            features = recognizer.extract([window.samples for window in windows])
            found.features_seconds += time.perf_counter() - started
            if place not in warm:
                warm.add(place)
                _warm_up(recognizer, features, windows)
            heard, seconds = _hear(recognizer, features, windows)
            found.texts[place] += [one.text for one in heard]
            found.seconds[place] += seconds
    return found


def read(clip: EvaluationClip, unreadable: dict[str, str]) -> np.ndarray | None:
    """Return a clip's audio; None where it cannot be read, and why in `unreadable`."""
    try:
        return clip.audio()
    except AudioError as error:
        unreadable[clip.id] = str(error)
        return None


def hear_clips(
    recognizer: AnyRecognizer, clips: list[EvaluationClip], batch_size: int, **window: Any
) -> tuple[list[str], float]:
    """Decode clips greedily; return their texts and the seconds that the model took."""
    heard, seconds = hear_batches(recognizer, clips, batch_size, **window)
    return [one.text for one in heard], seconds


def hear_batches(
    recognizer: AnyRecognizer, clips: list[EvaluationClip], batch_size: int, **window: Any
) -> tuple[list[Heard], float]:
    """Decode clips in batches of one language; `window` are further fields of `Window`."""
    heard: list[Heard] = []
    seconds = 0.0
    for number, batch in enumerate(batches(clips, batch_size)):
        windows = [Window(samples=clip.audio(), language=clip.language, **window) for clip in batch]
        features = recognizer.extract([w.samples for w in windows])
        if number == 0:
            _warm_up(recognizer, features, windows)
        found, taken = _hear(recognizer, features, windows)
        heard, seconds = heard + found, seconds + taken
    return heard, seconds


def _warm_up(recognizer: AnyRecognizer, features: Any, windows: list[Window]) -> None:
    """Let a first call pay for set-up that is not decoding."""
    recognizer.hear_features(features[:1], windows[:1])


def _hear(
    recognizer: AnyRecognizer, features: Any, windows: list[Window]
) -> tuple[list[Heard], float]:
    started = time.perf_counter()
    heard = recognizer.hear_features(features, windows)
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return heard, time.perf_counter() - started


def batches(clips: list[EvaluationClip], batch_size: int) -> Iterator[list[EvaluationClip]]:
    """Group clips of one language in the order given."""
    for _, group in groupby(clips, key=lambda clip: clip.language):
        of_language = list(group)
        for first in range(0, len(of_language), batch_size):
            yield of_language[first : first + batch_size]


class Loaded:
    """A recording that is in memory."""

    def __init__(self, samples: np.ndarray) -> None:
        self._samples = samples

    def read(self, start: int, num_samples: int) -> np.ndarray:
        """Return samples from `start` on."""
        return self._samples[start : start + num_samples]


class Timed:
    """A recognizer that sums up the time it takes, features left out."""

    def __init__(self, recognizer: AnyRecognizer) -> None:
        self._recognizer = recognizer
        self.vocabulary = recognizer.vocabulary
        self.name, self.is_student = recognizer.name, recognizer.is_student
        self.seconds = 0.0

    def hear(self, windows: list[Window]) -> list[Heard]:
        """Hear windows in one batch, in the order given."""
        features = self._recognizer.extract([window.samples for window in windows])
        heard, seconds = _hear(self._recognizer, features, windows)
        self.seconds += seconds
        return heard


def hear_long(
    recognizer: AnyRecognizer,
    clips: list[EvaluationClip],
    batch_size: int,
    options: Options,
    chunk_seconds: float | None,
) -> tuple[list[str], float]:
    """Hear long recordings, in chunks or (None) sequentially; return texts and model seconds.

    Raises:
        ValueError: a recording cannot be read.
    """
    timed = Timed(recognizer)

    def job(clip: EvaluationClip) -> Job:
        own = Options(**{**vars(options), "language": clip.language})
        audio = Loaded(clip.audio())
        if chunk_seconds is None:
            return (yield from sequential(audio, timed.vocabulary, own))
        return (yield from chunked(audio, timed.vocabulary, own, chunk_seconds, batch_size))

    texts = [""] * len(clips)
    for number, result in run(map(job, clips), timed, batch_size):
        if isinstance(result, Exception):
            raise ValueError(f"clip {clips[number].id}: {result}") from result
        texts[number] = result.text
    return texts, timed.seconds

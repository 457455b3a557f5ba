"""A model hears the clips of an evaluation; only its own work is timed."""

import time
from collections.abc import Iterator
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

AnyRecognizer = WhisperRecognizer | CTranslate2Recognizer


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
        if number == 0:  # the first call pays for set-up that is not decoding
            recognizer.hear_features(features[:1], windows[:1])
        started = time.perf_counter()
        heard += recognizer.hear_features(features, windows)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        seconds += time.perf_counter() - started
    return heard, seconds


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
        started = time.perf_counter()
        heard = self._recognizer.hear_features(features, windows)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.seconds += time.perf_counter() - started
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

"""A teacher that hears tones: each pitch is a word, so what it says follows from the audio."""

import itertools
from pathlib import Path

import numpy as np
import soundfile

from pipeline.schema import Segment
from pipeline.teacher import Label, Prepared

HERTZ = {
    "red": 400,
    "blue": 500,
    "green": 600,
    "white": 700,
    "black": 800,
    "brown": 900,
    "pink": 1000,
}
"""Words that the normalisation leaves alone; numbers in a row would become one."""
SECONDS_PER_WORD = 0.5
_FRAME = 1_600  # 0.1 s


def speak(path: Path, text: str, *, pause_seconds: float = 0.0) -> Path:
    """Write a recording of words; "-" is a word's length of silence."""
    soundfile.write(path, sound(text, pause_seconds), 16_000)
    return path


def sound(text: str, pause_seconds: float = 0.0) -> np.ndarray:
    time = np.arange(round(SECONDS_PER_WORD * 16_000)) / 16_000
    words = [0.3 * np.sin(2 * np.pi * HERTZ.get(word, 0) * time) for word in text.split()]
    return np.concatenate([*words, np.zeros(round(pause_seconds * 16_000))])


class HearsTones:
    """Labels what `speak` wrote; a silence ends a segment."""

    def __init__(self) -> None:
        self.batches: list[list[float]] = []

    def prepare(self, clips: list[np.ndarray]) -> Prepared:
        return Prepared(clips=clips, features=[])

    def label(self, clips: list[np.ndarray] | Prepared, language: str) -> list[Label]:
        if isinstance(clips, Prepared):
            clips = clips.clips
        self.batches.append([clip.size / 16_000 for clip in clips])
        return [self._label(clip, language) for clip in clips]

    def _label(self, clip: np.ndarray, language: str) -> Label:
        segments = []
        frames = [_word(clip[i : i + _FRAME]) for i in range(0, clip.size, _FRAME)]
        start = 0
        for spoken, group in itertools.groupby(frames, bool):
            heard = list(group)
            if spoken:
                words = [
                    w
                    for w, n in itertools.groupby(heard)
                    for _ in range(round(len(list(n)) / 5) or 1)
                ]
                end = min(start + len(heard), clip.size / _FRAME) * 0.1
                segments.append(
                    Segment(start=round(start * 0.1, 2), end=round(end, 2), text=" ".join(words))
                )
            start += len(heard)
        text = " ".join(segment.text for segment in segments)
        return Label(
            text=text,
            tokens=tuple(range(len(text.split()))),
            segments=tuple(segments),
            language=language,
            language_probability=1.0,
            avg_logprob=-0.1,
            no_speech_prob=0.0,
            compression_ratio=1.0,
            temperature=0.0,
            truncated=False,
        )


def _word(frame: np.ndarray) -> str:
    """Name the pitch of a tenth of a second; "" for silence."""
    if np.abs(frame).max(initial=0) < 0.05:
        return ""
    pitch = np.argmax(np.abs(np.fft.rfft(frame, 16_000)))
    return min(HERTZ, key=lambda word: abs(HERTZ[word] - pitch))

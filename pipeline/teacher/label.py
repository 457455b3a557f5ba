"""What a teacher says of one clip, and what an engine has to offer."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from pipeline.schema import Segment


@dataclass(frozen=True, kw_only=True)
class Label:
    """A pseudo-label with its evidence; floats have 4 decimals, so that files are stable."""

    text: str
    tokens: tuple[int, ...]
    """With timestamps, without task prefix and end of text."""
    token_ends: tuple[int, ...]
    """For each token, the characters of `text` that are written once it is decoded; a timestamp
    adds none, and a token that ends inside a character leaves it to the one that completes it."""
    segments: tuple[Segment, ...]
    language: str
    language_probability: float
    """Of this language among all that the teacher knows, even where the language was given."""
    avg_logprob: float
    """Mean log-probability of the generated tokens and the end of text, as OpenAI counts it."""
    no_speech_prob: float
    compression_ratio: float
    """Bytes of the text per byte of it compressed; high where the teacher repeats itself."""
    temperature: float
    truncated: bool
    """The teacher ran into its token limit."""


class Teacher(Protocol):
    """A loaded model; it lives once per worker process."""

    def label(self, clips: list[np.ndarray], language: str) -> list[Label]:
        """Label clips (float32 mono 16 kHz, at most 30 s each) in one batch, in the order given."""
        ...

"""What long-form algorithms and models say to each other: windows to hear, and what was heard."""

import zlib
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from pipeline.schema import SAMPLE_RATE

WINDOW_SAMPLES = 30 * SAMPLE_RATE
TIMESTAMP_SECONDS = 0.02
MAX_PROMPT_TOKENS = 223

Region = tuple[int, int]
"""First and last-but-one sample of speech."""


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
    """Mean over the tokens and the end, among what may be written at each place: suppressed tokens,
    and what the grammar of timestamps forbids, are as if they did not exist."""
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

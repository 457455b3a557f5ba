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
    segments: tuple[Segment, ...]
    """Pieces between timestamps; one piece as long as the clip where the teacher gives none."""
    language: str
    """As given, or as the teacher heard it where "auto" was given."""
    language_probability: float
    """Of this language among all that the teacher knows, even where the language was given."""
    avg_logprob: float
    """Mean log-probability of the generated tokens and the end of text, as OpenAI counts it."""
    no_speech_prob: float
    compression_ratio: float
    """Bytes of the text per byte of it compressed; high where the teacher repeats itself."""
    temperature: float
    """At which it was decoded; above 0 where the likeliest label was not good enough."""
    truncated: bool
    """The teacher ran into its token limit."""
    token_logprobs: tuple[float, ...] = ()
    """Of each of `tokens`; empty unless `decoding.token_logprobs` asks for them."""


class Teacher(Protocol):
    """A loaded model; it lives once per worker process."""

    def label(self, clips: "list[np.ndarray] | Prepared", language: str) -> list[Label]:
        """Label clips (float32 mono 16 kHz, at most 30 s each), in the order given.

        Args:
            clips: as samples, or as `prepare` made them ready.
            language: of all of them; "auto" lets the teacher tell for each.

        Raises:
            ValueError: the teacher does not know the language.
        """
        ...

    def prepare(self, clips: list[np.ndarray]) -> "Prepared":
        """Do the work of `label` that needs no model, on whichever thread has time for it."""
        ...


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """Clips with their features, ready for the encoder."""

    clips: list[np.ndarray]
    features: list[np.ndarray]
    """[mels, frames] of each."""

    def __len__(self) -> int:
        """Number of clips."""
        return len(self.clips)

"""What an engine has to offer; everything else about a label is decided once, above it.

A new engine is one module with a class that has the methods of `Engine`, and its name in `ENGINES`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from pipeline.teacher.sampling import Sampler
from pipeline.teacher.vocabulary import Vocabulary

ENGINES = {
    "transformers": "pipeline.teacher.transformers_engine",
    "ctranslate2": "pipeline.teacher.ctranslate2_engine",
}
"""Name in the configuration, and the module that has a function `load(config, revision)`."""


@dataclass(frozen=True, kw_only=True)
class Generated:
    """What an engine said of one clip."""

    tokens: list[int]
    """Without prompt and end."""
    sum_logprob: float
    """Of the tokens and the end, after Whisper's rules and before the temperature."""
    ended: bool
    """The end was said; False where the token limit came first."""
    no_speech_prob: float
    """At the first decoder step; 0 for a teacher without that token."""
    logprobs: tuple[float, ...] | None = None
    """Of each token, and of the end if it was said; only where asked for."""
    language_probs: np.ndarray | None = None
    """As of `Engine.language_probs`, from an engine that gets them in passing."""


@dataclass(frozen=True, kw_only=True)
class Search:
    """How a batch is decoded."""

    timestamps: bool
    max_tokens: int
    num_beams: int = 1
    """More than 1 only at temperature 0."""
    logprobs: bool = False


class Engine(Protocol):
    """A loaded model."""

    vocabulary: Vocabulary
    num_mels: int
    max_positions: int
    """Prompt and label together have at most so many tokens."""
    short_windows: bool
    """Whether `encode` takes windows shorter than 30 s."""

    def encode(self, features: np.ndarray) -> Any:
        """Run the encoder over float32 features of shape [clips, mels, frames]."""
        ...

    def select(self, encoded: Any, rows: Sequence[int]) -> Any:
        """Return some clips of what `encode` returned."""
        ...

    def language_probs(self, encoded: Any) -> np.ndarray:
        """Return [clips, languages], in the order of the vocabulary's languages.

        Only called for a teacher that knows several.
        """
        ...

    def generate(
        self,
        encoded: Any,
        prompts: Sequence[Sequence[int]],
        samplers: Sequence[Sampler],
        search: Search,
    ) -> list[Generated]:
        """Decode; all prompts have the same length, a row's tokens depend on that row alone."""
        ...

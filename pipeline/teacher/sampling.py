"""Draw tokens so that a label never depends on its batch.

The numbers that decide come from the seed, the clip's own samples and the temperature, one for each
token. Whoever decodes the clip, alone or among others, with whichever engine, draws the same.
"""

import hashlib
from dataclasses import dataclass

import numpy as np

from pipeline.teacher.rules import log_softmax


@dataclass(frozen=True, kw_only=True)
class Sampler:
    """How one row's tokens are chosen."""

    temperature: float
    """0 takes the likeliest."""
    draws: np.ndarray
    """One number of [0, 1) for each token; not used at temperature 0."""

    def choose(self, scores: np.ndarray, position: int) -> int:
        """Choose the token at a position from its scores ([vocabulary], -inf for forbidden).

        Raises:
            ValueError: there is a NaN among them, or nothing that may be said.
        """
        if not np.isfinite(scores.max()):
            raise ValueError(f"the teacher's highest score at token {position} is {scores.max()}")
        if self.temperature == 0:
            return int(scores.argmax())
        chances = np.exp(log_softmax(scores / self.temperature)).cumsum()
        return int(np.searchsorted(chances, self.draws[position] * chances[-1], side="right"))


def make_sampler(clip: np.ndarray, temperature: float, *, seed: int, max_tokens: int) -> Sampler:
    """Return the sampler of a clip (float32 samples) at a temperature."""
    if temperature == 0:
        return Sampler(temperature=0.0, draws=np.empty(0))
    digest = hashlib.sha256(np.ascontiguousarray(clip).tobytes())
    digest.update(f"{seed} {temperature}".encode())
    generator = np.random.Generator(np.random.Philox(int.from_bytes(digest.digest()[:16])))
    return Sampler(temperature=temperature, draws=generator.random(max_tokens))

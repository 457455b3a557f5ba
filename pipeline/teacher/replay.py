"""Choose a clip's tokens from the scores along a guess, for engines that tell no single step.

Told to say a guess, such an engine gives the scores at every place of it. They are good up to the
first token that is chosen otherwise; from there the guess is mended and said again. The result is
that of decoding step by step, and the closer the guess, the fewer times the engine runs.
"""

from collections.abc import Sequence

import numpy as np

from pipeline.teacher.engine import Generated, Search
from pipeline.teacher.rules import LEAST_LOGPROB, constrain, log_softmax
from pipeline.teacher.sampling import Sampler
from pipeline.teacher.vocabulary import Vocabulary

_CONTINUE = 16
"""Tokens that the first guess is continued by, where it ended too early."""
_AT_LEAST = 4
"""Tokens that are looked at in one go, also where guesses are hardly ever right."""


class Replay:
    """One clip while its tokens are chosen."""

    def __init__(
        self, prompt: list[int], sampler: Sampler, first_guess: Generated, *, given: bool = False
    ) -> None:
        """Begin with what the engine's own search said; `given` keeps it and only scores it."""
        self.prompt, self.guess = prompt, list(first_guess.tokens)
        self.done = False
        self.reach = len(self.guess) + _CONTINUE
        self._given = list(first_guess.tokens) if given else None
        self._sampler = sampler
        self._no_speech_prob = first_guess.no_speech_prob
        self._tokens: list[int] = []
        self._logprobs: list[float] = []
        self._ended = False

    @property
    def told(self) -> list[int]:
        """What the engine is to be told to say, before it goes on by itself up to `reach` tokens.

        That is all of the guess at first, then twice as far as it was right the last time: the
        engine says what was chosen again each time, and the rest would be said for nothing.
        """
        return self.guess[: self.reach]

    def follow(
        self,
        path: Sequence[int],
        scores: Sequence[np.ndarray],
        vocabulary: Vocabulary,
        search: Search,
    ) -> None:
        """Choose tokens as long as they are those of the path.

        Args:
            path: what the engine said; it begins with `told`.
            scores: at each place of the path, [vocabulary], as the model gives them.
            vocabulary: of the model.
            search: how to decode.
        """
        chosen_before = len(self._tokens)
        for place in range(chosen_before, len(scores)):
            allowed = constrain(
                scores[place], self._tokens, vocabulary, timestamps=search.timestamps
            )
            token = self._choose(allowed, place, vocabulary.end)
            self._logprobs.append(max(float(log_softmax(allowed)[token]), LEAST_LOGPROB))
            if token == vocabulary.end:
                self._ended = self.done = True
                return
            self._tokens.append(token)
            if len(self._tokens) == search.max_tokens:
                self.done = True
                return
            if place >= len(path) or token != path[place]:
                break
        # One token is often another in the same place, so what follows it is kept as a guess.
        self.guess = [*self._tokens, *path[len(self._tokens) :], *self.guess[len(path) :]]
        self.guess = self.guess[: search.max_tokens]
        was_right = len(self._tokens) - chosen_before
        self.reach = min(len(self._tokens) + max(2 * was_right, _AT_LEAST), search.max_tokens)

    def _choose(self, allowed: np.ndarray, place: int, end: int) -> int:
        if self._given is None:
            return self._sampler.choose(allowed, place)
        return self._given[place] if place < len(self._given) else end

    def generated(self, *, logprobs: bool) -> Generated:
        """Return what was chosen."""
        return Generated(
            tokens=self._tokens,
            sum_logprob=float(np.sum(self._logprobs, dtype=np.float64)),
            ended=self._ended,
            no_speech_prob=self._no_speech_prob,
            logprobs=tuple(self._logprobs) if logprobs else None,
        )

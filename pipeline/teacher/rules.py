"""Which tokens Whisper may say next: OpenAI's rules, as numbers that any engine can apply.

The rules look at what a row has said so far and give bounds; applying bounds to scores is a few
array operations, here in numpy and in an engine in its own library.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.teacher.vocabulary import Vocabulary

LEAST_LOGPROB = -100.0
"""Of a token of a given label that the rules forbid."""


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """What one row may say next, for a teacher that writes timestamps."""

    first: int
    """Smaller ids are forbidden: none, all text, or all that is no timestamp."""
    first_timestamp: int
    """The earliest timestamp allowed."""
    last_timestamp: int
    """The latest one allowed."""


def timestamp_bounds(said: Sequence[int], vocabulary: Vocabulary) -> Bounds:
    """Return the bounds after the tokens said so far.

    A label begins with a timestamp of at most `max_initial_timestamp`; timestamps come in pairs,
    except before the end; they never fall; and a segment has a length.
    """
    begin, last = vocabulary.first_timestamp, vocabulary.size - 1
    if not said:
        latest = min(begin + vocabulary.max_initial_timestamp, last)
        return Bounds(first=begin, first_timestamp=begin, last_timestamp=latest)
    after_timestamp = said[-1] >= begin
    after_pair = after_timestamp and (len(said) < 2 or said[-2] >= begin)
    latest_said = next((token for token in reversed(said) if token >= begin), None)
    if after_pair:  # text has to come
        return Bounds(first=0, first_timestamp=last + 1, last_timestamp=last)
    if latest_said is None:
        return Bounds(first=0, first_timestamp=begin, last_timestamp=last)
    if after_timestamp:  # the end of a segment: its next starts there or later, or all ends
        return Bounds(first=vocabulary.end, first_timestamp=latest_said, last_timestamp=last)
    return Bounds(first=0, first_timestamp=latest_said + 1, last_timestamp=last)


def constrain(
    scores: np.ndarray, said: Sequence[int], vocabulary: Vocabulary, *, timestamps: bool
) -> np.ndarray:
    """Return one row of scores (any shift, [vocabulary]) with what must not be said at -inf."""
    scores = np.array(scores, dtype=np.float32)
    scores[list(vocabulary.suppressed)] = -np.inf
    if not said:
        scores[list(vocabulary.suppressed_first)] = -np.inf
    if not timestamps:
        return scores
    bounds, begin = timestamp_bounds(said, vocabulary), vocabulary.first_timestamp
    scores[vocabulary.no_timestamps] = -np.inf
    scores[: bounds.first] = -np.inf
    scores[begin : bounds.first_timestamp] = -np.inf
    scores[bounds.last_timestamp + 1 :] = -np.inf
    if log_sum_exp(scores[begin:]) > scores[:begin].max():
        scores[:begin] = -np.inf  # timestamps together are likelier than any text
    return scores


def is_allowed(tokens: Sequence[int], vocabulary: Vocabulary) -> bool:
    """Tell whether a whole label with timestamps follows the rules."""
    begin = vocabulary.first_timestamp
    for i, token in enumerate(tokens):
        bounds = timestamp_bounds(tokens[:i], vocabulary)
        if token < bounds.first or token == vocabulary.no_timestamps:
            return False
        if token >= begin and not bounds.first_timestamp <= token <= bounds.last_timestamp:
            return False
    return True


def log_softmax(scores: np.ndarray) -> np.ndarray:
    """Return log-probabilities of a row of scores, in float64."""
    scores = scores.astype(np.float64)
    return scores - log_sum_exp(scores)


def log_sum_exp(scores: np.ndarray) -> float:
    """Return the logarithm of the sum of exponentials; -inf where nothing is allowed."""
    highest = scores.max(initial=-np.inf)
    if not np.isfinite(highest):
        return -np.inf
    return float(highest + np.log(np.exp(scores.astype(np.float64) - highest).sum()))

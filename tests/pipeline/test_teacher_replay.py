"""Tokens chosen along a guess are those of decoding step by step, whatever the guess was."""

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.teacher.engine import Generated, Search
from pipeline.teacher.replay import Replay
from pipeline.teacher.rules import constrain, log_softmax
from pipeline.teacher.sampling import Sampler, make_sampler
from tests.pipeline.test_teacher_batches import VOCABULARY

MAX_TOKENS = 12
SOME = [5, 300, 301, VOCABULARY.first_timestamp, VOCABULARY.first_timestamp + 50]
"""The model likes these, and the end."""


def model(said: list[int]) -> np.ndarray:
    """Return the scores after what was said; any function of it will do."""
    seed = hashlib.sha256(repr(said).encode()).digest()[:8]
    generator = np.random.default_rng(int.from_bytes(seed))
    scores = np.full(VOCABULARY.size, -20.0, dtype=np.float32)
    liked = [*SOME, VOCABULARY.end]
    scores[liked] = generator.normal(0, 2, len(liked))
    return scores


def step_by_step(sampler: Sampler, search: Search) -> tuple[list[int], bool, float]:
    said: list[int] = []
    total = 0.0
    while len(said) < search.max_tokens:
        allowed = constrain(model(said), said, VOCABULARY, timestamps=search.timestamps)
        token = sampler.choose(allowed, len(said))
        total += float(log_softmax(allowed)[token])
        if token == VOCABULARY.end:
            return said, True, total
        said.append(token)
    return said, False, total


def guessed(tokens: list[int]) -> Generated:
    return Generated(tokens=tokens, sum_logprob=0.0, ended=True, no_speech_prob=0.25)


@given(
    guess=st.lists(st.sampled_from(SOME), max_size=MAX_TOKENS),
    temperature=st.sampled_from([0.0, 0.6]),
    timestamps=st.booleans(),
    seed=st.integers(0, 99),
)
def test_the_guess_decides_nothing(guess, temperature, timestamps, seed):
    sampler = make_sampler(
        np.zeros(8, dtype=np.float32), temperature, seed=seed, max_tokens=MAX_TOKENS
    )
    search = Search(timestamps=timestamps, max_tokens=MAX_TOKENS)
    replay = Replay([0], sampler, guessed(guess))
    rounds = 0
    while not replay.done:
        path = replay.told
        places = min(len(path) + 1, MAX_TOKENS)
        replay.follow(path, [model(path[:n]) for n in range(places)], VOCABULARY, search)
        rounds += 1
        assert rounds <= MAX_TOKENS + 1  # each round settles at least one token
    found = replay.generated(logprobs=True)
    tokens, ended, total = step_by_step(sampler, search)
    assert (found.tokens, found.ended, found.no_speech_prob) == (tokens, ended, 0.25)
    assert found.sum_logprob == pytest.approx(total)
    assert found.logprobs is not None
    assert len(found.logprobs) == len(tokens) + ended


def test_a_right_guess_takes_one_round():
    search = Search(timestamps=False, max_tokens=MAX_TOKENS)
    sampler = make_sampler(np.zeros(8), 0.0, seed=0, max_tokens=MAX_TOKENS)
    tokens, _, _ = step_by_step(sampler, search)
    replay = Replay([0], sampler, guessed(tokens))
    places = min(len(tokens) + 1, MAX_TOKENS)
    replay.follow(tokens, [model(tokens[:n]) for n in range(places)], VOCABULARY, search)
    assert replay.done


def test_a_guess_that_is_hardly_ever_right_is_not_said_to_its_end():
    search = Search(timestamps=False, max_tokens=200)
    sampler = make_sampler(np.zeros(8), 1.0, seed=0, max_tokens=200)
    replay = Replay([0], sampler, guessed([SOME[0]] * 200))

    def without_end(said: list[int]) -> np.ndarray:
        scores = model(said)
        scores[VOCABULARY.end] = -20.0
        return scores

    said = []
    while not replay.done:
        path = replay.told
        said.append(len(path))
        replay.follow(path, [without_end(path[:n]) for n in range(len(path))], VOCABULARY, search)
    assert said[0] == 200
    assert len(said) > 20
    assert sum(said) < 0.75 * 200 * len(said)


def test_given_tokens_are_scored_and_kept():
    search = Search(timestamps=False, max_tokens=MAX_TOKENS, num_beams=2)
    sampler = make_sampler(np.zeros(8), 0.0, seed=0, max_tokens=MAX_TOKENS)
    beam = [300, 301, 5]
    replay = Replay([0], sampler, guessed(beam), given=True)
    replay.follow(beam, [model(beam[:n]) for n in range(4)], VOCABULARY, search)
    found = replay.generated(logprobs=False)
    assert (found.tokens, found.ended, replay.done) == (beam, True, True)
    assert np.isfinite(found.sum_logprob)


@pytest.mark.parametrize("temperature", [0.0, 0.4])
@pytest.mark.parametrize("value", [np.nan, -np.inf])
def test_nothing_is_chosen_from_scores_that_are_no_numbers(temperature: float, value: float):
    sampler = make_sampler(np.zeros(8), temperature, seed=0, max_tokens=MAX_TOKENS)
    scores = model([])
    scores[:] = value
    with pytest.raises(ValueError, match="highest score at token 2"):
        sampler.choose(scores, 2)

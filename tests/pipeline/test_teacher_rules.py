"""Whisper's rules and decisions, against OpenAI's own, written down again plainly."""

import numpy as np
import pytest
import tokenizers
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.config import DecodingConfig
from pipeline.schema import EMBEDDED_FOLDER
from pipeline.teacher.engine import Generated
from pipeline.teacher.evidence import avg_logprob, compression_ratio, segments
from pipeline.teacher.fallback import is_silent, needs_fallback
from pipeline.teacher.rules import constrain, is_allowed, log_softmax, timestamp_bounds
from pipeline.teacher.sampling import Sampler, make_sampler
from pipeline.teacher.transformers_engine import _Masks, _Row
from pipeline.teacher.vocabulary import read_vocabulary

VOCABULARY = read_vocabulary(
    tokenizers.Tokenizer.from_file(str(EMBEDDED_FOLDER / "teacher" / "tokenizer.json")),
    {"vocab_size": 2248},
    {"is_multilingual": True, "suppress_tokens": [3, 5], "begin_suppress_tokens": [7, 640]},
)
BEGIN, END = VOCABULARY.first_timestamp, VOCABULARY.end

TOKENS = st.lists(st.one_of(st.integers(10, 60), st.integers(BEGIN, BEGIN + 40)), max_size=8)


def openai_rules(logits: np.ndarray, said: list[int]) -> np.ndarray:
    """The logit filters of openai-whisper, for one row."""
    logits = logits.astype(np.float64)
    if not said:
        logits[list(VOCABULARY.suppressed_first)] = -np.inf
    logits[list(VOCABULARY.suppressed)] = -np.inf
    logits[VOCABULARY.no_timestamps] = -np.inf
    last_was = len(said) >= 1 and said[-1] >= BEGIN
    penultimate_was = len(said) < 2 or said[-2] >= BEGIN
    if last_was:
        if penultimate_was:
            logits[BEGIN:] = -np.inf
        else:
            logits[:END] = -np.inf
    times = [token for token in said if token >= BEGIN]
    if times:
        last = times[-1] if last_was and not penultimate_was else times[-1] + 1
        logits[BEGIN:last] = -np.inf
    if not said:
        logits[:BEGIN] = -np.inf
        logits[BEGIN + 50 + 1 :] = -np.inf
    with np.errstate(all="ignore"):
        logprobs = logits - np.logaddexp.reduce(logits)
        if np.logaddexp.reduce(logprobs[BEGIN:]) > logprobs[:BEGIN].max():
            logits[:BEGIN] = -np.inf
    return logits


@given(TOKENS, st.integers(0, 2**32 - 1), st.floats(0, 8))
@settings(max_examples=60, deadline=None)
def test_what_may_be_said_is_what_openai_allows(said: list[int], seed: int, time_bonus: float):
    scores = np.random.default_rng(seed).normal(size=VOCABULARY.size).astype(np.float32)
    scores[BEGIN:] += time_bonus - 4
    ours = constrain(scores, said, VOCABULARY, timestamps=True)
    assert np.array_equal(np.isneginf(ours), np.isneginf(openai_rules(scores, said)))


@given(st.lists(TOKENS, min_size=1, max_size=3), st.integers(0, 2**32 - 1), st.booleans())
@settings(max_examples=40, deadline=None)
def test_rules_on_a_batch_are_those_of_each_row(batch: list[list[int]], seed: int, timed: bool):
    length = min(len(said) for said in batch)
    batch = [said[:length] for said in batch]  # rows of one batch have said equally much
    scores = np.random.default_rng(seed).normal(size=(len(batch), VOCABULARY.size))
    scores = scores.astype(np.float32)
    sampler = Sampler(temperature=0.0, draws=np.empty(0))
    rows = [
        _Row(sampler=sampler, no_speech_prob=0, language_probs=None, tokens=said, logprobs=[])
        for said in batch
    ]
    together = torch.tensor(scores)
    _Masks(VOCABULARY, torch.device("cpu")).apply(together, rows, timestamps=timed)
    for row, said, alone in zip(together.numpy(), batch, scores, strict=True):
        assert np.array_equal(row, constrain(alone, said, VOCABULARY, timestamps=timed))


def test_without_timestamps_only_the_suppressed_are_forbidden():
    allowed = constrain(np.zeros(VOCABULARY.size), [20], VOCABULARY, timestamps=False)
    assert set(np.flatnonzero(np.isneginf(allowed))) == set(VOCABULARY.suppressed)
    first = constrain(np.zeros(VOCABULARY.size), [], VOCABULARY, timestamps=False)
    assert np.isneginf(first[list(VOCABULARY.suppressed_first)]).all()


@pytest.mark.parametrize(
    ("tokens", "allowed"),
    [
        ([BEGIN, 20, BEGIN + 5], True),
        ([BEGIN, 20, BEGIN + 5, BEGIN + 5, 21, BEGIN + 9], True),
        ([20, BEGIN + 5], False),  # has to begin with a timestamp
        ([BEGIN + 51, 20], False),  # begins too late
        ([BEGIN, BEGIN + 5], False),  # a segment without text
        ([BEGIN + 5, 20, BEGIN + 5], False),  # a segment without length
        ([BEGIN, 20, BEGIN + 5, 21], False),  # a segment without a start
        ([BEGIN, 20, BEGIN + 5, BEGIN + 4, 21], False),  # time runs back
    ],
)
def test_a_label_with_timestamps_is_judged_as_a_whole(tokens: list[int], allowed: bool):
    assert is_allowed(tokens, VOCABULARY) is allowed


def test_the_last_moment_of_a_window_leaves_only_the_end_or_text():
    last = VOCABULARY.size - 1
    bounds = timestamp_bounds([BEGIN, 20, last, last, 21], VOCABULARY)
    assert bounds.first_timestamp > bounds.last_timestamp


def openai_needs_fallback(ratio: float, logprob: float, no_speech: float) -> bool:
    """`decode_with_fallback` of openai-whisper with its default thresholds."""
    needs_fallback = False
    if ratio > 2.4:
        needs_fallback = True
    if logprob < -1.0:
        needs_fallback = True
    if no_speech > 0.6 and logprob < -1.0:
        needs_fallback = False
    return needs_fallback


def openai_skips(logprob: float, no_speech: float) -> bool:
    """The voice activity check of openai-whisper's `transcribe`."""
    should_skip = no_speech > 0.6
    if logprob > -1.0:
        should_skip = False
    return should_skip


BORDERS = st.one_of(st.sampled_from([2.4, -1.0, 0.6]), st.floats(-3, 4))


@given(BORDERS, BORDERS, BORDERS)
def test_decisions_are_those_of_openai(ratio: float, logprob: float, no_speech: float):
    config = DecodingConfig()
    assert needs_fallback(
        compression_ratio=ratio, avg_logprob=logprob, no_speech_prob=no_speech, config=config
    ) == openai_needs_fallback(ratio, logprob, no_speech)
    assert is_silent(avg_logprob=logprob, no_speech_prob=no_speech, config=config) == openai_skips(
        logprob, no_speech
    )


def test_a_threshold_that_is_off_decides_nothing():
    off = DecodingConfig(
        compression_ratio_threshold=None, logprob_threshold=None, no_speech_threshold=None
    )
    assert not needs_fallback(compression_ratio=99, avg_logprob=-99, no_speech_prob=1, config=off)
    assert not is_silent(avg_logprob=-99, no_speech_prob=1, config=off)


def test_the_end_counts_in_the_average_even_where_it_was_not_said():
    said = Generated(tokens=[1, 2, 3], sum_logprob=-8.0, ended=False, no_speech_prob=0.0)
    assert avg_logprob(said) == -2.0  # as OpenAI divides
    assert avg_logprob(Generated(tokens=[], sum_logprob=-1.5, ended=True, no_speech_prob=0)) == -1.5


def test_draws_follow_the_probabilities_and_never_choose_the_forbidden():
    scores = np.array([0.0, -np.inf, np.log(3.0), -np.inf], dtype=np.float32)
    draws = np.linspace(0, 1, 1000, endpoint=False)
    sampler = Sampler(temperature=1.0, draws=draws)
    chosen = [sampler.choose(scores, position) for position in range(len(draws))]
    assert chosen.count(0) == pytest.approx(250, abs=2)
    assert chosen.count(2) == pytest.approx(750, abs=2)


def test_draws_depend_on_seed_clip_and_temperature_alone():
    clip, other = np.zeros(10, np.float32), np.ones(10, np.float32)
    first = make_sampler(clip, 0.4, seed=0, max_tokens=5).draws
    assert (make_sampler(clip.copy(), 0.4, seed=0, max_tokens=5).draws == first).all()
    for changed in (
        make_sampler(other, 0.4, seed=0, max_tokens=5),
        make_sampler(clip, 0.6, seed=0, max_tokens=5),
        make_sampler(clip, 0.4, seed=1, max_tokens=5),
    ):
        assert (changed.draws != first).all()


def test_log_softmax_of_forbidden_tokens_is_minus_infinity():
    found = log_softmax(np.array([0.0, -np.inf, 0.0], dtype=np.float32))
    assert found == pytest.approx([np.log(0.5), -np.inf, np.log(0.5)])


def test_segments_end_where_the_teacher_says_else_with_the_clip():
    tokens = [BEGIN, 20, BEGIN + 50, BEGIN + 60, 21]
    first, second = segments(tokens, VOCABULARY, 3.0)
    assert (first.start, first.end) == (0.0, 1.0)
    assert (second.start, second.end) == (1.2, 3.0)
    (only,) = segments([20, 21], VOCABULARY, 2.345)
    assert (only.start, only.end) == (0.0, 2.34)


def test_compression_ratio_is_openais():
    assert compression_ratio("again " * 100) > 2.4
    assert compression_ratio("") == 0.0

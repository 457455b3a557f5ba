"""From generated tokens to a label with its evidence, the same for every engine."""

import math
import zlib
from collections.abc import Sequence

from pipeline.config import DecodingConfig
from pipeline.schema import Segment
from pipeline.teacher.engine import Generated
from pipeline.teacher.fallback import is_silent
from pipeline.teacher.label import Label
from pipeline.teacher.vocabulary import TIMESTAMP_SECONDS, Vocabulary


def make_label(
    generated: Generated,
    vocabulary: Vocabulary,
    *,
    duration_seconds: float,
    language: str,
    language_probability: float,
    temperature: float,
    config: DecodingConfig,
) -> Label:
    """Read what an engine said; of a silent clip nothing is kept but the evidence.

    Raises:
        ValueError: a part of the evidence is no finite number; no file could hold it.
    """
    average = avg_logprob(generated)
    evidence = (
        average,
        generated.no_speech_prob,
        language_probability,
        *(generated.logprobs or ()),
    )
    if not all(map(math.isfinite, evidence)):
        raise ValueError(
            f"the teacher's evidence is not finite: avg_logprob {average}, no_speech_prob "
            f"{generated.no_speech_prob}, language_probability {language_probability}"
        )
    silent = is_silent(avg_logprob=average, no_speech_prob=generated.no_speech_prob, config=config)
    tokens = [] if silent else generated.tokens
    text = vocabulary.text(tokens)
    logprobs = () if silent or generated.logprobs is None else generated.logprobs
    return Label(
        text=text,
        tokens=tuple(tokens),
        token_logprobs=tuple(round(logprob, 4) for logprob in logprobs[: len(tokens)]),
        segments=segments(tokens, vocabulary, duration_seconds),
        language=language,
        language_probability=round(language_probability, 4),
        avg_logprob=round(average, 4),
        no_speech_prob=round(generated.no_speech_prob, 4),
        compression_ratio=round(compression_ratio(text), 4),
        temperature=temperature,
        truncated=not generated.ended and not silent,
    )


def avg_logprob(generated: Generated) -> float:
    """Return the mean log-probability as OpenAI counts it: the end is one of the tokens."""
    return generated.sum_logprob / (len(generated.tokens) + 1)


def compression_ratio(text: str) -> float:
    """Return bytes per compressed byte, as OpenAI's Whisper computes it; 0 for no text."""
    data = text.encode()
    return len(data) / len(zlib.compress(data))


def segments(
    tokens: Sequence[int], vocabulary: Vocabulary, duration_seconds: float
) -> tuple[Segment, ...]:
    """Cut tokens at their timestamps; text without an end lasts until the clip's end."""
    found: list[Segment] = []
    start, held = 0.0, []
    for token in tokens:
        if token < vocabulary.first_timestamp:
            held.append(token)
            continue
        time = round((token - vocabulary.first_timestamp) * TIMESTAMP_SECONDS, 2)
        if held:
            found.append(Segment(start=start, end=time, text=vocabulary.text(held)))
        start, held = time, []
    if held:
        last = round(round(duration_seconds / TIMESTAMP_SECONDS) * TIMESTAMP_SECONDS, 2)
        found.append(Segment(start=start, end=max(start, last), text=vocabulary.text(held)))
    return tuple(found)

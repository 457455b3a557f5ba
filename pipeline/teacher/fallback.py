"""When a label is not good enough to keep, by the rules of OpenAI's Whisper.

Whisper decodes greedily first. A label that repeats itself or is improbable is decoded again at the
next temperature, unless the clip is silent, and what is left at the last temperature is kept. The
decision is one clip's own; which clips stand beside it in a batch does not count.
"""

from pipeline.config import DecodingConfig


def needs_fallback(
    *,
    compression_ratio: float,
    avg_logprob: float,
    no_speech_prob: float,
    config: DecodingConfig,
) -> bool:
    """Tell whether a label is to be decoded again at the next temperature."""
    improbable = config.logprob_threshold is not None and avg_logprob < config.logprob_threshold
    repetitive = (
        config.compression_ratio_threshold is not None
        and compression_ratio > config.compression_ratio_threshold
    )
    silent = (
        config.no_speech_threshold is not None
        and no_speech_prob > config.no_speech_threshold
        and improbable
    )
    return (repetitive or improbable) and not silent


def is_silent(*, avg_logprob: float, no_speech_prob: float, config: DecodingConfig) -> bool:
    """Tell whether a clip counts as silence, so that its label is empty."""
    if config.no_speech_threshold is None or no_speech_prob <= config.no_speech_threshold:
        return False
    return config.logprob_threshold is None or avg_logprob <= config.logprob_threshold

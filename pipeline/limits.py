"""The options of the filter: every opinion there is about a label, each with its default.

A rule that is not certain enough of itself is off until it is asked for: on planted defects each
one that is on by default is right in at least 95 of 100 rejections (tests/pipeline/test_measured).
"""

import math
from dataclasses import dataclass
from typing import Literal

SWEEP = (0.0, 0.05, 0.1, 0.15, 0.2, 0.4, 0.8, 1.0)
"""Values of `max_wer` that are tried when none are given."""

SpeakingRate = Literal["off", "language", "ledger"]


@dataclass(frozen=True, kw_only=True)
class FilterConfig:
    """What a clip must fulfil to be trained on."""

    max_wer: float = 0.10
    """Highest error rate that is kept (CER where a language is judged by characters); 0.1 is 10 %.
    A clip exactly at the limit is kept."""
    error_budget: int = 0
    """Errors that a short reference may have, whatever its rate: at 10 % a reference of nine words
    must be perfect. 0 is Distil-Whisper's rule, 1 forgives one error."""
    error_budget_min_length: int = 4
    """Words (characters where a language is judged by them) that a reference needs to have a budget
    at all: one error in two words is half of it."""
    require_reference: bool = False
    """Reject clips of corpora without references; else all rules but the error rate judge them."""
    max_compression_ratio: float = 2.4
    """Highest ratio of a label's bytes to its bytes compressed; Whisper's own limit."""
    compression_min_characters: int = 40
    """Shorter labels have no meaningful compression ratio."""
    max_no_speech_prob: float = 0.6
    """Above this, a clip whose label is also improbable is not speech; Whisper's own limit."""
    min_avg_logprob: float | None = None
    """Lowest average log-probability of a label's tokens; Whisper decodes again below -1.0. What a
    teacher is sure of differs from teacher to teacher, so there is no default."""
    min_language_probability: float | None = None
    """Lowest probability of the label's language; Granary takes 0.7, Emilia 0.8."""
    foreign_script: bool = True
    """Reject labels mostly written in a script that their language is not written in."""
    stock_phrases: bool = True
    """Reject labels that are nothing but a phrase Whisper is known to hear in silence, where little
    else speaks for speech."""
    speaking_rate: SpeakingRate = "language"
    """Bounds on characters per second: wide ones that are known of each `language`, or those of the
    `ledger`, around the median of its language; or `off`."""
    min_seconds: float = 0.0
    """Shorter utterances are rejected as too_short; clips.min_seconds spares them the teacher."""
    max_seconds: float | None = None
    """Longer utterances are rejected as too_long."""
    drop_duplicates: bool = False
    """Keep one of several utterances with the same audio and the same label."""
    evaluation_sets: tuple[str, ...] = ()
    """Text, JSONL manifests or shards of evaluation sets; what overlaps them is rejected."""
    contamination_words: int = 10
    """Words in a row (twice as many characters) that make an overlap; OLMoASR takes 10."""
    max_disagreement: float | None = None
    """Highest error rate between the label and that of a second teacher; Granary v2 takes 0.2."""
    second_ledger: str = ""
    """Output folder of a finished run of the second teacher on the same corpora."""
    acceptance_model: str = ""
    """A fitted `acceptance.json`: it judges clips without a reference by their evidence."""
    acceptance_precision: float = 0.9
    """Of what the acceptance model keeps, the share that a reference would have kept."""
    splits: tuple[str, ...] = ("train",)
    """Splits whose labels are judged. The others lose only clips without a reference: an evaluation
    set must not be chosen by the model it evaluates."""

    @property
    def switched_off(self) -> frozenset[str]:
        """The reasons that these options never give, whatever the label."""
        on = {
            "language": self.foreign_script or self.min_language_probability is not None,
            "logprob": self.min_avg_logprob is not None,
            "hallucination": self.stock_phrases,
            "no_reference": self.require_reference,
            "too_short": self.min_seconds > 0,
            "too_long": self.max_seconds is not None,
            "speaking_rate": self.speaking_rate != "off",
            "disagreement": self.max_disagreement is not None,
            "unlikely": bool(self.acceptance_model),
            "duplicate": self.drop_duplicates,
            "contaminated": bool(self.evaluation_sets),
        }
        return frozenset(reason for reason, is_on in on.items() if not is_on)

    def __post_init__(self) -> None:
        """Refuse limits that no clip, or every clip, would pass, and those that lack a partner."""
        _at_least("max_wer", self.max_wer, 0, "a fraction of at least 0; 0.1 is 10 %")
        _at_least("error_budget", self.error_budget, 0, "0 or more errors")
        _at_least("error_budget_min_length", self.error_budget_min_length, 1, "at least 1")
        if not self.max_compression_ratio > 0:
            raise ValueError(
                f"filter.max_compression_ratio is {self.max_compression_ratio}; "
                "give a number above 0"
            )
        _at_least("compression_min_characters", self.compression_min_characters, 0, "0 or more")
        _probability("max_no_speech_prob", self.max_no_speech_prob)
        _probability("min_language_probability", self.min_language_probability)
        _probability("acceptance_precision", self.acceptance_precision)
        if self.min_avg_logprob is not None and not self.min_avg_logprob <= 0:
            raise ValueError(
                f"filter.min_avg_logprob is {self.min_avg_logprob}; the logarithm of a probability "
                "is 0 or less: give a number such as -1.0"
            )
        _at_least("min_seconds", self.min_seconds, 0, "0 or more seconds")
        longest = math.inf if self.max_seconds is None else self.max_seconds
        if not longest > self.min_seconds:
            raise ValueError(
                f"filter.max_seconds is {self.max_seconds}; give more than "
                f"filter.min_seconds, which is {self.min_seconds}"
            )
        _at_least("contamination_words", self.contamination_words, 3, "at least 3 words")
        if self.max_disagreement is not None:
            _at_least("max_disagreement", self.max_disagreement, 0, "a fraction of at least 0")
            if not self.second_ledger:
                raise ValueError(
                    "filter.max_disagreement needs a second teacher: label the same corpora with "
                    "it and give that run's output folder as filter.second_ledger"
                )


def _at_least(name: str, value: float, lowest: float, allowed: str) -> None:
    if not value >= lowest:
        raise ValueError(f"filter.{name} is {value}; give {allowed}")


def _probability(name: str, value: float | None) -> None:
    if value is not None and not 0 <= value <= 1:
        raise ValueError(f"filter.{name} is {value}; give a probability from 0 to 1")

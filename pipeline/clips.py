"""Turn utterances into the training items that the teacher sees, at most 30 s each.

One utterance makes one clip. The rules here look at length only and never at the label, so what
they turn away costs no compute; it is rejected, not failed, because nothing went wrong.
"""

import dataclasses
from dataclasses import dataclass

from pipeline.audio import AudioError, probe
from pipeline.config import ClipConfig
from pipeline.corpora import Utterance
from pipeline.ledger import Failure
from pipeline.schema import SAMPLE_RATE

RULE_STAGE = "clip"
"""Stage of what these rules turned away; it counts as rejected, with `error` as the reason."""


@dataclass(frozen=True, kw_only=True)
class Clip:
    """A span of one recording, still without its audio."""

    utterance: Utterance
    duration_seconds: float

    @property
    def id(self) -> str:
        """One utterance, one clip, one id."""
        return self.utterance.id


def make_clip(utterance: Utterance, config: ClipConfig) -> Clip | Failure:
    """Return the clip of an utterance, or why it cannot be one.

    Lengths are compared in samples, so exactly 30.0 s is still a clip.
    """
    duration = utterance.duration_seconds
    if duration is None:
        try:
            duration = probe(utterance.path).duration_seconds - utterance.start_seconds
        except AudioError as error:
            return failure(utterance, "read", type(error).__name__, str(error))
    utterance = dataclasses.replace(utterance, duration_seconds=max(duration, 0.0))
    if duration <= 0:
        late = f"{utterance.path}: ends before offset {utterance.start_seconds} s"
        return failure(utterance, "read", "AudioError", late)
    if round(duration * SAMPLE_RATE) > round(config.max_seconds * SAMPLE_RATE):
        limit = f"lasts {duration:.2f} s, more than clips.max_seconds {config.max_seconds}"
        return failure(utterance, RULE_STAGE, "too_long", limit)
    if duration < config.min_seconds:
        limit = f"lasts {duration:.3f} s, less than clips.min_seconds {config.min_seconds}"
        return failure(utterance, RULE_STAGE, "too_short", limit)
    return Clip(utterance=utterance, duration_seconds=duration)


def failure(
    utterance: Utterance, stage: str, error: str, message: str, attempts: int = 1
) -> Failure:
    """Record that an utterance did not get through a stage."""
    return Failure(
        id=utterance.id,
        utterance_ids=(utterance.id,),
        duration_seconds=utterance.duration_seconds or 0.0,
        stage=stage,
        error=error,
        message=message,
        attempts=attempts,
    )

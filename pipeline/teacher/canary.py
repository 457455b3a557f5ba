"""Label a few clips whose truth is known, before a worker spends anything on others.

Weights that were cut, a number format that the hardware gets wrong, features or prompts that do not
fit: all of these give labels, and bad ones. Speech of the embedded corpus shows them for a teacher
that knows its voices; clips without speech show for every teacher whether it talks of nothing. The
tolerance is stated in the configuration. Two workers of one run must agree as well.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.audio import load_audio
from pipeline.config import TeacherConfig
from pipeline.schema import EMBEDDED_FOLDER, SAMPLE_RATE
from pipeline.scoring import corpus_rate, normalize, score
from pipeline.teacher.label import Teacher

_LANGUAGE = "en"
_NUM_SPEECH = 3
_SECONDS = 5.0


@dataclass(frozen=True, kw_only=True)
class CanaryClip:
    """One clip with what is in it."""

    name: str
    reference: str
    """Empty where nobody speaks."""
    audio: np.ndarray


@dataclass(frozen=True, kw_only=True)
class CanaryLabel:
    """What the teacher said of one clip."""

    name: str
    reference: str
    text: str
    avg_logprob: float


@dataclass(frozen=True, kw_only=True)
class CanaryResult:
    """What the canary showed; `problems` is empty where all is well."""

    labels: tuple[CanaryLabel, ...]
    wer: float | None
    """Over the clips with speech; None where there are none."""
    most_words: int
    """Words of the longest label of a clip without speech."""
    problems: tuple[str, ...]


class CanaryError(RuntimeError):
    """The teacher failed its canary; the message says how and what to do."""


def canary(teacher: Teacher, config: TeacherConfig) -> CanaryResult:
    """Label the canary's clips and judge the labels by the tolerance of the configuration.

    Speech is used only for the teacher that ships with the package: others do not know its voices.
    """
    clips = [*non_speech(), *(embedded_speech() if config.model == "embedded" else [])]
    labels = teacher.label([clip.audio for clip in clips], _LANGUAGE)
    said = [
        CanaryLabel(
            name=clip.name,
            reference=clip.reference,
            text=label.text,
            avg_logprob=label.avg_logprob,
        )
        for clip, label in zip(clips, labels, strict=True)
    ]
    return judge(said, max_wer=config.canary_max_wer, max_words=config.canary_max_words)


def judge(labels: Sequence[CanaryLabel], *, max_wer: float, max_words: int) -> CanaryResult:
    """Compare labels with what is in the clips."""
    spoken = [label for label in labels if label.reference]
    scores = [score(label.reference, label.text, _LANGUAGE) for label in spoken]
    wer = corpus_rate(scores) if scores else None
    problems = []
    if wer is not None and wer > max_wer:
        heard = "; ".join(f"{label.name}: {label.text!r}" for label in spoken)
        problems.append(
            f"known speech has a WER of {wer:.2f}, more than canary_max_wer {max_wer} ({heard})"
        )
    most = 0
    for label in labels:
        num_words = len(normalize(label.text, _LANGUAGE).split())
        if label.reference:
            continue
        most = max(most, num_words)
        if num_words > max_words:
            problems.append(
                f"{label.name} gave {num_words} words, more than canary_max_words {max_words}: "
                f"{label.text!r}"
            )
    return CanaryResult(labels=tuple(labels), wer=wer, most_words=most, problems=tuple(problems))


def drift(first: CanaryResult, other: CanaryResult, *, max_wer: float) -> tuple[str, ...]:
    """Return how another worker's canary differs from the first one's, beyond the tolerance."""
    before = {label.name: label.text for label in first.labels}
    problems = []
    for label in other.labels:
        reference = before.get(label.name, "")
        if normalize(reference, _LANGUAGE) == normalize(label.text, _LANGUAGE):
            continue
        rate = score(reference, label.text, _LANGUAGE).wer if reference else 1.0
        if rate > max_wer:
            problems.append(
                f"{label.name}: {label.text!r}, where another worker heard {reference!r}"
            )
    return tuple(problems)


def check_canary(result: CanaryResult) -> None:
    """Stop where the canary showed a problem.

    Raises:
        CanaryError: it did.
    """
    if result.problems:
        raise CanaryError(
            f"the teacher failed its canary: {'; '.join(result.problems)}. Check its weights and "
            "number format, raise the tolerance if this teacher is known to be so, or switch the "
            "canary off with teacher.canary false."
        )


def non_speech() -> list[CanaryClip]:
    """Return silence, noise and a tune, the same samples on every machine."""
    num_samples = round(_SECONDS * SAMPLE_RATE)
    time = np.arange(num_samples) / SAMPLE_RATE
    noise = np.random.Generator(np.random.Philox(0)).normal(0.0, 0.05, num_samples)
    hertz = np.array([220.0, 277.2, 329.6, 440.0])[np.arange(num_samples) // 4000 % 4]
    phase = 2 * np.pi * np.cumsum(hertz) / SAMPLE_RATE
    fading = np.exp(-6.0 * (time % 0.25))
    tune = 0.2 * fading * sum(np.sin(n * phase) / n for n in (1, 2, 3))
    sounds = {"silence": np.zeros(num_samples), "noise": noise, "tune": tune}
    return [
        CanaryClip(name=name, reference="", audio=sound.astype(np.float32))
        for name, sound in sounds.items()
    ]


def embedded_speech() -> list[CanaryClip]:
    """Return the first utterances of as many speakers of the embedded validation part."""
    clips: dict[str, CanaryClip] = {}
    with (EMBEDDED_FOLDER / "validation.jsonl").open(encoding="utf-8") as lines:
        for line in lines:
            fields = json.loads(line)
            if fields["speaker"] in clips or not fields["text"]:
                continue
            path = EMBEDDED_FOLDER / fields["audio_filepath"]
            clips[fields["speaker"]] = CanaryClip(
                name=fields["id"],
                reference=fields["text"],
                audio=load_audio(path, fields["offset"], fields["duration"]),
            )
            if len(clips) == _NUM_SPEECH:
                break
    return list(clips.values())

"""Label a few clips whose truth is known, before a worker spends anything on others.

Weights that were cut, a number format that the hardware gets wrong, features, prompts or a
tokenizer that do not fit: all of these give labels, and bad ones. Synthetic speech of the embedded
corpus shows that a teacher of English hears words at all; clips without speech show for every
teacher whether it talks of nothing. The tolerances only tell a broken teacher from a weak one. Two
workers of one run must agree as well.
"""

import json
import math
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
_MAX_COMPRESSION_RATIO = 2.4
"""Above it a label repeats itself, as OpenAI's Whisper judges."""
_MAX_NO_SPEECH_DIFFERENCE = 0.2
"""Between two workers; it comes from one decoder step, so rounding moves it by far less."""
_QUOTED = 80
"""Characters of a label in a message."""


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
    no_speech_prob: float = 0.0
    compression_ratio: float = 0.0


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


def canary(teacher: Teacher, config: TeacherConfig, *, english: bool) -> CanaryResult:
    """Label the canary's clips and judge the labels by the tolerance of the configuration.

    Args:
        teacher: as it was loaded.
        config: has the tolerances.
        english: whether it is to label English; the speech is used only then.

    Raises:
        CanaryError: the teacher cannot label the clips at all.
        MemoryError: it does not fit.
    """
    clips = [*non_speech(), *(embedded_speech() if english else [])]
    try:
        labels = teacher.label([clip.audio for clip in clips], _LANGUAGE)
    except MemoryError:
        raise
    except Exception as error:  # whatever an engine raises over damaged weights
        problem = f"it cannot label them: {type(error).__name__}: {error}"
        raise CanaryError(_failure([problem])) from error
    said = [
        CanaryLabel(
            name=clip.name,
            reference=clip.reference,
            text=label.text,
            avg_logprob=label.avg_logprob,
            no_speech_prob=label.no_speech_prob,
            compression_ratio=label.compression_ratio,
        )
        for clip, label in zip(clips, labels, strict=True)
    ]
    return judge(said, max_wer=config.canary_max_wer, max_words=config.canary_max_words)


def judge(labels: Sequence[CanaryLabel], *, max_wer: float, max_words: int) -> CanaryResult:
    """Compare labels with what is in the clips."""
    spoken = [label for label in labels if label.reference]
    silent = [label for label in labels if not label.reference]
    scores = [score(label.reference, label.text, _LANGUAGE) for label in spoken]
    wer = corpus_rate(scores) if scores else None
    problems = []
    for label in labels:
        if not math.isfinite(label.avg_logprob + label.no_speech_prob):
            problems.append(f"{label.name} gave probabilities that are no numbers")
        elif label.compression_ratio > _MAX_COMPRESSION_RATIO:
            problems.append(f"{label.name} gave a label that repeats itself: {_quote(label)}")
    if wer is not None and wer > max_wer:
        heard = "; ".join(f"{label.name}: {_quote(label)}" for label in spoken)
        problems.append(
            f"known speech has a WER of {wer:.2f}, more than canary_max_wer {max_wer} ({heard})"
        )
    for label in silent:
        if (num_words := _num_words(label)) > max_words:
            problems.append(
                f"{label.name} gave {num_words} words, more than canary_max_words {max_words}: "
                f"{_quote(label)}"
            )
    return CanaryResult(
        labels=tuple(labels),
        wer=None if wer is None else round(wer, 4),
        most_words=max(map(_num_words, silent), default=0),
        problems=tuple(problems),
    )


def drift(
    first: CanaryResult, other: CanaryResult, *, max_wer: float, max_words: int
) -> tuple[str, ...]:
    """Return how another worker's canary differs from the first one's, beyond the tolerance.

    The same tolerance as against the truth: other hardware rounds differently, and a teacher that
    hears a word in noise may hear another one there.
    """
    before = {label.name: label for label in first.labels}
    problems = []
    for label in other.labels:
        if (known := before.get(label.name)) is None:
            continue
        difference = abs(known.no_speech_prob - label.no_speech_prob)
        texts = [normalize(each.text, _LANGUAGE) for each in (known, label)]
        if label.reference:
            same = texts[0] == texts[1] or (
                bool(texts[0]) and score(known.text, label.text, _LANGUAGE).wer <= max_wer
            )
        else:
            same = texts[0] == texts[1] or abs(_num_words(known) - _num_words(label)) <= max_words
        if not same:
            problems.append(
                f"{label.name}: {_quote(label)}, where another worker heard {_quote(known)}"
            )
        elif difference > _MAX_NO_SPEECH_DIFFERENCE:
            problems.append(
                f"{label.name} is no speech with a probability of {label.no_speech_prob:.2f}, "
                f"where another worker has {known.no_speech_prob:.2f}"
            )
    return tuple(problems)


def check_canary(result: CanaryResult) -> None:
    """Stop where the canary showed a problem.

    Raises:
        CanaryError: it did.
    """
    if result.problems:
        raise CanaryError(_failure(result.problems))


def check_drift(first: CanaryResult, other: CanaryResult, config: TeacherConfig) -> None:
    """Stop where two workers do not hear the same.

    Raises:
        CanaryError: they do not.
    """
    max_wer, max_words = config.canary_max_wer, config.canary_max_words
    if problems := drift(first, other, max_wer=max_wer, max_words=max_words):
        raise CanaryError(_failure(problems))


def _failure(problems: Sequence[str]) -> str:
    return (
        f"the teacher failed its canary, clips with known content: {'; '.join(problems)}. Check "
        "its weights, tokenizer and number format, raise the tolerance if this teacher is known to "
        "be so, or switch the canary off with teacher.canary false."
    )


def _quote(label: CanaryLabel) -> str:
    text = label.text
    return repr(text if len(text) <= _QUOTED else f"{text[:_QUOTED]}…")


def _num_words(label: CanaryLabel) -> int:
    return len(normalize(label.text, _LANGUAGE).split())


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

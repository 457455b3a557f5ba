"""Turn utterances into the training items that the teacher sees, at most 30 s each.

An utterance is a clip of its own, shares one with others (packing), or is cut into several where it
is longer than Whisper's window. The rules here look at length and sound only and never at a label,
so what they turn away costs no compute; it is rejected, not failed, because nothing went wrong.
"""

import dataclasses
import hashlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.audio import AudioError
from pipeline.config import ClipConfig
from pipeline.corpora.utterance import RULE_STAGE, Utterance
from pipeline.guard import CrashError, load_audio, probe
from pipeline.ledger import Failure
from pipeline.packing import OPEN_PACKS, pack, place
from pipeline.schema import SAMPLE_RATE, Sample


@dataclass(frozen=True, kw_only=True)
class Span:
    """An utterance, or a part of a long one, as it stands in its recording."""

    utterance: Utterance
    start_seconds: float
    """In the recording."""
    duration_seconds: float

    @property
    def num_samples(self) -> int:
        """At 16 kHz."""
        return round(self.duration_seconds * SAMPLE_RATE)


@dataclass(frozen=True, kw_only=True)
class Clip:
    """One training item, still without its audio: one span, or several one after the other."""

    id: str
    spans: tuple[Span, ...]
    gap_samples: int = 0
    """Silence between spans; a span also starts on the 0.02 s grid."""

    @property
    def language(self) -> str:
        """That of all its utterances."""
        return self.spans[0].utterance.language

    @property
    def duration_seconds(self) -> float:
        """As planned; a recording that ends early makes its clip shorter."""
        lengths = [span.num_samples for span in self.spans]
        return (place(lengths, self.gap_samples)[-1] + lengths[-1]) / SAMPLE_RATE


@dataclass(frozen=True, kw_only=True)
class Heard:
    """A clip as it was read: which spans were there, and where each is in the audio."""

    clip: Clip
    """Without the spans that could not be read."""
    starts: tuple[int, ...]
    """First sample of each span."""
    lengths: tuple[int, ...]
    """Samples of each span, as many as there really are."""
    hashes: tuple[str, ...]
    """Of each span's samples."""

    @property
    def num_samples(self) -> int:
        """Of the whole clip."""
        return self.starts[-1] + self.lengths[-1]


@dataclass(frozen=True, kw_only=True)
class Clips:
    """What became of the utterances of a block before the teacher."""

    clips: tuple[Clip, ...]
    long: tuple[Span, ...]
    """Longer than a clip: the teacher has to find out where to cut."""
    failures: tuple[Failure, ...]


FindSpeech = Callable[[Span, float], list[Span]]
"""Cut a long span into spans of at most so many seconds at pauses."""


def make_clips(
    utterances: Iterable[Utterance], config: ClipConfig, find_speech: FindSpeech
) -> Clips:
    """Measure, cut and pack the utterances of a block.

    Lengths are compared in samples, so exactly 30.0 s is still a clip.
    """
    short: list[Span] = []
    clips: list[Clip] = []
    long: list[Span] = []
    failures: list[Failure] = []
    for utterance in utterances:
        span = _measure(utterance, config)
        if isinstance(span, Failure):
            failures.append(span)
        elif span.num_samples <= round(config.max_seconds * SAMPLE_RATE):
            short.append(span)
        elif config.long == "sequential":
            long.append(span)
        else:
            try:
                parts = find_speech(span, config.max_seconds)
            except AudioError as error:
                failures.append(_unreadable(utterance, error))
                continue
            clips += [Clip(id=part_id(part), spans=(part,)) for part in parts]
            if not parts:
                nothing = "no voice was found in it"
                failures.append(failure(utterance, RULE_STAGE, "no_speech", nothing))
    clips += pack_clips(short, config) if config.pack == "before_label" else map(_alone, short)
    return Clips(clips=tuple(clips), long=tuple(long), failures=tuple(failures))


def pack_clips(spans: list[Span], config: ClipConfig) -> list[Clip]:
    """Put spans together into clips, in the order of the first span of each."""

    def key(span: Span) -> tuple[str, str, str]:
        utterance = span.utterance
        together = {
            "speaker": utterance.speaker or utterance.path,
            "recording": utterance.path,
            "any": "",
        }
        return together[config.pack_by], utterance.language, utterance.licence

    packs = pack(
        spans,
        lambda span: span.num_samples,
        key,
        max_samples=round(min(config.max_seconds, config.pack_seconds) * SAMPLE_RATE),
        gap_samples=config.pack_gap_samples,
        open_packs=1 if config.pack_by == "recording" else OPEN_PACKS,
    )
    return [
        Clip(
            id=pack_id([span.utterance.id for span in spans]),
            spans=tuple(spans),
            gap_samples=config.pack_gap_samples,
        )
        for spans in packs
    ]


def read_clip(clip: Clip) -> tuple[tuple[Heard, np.ndarray] | None, list[Failure]]:
    """Decode a clip into float32 mono at 16 kHz, shape (samples,).

    A span that cannot be read is left out and fails alone. The rest of a pack moves up, so reading
    it again gives the same sound.
    """
    spans, parts, failures = [], [], []
    for span in clip.spans:
        try:
            part = load_span(span)
        except AudioError as error:
            failures.append(_unreadable(span.utterance, error))
        else:
            spans.append(span)
            parts.append(part)
    if not parts:
        return None, failures
    lengths = [part.size for part in parts]
    starts = place(lengths, clip.gap_samples)
    heard = Heard(
        clip=dataclasses.replace(clip, spans=tuple(spans)),
        starts=tuple(starts),
        lengths=tuple(lengths),
        hashes=tuple(map(audio_sha256, parts)),
    )
    return (heard, assemble(parts, starts)), failures


def load_span(span: Span) -> np.ndarray:
    """Decode one span; float32 mono at 16 kHz, shape (samples,).

    Raises:
        AudioError: see `load_audio`.
    """
    utterance = span.utterance
    return load_audio(
        utterance.path, span.start_seconds, span.duration_seconds, channel=utterance.channel
    )


def load_sample(sample: Sample, utterances: Mapping[str, Utterance]) -> np.ndarray:
    """Decode the sound of a labelled clip, or of a piece of one, again; shaped as a span's.

    Args:
        sample: says which utterances, and where each is in the sound.
        utterances: those of its block by id.

    Raises:
        AudioError: one of them can no longer be read.
    """
    parts = [
        load_span(
            Span(
                utterance=utterances[u.id],
                start_seconds=u.recording_start_seconds,
                duration_seconds=u.duration,
            )
        )
        for u in sample.utterances
    ]
    return assemble(parts, [round(u.start * SAMPLE_RATE) for u in sample.utterances])


def assemble(parts: Sequence[np.ndarray], starts: Sequence[int]) -> np.ndarray:
    """Lay parts down where they start, with silence between them."""
    if len(parts) == 1:
        return parts[0]
    audio = np.zeros(starts[-1] + parts[-1].size, dtype=np.float32)
    for start, part in zip(starts, parts, strict=True):
        audio[start : start + part.size] = part
    return audio


def audio_sha256(samples: np.ndarray) -> str:
    """Hash a sound as a shard stores it, in 16 bits; the level of noise below that is no matter."""
    return hashlib.sha256(np.rint(samples * 32768.0).astype("<i4").tobytes()).hexdigest()


def part_id(span: Span) -> str:
    """Name a part of a long utterance after where it begins, in milliseconds."""
    return f"{span.utterance.id}-{round(span.start_seconds * 1000):08d}"


def pack_id(utterance_ids: list[str]) -> str:
    """Name a pack after its first utterance."""
    more = len(utterance_ids) - 1
    return f"{utterance_ids[0]}_and_{more}_more" if more else utterance_ids[0]


def first_of_pack(name: str) -> str | None:
    """Return the first utterance of a pack by the pack's name, or None where it names no pack."""
    found = re.fullmatch(r"(.+)_and_\d+_more", name)
    return found and found[1]


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


def _unreadable(utterance: Utterance, error: AudioError) -> Failure:
    attempts = error.attempts if isinstance(error, CrashError) else 1
    return failure(utterance, "read", type(error).__name__, str(error), attempts)


def _alone(span: Span) -> Clip:
    return Clip(id=span.utterance.id, spans=(span,))


def _measure(utterance: Utterance, config: ClipConfig) -> Span | Failure:
    """Return the span of an utterance, or why it cannot be used."""
    duration = utterance.duration_seconds
    if duration is None:
        try:
            duration = probe(utterance.path).duration_seconds - utterance.start_seconds
        except AudioError as error:
            return _unreadable(utterance, error)
    utterance = dataclasses.replace(utterance, duration_seconds=max(duration, 0.0))
    if duration <= 0:
        late = f"{utterance.path}: ends before offset {utterance.start_seconds} s"
        return failure(utterance, "read", "AudioError", late)
    too_long = round(duration * SAMPLE_RATE) > round(config.max_seconds * SAMPLE_RATE)
    if too_long and config.long == "reject":
        limit = (
            f"lasts {duration:.2f} s, more than clips.max_seconds {config.max_seconds}; "
            "clips.long can have it cut"
        )
        return failure(utterance, RULE_STAGE, "too_long", limit)
    if duration < config.min_seconds:
        limit = f"lasts {duration:.3f} s, less than clips.min_seconds {config.min_seconds}"
        return failure(utterance, RULE_STAGE, "too_short", limit)
    return Span(
        utterance=utterance,
        start_seconds=utterance.start_seconds,
        duration_seconds=duration,
    )

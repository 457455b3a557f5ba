"""Clips to judge models by: of shards, of a pipeline run's config, or of a NeMo manifest."""

import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from distill.evaluate_config import EvaluateConfig
from distill.shards import Shard, by_turns, read_corpora, shard_paths
from pipeline.audio import AudioError, decode_flac, load_audio, probe
from pipeline.schema import MAX_CLIP_SECONDS, SAMPLE_RATE, ClipUtterance, Sample
from pipeline.scoring import language_code

_GAP_SECONDS = 0.5
"""Silence between clips that are joined to a long recording."""


@dataclass(frozen=True, kw_only=True)
class EvaluationClip:
    """A clip with its reference; its audio is decoded when it is asked for."""

    id: str
    reference: str
    language: str
    speaker: str
    recording: str
    start_seconds: float
    duration_seconds: float
    utterances: tuple[ClipUtterance, ...] = ()
    flac: bytes = b""
    path: str = ""
    parts: tuple["EvaluationClip", ...] = field(default=(), repr=False)
    """What a long recording was joined from."""
    samples: np.ndarray | None = field(default=None, repr=False, compare=False)
    """Audio that takes the place of the recorded."""

    def audio(self) -> np.ndarray:
        """Decode: float32 mono at 16 kHz.

        Raises:
            AudioError: the file is missing or damaged.
        """
        if self.samples is not None:
            return self.samples
        if self.parts:
            gap = np.zeros(round(_GAP_SECONDS * SAMPLE_RATE), dtype=np.float32)
            pieces = [piece for part in self.parts for piece in (part.audio(), gap)]
            return np.concatenate(pieces[:-1])
        if self.flac:
            return decode_flac(self.flac)
        longest = self.duration_seconds + 1.0  # a whole meeting, too
        return load_audio(self.path, self.start_seconds, self.duration_seconds, max_seconds=longest)


def read_clips(config: EvaluateConfig) -> list[EvaluationClip]:
    """Read the clips that have a reference, in order of language and length.

    A limit takes as many of each corpus.

    Raises:
        FileNotFoundError: a shard folder is not a finished dataset.
        ValueError: no clip has a reference, or a data source is of no known kind.
    """
    corpora = [corpus for source in config.data for corpus in _corpora(source, config)]
    with_reference = [filter(lambda clip: clip.reference.strip(), clips) for clips in corpora]
    kept = itertools.islice(by_turns(with_reference), config.max_clips)
    ordered = sorted(kept, key=lambda c: (c.language, c.duration_seconds, c.id))
    if not ordered:
        raise ValueError(f"no clip of split {config.split!r} has a reference to compare with")
    return ordered


def is_manifest(source: str) -> bool:
    """Tell whether a data source is a NeMo manifest, which knows no splits."""
    return Path(source).suffix in (".jsonl", ".json")


def spread(clips: list[EvaluationClip], number: int) -> list[EvaluationClip]:
    """Take so many of the clips, evenly spaced: of all languages and lengths if they are sorted."""
    number = min(number, len(clips))
    return [clips[place * len(clips) // number] for place in range(number)]


def long_recordings(clips: list[EvaluationClip], max_seconds: float) -> list[EvaluationClip]:
    """Join the clips of each recording (or speaker), in order, up to a length.

    Clips that are longer than a window already stay as they are.
    """
    found = [clip for clip in clips if clip.duration_seconds > MAX_CLIP_SECONDS]
    short = [clip for clip in clips if clip.duration_seconds <= MAX_CLIP_SECONDS]
    short.sort(key=lambda c: (c.language, c.speaker, c.recording, c.start_seconds, c.id))
    for _, group in itertools.groupby(short, key=lambda c: (c.language, c.speaker)):
        held: list[EvaluationClip] = []
        for clip in group:
            if (
                held
                and sum(c.duration_seconds + _GAP_SECONDS for c in held) + clip.duration_seconds
                > max_seconds
            ):
                found.append(_join(held))
                held = []
            held.append(clip)
        found.append(_join(held))
    return found


def _join(parts: list[EvaluationClip]) -> EvaluationClip:
    first = parts[0]
    seconds = sum(part.duration_seconds for part in parts) + _GAP_SECONDS * (len(parts) - 1)
    return EvaluationClip(
        id=f"{first.id}+{len(parts) - 1}",
        reference=" ".join(part.reference for part in parts),
        language=first.language,
        speaker=first.speaker,
        recording=first.recording,
        start_seconds=0.0,
        duration_seconds=seconds,
        parts=tuple(parts),
    )


def _corpora(source: str, config: EvaluateConfig) -> list[Iterator[EvaluationClip]]:
    """Return the clips of each corpus of a source, read when they are asked for."""
    path = Path(source)
    if is_manifest(source):
        return [_read_manifest(path, config.language)]
    if path.suffix in (".yaml", ".yml"):
        shards = _shards_of_run(path, config.split)
    else:
        shards = shard_paths([source], config.split)
    return [itertools.starmap(_shard_clip, clips) for clips in read_corpora(shards)]


def _shards_of_run(path: Path, split: str) -> list[Shard]:
    """List the shards that a run of whisper-pipeline wrote by its config."""
    try:
        settings = yaml.safe_load(path.read_bytes())
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is no YAML: {' '.join(str(error).split())}") from error
    output = settings.get("output") if isinstance(settings, dict) else None
    if not isinstance(output, str):
        raise ValueError(f"{path} has no `output`: it is not a config of whisper-pipeline")
    try:
        return shard_paths([output], split)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"{path} has not been run to its end: do it with `whisper-pipeline run --config "
            f"{path}`. It writes the clips of its corpora, of whatever kind they are, and those of "
            f"a split that filter.splits does not name whatever their labels. ({error})"
        ) from error


def _shard_clip(sample: Sample, flac: bytes) -> EvaluationClip:
    return EvaluationClip(
        id=sample.id, reference=sample.reference, language=sample.language,
        speaker=sample.speaker, recording=sample.recording,
        start_seconds=sample.start_seconds, duration_seconds=sample.duration_seconds,
        utterances=sample.utterances, flac=flac,
    )  # fmt: skip


def _read_manifest(path: Path, language: str) -> Iterator[EvaluationClip]:
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        if not line.strip():
            continue
        try:
            clip = _manifest_clip(json.loads(line), path, number, language)
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path}, line {number}: no NeMo manifest line ({error!r})") from error
        yield clip


def _manifest_clip(fields: Any, path: Path, number: int, language: str) -> EvaluationClip:
    """Make a clip of a line; what is null is taken as absent, and a text as one that says nothing.

    Raises:
        ValueError: a value that cannot be.
        KeyError: no audio or no text is named.
        TypeError: a value is of another type.
    """
    audio = str(path.parent / fields["audio_filepath"])
    reference, spoken = fields["text"] or "", fields.get("lang") or language
    if not isinstance(reference, str) or not isinstance(spoken, str):
        raise TypeError(f"text is {reference!r} and lang is {spoken!r}; they must be strings")
    language_code(spoken)
    start, seconds = float(fields.get("offset") or 0.0), fields.get("duration")
    seconds = _rest(audio, start) if seconds is None else float(seconds)
    id_ = str(fields.get("id") or f"{Path(audio).stem}-{number}")
    return EvaluationClip(
        id=id_, reference=reference, language=spoken,
        speaker=str(fields.get("speaker") or ""), recording=fields["audio_filepath"],
        start_seconds=start, duration_seconds=seconds, path=audio,
        utterances=(
            ClipUtterance(id=id_, start=0.0, duration=seconds, reference=reference),
        ),
    )  # fmt: skip


def _rest(audio: str, start: float) -> float:
    """Return the seconds from `start` to the end; none of a file that will turn out unreadable."""
    try:
        return probe(audio).duration_seconds - start
    except AudioError:
        return 0.0

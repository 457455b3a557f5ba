"""Word error rates while a student is trained, on shards that it does not learn from.

The student is chosen by its macro average: the mean over the corpora, so that a large easy corpus
does not outvote a small hard one. Several processes share the clips.
"""

import functools
import itertools
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed
from transformers import WhisperForConditionalGeneration, WhisperProcessor

from distill.config import ValidationConfig
from distill.shards import by_turns, read_corpora, shard_paths
from distill.student import is_multilingual
from pipeline.audio import decode_flac
from pipeline.features import log_mels
from pipeline.schema import Sample
from pipeline.scoring import score

Clip = tuple[Sample, bytes]


@dataclass(frozen=True, kw_only=True)
class Heard:
    """What a student made of one clip."""

    sample: Sample
    text: str
    errors: int
    length: int
    """Reference words, or characters where the language is judged by them."""


def validation_clips(config: ValidationConfig) -> list[Clip]:
    """Read the clips that have a reference, by language and length.

    A limit takes as many of each corpus.

    Raises:
        ValueError: there are none.
    """
    corpora = read_corpora(shard_paths(config.shards, config.split))
    with_reference = [filter(lambda clip: clip[0].reference.strip(), clips) for clips in corpora]
    kept = itertools.islice(by_turns(with_reference), config.max_clips)
    found = sorted(kept, key=lambda c: (c[0].language, c[0].duration_seconds, c[0].id))
    if not found:
        raise ValueError(
            f"no clip of split {config.split!r} in {', '.join(config.shards)} has a reference"
        )
    return found


def hear(
    student: WhisperForConditionalGeneration,
    processor: WhisperProcessor,
    clips: list[Clip],
    batch_size: int,
) -> list[Heard]:
    """Decode clips greedily and compare each with its reference."""
    was_training = student.training
    student.eval()
    found = []
    for language, group in itertools.groupby(clips, key=lambda c: c[0].language):
        same = list(group)
        for first in range(0, len(same), batch_size):
            batch = same[first : first + batch_size]
            texts = _decode(student, processor, batch, language)
            found += [
                _compare(sample, text.strip())
                for (sample, _), text in zip(batch, texts, strict=True)
            ]
    student.train(was_training)
    return found


@torch.inference_mode()
def _decode(
    student: WhisperForConditionalGeneration,
    processor: WhisperProcessor,
    batch: list[Clip],
    language: str,
) -> list[str]:
    sounds = (decode_flac(flac) for _, flac in batch)
    features = torch.from_numpy(log_mels(sounds, num_mels=student.config.num_mel_bins))
    task: dict[str, Any] = {}
    if is_multilingual(student):
        task = {"language": language, "task": "transcribe"}
    tokens: Any = student.generate(
        features.to(student.device), num_beams=1, do_sample=False, **task
    )
    return processor.batch_decode(tokens.cpu(), skip_special_tokens=True)


def _compare(sample: Sample, text: str) -> Heard:
    result = score(sample.reference, text, sample.language)
    return Heard(sample=sample, text=text, errors=result.errors, length=result.reference_length)


def error_rates(counts: dict[str, tuple[int, int]]) -> dict[str, float]:
    """Return the rate of each corpus, and `wer`, their mean, from errors and reference lengths."""
    rates = {corpus: errors / max(length, 1) for corpus, (errors, length) in counts.items()}
    return {"wer": sum(rates.values()) / len(rates), **{f"wer_{c}": r for c, r in rates.items()}}


def counts_of(heard: list[Heard]) -> dict[str, tuple[int, int]]:
    """Add up errors and reference lengths by corpus."""
    found: dict[str, tuple[int, int]] = {}
    for clip in heard:
        errors, length = found.get(clip.sample.corpus, (0, 0))
        found[clip.sample.corpus] = (errors + clip.errors, length + clip.length)
    return found


def shared_counts(heard: list[Heard], num_processes: int) -> dict[str, tuple[int, int]]:
    """Add up the counts of all processes; every one of them gets the sums."""
    counts = counts_of(heard)
    if num_processes == 1:
        return counts
    gathered: list[Any] = [None] * num_processes
    torch.distributed.all_gather_object(gathered, counts)
    corpora = sorted(functools.reduce(set.union, map(set, gathered), set()))
    empty = (0, 0)
    return {
        corpus: (
            sum(part.get(corpus, empty)[0] for part in gathered),
            sum(part.get(corpus, empty)[1] for part in gathered),
        )
        for corpus in corpora
    }

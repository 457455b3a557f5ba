"""Clips of tones and noise, datasets made of them, narrow students, and trainings that die."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import WhisperConfig, WhisperForConditionalGeneration

from distill.losses import IGNORED
from distill.trainer import DistillationTrainer
from pipeline.schema import (
    SAMPLE_RATE,
    SCHEMA_VERSION,
    ClipUtterance,
    Index,
    Sample,
    Segment,
    ShardEntry,
    Totals,
    to_json,
)
from pipeline.shards import write_shard

TEXTS = (
    "the old house",
    "a boat on the river",
    "they came home late",
    "",
    "seven birds",
    "the colour of the sky was grey",
    "",
    "we sold it again",
)
SECONDS = (1.0, 2.5, 3.7, 0.8, 1.2, 6.0, 30.0, 2.0)


def make_sample(text: str = "the old house", seconds: float = 1.0, **fields: Any) -> Sample:
    """A clip whose label is its reference, in one segment as long as the clip."""
    values: dict[str, Any] = {
        "id": "clip-0",
        "corpus": "tones",
        "split": "train",
        "language": "en",
        "language_probability": 1.0,
        "speaker": "tone",
        "licence": "cc0-1.0",
        "recording": "tones.wav",
        "start_seconds": 0.0,
        "duration_seconds": seconds,
        "reference": text,
        "pseudo_label": text,
        "tokens": (),
        "segments": (Segment(start=0.0, end=seconds, text=text),) if text else (),
        "previous_pseudo_label": "",
        "wer": 0.0,
        "cer": 0.0,
        "metric": "wer",
        "substitutions": 0,
        "deletions": 0,
        "insertions": 0,
        "avg_logprob": -0.2,
        "no_speech_prob": 0.0,
        "compression_ratio": 1.0,
        "temperature": 0.0,
        "truncated": False,
        "teacher": "tiny",
        "teacher_revision": "0",
        **fields,
    }
    values["utterances"] = fields.get(
        "utterances",
        (ClipUtterance(id=values["id"], start=0.0, duration=seconds, reference=text),),
    )
    return Sample(**values)


def make_audio(seconds: float, seed: int = 0) -> np.ndarray:
    """A tone in noise."""
    time = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    noise = np.random.default_rng(seed).normal(0, 0.01, time.size)
    return (0.2 * np.sin(2 * np.pi * 110 * (seed + 2) * time) + noise).astype(np.float32)


def make_clips(split: str = "train", repeat: int = 1) -> list[tuple[Sample, np.ndarray]]:
    """Clips of several lengths up to exactly 30.0 s, two of them without text."""
    clips = []
    for number in range(repeat * len(TEXTS)):
        text, seconds = TEXTS[number % len(TEXTS)], SECONDS[number % len(TEXTS)]
        previous = TEXTS[(number - 1) % len(TEXTS)]
        sample = make_sample(
            text, seconds, id=f"{split}-{number:02d}", split=split, previous_pseudo_label=previous
        )
        clips.append((sample, make_audio(seconds, number)))
    return clips


def write_dataset(folder: Path, *shards: list[tuple[Sample, np.ndarray]]) -> Path:
    """Write shards and their index as `whisper-pipeline run` does."""
    (folder / "shards").mkdir(parents=True, exist_ok=True)
    entries: list[ShardEntry] = [
        write_shard(folder / "shards" / f"{clips[0][0].split}-{number:05d}.tar", clips)
        for number, clips in enumerate(shards)
    ]
    kept = sum(entry.num_samples for entry in entries)
    hours = sum(entry.duration_seconds for entry in entries) / 3600
    index = Index(
        schema_version=SCHEMA_VERSION,
        created_with="tests",
        teacher={},
        decoding={},
        clips={},
        filter={},
        label_key="tests",
        shard_key="tests",
        shards=tuple(entries),
        totals=Totals(
            planned=kept,
            kept=kept,
            rejected={},
            failed={},
            hours_planned=hours,
            hours_kept=hours,
            teacher_seconds=0.0,
            wall_seconds=0.0,
            rtfx=0.0,
        ),
    )
    (folder / "index.json").write_text(to_json(index))
    return folder


def make_training_batch(frames: int = 100, seed: int = 0) -> dict[str, Any]:
    """Three rows of different length, the second one with a prompt of three tokens."""
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randint(600, (3, 9), generator=generator)
    labels = torch.randint(600, (3, 9), generator=generator)
    labels[0, 4:] = IGNORED
    labels[1, :3] = IGNORED
    labels[2, 1:] = IGNORED
    features = torch.randn(3, 80, frames, generator=generator)
    return {"input_features": features, "decoder_input_ids": inputs, "labels": labels}


def narrow(
    teacher: WhisperForConditionalGeneration, width: int = 16
) -> WhisperForConditionalGeneration:
    """A student with its own encoder, of another width than its teacher."""
    sizes = {"d_model": width, "encoder_ffn_dim": 2 * width, "decoder_ffn_dim": 2 * width}
    torch.manual_seed(1)
    sizes["decoder_layers"] = 2
    return WhisperForConditionalGeneration(
        WhisperConfig.from_dict(teacher.config.to_dict() | sizes)
    )


class KilledError(Exception):
    """A training that was killed at a step."""


def kill_at(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    def die(trainer: DistillationTrainer, *arguments: Any, **options: Any) -> Any:
        if trainer.state.global_step == step:
            raise KilledError
        return compute(trainer, *arguments, **options)

    compute = DistillationTrainer.compute_loss
    monkeypatch.setattr(DistillationTrainer, "compute_loss", die)

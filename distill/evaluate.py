"""`whisper-distill evaluate`: a student and its teacher on the same clips, one after the other.

Word error rates come from `pipeline.scoring`, the function that filtered the training labels, with
a bootstrap interval over clips. Both models decode the same batches in the same process, so their
speeds can be compared; feature extraction is common to both and not counted.
"""

import dataclasses
import itertools
import json
import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import WhisperForConditionalGeneration, WhisperProcessor

from distill.config import EvaluateConfig
from distill.data import read_shard, shard_paths
from distill.student import load_model, load_processor, num_parameters
from pipeline.audio import decode_flac
from pipeline.schema import SAMPLE_RATE, Sample
from pipeline.scoring import Score, bootstrap_interval, corpus_rate, score

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class ModelResult:
    """How one model did on a split."""

    model: str
    wer: float
    """Summed errors over summed reference words, normalised; a fraction."""
    wer_low: float
    wer_high: float
    """95 % bootstrap interval."""
    parameters: int
    decode_seconds: float
    """Encoder and greedy decoding, without features."""
    rtfx: float
    """Seconds of audio per second of decoding."""


@dataclass(frozen=True, kw_only=True)
class Results:
    """`results.json`."""

    split: str
    num_clips: int
    audio_seconds: float
    models: dict[str, ModelResult]
    """`student`, and `teacher` where one was given."""
    speed_ratio: float | None
    """Teacher's decoding time over the student's."""
    parameter_ratio: float | None
    """The student's parameters over the teacher's."""


@dataclass(frozen=True, kw_only=True)
class EvaluationBatch:
    """Clips of one language with their features (batch, mels, 3000)."""

    samples: list[Sample]
    features: torch.Tensor


def evaluate(config: EvaluateConfig) -> Results:
    """Decode a split with both models, write `results.json` and a line per clip beside it.

    Raises:
        FileNotFoundError: a shard folder is not a finished dataset.
        ValueError: the split has no clip with a reference, or there is no such model.
    """
    clips = read_clips(config)
    samples = [sample for sample, _ in clips]
    output = Path(config.output)
    output.parent.mkdir(parents=True, exist_ok=True)
    models = {}
    for role, name in (("teacher", config.teacher), ("student", config.student)):
        if name is None:
            continue
        model, processor = load_model(name).eval(), load_processor(name)
        if config.device == "auto" and torch.cuda.is_available():
            model.cuda()  # pyright: ignore[reportCallIssue] (wrapped by transformers)
        hypotheses, seconds = transcribe(model, processor, clips, config.batch_size)
        scores = score_all(samples, hypotheses)
        models[role] = judge(config, name, model, samples, scores, seconds)
        write_hypotheses(
            output.with_name(f"{output.stem}-{role}.jsonl"), samples, hypotheses, scores
        )
        logger.info("%s: WER %.2f %%, %.1f s", role, models[role].wer * 100, seconds)
    results = compare(config, samples, models)
    output.write_text(json.dumps(dataclasses.asdict(results), indent=2) + "\n")
    return results


def read_clips(config: EvaluateConfig) -> list[tuple[Sample, bytes]]:
    """Read the split's clips that have a reference, in order of language and length.

    Raises:
        ValueError: there are none.
    """
    clips = itertools.chain.from_iterable(map(read_shard, shard_paths(config.shards, config.split)))
    kept = itertools.islice((c for c in clips if c[0].reference.strip()), config.max_clips)
    ordered = sorted(kept, key=lambda c: (c[0].language, c[0].duration_seconds, c[0].id))
    if not ordered:
        raise ValueError(f"no clip of split {config.split!r} has a reference to compare with")
    return ordered


def make_batches(
    clips: list[tuple[Sample, bytes]], processor: WhisperProcessor, batch_size: int
) -> Iterator[EvaluationBatch]:
    """Group clips of one language and compute their features, as they are asked for."""
    for _, group in itertools.groupby(clips, key=lambda c: c[0].language):
        clips_of_language = list(group)
        for first in range(0, len(clips_of_language), batch_size):
            batch = clips_of_language[first : first + batch_size]
            features = processor.feature_extractor(
                [decode_flac(flac) for _, flac in batch],
                sampling_rate=SAMPLE_RATE,
                return_tensors="pt",
            ).input_features
            yield EvaluationBatch(samples=[sample for sample, _ in batch], features=features)


def transcribe(
    model: WhisperForConditionalGeneration,
    processor: WhisperProcessor,
    clips: list[tuple[Sample, bytes]],
    batch_size: int,
) -> tuple[list[str], float]:
    """Decode greedily without timestamps; return the texts and the seconds it took."""
    texts: list[str] = []
    seconds = 0.0
    for number, batch in enumerate(make_batches(clips, processor, batch_size)):
        if number == 0:
            generate(model, batch)  # the first call pays for set-up that is not decoding
        started = time.perf_counter()
        tokens = generate(model, batch)
        seconds += time.perf_counter() - started
        texts += processor.batch_decode(tokens.cpu(), skip_special_tokens=True)
    return [text.strip() for text in texts], seconds


@torch.inference_mode()
def generate(model: WhisperForConditionalGeneration, batch: EvaluationBatch) -> torch.Tensor:
    """Return token ids (batch, tokens); waits for the device."""
    task: dict[str, Any] = {}
    if getattr(model.generation_config, "is_multilingual", True):
        task = {"language": batch.samples[0].language, "task": "transcribe"}
    tokens = model.generate(batch.features.to(model.device), num_beams=1, do_sample=False, **task)
    if model.device.type == "cuda":
        torch.cuda.synchronize()
    return torch.as_tensor(tokens)


def judge(
    config: EvaluateConfig,
    name: str,
    model: WhisperForConditionalGeneration,
    samples: list[Sample],
    scores: list[Score],
    seconds: float,
) -> ModelResult:
    """Sum up how a model did."""
    interval = bootstrap_interval(scores, config.seed, config.bootstrap_samples)
    audio_seconds = sum(sample.duration_seconds for sample in samples)
    return ModelResult(
        model=name,
        wer=corpus_rate(scores),
        wer_low=interval.low,
        wer_high=interval.high,
        parameters=num_parameters(model),
        decode_seconds=round(seconds, 3),
        rtfx=round(audio_seconds / seconds, 2),
    )


def score_all(samples: list[Sample], hypotheses: list[str]) -> list[Score]:
    """Score each clip in its language."""
    return [
        score(sample.reference, text, sample.language)
        for sample, text in zip(samples, hypotheses, strict=True)
    ]


def compare(
    config: EvaluateConfig, samples: list[Sample], models: dict[str, ModelResult]
) -> Results:
    """Put the models side by side."""
    student, teacher = models["student"], models.get("teacher")
    return Results(
        split=config.split,
        num_clips=len(samples),
        audio_seconds=round(sum(sample.duration_seconds for sample in samples), 2),
        models=models,
        speed_ratio=round(teacher.decode_seconds / student.decode_seconds, 3) if teacher else None,
        parameter_ratio=round(student.parameters / teacher.parameters, 4) if teacher else None,
    )


def write_hypotheses(
    path: Path, samples: list[Sample], texts: list[str], scores: list[Score]
) -> None:
    """Write what a model heard in each clip, as JSON lines."""
    lines = [
        {"id": s.id, "reference": s.reference, "hypothesis": text, "wer": round(result.wer, 4)}
        for s, text, result in zip(samples, texts, scores, strict=True)
    ]
    path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))

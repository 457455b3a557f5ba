"""`whisper-distill evaluate`: any number of models on the same clips, the teacher first.

Every model decodes the same batches in the same process, so that their speeds can be compared;
features are computed outside the measured time. What costs more than one pass over the clips
(noise, sweeps, long recordings) is a part of its own in `evaluate_parts` and is done where the
configuration asks for it. `results.json` is for programs, `report.html` for people.
"""

import dataclasses
import json
import logging
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from distill import evaluate_parts
from distill.evaluate_config import EvaluateConfig
from distill.evaluate_data import EvaluationClip, long_recordings, read_clips
from distill.evaluate_hearing import AnyRecognizer, hear_clips
from distill.evaluate_report import write_report
from distill.evaluate_scores import Comparison, Rates, break_down, compare, rates, score_all
from distill.quantization.packed import FILE_NAME
from distill.quantization.sizes import number_format
from distill.recognizers import load_recognizer
from pipeline.schema import MAX_CLIP_SECONDS, model_path
from pipeline.scoring import Score

logger = logging.getLogger(__name__)

_WEIGHTS = (FILE_NAME, "model*.safetensors", "model.bin", "pytorch_model*.bin")
"""Files of weights by kind; of a folder that has several kinds one is read, the first of these."""


@dataclass(frozen=True, kw_only=True)
class ModelResult:
    """How one model did; the first one is what the others are compared with."""

    model: str
    parameters: int | None
    """None where the format does not say."""
    size_bytes: int | None
    """Of the weights on disk; None for a model of the Hub."""
    number_format: str
    """What those bytes hold, such as float16; sizes in different numbers do not compare. "" where
    the format does not say."""
    rates: Rates
    comparison: Comparison | None
    """None for the first model."""
    decode_seconds: float
    """Encoder and greedy decoding, without features."""
    rtfx: float
    """Seconds of audio per second of decoding."""
    relative_speed: float
    """The first model's decoding time over this one's."""
    by_language: dict[str, float]
    by_speaker: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class Results:
    """`results.json`."""

    split: str
    num_clips: int
    audio_seconds: float
    device: str
    batch_size: int
    models: list[ModelResult]
    parts: dict[str, Any] = field(default_factory=dict)
    """What else was asked for, by name; each is a list of rows."""
    overhead: float = 0.0
    """Time that is not spent in the models, over the time that is."""


def evaluate(config: EvaluateConfig) -> Results:
    """Judge the models; write `results.json`, `report.html` and what each one heard.

    Raises:
        FileNotFoundError: a shard folder is not a finished dataset.
        ValueError: there is no clip with a reference, no such model, or an output that is a file.
    """
    output = Path(config.output)
    if output.is_file():
        raise ValueError(f"{output} is a file; output is the folder that results.json is put in")
    everything = read_clips(config)
    clips = [clip for clip in everything if clip.duration_seconds <= MAX_CLIP_SECONDS]
    if not clips:
        raise ValueError("no clip is of 30 s or less; give short-form data too")
    output.mkdir(parents=True, exist_ok=True)
    recognizers = [
        load_recognizer(
            name, device=config.device, dtype=config.dtype, max_new_tokens=config.max_new_tokens
        )
        for name in config.models
    ]
    evaluate_parts.check(config, recognizers)
    started, models, first_scores = time.perf_counter(), [], []
    for number, recognizer in enumerate(recognizers):
        texts, seconds = hear_clips(recognizer, clips, config.batch_size)
        scores = score_all(clips, texts)
        first_scores = first_scores or scores
        models.append(judge(config, recognizer, clips, texts, scores, first_scores, seconds))
        write_hypotheses(output / f"heard-{number}.jsonl", clips, texts, scores)
        logger.info(
            "%s: WER %.2f %%, %.1f s", config.models[number], models[-1].rates.wer * 100, seconds
        )
    models = [
        dataclasses.replace(m, relative_speed=round(models[0].decode_seconds / m.decode_seconds, 3))
        for m in models
    ]
    decoding = sum(model.decode_seconds for model in models)
    overhead = (time.perf_counter() - started) / decoding - 1
    long = []
    if {"sequential", "chunked"} & set(config.modes) or config.chunk_lengths:
        long = long_recordings(everything, config.long_seconds)
    results = Results(
        split=config.split,
        num_clips=len(clips),
        audio_seconds=round(sum(clip.duration_seconds for clip in clips), 2),
        device=str(config.device),
        batch_size=config.batch_size,
        models=models,
        parts=evaluate_parts.run(config, recognizers, clips, long),
        overhead=round(overhead, 4),
    )
    (output / "results.json").write_text(json.dumps(dataclasses.asdict(results), indent=2) + "\n")
    write_report(dataclasses.asdict(results), output / "report.html")
    return results


def judge(
    config: EvaluateConfig,
    recognizer: AnyRecognizer,
    clips: list[EvaluationClip],
    texts: list[str],
    scores: list[Score],
    first_scores: list[Score],
    seconds: float,
) -> ModelResult:
    """Sum up how a model did."""
    resamples = config.bootstrap_samples
    audio_seconds = sum(clip.duration_seconds for clip in clips)
    return ModelResult(
        model=recognizer.name,
        parameters=recognizer.num_parameters,
        size_bytes=size_bytes(recognizer.name),
        number_format=stored_as(recognizer.name),
        rates=rates(clips, texts, scores, config.seed, resamples),
        comparison=None
        if scores is first_scores
        else compare(first_scores, scores, config.seed, resamples),
        decode_seconds=round(seconds, 4),
        rtfx=round(audio_seconds / seconds, 2),
        relative_speed=1.0,
        by_language=break_down(clips, scores, lambda clip: clip.language),
        by_speaker=break_down(
            clips, scores, lambda clip: f"{clip.language} {clip.speaker}".strip()
        ),
    )


def size_bytes(name: str) -> int | None:
    """Return the bytes of a model's weights in its folder; None for a name that is no folder."""
    if not Path(model_path(name)).is_dir():
        return None
    return sum(file.stat().st_size for file in _weight_files(name))


def stored_as(name: str) -> str:
    """Return the numbers that a model's weights are stored in; "" where that is not known."""
    files = [file for file in _weight_files(name) if file.suffix == ".safetensors"]
    return number_format(files[0]) if files else ""


def _weight_files(name: str) -> list[Path]:
    kinds = (sorted(Path(model_path(name)).glob(pattern)) for pattern in _WEIGHTS)
    return next(filter(None, kinds), [])


def write_hypotheses(
    path: Path, clips: list[EvaluationClip], texts: list[str], scores: list[Score]
) -> None:
    """Write what a model heard in each clip, as JSON lines."""
    lines = [
        {"id": c.id, "reference": c.reference, "hypothesis": text, "wer": round(result.rate, 4)}
        for c, text, result in zip(clips, texts, scores, strict=True)
    ]
    path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))

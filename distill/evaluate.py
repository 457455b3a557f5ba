"""`whisper-distill evaluate`: any number of models on the same clips, the teacher first.

Every model decodes the same batches in the same process, in turns, so that their speeds can be
compared; features are computed outside the measured time. What costs more than one pass over the
clips (noise, sweeps, long recordings) is a part of its own in `evaluate_parts` and is done where
the configuration asks for it. `results.json` is for programs, `report.html` for people. A clip that
cannot be read is left out for all models and named.
"""

import dataclasses
import datetime
import logging
import time
from dataclasses import dataclass, field
from typing import Any

from distill import evaluate_parts
from distill.evaluate_config import LONG_MODES, EvaluateConfig, judged
from distill.evaluate_data import EvaluationClip, is_manifest, long_recordings, read_clips
from distill.evaluate_files import (
    prepare_output,
    size_bytes,
    stored_as,
    write_hypotheses,
    write_results,
)
from distill.evaluate_hearing import AnyRecognizer, hear_in_turns, read
from distill.evaluate_long import hear_recordings
from distill.evaluate_report import write_report
from distill.evaluate_scores import Comparison, Rates, break_down, compare, rates, score_all
from distill.recognizers import choose_device, load_recognizer
from distill.weight_files import weights_sha256
from pipeline.schema import MAX_CLIP_SECONDS
from pipeline.scoring import Score

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class ModelResult:
    """How one model did; the first one is what the others are compared with."""

    model: str
    parameters: int | None
    """None where the format does not say."""
    size_bytes: int | None
    """Of the weights on disk; None for a model of the Hub."""
    weights_sha256: str | None
    """Of their files: a model of the same name may be another one later."""
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
class Spent:
    """Seconds that went into what the models are judged by."""

    models: float
    """Encoders and decoders of all models; the rest is the evaluation's own."""
    features: float
    reading: float
    scoring: float
    """Rates, intervals, comparisons, and writing down what was heard."""


@dataclass(frozen=True, kw_only=True)
class Results:
    """`results.json`."""

    data: list[str]
    """What the clips are of, as it was given."""
    split: str
    """Of the shards; "" where all clips are of manifests."""
    made: str
    """Day, as 2026-11-30."""
    mode: str
    """What the rates of the models are of: short, or sequential or chunked recordings."""
    num_clips: int
    audio_seconds: float
    device: str
    """`cpu` or `cuda`: what was used, also where `auto` was asked for."""
    batch_size: int
    models: list[ModelResult]
    parts: dict[str, Any] = field(default_factory=dict)
    """What else was asked for, by name; each is a list of rows."""
    spent: Spent
    overhead: float
    """Seconds that were not spent in the models, over those that were."""
    unreadable: dict[str, str] = field(default_factory=dict)
    """Clips that were left out since their audio cannot be read, and why."""


def evaluate(config: EvaluateConfig) -> Results:
    """Judge the models; write `results.json`, `report.html` and what each one heard.

    Raises:
        FileNotFoundError: a shard folder is not a finished dataset.
        ValueError: there is no clip with a reference that can be read, no such model, or an output
            that is a file or holds results of other settings.
    """
    everything = read_clips(config)
    short = [clip for clip in everything if clip.duration_seconds <= MAX_CLIP_SECONDS]
    if not short and judged(config) == "short":
        raise ValueError(
            f"no clip is of 30 s or less, and modes is {config.modes}; for recordings alone give "
            "sequential or chunked, without short"
        )
    output = prepare_output(config)
    recognizers = [
        load_recognizer(
            name, device=config.device, dtype=config.dtype, max_new_tokens=config.max_new_tokens
        )
        for name in config.models
    ]
    evaluate_parts.check(config, recognizers, everything)
    if judged(config) == "short":
        hearing = hear_in_turns(recognizers, short, config.batch_size)
    else:
        hearing = hear_recordings(config, recognizers, everything)
    clips, unreadable = hearing.clips, hearing.unreadable
    if not clips:
        raise ValueError(f"no clip can be read; the first: {next(iter(unreadable.values()))}")
    started, models, first_scores = time.perf_counter(), [], []
    for number, recognizer in enumerate(recognizers):
        texts, seconds = hearing.texts[number], hearing.seconds[number]
        scores = score_all(clips, texts)
        first_scores = first_scores or scores
        result = judge(config, recognizer, clips, texts, scores, first_scores, seconds)
        speed = round(hearing.seconds[0] / seconds, 3)
        models.append(dataclasses.replace(result, relative_speed=speed))
        write_hypotheses(output / f"heard-{number}.jsonl", clips, texts, scores)
        logger.info("%s: WER %.2f %%, %.1f s", recognizer.name, result.rates.wer * 100, seconds)
    spent = Spent(
        models=round(sum(hearing.seconds), 4),
        features=round(hearing.features_seconds, 4),
        reading=round(hearing.reading_seconds, 4),
        scoring=round(time.perf_counter() - started, 4),
    )
    long = clips if judged(config) != "short" else []
    if not long and (LONG_MODES & set(config.modes) or config.chunk_lengths):
        longer = [clip for clip in everything if clip.duration_seconds > MAX_CLIP_SECONDS]
        longer = [clip for clip in longer if read(clip, unreadable) is not None]
        long = long_recordings([*clips, *longer], config.long_seconds)
    results = Results(
        data=config.data,
        split="" if all(map(is_manifest, config.data)) else config.split,
        made=datetime.date.today().isoformat(),
        mode=judged(config),
        num_clips=len(clips),
        audio_seconds=round(sum(clip.duration_seconds for clip in clips), 2),
        device=choose_device(config.device),
        batch_size=config.batch_size,
        models=models,
        parts=evaluate_parts.run(config, recognizers, clips, long),
        spent=spent,
        overhead=round((spent.features + spent.reading + spent.scoring) / spent.models, 4),
        unreadable=unreadable,
    )
    fields = dataclasses.asdict(results)
    write_report(fields, output / "report.html")
    write_results(config, fields)
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
        weights_sha256=weights_sha256(recognizer.name),
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

"""`whisper-distill study`: students that differ in one thing, and the table that compares them.

The questions are those of the Distil-Whisper paper's ablations: how deep, with or without the
teacher's distribution, which threshold for the labels, how much data. Every student is trained with
several seeds and judged on speakers that none of them has heard. Intervals come from resampling
seeds and speakers together, so they say what another training on other people would give.
"""

import dataclasses
import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from distill.config import InitConfig, TrainConfig
from distill.loss_config import LossConfig
from distill.run_card import describe_hardware, library_versions
from distill.shards import passes_filter, read_shard, shard_passes
from distill.student import load_model, load_processor, num_parameters
from distill.study_config import StudyConfig
from distill.study_table import to_markdown
from distill.train import init, train
from distill.validation import Clip, hear, validation_clips

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One kind of student."""

    name: str
    question: str
    layers: int
    config: TrainConfig
    """With the first seed."""


@dataclass(frozen=True, kw_only=True)
class ArmResult:
    """How one kind of student did."""

    name: str
    question: str
    layers: int
    parameters: int
    hours: float
    """Of the clips that it learnt from."""
    wer: float
    """Mean over the seeds; a fraction."""
    wer_low: float
    wer_high: float
    """95 % interval."""
    seeds: list[float]
    """The rate of each seed."""
    difference: float
    """From the student that all are compared with; below 0 is better."""
    difference_low: float
    difference_high: float


@dataclass(frozen=True, kw_only=True)
class StudyResults:
    """`study.json`."""

    teacher: str
    teacher_wer: float
    teacher_low: float
    teacher_high: float
    test_clips: int
    test_speakers: int
    seen_speakers_left_out: int
    max_steps: int
    arms: list[ArmResult]
    hardware: dict[str, Any]
    versions: dict[str, str]
    config: dict[str, Any]


def study(config: StudyConfig) -> StudyResults:
    """Train and judge every student that is not done yet; write `study.json` and `study.md`.

    Raises:
        ValueError: no test clip is of a speaker that training lacks, or the teacher has fewer
            layers than the student that all are compared with.
    """
    output = Path(config.output)
    output.mkdir(parents=True, exist_ok=True)
    teacher = load_model(config.teacher)
    arms = list(make_arms(config, teacher.config.decoder_layers))
    clips, left_out = unseen(validation_clips(config.test), training_speakers(arms))
    speakers = np.unique([s.speaker or s.id for s, _ in clips], return_inverse=True)[1]

    processor = load_processor(config.teacher)
    heard = hear(teacher.eval(), processor, clips, config.test.batch_size)
    counts = {
        "teacher": np.array([[(h.errors, h.length) for h in heard]]),
        **{arm.name: judged(arm, config, clips) for arm in arms},
    }
    draws = resampled(counts, speakers, config.bootstrap_samples)
    base = base_name(config)
    teacher_low, teacher_high = interval(draws["teacher"])
    results = StudyResults(
        teacher=config.teacher,
        teacher_wer=float(rates(counts["teacher"]).mean()),
        teacher_low=teacher_low,
        teacher_high=teacher_high,
        test_clips=len(clips),
        test_speakers=int(speakers.max()) + 1,
        seen_speakers_left_out=left_out,
        max_steps=config.max_steps,
        arms=[summarise(arm, config, counts, draws, base) for arm in arms],
        hardware=describe_hardware(),
        versions=library_versions(),
        config=dataclasses.asdict(config),
    )
    (output / "study.json").write_text(json.dumps(dataclasses.asdict(results), indent=2) + "\n")
    (output / "study.md").write_text(to_markdown(dataclasses.asdict(results)))
    logger.info("the table is in %s", output / "study.md")
    return results


def make_arms(config: StudyConfig, teacher_layers: int) -> Iterator[Arm]:
    """List the students; the one that all are compared with is among the depths."""
    if config.layers > teacher_layers:
        raise ValueError(
            f"layers is {config.layers}, but the teacher has {teacher_layers} decoder layers"
        )
    depths = {n for n in {config.layers, *config.decoder_layers} if n <= teacher_layers}
    for layers in sorted(depths):
        yield make_arm(config, f"layers-{layers}", "decoder layers", layers)
    labels_only = LossConfig(preset="labels-only")
    yield make_arm(config, "labels-only", "loss", config.layers, loss=labels_only)
    for threshold in config.thresholds if config.corrupted else []:
        limit = threshold if threshold < 1 else None
        reading = dataclasses.replace(config.data.filter, max_wer=limit)
        data = dataclasses.replace(config.data, shards=config.corrupted, weights=[], filter=reading)
        name = f"threshold-{round(threshold * 100)}"
        yield make_arm(config, name, "threshold", config.layers, data=data)
    for share in (s for s in config.shares if s < 1):
        reading = dataclasses.replace(config.data.filter, share=share)
        data = dataclasses.replace(config.data, filter=reading)
        name = f"data-{round(share * 100)}"
        yield make_arm(config, name, "data", config.layers, data=data)


def base_name(config: StudyConfig) -> str:
    """Name the student that the others are compared with."""
    return f"layers-{config.layers}"


def make_arm(config: StudyConfig, name: str, question: str, layers: int, **changes: Any) -> Arm:
    """Configure one kind of student; what is not given is as of the one that all compare with."""
    loss = changes.get("loss", LossConfig())
    fields: dict[str, Any] = {"data": config.data, "loss": loss} | changes
    training = TrainConfig(
        output=str(Path(config.output) / name),
        student=str(Path(config.output) / f"init-{layers}"),
        teacher=config.teacher if loss.weights[1] else None,
        max_steps=config.max_steps,
        learning_rate=config.learning_rate,
        warmup_steps=config.warmup_steps,
        save_steps=config.max_steps,
        keep_checkpoints=1,
        dtype=config.dtype,
        device=config.device,
        **fields,
    )
    return Arm(name=name, question=question, layers=layers, config=training)


def judged(arm: Arm, config: StudyConfig, clips: list[Clip]) -> np.ndarray:
    """Train an arm with every seed; return errors and lengths, (seeds, clips, 2)."""
    start = Path(arm.config.student)
    if not (start / "config.json").is_file():
        init(InitConfig(teacher=config.teacher, output=str(start), decoder_layers=arm.layers))
    found = []
    for seed in config.seeds:
        folder = Path(arm.config.output) / f"seed-{seed}"
        logger.info("%s, seed %d", arm.name, seed)
        student = train(dataclasses.replace(arm.config, output=str(folder), seed=seed))
        done = folder / "heard.json"
        known = json.loads(done.read_text()) if done.is_file() else {}
        if known.keys() != {sample.id for sample, _ in clips}:
            model = load_model(str(student)).eval()
            processor = load_processor(str(student))
            heard = hear(model, processor, clips, config.test.batch_size)
            known = {h.sample.id: [h.errors, h.length] for h in heard}
            done.write_text(json.dumps(known))
        found.append([known[sample.id] for sample, _ in clips])
    return np.array(found)


def training_speakers(arms: list[Arm]) -> set[str]:
    """Return everyone whose clips any student learns from."""
    return {
        sample.speaker
        for data in {id(arm.config.data): arm.config.data for arm in arms}.values()
        for reading in shard_passes(data)
        for sample, _ in read_shard(reading.path)
        if sample.speaker
    }


def unseen(clips: list[Clip], speakers: set[str]) -> tuple[list[Clip], int]:
    """Return the clips of other speakers, and how many were left out.

    Raises:
        ValueError: none is left.
    """
    left = [clip for clip in clips if clip[0].speaker not in speakers]
    if not left:
        raise ValueError(
            f"all {len(clips)} test clips are of speakers that training has too; split the corpus "
            "by speaker"
        )
    return left, len(clips) - len(left)


def hours(arm: Arm) -> float:
    """Add up the clips that an arm learns from."""
    data = arm.config.data
    seconds = (
        sample.duration_seconds
        for reading in shard_passes(data)
        for sample, _ in read_shard(reading.path)
        if passes_filter(sample, data.filter)
    )
    return sum(seconds) / 3600


def rates(counts: np.ndarray) -> np.ndarray:
    """Return the error rate of each seed from (seeds, clips, 2)."""
    errors, lengths = counts.sum(axis=1).T
    return errors / np.maximum(lengths, 1)


def resampled(
    counts: dict[str, np.ndarray], speakers: np.ndarray, num_samples: int
) -> dict[str, np.ndarray]:
    """Draw seeds and speakers again and again; return the mean rates, the same draws for all.

    `counts` are (seeds, clips, 2) and `speakers` numbers those of the clips.
    """
    num_speakers = int(speakers.max()) + 1
    by_speaker = {}
    for name, values in counts.items():
        people = [values[:, speakers == person].sum(axis=1) for person in range(num_speakers)]
        sums = np.stack(people, axis=1)
        by_speaker[name] = sums
    rng = np.random.default_rng(0)
    draws: dict[str, list[float]] = {name: [] for name in counts}
    for _ in range(num_samples):
        people = rng.integers(num_speakers, size=num_speakers)
        position = rng.random(max(len(values) for values in counts.values()))
        for name, sums in by_speaker.items():
            # the same numbers for arms of as many seeds, so that their differences are paired
            seeds = (position[: len(sums)] * len(sums)).astype(int)
            draws[name].append(float(rates(sums[seeds][:, people]).mean()))
    return {name: np.array(values) for name, values in draws.items()}


def interval(draws: np.ndarray) -> tuple[float, float]:
    """Return the middle 95 %."""
    low, high = np.quantile(draws, [0.025, 0.975])
    return float(low), float(high)


def summarise(
    arm: Arm,
    config: StudyConfig,
    counts: dict[str, np.ndarray],
    draws: dict[str, np.ndarray],
    base: str,
) -> ArmResult:
    """Put an arm into numbers."""
    found = rates(counts[arm.name])
    low, high = interval(draws[arm.name])
    difference_low, difference_high = interval(draws[arm.name] - draws[base])
    return ArmResult(
        name=arm.name,
        question=arm.question,
        layers=arm.layers,
        parameters=num_parameters(load_model(arm.config.student)),
        hours=round(hours(arm), 3),
        wer=float(found.mean()),
        wer_low=low,
        wer_high=high,
        seeds=[float(rate) for rate in found],
        difference=float(found.mean() - rates(counts[base]).mean()),
        difference_low=difference_low,
        difference_high=difference_high,
    )

"""`whisper-distill study`: students that differ in one thing, and the table that compares them.

The questions are those of the ablations of Distil-Whisper (how deep, with or without the teacher's
distribution, which threshold for the labels, how much data) and of DQ-Whisper (which layer learns
from which, on which grid, rounded afterwards or trained). Every student is trained with several
seeds and judged on speakers that none of them has heard.
"""

import dataclasses
import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from distill.run_card import describe_hardware, library_versions
from distill.shards import passes_filter, read_shard, shard_passes
from distill.student import load_model, num_parameters
from distill.study_arms import TEACHER, Arm, base_name, make_arms, pairs
from distill.study_config import StudyConfig
from distill.study_judging import Listener, weight_bytes
from distill.study_statistics import CER, WER, Difference, difference, interval, rates, resampled
from distill.study_table import to_markdown
from distill.study_training import make_student_of, train_all
from distill.validation import Clip, validation_clips

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class ArmResult:
    """How one kind of student did; rates are fractions and means over the seeds."""

    name: str
    question: str
    layers: int
    parameters: int
    size_bytes: int | None
    """Of the weights: on their grids, or in float16."""
    hours: float
    """Of the clips that it learnt from."""
    wer: float
    wer_low: float
    wer_high: float
    """95 % interval."""
    cer: float
    cer_low: float
    cer_high: float
    seeds: list[float]
    """The word error rate of each seed."""
    by_language: dict[str, float]
    """The error rate of each language, in characters where it is judged by them."""
    speed: float | None
    """How many times as fast as the student that all are compared with, on this machine."""
    difference: Difference
    """In WER, from the student that all are compared with."""


@dataclass(frozen=True, kw_only=True)
class PairResult:
    """Two students that answer a question together."""

    name: str
    against: str
    wer: Difference
    wer_verdict: str
    cer: Difference
    cer_verdict: str


@dataclass(frozen=True, kw_only=True)
class StudyResults:
    """`study.json`."""

    teacher: str
    teacher_wer: float
    teacher_low: float
    teacher_high: float
    teacher_cer: float
    teacher_by_language: dict[str, float]
    test_clips: int
    test_speakers: int
    seen_speakers_left_out: int
    max_steps: int
    arms: list[ArmResult]
    pairs: list[PairResult]
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
    arms = list(make_arms(config, load_model(config.teacher).config.decoder_layers))
    known = training_speakers(arms, config.unknown_speakers)
    clips, left_out = unseen(validation_clips(config.test), known, config.unknown_speakers)
    people = [sample.speaker or sample.id for sample, _ in clips]
    drawn = people if config.resample == "speakers" else [sample.id for sample, _ in clips]
    drawn = np.unique(drawn, return_inverse=True)[1]

    listener = Listener(clips, config.test.batch_size)
    heard = {TEACHER: listener.counts(config.teacher, output / "teacher" / "heard.json")[None]}
    train_all(arms, config)
    heard |= {arm.name: judged(arm, config, listener) for arm in arms}
    speeds = measure_speeds(arms, config, listener)
    table = Comparisons(
        heard, drawn, [sample.language for sample, _ in clips], config.bootstrap_samples
    )
    low, high = interval(table.draws[WER][TEACHER])
    results = StudyResults(
        teacher=config.teacher,
        teacher_wer=table.rate(TEACHER, WER),
        teacher_low=low,
        teacher_high=high,
        teacher_cer=table.rate(TEACHER, CER),
        teacher_by_language=table.by_language(TEACHER),
        test_clips=len(clips),
        test_speakers=len(set(people)),
        seen_speakers_left_out=left_out,
        max_steps=config.max_steps,
        arms=[summarise(arm, config, table, speeds) for arm in arms],
        pairs=[table.pair(*names) for names in pairs(config, set(heard))],
        hardware=describe_hardware(),
        versions=library_versions(),
        config=dataclasses.asdict(config),
    )
    (output / "study.json").write_text(json.dumps(dataclasses.asdict(results), indent=2) + "\n")
    (output / "study.md").write_text(to_markdown(dataclasses.asdict(results)))
    logger.info("the table is in %s", output / "study.md")
    return results


class Comparisons:
    """What all students heard, resampled once for each rate."""

    def __init__(
        self, counts: dict[str, np.ndarray], groups: np.ndarray, languages: list[str], samples: int
    ) -> None:
        self.counts, self.languages = counts, np.array(languages)
        self.draws = {kind: resampled(counts, groups, samples, kind) for kind in (WER, CER)}

    def rate(self, name: str, kind: int) -> float:
        """Return the mean rate over the seeds."""
        return float(rates(self.counts[name], kind).mean())

    def by_language(self, name: str) -> dict[str, float]:
        """Return the mean rate over the seeds in each language."""
        return {
            str(language): float(rates(self.counts[name][:, self.languages == language]).mean())
            for language in np.unique(self.languages)
        }

    def difference(self, name: str, against: str, kind: int) -> Difference:
        """Hold a student against another one."""
        draws = self.draws[kind]
        one, other = self.rate(name, kind), self.rate(against, kind)
        return difference(one, draws[name], other, draws[against])

    def pair(self, name: str, against: str) -> PairResult:
        """Hold a student against another one in both rates."""
        wer, cer = (self.difference(name, against, kind) for kind in (WER, CER))
        return PairResult(
            name=name,
            against=against,
            wer=wer,
            wer_verdict=wer.verdict,
            cer=cer,
            cer_verdict=cer.verdict,
        )


def judged(arm: Arm, config: StudyConfig, listener: Listener) -> np.ndarray:
    """Let an arm's students hear the test; return errors and lengths, (seeds, clips, 4)."""
    found = []
    for seed in config.seeds if arm.trained else config.seeds[:1]:
        folder = make_student_of(arm, config, seed)
        found.append(listener.counts(str(folder), folder.parent / f"{folder.name}-heard.json"))
    return np.array(found)


def measure_speeds(arms: list[Arm], config: StudyConfig, listener: Listener) -> dict[str, float]:
    """Return how fast the kinds of models are that a study has, relative to the compared one."""
    if not config.speed_rounds:
        return {}
    kinds: dict[tuple[int, str], str] = {}
    names: dict[str, tuple[int, str]] = {}
    for arm in arms:
        grid = arm.rounded or (arm.config.quantization and arm.config.quantization.preset) or ""
        names[arm.name] = arm.layers, grid
        kinds.setdefault(names[arm.name], arm.name)
    by_name = {arm.name: arm for arm in arms}
    seconds = listener.seconds(
        {
            name: str(make_student_of(by_name[name], config, config.seeds[0]))
            for name in kinds.values()
        },
        config.speed_rounds,
    )
    base = seconds[kinds[names[base_name(config)]]]
    return {name: base / seconds[kinds[kind]] for name, kind in names.items()}


def training_speakers(arms: list[Arm], allow_unknown: bool = False) -> set[str]:
    """Return everyone whose clips any student learns from.

    Raises:
        ValueError: clips do not say who speaks, so nobody is known to be unseen.
    """
    speakers = {
        sample.speaker
        for data in {id(arm.config.data): arm.config.data for arm in arms}.values()
        for reading in shard_passes(data)
        for sample, _ in read_shard(reading.path)
    }
    if "" in speakers and not allow_unknown:
        raise ValueError(
            "clips to learn from name no speaker, so no test clip is known to be of another one; "
            "name them in the corpus, or set unknown_speakers: true if the splits share nobody"
        )
    return speakers - {""}


def unseen(
    clips: list[Clip], speakers: set[str], allow_unknown: bool = False
) -> tuple[list[Clip], int]:
    """Return the clips of other speakers, and how many were left out.

    Raises:
        ValueError: none is left.
    """
    left = [
        clip
        for clip in clips
        if clip[0].speaker not in speakers and (clip[0].speaker or allow_unknown)
    ]
    if not left:
        nameless = sum(not sample.speaker for sample, _ in clips)
        raise ValueError(
            f"of {len(clips)} test clips, {len(clips) - nameless} are of speakers that training "
            f"has too, and {nameless} name none; split the corpus by speaker, or set "
            "unknown_speakers: true if the splits share nobody"
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
    return sum(seconds) / 3600 if arm.trained else 0.0


def summarise(
    arm: Arm, config: StudyConfig, table: Comparisons, speeds: dict[str, float]
) -> ArmResult:
    """Put an arm into numbers."""
    wer_low, wer_high = interval(table.draws[WER][arm.name])
    cer_low, cer_high = interval(table.draws[CER][arm.name])
    return ArmResult(
        name=arm.name,
        question=arm.question,
        layers=arm.layers,
        parameters=num_parameters(load_model(arm.config.student)),
        size_bytes=weight_bytes(str(make_student_of(arm, config, config.seeds[0]))),
        hours=round(hours(arm), 3),
        wer=table.rate(arm.name, WER),
        wer_low=wer_low,
        wer_high=wer_high,
        cer=table.rate(arm.name, CER),
        cer_low=cer_low,
        cer_high=cer_high,
        seeds=[float(rate) for rate in rates(table.counts[arm.name])],
        by_language=table.by_language(arm.name),
        speed=speeds.get(arm.name),
        difference=table.difference(arm.name, base_name(config), WER),
    )

"""The kinds of students that a study compares: each differs from one of them in one thing."""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distill.config import TrainConfig
from distill.hidden_config import HiddenConfig
from distill.loss_config import LossConfig
from distill.quantization.config import QuantizationConfig
from distill.quantization.presets import PresetName
from distill.study_config import QuantisedKind, StudyConfig

TEACHER = "teacher"
"""Whom a student may be held against, as if it were one."""
LABELS_ONLY = LossConfig(preset="labels-only")


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One kind of student."""

    name: str
    question: str
    layers: int
    config: TrainConfig
    """With the first seed."""
    trained: bool = True
    """False is the student as it starts."""
    rounded: PresetName | None = None
    """Put on this grid after its training."""

    def training(self, seed: int) -> TrainConfig:
        """Return the training with a seed; a map that is drawn is drawn from it, too."""
        config = self.config
        hidden = config.hidden and dataclasses.replace(config.hidden, seed=seed)
        folder = str(Path(config.output) / f"seed-{seed}")
        return dataclasses.replace(config, output=folder, seed=seed, hidden=hidden)


def make_arms(config: StudyConfig, teacher_layers: int) -> Iterator[Arm]:
    """List the students; the one that all are compared with is among the depths.

    Raises:
        ValueError: the teacher has fewer layers than the student that all are compared with.
    """
    if config.layers > teacher_layers and not config.student:
        raise ValueError(
            f"layers is {config.layers}, but the teacher has {teacher_layers} decoder layers"
        )
    depths = {config.layers, *(n for n in config.decoder_layers if n <= teacher_layers)}
    for layers in sorted(depths):
        yield make_arm(config, f"layers-{layers}", "decoder layers", layers)
    if config.zero_shot:
        arm = make_arm(config, "zero-shot", "loss", config.layers)
        yield dataclasses.replace(arm, trained=False)
    if config.labels_only:
        yield make_arm(config, "labels-only", "loss", config.layers, loss=LABELS_ONLY)
    for mode in config.matchings:
        hidden = HiddenConfig(matching=mode)
        yield make_arm(config, matching_name(mode), "matching", config.layers, hidden=hidden)
    for preset in config.quantised:
        for kind in config.quantised_kinds:
            yield quantised_arm(config, preset, kind)
    for threshold in config.thresholds if config.corrupted else []:
        limit = threshold if threshold < 1 else None
        reading = dataclasses.replace(config.data.filter, max_wer=limit)
        data = dataclasses.replace(config.data, shards=config.corrupted, weights=[], filter=reading)
        name = f"threshold-{round(threshold * 100)}"
        if data == config.data:  # the compared student itself, which is trained once
            base = make_arm(config, base_name(config), "threshold", config.layers)
            yield dataclasses.replace(base, name=name)
            continue
        yield make_arm(config, name, "threshold", config.layers, data=data)
    for share in (s for s in config.shares if s < 1):
        reading = dataclasses.replace(config.data.filter, share=share)
        data = dataclasses.replace(config.data, filter=reading)
        name = f"data-{round(share * 100)}"
        yield make_arm(config, name, "data", config.layers, data=data)


def quantised_arm(config: StudyConfig, preset: PresetName, kind: QuantisedKind) -> Arm:
    """Configure a student on a grid: the last third of its training is all on it."""
    question = "quantisation"
    if kind == "rounded":
        base = make_arm(config, base_name(config), question, config.layers)
        return dataclasses.replace(base, name=f"{preset}-rounded", rounded=preset)
    third = config.max_steps // 3
    changes: dict[str, Any] = {
        "quantization": QuantizationConfig(preset=preset, start_step=third, ramp_steps=third)
    }
    if kind == "labels-only":
        changes["loss"] = LABELS_ONLY
    if kind == "matched":
        changes["hidden"] = HiddenConfig(matching=config.quantised_matching)
    return make_arm(config, f"{preset}-{kind}", question, config.layers, **changes)


def base_name(config: StudyConfig) -> str:
    """Name the student that the others are compared with."""
    return f"layers-{config.layers}"


def matching_name(mode: str) -> str:
    """Name the student of a map."""
    return f"matching-{mode}"


def pairs(config: StudyConfig, names: set[str]) -> list[tuple[str, str]]:
    """List the comparisons that answer the questions: a student, and the one it is held against."""
    base = base_name(config)
    wanted = [(base, TEACHER), ("labels-only", "zero-shot"), (base, "labels-only")]
    wanted += [
        (f"layers-{less}", f"layers-{more}")
        for less, more in zip(
            sorted(config.decoder_layers)[:-1], sorted(config.decoder_layers)[1:], strict=True
        )
    ]
    for mode in config.matchings:
        wanted.append((matching_name(mode), base))
        if mode.startswith("dynamic") or mode in ("reverse", "random"):
            wanted.append((matching_name(mode), matching_name("uniform")))
    for preset in config.quantised:
        wanted += [(f"{preset}-{kind}", base) for kind in ("rounded", "trained")]
        wanted += [
            (f"{preset}-trained", f"{preset}-rounded"),
            (f"{preset}-trained", f"{preset}-labels-only"),
            (f"{preset}-matched", f"{preset}-labels-only"),
            (f"{preset}-matched", f"{preset}-trained"),
            (f"{preset}-matched", "zero-shot"),
        ]
    thresholds = sorted(config.thresholds)
    wanted += [
        (f"threshold-{round(100 * low)}", f"threshold-{round(100 * high)}")
        for low, high in zip(thresholds[:-1], thresholds[1:], strict=True)
    ]
    wanted += [(f"data-{round(100 * share)}", base) for share in config.shares]
    return [pair for pair in dict.fromkeys(wanted) if names.issuperset(pair)]


def make_arm(config: StudyConfig, name: str, question: str, layers: int, **changes: Any) -> Arm:
    """Configure one kind of student; what is not given is as of the one that all compare with."""
    loss = changes.get("loss", LossConfig())
    needs_teacher = loss.weights[1] > 0 or changes.get("hidden") is not None
    fields: dict[str, Any] = {"data": config.data, "loss": loss} | changes
    training = TrainConfig(
        output=str(Path(config.output) / name),
        student=config.student or str(Path(config.output) / f"init-{layers}"),
        teacher=config.teacher if needs_teacher else None,
        max_steps=config.max_steps,
        learning_rate=config.learning_rate,
        warmup_steps=config.warmup_steps,
        save_steps=max(config.max_steps // 2, 1),
        keep_checkpoints=1,
        alignment_clips=0,  # nobody reads word times from them
        dtype=config.dtype,
        device=config.device,
        **fields,
    )
    return Arm(name=name, question=question, layers=layers, config=training)

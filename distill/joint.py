"""Hidden states and quantisation in the trainer: when they change, and what a checkpoint keeps.

The weights that a training has beside the student's (projections, learned steps), the averages of
distances and the choice of blocks lie in `joint.safetensors` of a checkpoint, so that a training
that goes on is the one that was interrupted.
"""

import json
import logging
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import TrainerCallback

from distill.layer_matching import LayerMatching
from distill.matching import coverage, entropy
from distill.quantization.config import QuantizationConfig
from distill.quantization.schedule import QuantisationSchedule

logger = logging.getLogger(__name__)

FILE_NAME = "joint.safetensors"
STEPS = "quantisation.steps."


def quantise_in_training(step: Any, config: QuantizationConfig | None) -> "JointTraining":
    """Prepare the student's layers for their grids and return the callback that a trainer needs.

    Args:
        step: the `distill.distillation.Distillation`; changed in place.
        config: None for a training in float.
    """
    if config is None:
        return JointTraining(step, None)
    schedule = QuantisationSchedule(step.student, config)
    step.add_module("quantisation", schedule)  # its steps are trained, its state is saved
    if any(name.startswith("model.encoder.") for name in schedule.grids):
        step.share_encoder = False  # the teacher hears with its own exact weights
    return JointTraining(step, schedule)


class JointTraining(TrainerCallback):
    """Quantises what is due before each step, chooses what is distilled, and logs both."""

    def __init__(self, step: Any, schedule: QuantisationSchedule | None) -> None:
        self.step, self.schedule = step, schedule
        self.matching = step.hidden_loss if isinstance(step.hidden_loss, LayerMatching) else None

    def on_step_begin(self, args: Any, state: Any, control: Any, **_kwargs: Any) -> None:
        """Bring the model to where the schedule is; measure gradients where they are logged."""
        self.step.measuring = (state.global_step + 1) % args.logging_steps == 0
        if self.schedule is None:
            return
        config, done = self.schedule.config, state.global_step
        guided = config.guided and self.matching is not None
        self.schedule.update(done, self.matching.alignment if guided and self.matching else None)
        if self.matching and config.distilled_blocks and done % config.guide_every == 0:
            self.matching.distilled.fill_(False)
            self.matching.distilled[self.schedule.blocks_to_distil()] = True

    def on_log(self, args: Any, state: Any, control: Any, **_kwargs: Any) -> None:
        """Say which layers learn from which, and which are quantised."""
        if self.matching and self.matching.mapping:
            logger.info(
                "layers learn from %s (entropy %.2f bits, %.0f %% of the teacher's used)",
                self.matching.mapping,
                entropy(self.matching.histogram),
                100 * coverage(self.matching.histogram),
            )
            if self.step.gradient_share is not None:
                logger.info(
                    "the loss on hidden states has %.1f %% of the gradient",
                    100 * self.step.gradient_share,
                )
        if self.schedule:
            logger.info("quantised blocks: %s", self.schedule.active.nonzero().flatten().tolist())

    def learned_steps(self) -> dict[str, nn.Parameter]:
        """Return the learned steps of the grids by layer; none unless they were learned."""
        return self.schedule.learned() if self.schedule else {}

    def write_alignment(self, path: Path) -> None:
        """Write how often each layer learned from which; nothing without hidden states."""
        if self.matching is None:
            return
        histogram = self.matching.histogram
        found = {
            "matching": self.matching.config.matching,
            "last": self.matching.mapping,
            "histogram": histogram.tolist(),
            "entropy_bits": round(entropy(histogram), 4),
            "coverage": round(coverage(histogram), 4),
            "distances": [round(value, 6) for value in self.matching.alignment.tolist()],
            "gradient_share": self.step.gradient_share,
        }
        path.write_text(json.dumps(found, indent=2) + "\n")


def save_joint(step: nn.Module, folder: Path) -> None:
    """Write what a training has beside its student, if it has anything."""
    state = _state(step)
    if state:
        save_file({name: value.contiguous() for name, value in state.items()}, folder / FILE_NAME)


def load_joint(step: nn.Module, folder: Path) -> None:
    """Read what `save_joint` wrote.

    Raises:
        ValueError: the checkpoint is of a training with other hidden states or quantisation.
    """
    path, expected = folder / FILE_NAME, _state(step)
    found = load_file(path) if path.is_file() else {}
    if {n: v.shape for n, v in found.items()} != {n: v.shape for n, v in expected.items()}:
        raise ValueError(
            f"{folder} is a checkpoint of a training with another `hidden` or `quantization`; go "
            "on with the configuration it began with, or give another `output`"
        )
    with torch.no_grad():
        for name, value in expected.items():
            value.copy_(found[name])


def learned_steps_in(folder: Path) -> dict[str, nn.Parameter]:
    """Return the learned steps of a checkpoint by layer."""
    path = folder / FILE_NAME
    state = load_file(path) if path.is_file() else {}
    return {
        name.removeprefix(STEPS).replace("/", "."): nn.Parameter(value)
        for name, value in state.items()
        if name.startswith(STEPS)
    }


def _state(step: nn.Module) -> dict[str, Tensor]:
    return {n: v for n, v in step.state_dict().items() if not n.startswith("student.")}

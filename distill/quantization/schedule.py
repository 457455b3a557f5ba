"""When which layers are quantised in a training: float first, then block by block, or all at once.

Whisper-KDQ (arXiv 2305.10788 v1) says that distillation chooses the layers to be quantised, and
quantisation those to be distilled; there is no code for either. What stands here is INFERRED from
that sentence: blocks join in the order of how near distillation has brought them to their teacher
layers, and the blocks whose weights lose most on the grid are the ones that are distilled.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import WhisperForConditionalGeneration

from distill.quantization.config import QuantizationConfig
from distill.quantization.fake import (
    activate,
    learned_steps,
    plan,
    prepare,
    quantisation_errors,
    quantised_layers,
    round_rest,
)
from distill.quantization.grid import first_learned_scale
from distill.quantization.packed import save
from distill.quantization.presets import Grid

BLOCKS = "model.decoder.layers."


def planned(model: WhisperForConditionalGeneration, config: QuantizationConfig) -> dict[str, Grid]:
    """Return the grids of a training's layers, those of blocks that never take part left out."""
    grids = plan(model, config.chosen_rules)
    number = model.config.decoder_layers
    kept = {"all": range(number), "even": range(0, number, 2), "first": range(1)}[config.blocks]
    return {n: g for n, g in grids.items() if block_of(n) is None or block_of(n) in kept}


def block_of(layer: str) -> int | None:
    """Return the number of the decoder block that a layer is in; None for other layers."""
    if not layer.startswith(BLOCKS):
        return None
    return int(layer.removeprefix(BLOCKS).partition(".")[0])


def num_quantised(step: int, num_blocks: int, start_step: int, ramp_steps: int) -> int:
    """Return how many blocks are quantised in a step: the first at `start_step`, then evenly."""
    if step < start_step:
        return 0
    if not ramp_steps:
        return num_blocks
    return min(num_blocks, 1 + (step - start_step) * num_blocks // ramp_steps)


def next_blocks(active: list[int], available: list[int], number: int, order: Tensor) -> list[int]:
    """Return `number` blocks: those that are active, and of the others the least in `order`."""
    waiting = sorted((b for b in available if b not in active), key=lambda b: float(order[b]))
    return sorted(active + waiting[: max(0, number - len(active))])


def most_hurt_blocks(errors: Mapping[str, float], number: int) -> list[int]:
    """Return the blocks whose planned layers lose most on the grid, on average (INFERRED)."""
    lost: dict[int, list[float]] = {}
    for layer, error in errors.items():
        block = block_of(layer)
        if block is not None:
            lost.setdefault(block, []).append(error)
    ranking = sorted(lost, key=lambda block: (-sum(lost[block]) / len(lost[block]), block))
    return sorted(ranking[:number])


class QuantisationSchedule(nn.Module):
    """Quantises a student's layers as the training goes on; its state is saved with it.

    Learned steps are its parameters, so they are trained with the student.
    """

    active: Tensor
    """Which decoder blocks are quantised, (blocks,)."""
    begun: Tensor

    def __init__(
        self, student: WhisperForConditionalGeneration, config: QuantizationConfig
    ) -> None:
        super().__init__()
        self.config = config
        self._student = (student,)  # in a tuple, so that torch does not register it
        self.grids = planned(student, config)
        self.blocks = sorted({b for n in self.grids if (b := block_of(n)) is not None})
        steps = {}
        if config.learn_scale:
            trained = {
                name: grid
                for name, grid in self.grids.items()
                if student.get_submodule(name).weight.requires_grad  # pyright: ignore
            }
            steps = learned_steps(student, trained)
        self.steps = nn.ParameterDict({_key(name): step for name, step in steps.items()})
        self.register_buffer("active", torch.zeros(student.config.decoder_layers, dtype=torch.bool))
        self.register_buffer("begun", torch.tensor(False))
        prepare(student, self.grids, self.learned())
        activate(student, [])

    def learned(self) -> dict[str, nn.Parameter]:
        """Return the learned steps by layer."""
        return {n: self.steps[_key(n)] for n in self.grids if _key(n) in self.steps}

    def update(self, step: int, alignment: Tensor | None = None) -> list[int]:
        """Quantise what is due in a step; return the blocks that are quantised now.

        Args:
            step: of the training, from 0.
            alignment: distance of each student layer from its teacher layer, for guided selection.
        """
        config, (student,) = self.config, self._student
        number = num_quantised(step, len(self.blocks), config.start_step, config.ramp_steps)
        order = torch.arange(len(self.active)) if alignment is None else alignment
        before = self.active.nonzero().flatten().tolist()
        active = next_blocks(before, self.blocks, number, order)
        begun = step >= config.start_step
        names = [f"{BLOCKS}{block}" for block in active]
        if begun:
            names += [name for name in self.grids if block_of(name) is None]
        self._set_steps(set(active) - set(before), begun and not self.begun)
        self.active[active] = True
        self.begun.fill_(begun)
        activate(student, names)
        return active

    def blocks_to_distil(self) -> list[int]:
        """Return the decoder blocks that learn from the teacher's layers (INFERRED)."""
        (student,) = self._student
        number = self.config.distilled_blocks or student.config.decoder_layers
        if number >= len(self.blocks):
            return list(range(student.config.decoder_layers))
        return most_hurt_blocks(quantisation_errors(student, self.grids), number)

    @torch.no_grad()
    def _set_steps(self, blocks: set[int], others: bool) -> None:
        """Begin learned steps of layers that join from the weights as they are now."""
        (student,) = self._student
        learned = self.learned()
        for name, layer in quantised_layers(student):
            block = block_of(name)
            if name in learned and (block in blocks or (block is None and others)):
                learned[name].copy_(first_learned_scale(layer.weight, self.grids[name]))


def _key(layer: str) -> str:
    """Return a layer's name as torch takes it for a parameter's."""
    return layer.replace(".", "/")


def write_quantised(
    student: WhisperForConditionalGeneration,
    config: QuantizationConfig,
    folder: Path,
    steps: Mapping[str, nn.Parameter],
) -> int:
    """Write a trained student as `distill.quantization.load` reads it; return the bytes.

    All planned layers are written on their grids, wherever the schedule stood. What is not on a
    grid is rounded to float16 in the student, too.

    Args:
        student: as it was trained, or loaded from a checkpoint.
        config: of the training.
        folder: to write to.
        steps: learned steps by layer.

    Raises:
        ValueError: a weight is not finite.
    """
    grids = planned(student, config)
    activate(student, None)
    round_rest(student, grids)
    return save(student, grids, folder, steps)

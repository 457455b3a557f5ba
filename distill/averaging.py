"""Averages of the weights, which are often a better student than the last step's weights.

A moving average follows every step; the mean of the last checkpoints needs nothing while training.
Only weights that are trained are in the moving average. Its decay grows to its value over the first
steps, or a short training would average in the weights that it began with.
"""

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

FILE_NAME = "average.safetensors"


def mean_weights(weights: Iterable[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Return the mean of models' weights by name; one model is in memory beside it at a time."""
    mean: dict[str, Tensor] = {}
    for number, model in enumerate(weights):
        for name, weight in model.items():
            mean[name] = mean[name].lerp_(weight, 1 / (number + 1)) if number else weight.clone()
    return mean


class WeightAverage:
    """The average of a model's trained weights (exponential moving average)."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model, self.decay, self.updates = model, decay, 0
        trained = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
        self.weights = {name: weight.detach().clone() for name, weight in trained}

    @torch.no_grad()
    def update(self) -> None:
        """Move towards the model's weights; called after each optimiser step."""
        self.updates += 1
        decay = min(self.decay, self.updates / (9 + self.updates))
        for name, weight in self._averaged():
            average = self.weights[name].to(weight.device)
            self.weights[name] = average.lerp_(weight, 1 - decay)

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """Put the average into the model while the context lasts."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def save(self, folder: Path) -> None:
        """Write the average into a checkpoint."""
        tensors = {name: weight.contiguous() for name, weight in self.weights.items()}
        save_file({**tensors, "updates": torch.tensor(self.updates)}, folder / FILE_NAME)

    def load(self, folder: Path) -> None:
        """Read the average of a checkpoint."""
        self.weights = load_file(folder / FILE_NAME)
        self.updates = int(self.weights.pop("updates"))

    @torch.no_grad()
    def _swap(self) -> None:
        for name, weight in self._averaged():
            kept = weight.detach().clone()
            weight.copy_(self.weights[name])
            self.weights[name] = kept

    def _averaged(self) -> Iterator[tuple[str, Tensor]]:
        return ((n, p) for n, p in self.model.named_parameters() if n in self.weights)

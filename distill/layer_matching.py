"""The loss that lets student layers learn from matched teacher layers.

It takes the states that both decoders hold at the labelled positions (`distill.hidden`), brings
them to one width by a learned projection, measures the distances, chooses a teacher layer for each
student layer, and returns the mean of the chosen distances. Projection, averaged distances and the
histogram of choices are part of its state, so they are saved with a checkpoint and go on from it.
"""

# S student layers, T teacher layers, N tokens

from typing import Any

import torch
from torch import Tensor, distributed, nn
from transformers import WhisperForConditionalGeneration

from distill.distances import DISTANCES, distance_matrix, weight_l1
from distill.hidden import HiddenStates
from distill.hidden_config import HiddenConfig
from distill.matching import match_layers, smooth
from distill.quantization.fake import seen_weight

RIDGE = 0.1
"""Of the mean variance of the features, added where the first projection is fitted."""


class LayerMatching(nn.Module):
    """A `distill.hidden.HiddenLoss` with learned projections and a map that may change."""

    distances: Tensor
    """Average distances that the map is made from, (S, T)."""
    histogram: Tensor
    """How often each student layer was given each teacher layer, (S, T)."""
    alignment: Tensor
    """Average distance of each student layer from the layer it learns from, (S,)."""
    distilled: Tensor
    """Which student layers learn, (S,); all, unless quantisation guides the choice."""
    started: Tensor

    def __init__(
        self,
        config: HiddenConfig,
        student: WhisperForConditionalGeneration,
        teacher: WhisperForConditionalGeneration,
    ) -> None:
        super().__init__()
        self.config = config
        self._decoders: Any = (student.model.decoder, teacher.model.decoder)  # not registered
        layers, teachers = (len(decoder.layers) for decoder in self._decoders)
        ours, theirs = (_width(model, config.feature) for model in (student, teacher))
        to_teacher = config.projection == "student-to-teacher"
        sizes = (ours, theirs) if to_teacher else (theirs, ours)
        number = 1 if config.shared_projection else layers
        self.projections = nn.ModuleList(_projection(*sizes) for _ in range(number))
        if config.distance == "weight_l1":
            widths = (student.config.d_model, teacher.config.d_model)
            self.columns = _projection(*(widths if to_teacher else widths[::-1]))
        self.register_buffer("distances", torch.zeros(layers, teachers, dtype=torch.float64))
        self.register_buffer("histogram", torch.zeros(layers, teachers, dtype=torch.int64))
        self.register_buffer("alignment", torch.zeros(layers, dtype=torch.float64))
        self.register_buffer("distilled", torch.ones(layers, dtype=torch.bool))
        self.register_buffer("started", torch.tensor(False))
        self.mapping: list[int] = []

    def forward(self, student: HiddenStates, teacher: HiddenStates) -> dict[str, Tensor]:
        """Return the weighted distance, times the number of tokens, as `hidden`."""
        ours, theirs = (_features(states, self.config.feature) for states in (student, teacher))
        num_tokens = len(ours[0])
        if num_tokens == 0:  # a batch without labels; the weights still take part
            return {"hidden": sum(p.sum() for p in self.parameters()) * 0.0}  # pyright: ignore
        if self.config.distance == "weight_l1":
            measure = weight_l1
            ours, theirs = self._weights()
        else:
            measure = DISTANCES[self.config.distance]
            if self.training and not self.started:
                self._fit(ours, theirs)
            ours, theirs = self._project(ours, theirs)
        self._choose(ours, theirs, measure)
        pairs = zip(ours, (theirs[j] for j in self.mapping), strict=True)
        found = torch.stack([measure(one, other) for one, other in pairs])
        self._remember(found.detach())
        chosen = found[self.distilled.to(found.device)]
        return {"hidden": self.config.weight * num_tokens * chosen.mean()}

    def _project(
        self, ours: list[Tensor], theirs: list[Tensor]
    ) -> tuple[list[Tensor], list[Tensor]]:
        if self.config.projection == "teacher-to-student":
            return ours, [self.projections[0](states) for states in theirs]
        return [self._projection_of(i)(states) for i, states in enumerate(ours)], theirs

    def _projection_of(self, layer: int) -> nn.Module:
        return self.projections[0 if self.config.shared_projection else layer]

    def _weights(self) -> tuple[list[Tensor], list[Tensor]]:
        """Return the first feed-forward weights, on the grid where they are, at one width."""
        ours, theirs = ([seen_weight(layer.fc1) for layer in d.layers] for d in self._decoders)
        columns = self.columns.weight.T
        if self.config.projection == "teacher-to-student":
            rows: Any = self.projections[0].weight
            return ours, [rows @ weight @ columns for weight in theirs]
        mapped = []
        for i, weight in enumerate(ours):
            rows = self._projection_of(i).weight
            mapped.append(rows @ weight @ columns)
        return mapped, theirs

    @torch.no_grad()
    def _choose(self, ours: list[Tensor], theirs: list[Tensor], measure: Any) -> None:
        """Choose the map; in training, take these distances into the average first."""
        config = self.config
        if config.matching.startswith("dynamic"):
            found = distance_matrix(ours, theirs, measure).double()
            found = _mean_over_ranks(found) if self.training else found
            before = self.distances.cpu() if self.started else None
            average = torch.from_numpy(smooth(before, found, config.smoothing))
            self.mapping = match_layers(average, config.matching, strict=config.strict)
            if self.training:
                self.distances.copy_(average)
        elif not self.mapping:
            self.mapping = match_layers(self.distances, config.matching, seed=config.seed)

    @torch.no_grad()
    def _remember(self, found: Tensor) -> None:
        if not self.training:
            return
        found = _mean_over_ranks(found.double())
        decay = self.config.smoothing if self.started else 0.0
        self.alignment.mul_(decay).add_((1 - decay) * found.to(self.alignment))
        rows = torch.arange(len(self.mapping))
        self.histogram[rows, torch.tensor(self.mapping)] += 1
        self.started.fill_(True)

    @torch.no_grad()
    def _fit(self, ours: list[Tensor], theirs: list[Tensor]) -> None:
        """Fit the projections to the first batch by ridge regression over an even map.

        With random ones the first choices would be noise. Between equal widths they begin as the
        identity and are left alone.
        """
        evenly = match_layers(self.distances, "uniform")
        pairs = list(zip(ours, (theirs[j] for j in evenly), strict=True))
        if self.config.projection == "teacher-to-student":
            pairs = [(other, one) for one, other in pairs]
        number = len(self.projections)
        for i, projection in enumerate(self.projections):
            weight: Any = projection.weight
            if weight.shape[0] == weight.shape[1]:
                continue
            some = pairs if number == 1 else [pairs[i]]
            inputs = torch.cat([one.float() for one, _ in some])
            outputs = torch.cat([other.float() for _, other in some])
            squares, products = inputs.T @ inputs, inputs.T @ outputs
            both = _mean_over_ranks(torch.cat([squares, products], dim=1))
            squares, products = both[:, : len(both)], both[:, len(both) :]
            squares.diagonal().add_(RIDGE * squares.diagonal().mean().clamp_min(1e-6))
            weight.copy_(torch.linalg.solve(squares, products).T)


def _projection(size: int, to_size: int) -> nn.Linear:
    """Return a projection without bias: the identity between equal widths, else orthogonal."""
    projection = nn.Linear(size, to_size, bias=False)
    if size == to_size:
        nn.init.eye_(projection.weight)
    else:
        nn.init.orthogonal_(projection.weight)
    return projection


def _width(model: WhisperForConditionalGeneration, feature: str) -> int:
    return model.config.decoder_ffn_dim if feature == "ffn" else model.config.d_model


def _features(states: HiddenStates, feature: str) -> list[Tensor]:
    return {
        "ffn": states.intermediates,
        "block": states.outputs,
        "cross_attention": states.cross_attentions,
    }[feature]


def _mean_over_ranks(values: Tensor) -> Tensor:
    """Average over the processes of a training, so that all choose the same."""
    if distributed.is_available() and distributed.is_initialized():
        values = values.clone()
        distributed.all_reduce(values)
        values /= distributed.get_world_size()
    return values

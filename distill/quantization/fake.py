"""Give a model weights that are always seen through their grid, and take that away again.

A quantised layer stays the layer it was, with the same parameters under the same names; only its
class changes, to one that looks at its weight through the grid. So checkpoints, optimisers and tied
weights know nothing of it: embedding and output head share one parameter and one grid.
Post-training quantisation is the same path without a training step.
"""

import fnmatch
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import WhisperForConditionalGeneration

from distill.quantization.grid import fake_quantize, fake_quantize_learned, first_learned_scale
from distill.quantization.grid import round_trip as on_grid
from distill.quantization.presets import Grid, Rule

POSITIONS = "embed_positions"


class _Quantised:
    """What the two quantised layers have in common."""

    weight: nn.Parameter
    grid: Grid
    step: tuple[nn.Parameter | None]  # in a tuple, so that torch does not register it
    active: bool

    def seen_weight(self) -> Tensor:
        """Return the weight as the forward pass sees it."""
        if not self.active:
            return self.weight
        if self.step[0] is not None:
            return fake_quantize_learned(self.weight, self.step[0], self.grid)
        return fake_quantize(self.weight, self.grid)


class QuantisedLinear(_Quantised, nn.Linear):
    """A linear layer that multiplies by its weight's value on the grid."""

    def forward(self, input: Tensor) -> Tensor:
        """Map (..., columns) to (..., rows)."""
        return functional.linear(input, self.seen_weight(), self.bias)


class QuantisedEmbedding(_Quantised, nn.Embedding):
    """An embedding that looks up rows on the grid."""

    def forward(self, input: Tensor) -> Tensor:
        """Map token ids to rows."""
        return functional.embedding(input, self.seen_weight(), self.padding_idx)


def seen_weight(layer: nn.Module) -> Tensor:
    """Return a layer's weight as its forward pass sees it, on a grid or not."""
    if isinstance(layer, QuantisedLinear | QuantisedEmbedding):
        return layer.seen_weight()
    return layer.weight  # pyright: ignore[reportReturnType]


_KINDS: dict[type[nn.Module], type[nn.Module]] = {
    nn.Linear: QuantisedLinear,
    nn.Embedding: QuantisedEmbedding,
}


def plan(model: nn.Module, rules: Sequence[Rule]) -> dict[str, Grid]:
    """Return the grid of each weight, by the name of the layer that owns it.

    A tied layer (Whisper's output head) is not listed beside the one that it is tied to.

    Raises:
        ValueError: two rules name one layer, a rule names none, a weight does not fit its grid, or
            tied layers are given different grids.
    """
    found: dict[str, Grid] = {}
    used = set()
    for name, layer in _layers(model):
        matching = [r for r in rules if fnmatch.fnmatchcase(name, r.layers)]
        if len(matching) > 1:
            raise ValueError(
                f"{name} is named twice, by {' and '.join(r.layers for r in matching)}; "
                "each layer has one grid"
            )
        if matching:
            matching[0].grid.check(name, tuple(layer.weight.shape))
            found[name] = matching[0].grid
            used.add(matching[0].layers)
    unused = [rule.layers for rule in rules if rule.layers not in used]
    if unused:
        raise ValueError(f"no linear layer or embedding is called {', '.join(unused)}")
    return found


def prepare(
    model: nn.Module,
    grids: Mapping[str, Grid],
    steps: Mapping[str, nn.Parameter] | None = None,
) -> None:
    """Let a model see the weights of these layers, and of layers tied to them, on their grids.

    Args:
        model: changed in place.
        grids: what `plan` returned.
        steps: learned scales by layer, from `learned_steps`; absmax where there are none.

    Raises:
        ValueError: the model is prepared already.
    """
    if any(True for _ in quantised_layers(model)):
        raise ValueError("this model is quantised already; call restore first for another grid")
    layers = dict(_layers(model))
    for name, grid in grids.items():
        weight = layers[name].weight
        for _, layer in _layers(model, tied=True):
            if layer.weight is weight:
                step = (steps or {}).get(name)
                layer.__class__ = _KINDS[type(layer)]  # pyright: ignore[reportAttributeAccessIssue]
                vars(layer).update(grid=grid, active=True, step=(step,))


def restore(model: nn.Module) -> None:
    """Undo `prepare`; the weights are the exact ones again, not those on the grid."""
    for _, layer in list(quantised_layers(model, tied=True)):
        plain = nn.Linear if isinstance(layer, nn.Linear) else nn.Embedding
        layer.__class__ = plain  # pyright: ignore[reportAttributeAccessIssue]
        del layer.grid, layer.active, layer.step


def activate(model: nn.Module, names: Sequence[str] | None) -> None:
    """Choose which quantised layers see the grid now; None for all, the others see exact weights.

    A name chooses all layers under it, and a tied layer goes with the one that it is tied to.
    """
    owners = {id(layer.weight): name for name, layer in quantised_layers(model)}
    for _, layer in quantised_layers(model, tied=True):
        owner = owners[id(layer.weight)]
        layer.active = names is None or any(
            owner == name or owner.startswith(f"{name}.") for name in names
        )


def learned_steps(model: nn.Module, grids: Mapping[str, Grid]) -> dict[str, nn.Parameter]:
    """Return a scale to be learned for each planned layer."""
    layers = dict(_layers(model))
    return {
        name: nn.Parameter(first_learned_scale(layers[name].weight, grid))
        for name, grid in grids.items()
    }


def quantised_layers(
    model: nn.Module, tied: bool = False
) -> Iterator[tuple[str, QuantisedLinear | QuantisedEmbedding]]:
    """Yield the layers that `prepare` changed, tied ones only if asked for."""
    for name, layer in _layers(model, tied):
        if isinstance(layer, QuantisedLinear | QuantisedEmbedding):
            yield name, layer


def quantisation_errors(model: nn.Module, grids: Mapping[str, Grid]) -> dict[str, float]:
    """Measure how much each layer loses: Σ|w − grid(w)| over Σ|w|."""
    layers, errors = dict(_layers(model)), {}
    for name, grid in grids.items():
        weight = layers[name].weight.detach()
        lost = (weight - on_grid(weight, grid)).abs().sum()
        errors[name] = float(lost / weight.abs().sum().clamp_min(1e-12))
    return errors


@torch.no_grad()
def round_rest(model: nn.Module, grids: Mapping[str, Grid]) -> None:
    """Round every weight that is not on a grid to float16, in place, as the file has it.

    Raises:
        ValueError: a weight is too large for float16.
    """
    gridded = {id(layer.weight) for name, layer in _layers(model) if name in grids}
    for name, value in [*model.named_parameters(), *model.named_buffers()]:
        if id(value) not in gridded and value.is_floating_point():
            rounded = value.half().to(value.dtype)
            if not torch.isfinite(rounded).all():
                raise ValueError(f"{name} has weights that float16 cannot hold")
            value.copy_(rounded)


def quantise(model: WhisperForConditionalGeneration, rules: Sequence[Rule]) -> dict[str, Grid]:
    """Quantise a trained model as it is, in place; return the grids. No step of training is taken.

    Raises:
        ValueError: the model is quantised already, or does not fit the rules.
    """
    grids = plan(model, rules)
    prepare(model, grids)
    round_rest(model, grids)
    return grids


def _layers(model: nn.Module, tied: bool = False) -> Iterator[tuple[str, nn.Linear | nn.Embedding]]:
    """Yield linear layers and embeddings but not positions, the owner of a tied weight only."""
    seen = set()
    for name, layer in model.named_modules():
        if isinstance(layer, nn.Linear | nn.Embedding) and not name.endswith(POSITIONS):
            if tied or id(layer.weight) not in seen:
                yield name, layer
            seen.add(id(layer.weight))

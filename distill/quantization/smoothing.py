"""Loud columns made quiet before a runtime rounds the sound, too (SmoothQuant, arXiv 2211.10438).

A runtime that multiplies in int8 rounds what a layer hears, each row by its loudest value, so one
loud column leaves few steps to the others. Dividing a column of the sound and multiplying the same
column of the weights changes nothing in float, and shares the difficulty between the two. The
division costs nothing where the sound comes out of a norm or of an attention's values: it moves
into their weights. What the second feed forward layer hears comes out of a curve, and stays.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import WhisperForConditionalGeneration

Peaks = Mapping[str, Tensor]
"""Largest |x| of each column, (columns,), by the place where it was heard (see `place_of`)."""

_SELF = re.compile(r"(.*\.self_attn)\.[qkv]_proj")
_SOUND = re.compile(r".*\.encoder_attn\.[kv]_proj")
_QUIET = 1e-5
"""Columns that are never louder, or have no larger weight, are taken to be as loud as this."""


def place_of(layer: str) -> str:
    """Name what a layer hears; layers that hear the same share it.

    Queries, keys and values of self-attention hear one thing, the keys and values of all
    cross-attentions hear the encoder's output, and every other layer hears something of its own.
    """
    if found := _SELF.fullmatch(layer):
        return found[1]
    return "encoder_attn" if _SOUND.fullmatch(layer) else layer


@contextmanager
def listening(model: nn.Module) -> Iterator[Peaks]:
    """Note how loud each column is that the linear layers of a model hear while it is used."""
    peaks: dict[str, Tensor] = {}
    hooks, known = [], set()
    for name, layer in model.named_modules():
        place = place_of(name)
        if isinstance(layer, nn.Linear) and place not in known:
            known.add(place)
            hooks.append(layer.register_forward_pre_hook(_noting(peaks, place)))
    try:
        yield peaks
    finally:
        for hook in hooks:
            hook.remove()


@torch.no_grad()
def smooth(model: WhisperForConditionalGeneration, peaks: Peaks, strength: float = 0.5) -> None:
    """Move loudness from sound into weights, in place.

    What the model writes stays the same, up to the rounding of float32. The encoder's output does
    not: it is divided, and the decoder multiplies.

    Args:
        model: a plain Whisper.
        peaks: what its layers have heard; a place that nothing came by stays as it is.
        strength: 0 levels the columns of the weights, 1 those of the sound.
    """
    layers: dict[str, Any] = dict(model.named_modules())
    for source, readers in _paths(model):
        loudness = peaks.get(place_of(readers[0]))
        if loudness is None:
            continue
        matrices = [layers[name].weight for name in readers]
        largest = torch.stack([matrix.abs().amax(0) for matrix in matrices]).amax(0)
        factor = _factor(loudness, largest, strength)
        layers[source].bias /= factor
        layers[source].weight /= factor if layers[source].weight.ndim == 1 else factor[:, None]
        for matrix in matrices:
            matrix *= factor


def _factor(loudness: Tensor, weight: Tensor, strength: float) -> Tensor:
    """Return what each column of the sound is divided by, in the geometric mean 1 (eq. 4)."""
    of_sound, of_weight = loudness.clamp_min(_QUIET).log(), weight.clamp_min(_QUIET).log()
    logarithm = strength * of_sound - (1 - strength) * of_weight
    return (logarithm - logarithm.mean()).exp()


def _paths(model: WhisperForConditionalGeneration) -> Iterator[tuple[str, list[str]]]:
    """Yield what makes a sound, with the layers that hear it."""
    for part in ("encoder", "decoder"):
        blocks: Any = model.get_submodule(f"model.{part}.layers")
        for number in range(len(blocks)):
            layer = f"model.{part}.layers.{number}"
            own, cross = f"{layer}.self_attn", f"{layer}.encoder_attn"
            yield f"{own}_layer_norm", [f"{own}.{name}_proj" for name in "qkv"]
            yield f"{own}.v_proj", [f"{own}.out_proj"]
            if part == "decoder":
                yield f"{cross}_layer_norm", [f"{cross}.q_proj"]
                yield f"{cross}.v_proj", [f"{cross}.out_proj"]
            yield f"{layer}.final_layer_norm", [f"{layer}.fc1"]
    yield (
        "model.encoder.layer_norm",
        [
            f"model.decoder.layers.{number}.encoder_attn.{name}_proj"
            for number in range(len(model.model.decoder.layers))
            for name in "kv"
        ],
    )


def _noting(peaks: dict[str, Tensor], place: str) -> Callable[[nn.Module, tuple[Tensor]], None]:
    def note(_layer: nn.Module, inputs: tuple[Tensor]) -> None:
        peak = inputs[0].detach().flatten(0, -2).abs().amax(0)
        peaks[place] = torch.maximum(peaks[place], peak) if place in peaks else peak

    return note

"""LayerDrop: skip inner decoder layers in training, so that a model can later lose them.

A student begins with maximally spaced layers of its teacher: always the first and the last, and
few of those between. A teacher that was trained with skipped layers (LayerDrop, arXiv 1909.11556)
starts such students from less of an error. Two decisions follow. The first and the last layer are
never skipped, because no student of two layers or more goes without them; skipping them too makes
steps with one layer or none, which teach nothing that anybody uses. And every clip of a batch draws
for itself (stochastic depth, arXiv 1603.09382), so one step trains several depths and no layer goes
without a gradient.
"""

from typing import Any

import torch
from torch import nn


def drop_inner_layers(decoder: Any, share: float) -> None:
    """Skip each layer but the first and the last for a share of the clips, in training only.

    Args:
        decoder: a `WhisperDecoder`; its weights and configuration stay as they are.
        share: probability from 0 to below 1 that a clip goes past a layer.

    Raises:
        ValueError: the decoder has no layer between the first and the last.
    """
    if share == 0:
        return
    inner = list(decoder.layers)[1:-1]
    if not inner:
        raise ValueError(
            f"decoder_layerdrop is {share}, but a decoder of {len(decoder.layers)} layers has none "
            "between the first and the last that could be skipped; set it to 0"
        )
    for layer in inner:
        layer.register_forward_hook(_Skip(share))


class _Skip:
    """A forward hook that hands a share of the clips on as they came."""

    def __init__(self, share: float) -> None:
        self.share = share

    def __call__(self, layer: nn.Module, args: tuple[Any, ...], output: torch.Tensor) -> Any:
        """Choose between input and output (batch, tokens, width), clip by clip."""
        if not layer.training:
            return None
        before = args[0]
        kept = torch.rand(len(before), 1, 1, device=before.device) >= self.share
        return torch.where(kept, output, before)

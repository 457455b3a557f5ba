"""Linear layers that multiply integers on a CPU, made from the integers of a file.

Weights are the stored ones; each call quantises its activations with one scale, so results differ a
little from those of the dequantised model. Only layers with 8 bits and a scale for each row are
replaced, the others compute in float32. The kernels are those of torch's `quantized` operators
(oneDNN or FBGEMM).
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import WhisperForConditionalGeneration

from distill.quantization.packed import Packed, build, read


class IntegerLinear(nn.Module):
    """A linear layer with int8 weights; knows neither gradients nor state dicts."""

    def __init__(self, integers_RC: Tensor, scale_R: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        rows, columns = integers_RC.shape
        self.in_features, self.out_features = columns, rows
        zeros = torch.zeros(rows, dtype=torch.int64)
        make: Any = vars(torch)["_make_per_channel_quantized_tensor"]
        weight = make(integers_RC, scale_R.double(), zeros, 0)
        kept = None if bias is None else bias.detach()
        self._packed: Any = torch.ops.quantized.linear_prepack(weight, kept)
        # Without VNNI, products of 8-bit numbers overflow 16 bits: activations get 7 bits then.
        self._reduce_range = not torch.cpu._is_vnni_supported()

    def forward(self, input: Tensor) -> Tensor:
        """Map (..., columns) to (..., rows)."""
        return torch.ops.quantized.linear_dynamic(input.float(), self._packed, self._reduce_range)


def load_with_integers(folder: str | Path) -> WhisperForConditionalGeneration:
    """Load a quantised model whose 8-bit layers multiply integers; for transcribing on a CPU.

    Raises:
        FileNotFoundError: the folder holds no quantised model.
        ValueError: the file is damaged or of another model, or this torch has no such kernels.
    """
    if torch.backends.quantized.engine == "none":
        raise ValueError("this build of torch has no integer kernels; load the model without them")
    packed = read(folder)
    model = build(packed, folder)
    for name, layer in list(_replaceable(model, packed)):
        owner = "model.decoder.embed_tokens" if name == "proj_out" else name
        scale = packed.scale(owner).flatten().expand(layer.out_features)
        integer = IntegerLinear(packed.integers(owner), scale.contiguous(), layer.bias)
        model.set_submodule(name, integer)
    return model


def _replaceable(
    model: WhisperForConditionalGeneration, packed: Packed
) -> Iterator[tuple[str, nn.Linear]]:
    for name, layer in model.named_modules():
        tied = layer is model.proj_out and layer.weight is model.model.decoder.embed_tokens.weight
        grid = packed.grids.get("model.decoder.embed_tokens" if tied else name)
        if isinstance(layer, nn.Linear) and grid and grid.bits > 4 and grid.group is None:
            yield name, layer

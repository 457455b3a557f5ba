"""What a frozen encoder has heard once, kept for the next training that is given the same batches.

Students of a study that differ in loss, depth or layer matching read the same clips in the same
order and share their teacher's encoder, which is most of the work of a step. What is kept is found
by the weights that the encoder computes with, on their grids where they are on one, and by the
features themselves, so it can only be what would be computed again.
"""

import hashlib
from typing import Any

import torch
from torch import Tensor

from distill.quantization.fake import QuantisedLinear
from distill.student import encode

KEPT_BYTES = 2 * 2**30
"""Output beyond this is computed each time."""


class EncoderMemory:
    """Stands in for `distill.student.encode`, with the same result."""

    def __init__(self, kept_bytes: int = KEPT_BYTES) -> None:
        self.kept_bytes, self.hits = kept_bytes, 0
        self._kept: dict[bytes, Tensor] = {}
        self._num_bytes = 0

    def __call__(self, encoder: Any, features: Tensor) -> Tensor:
        """Return the encoder's output, computed if it learns, draws dropout, or is new."""
        if torch.is_grad_enabled() or encoder.training:
            return encode(encoder, features)
        key = _key(encoder, features)
        if key in self._kept:
            self.hits += 1
            return self._kept[key]
        sound = encode(encoder, features)
        if self._num_bytes + sound.nbytes <= self.kept_bytes:
            self._kept[key] = sound
            self._num_bytes += sound.nbytes
        return sound


def _key(encoder: Any, features: Tensor) -> bytes:
    device = features.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
    digest = hashlib.sha256(f"{dtype} {tuple(features.shape)}".encode())
    seen: dict[str, Any] = {
        f"{name}.weight": layer.seen_weight()
        for name, layer in encoder.named_modules()
        if isinstance(layer, QuantisedLinear)
    }
    for name, value in encoder.state_dict().items():
        digest.update(f"{name} {tuple(value.shape)}".encode())
        _add(digest, seen.get(name, value))
    _add(digest, features)
    return digest.digest()


def _add(digest: Any, tensor: Tensor) -> None:
    digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)

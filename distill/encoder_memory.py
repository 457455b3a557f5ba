"""What a frozen encoder has heard once, kept for the next epoch and for the next training.

A clip sounds the same in every epoch unless it is augmented, students of a study share their
teacher's encoder, and running it is most of the work of a step. What is kept is found by the
weights that the encoder computes with, on their grids where they are on one, and by the features
themselves, so it can only be what would be computed again. Clips are encoded one by one: the last
bits of a result depend on what shares its batch, and a resumed training has to see the same ones.
"""

import hashlib
import logging
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from distill.quantization.fake import QuantisedLinear
from distill.student import encode

logger = logging.getLogger(__name__)

KEPT_BYTES = 2 * 2**30
"""Output beyond this is computed each time."""


class EncoderMemory:
    """Stands in for `distill.student.encode`, with the same result but for rounding.

    What is kept stays on the device that computed it.
    """

    def __init__(self, kept_bytes: int = KEPT_BYTES) -> None:
        self.kept_bytes, self.num_bytes = kept_bytes, 0
        self.hits = self.misses = 0
        self.is_full = False
        self._kept: dict[bytes, Tensor] = {}
        self._known: WeakKeyDictionary[Any, _Known] = WeakKeyDictionary()

    def __call__(self, encoder: Any, features: Tensor) -> Tensor:
        """Return (batch, positions, width), computed where it learns, draws dropout, or is new."""
        if torch.is_grad_enabled() or encoder.training:
            return encode(encoder, features)
        weights = self._weights(encoder)
        return torch.cat([self._hear(encoder, weights, row) for row in features.split(1)])

    def _hear(self, encoder: Any, weights: bytes, features: Tensor) -> Tensor:
        device = features.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
        digest = hashlib.sha256(weights)
        digest.update(f"{dtype} {tuple(features.shape)}".encode())
        _add(digest, features)
        key = digest.digest()
        if key in self._kept:
            self.hits += 1
            return self._kept[key]
        self.misses += 1
        sound = encode(encoder, features)
        if dtype:  # the last norm is in float32; attention to it begins by rounding, kept or not
            sound = sound.to(dtype)
        if self.num_bytes + sound.nbytes <= self.kept_bytes:
            self._kept[key] = sound
            self.num_bytes += sound.nbytes
        elif not self.is_full:
            self.is_full = True
            logger.info(
                "the encoder's memory is full with %d clips; others are encoded each time",
                len(self._kept),
            )
        return sound

    def _weights(self, encoder: Any) -> bytes:
        """Hash what the encoder computes with, again only where it may have changed."""
        if any(isinstance(layer, QuantisedLinear) for layer in encoder.modules()):
            return _weights_digest(encoder)  # a grid may begin to count without a weight's change
        tensors = list(encoder.state_dict(keep_vars=True).values())
        versions = [(id(tensor), tensor.data_ptr(), tensor._version) for tensor in tensors]
        known = self._known.get(encoder)
        if known is None or known.versions != versions:
            self._known[encoder] = known = _Known(versions, tensors, _weights_digest(encoder))
        return known.digest


class _Known(NamedTuple):
    """The weights of an encoder as they were; holding the tensors keeps their ids from reuse."""

    versions: list[tuple[int, int, int]]
    tensors: list[Tensor]
    digest: bytes


def _weights_digest(encoder: Any) -> bytes:
    digest = hashlib.sha256()
    seen: dict[str, Any] = {
        f"{name}.weight": layer.seen_weight()
        for name, layer in encoder.named_modules()
        if isinstance(layer, QuantisedLinear)
    }
    for name, value in encoder.state_dict().items():
        digest.update(f"{name} {tuple(value.shape)}".encode())
        _add(digest, seen.get(name, value))
    return digest.digest()


def _add(digest: Any, tensor: Tensor) -> None:
    digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)

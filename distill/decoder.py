"""Whisper's decoder with a cache whose rows advance on their own.

`transformers` moves every row of a batch by the same number of tokens, so a batch in which one row
takes five drafted tokens and another takes none cannot be expressed. Here each row has its own
length: keys and values are written at the row's own positions, attention sees what lies before
them, and going back is setting a smaller length. The modules are the model's own (quantised ones
too), only the loop over them is this project's.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

_SMALLEST_ROOM = 64
"""Positions that a new cache holds; it doubles when they are used up."""


@dataclass(kw_only=True)
class Cache:
    """Keys and values of a batch by layer; (batch, heads, positions, head width)."""

    keys: list[Tensor]
    values: list[Tensor]
    cross_keys: list[Tensor]
    cross_values: list[Tensor]
    lengths: list[int] = field(default_factory=list)
    """How many tokens of each row have been seen; setting one smaller forgets the rest."""

    def select(self, rows: list[int]) -> None:
        """Keep these rows only, in this order; see `kept_places`, whose order this needs.

        Only rows that take the place of others are copied: the keys of the audio are most of the
        memory, and copying all of them whenever a row ends would cost more than the row.
        """
        moves = [(place, row) for place, row in enumerate(rows) if place != row]
        for tensors in (self.keys, self.values, self.cross_keys, self.cross_values):
            for tensor in tensors:
                for place, row in moves:
                    tensor[place] = tensor[row]
            tensors[:] = [tensor[: len(rows)] for tensor in tensors]
        self.lengths = [self.lengths[row] for row in rows]

    def make_room(self, num_positions: int) -> None:
        """Hold at least so many positions."""
        room = self.keys[0].shape[2]
        if num_positions > room:
            grow = max(num_positions, 2 * room) - room
            for tensors in (self.keys, self.values):
                tensors[:] = [functional.pad(tensor, (0, 0, 0, grow)) for tensor in tensors]


def kept_places(going_on: list[bool]) -> list[int]:
    """Return the places of rows that go on: each stays in its own, and the last ones fill holes."""
    number = sum(going_on)
    spare = [place for place in range(number, len(going_on)) if going_on[place]]
    return [place if going_on[place] else spare.pop() for place in range(number)]


class Decoder:
    """The decoder of a Whisper and its output layer, without the encoder."""

    def __init__(self, decoder: Any, output: Any) -> None:
        """Take the model's own modules.

        Args:
            decoder: `WhisperDecoder`.
            output: the layer that turns hidden states into logits.
        """
        self._decoder, self._output = decoder, output
        attention = decoder.layers[0].self_attn
        self._num_heads, self._head_width = attention.num_heads, attention.head_dim
        self._scaling = attention.scaling
        self.num_layers = len(decoder.layers)
        self.width: int = decoder.config.d_model
        self.vocabulary_size: int = decoder.config.vocab_size
        self.max_positions: int = decoder.config.max_target_positions

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self._decoder.embed_positions.weight.device

    def begin(self, encoded: Tensor) -> Cache:
        """Return an empty cache for encoder output (batch, positions, width)."""
        layers = self._decoder.layers
        empty = (len(encoded), self._num_heads, _SMALLEST_ROOM, self._head_width)
        make = lambda: [encoded.new_zeros(empty) for _ in layers]  # noqa: E731
        return Cache(
            keys=make(),
            values=make(),
            cross_keys=[self._split(layer.encoder_attn.k_proj(encoded)) for layer in layers],
            cross_values=[self._split(layer.encoder_attn.v_proj(encoded)) for layer in layers],
            lengths=[0] * len(encoded),
        )

    def step(self, tokens: Tensor, cache: Cache, attention: list[Tensor] | None = None) -> Tensor:
        """Go on with tokens (batch, new) at each row's own length; rows grow by all of them.

        Positions past the model's last are computed with its last position's embedding; what comes
        out there means nothing and must not be used.

        Args:
            tokens: ids; padding at a row's end is harmless once its length is set back.
            cache: of the same batch.
            attention: receives each layer's cross-attention (batch, heads, new, encoder positions).

        Returns:
            Hidden states (batch, new, width).
        """
        num_new, longest = tokens.shape[1], max(cache.lengths)
        cache.make_room(longest + num_new)
        uniform = longest == min(cache.lengths)
        first = torch.tensor(cache.lengths, device=tokens.device)[:, None]
        positions = first + torch.arange(num_new, device=tokens.device)
        hidden = self._decoder.embed_tokens(tokens)
        embedded = self._decoder.embed_positions.weight[positions.clamp(max=self.max_positions - 1)]
        hidden = hidden + embedded
        mask = None
        if not (uniform and num_new == 1):
            seen = torch.arange(longest + num_new, device=tokens.device)
            mask = seen <= positions[: 1 if uniform else None, None, :, None]
        rows = torch.arange(len(tokens), device=tokens.device)[:, None]
        for number, layer in enumerate(self._decoder.layers):
            keys, values = cache.keys[number], cache.values[number]
            inner = layer.self_attn_layer_norm(hidden)
            new_keys = self._split(layer.self_attn.k_proj(inner))
            new_values = self._split(layer.self_attn.v_proj(inner))
            if uniform:
                keys[:, :, longest : longest + num_new] = new_keys
                values[:, :, longest : longest + num_new] = new_values
            else:
                keys[rows, :, positions] = new_keys.transpose(1, 2)
                values[rows, :, positions] = new_values.transpose(1, 2)
            seen_keys = keys[:, :, : longest + num_new]
            seen_values = values[:, :, : longest + num_new]
            hidden = hidden + self._attend(layer.self_attn, inner, seen_keys, seen_values, mask)
            inner = layer.encoder_attn_layer_norm(hidden)
            cross = cache.cross_keys[number], cache.cross_values[number]
            hidden = hidden + self._attend(layer.encoder_attn, inner, *cross, None)
            if attention is not None:
                queries = self._split(layer.encoder_attn.q_proj(inner) * self._scaling)
                attention.append((queries @ cross[0].transpose(2, 3)).softmax(-1))
            inner = layer.final_layer_norm(hidden)
            hidden = hidden + layer.fc2(layer.activation_fn(layer.fc1(inner)))
        cache.lengths = [length + num_new for length in cache.lengths]
        return self._decoder.layer_norm(hidden)

    def logits(self, hidden: Tensor) -> Tensor:
        """Turn hidden states (..., width) into float32 logits (..., vocabulary)."""
        return self._output(hidden).float()

    def _attend(
        self, module: Any, inner: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None
    ) -> Tensor:
        queries = self._split(module.q_proj(inner) * self._scaling)
        found = functional.scaled_dot_product_attention(
            queries, keys, values, attn_mask=mask, scale=1.0
        )
        return module.out_proj(found.transpose(1, 2).flatten(2))

    def _split(self, states: Tensor) -> Tensor:
        """Cut into heads: (batch, positions, width) to (batch, heads, positions, head width)."""
        return states.unflatten(-1, (self._num_heads, self._head_width)).transpose(1, 2)

"""ONNX: an encoder and a decoder with a cache, under the names that Optimum gave them.

    encoder_model.onnx            input_features -> last_hidden_state
    decoder_model.onnx            input_ids, encoder_hidden_states -> logits, present.*
    decoder_with_past_model.onnx  input_ids, past_key_values.* -> logits, present.*.decoder.*
    model.onnx_data               the weights of all three, each stored once

The first decoder begins a text and computes the keys and values of the sound, the second goes on
with them. Both take any batch and any number of new tokens. The weights lie outside the graphs,
because a protobuf ends at 2 GB and the two decoders have the same ones.
"""

import hashlib
import tempfile
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from distill.export.onnx_runtime import DECODER, DECODER_WITH_PAST, ENCODER, PAIR, transcriber
from distill.export.source import Source
from distill.processor import save_processor
from distill.student import encode

__all__ = ["NEEDS", "RUNTIME", "WEIGHTS", "transcriber", "write"]

NEEDS = ("onnx",)
RUNTIME = "onnxruntime"

WEIGHTS = "model.onnx_data"
_OPSET = 17
_SMALLEST_OUTSIDE = 1024
"""Bytes of a tensor that is stored outside its graph."""
_ALIGNMENT = 4096
"""Where a tensor begins, so that a runtime can map the file into memory."""


class _Encoder(nn.Module):
    def __init__(self, encoder: Any) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, features: Tensor) -> Tensor:
        return encode(self.encoder, features)


class _Decoder(nn.Module):
    """Whisper's decoder with its cache as plain tensors, which is what a graph can hold."""

    def __init__(self, model: Any, with_past: bool) -> None:
        super().__init__()
        self.decoder, self.with_past = model.model.decoder, with_past
        attention = self.decoder.layers[0].self_attn
        self.num_heads, self.scaling = attention.num_heads, attention.scaling

    def forward(self, tokens: Tensor, *given: Tensor) -> tuple[Tensor, ...]:
        """Return logits, then keys and values: own, and without a past also those of the sound."""
        past = given[0].shape[2] if self.with_past else 0
        places = torch.arange(tokens.shape[1]) + past
        hidden = self.decoder.embed_tokens(tokens) + self.decoder.embed_positions.weight[places]
        seen = torch.arange(tokens.shape[1] + past)[None] <= places[:, None]
        mask = torch.where(seen, 0.0, torch.finfo(torch.float32).min)
        present: list[Tensor] = []
        for number, layer in enumerate(self.decoder.layers):
            inner = layer.self_attn_layer_norm(hidden)
            keys = self._split(layer.self_attn.k_proj(inner))
            values = self._split(layer.self_attn.v_proj(inner))
            if self.with_past:
                own_keys, own_values, cross_keys, cross_values = given[4 * number : 4 * number + 4]
                keys = torch.cat([own_keys, keys], 2)
                values = torch.cat([own_values, values], 2)
                present += [keys, values]
            else:
                cross_keys = self._split(layer.encoder_attn.k_proj(given[0]))
                cross_values = self._split(layer.encoder_attn.v_proj(given[0]))
                present += [keys, values, cross_keys, cross_values]
            hidden = hidden + self._attend(layer.self_attn, inner, keys, values, mask)
            inner = layer.encoder_attn_layer_norm(hidden)
            hidden = hidden + self._attend(
                layer.encoder_attn, inner, cross_keys, cross_values, None
            )
            inner = layer.final_layer_norm(hidden)
            hidden = hidden + layer.fc2(layer.activation_fn(layer.fc1(inner)))
        # the tied output head, written so that it is the embedding and no second copy of it
        logits = self.decoder.layer_norm(hidden) @ self.decoder.embed_tokens.weight.T
        return (logits, *present)

    def _attend(
        self, module: Any, inner: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None
    ) -> Tensor:
        weights = self._split(module.q_proj(inner) * self.scaling) @ keys.transpose(2, 3)
        if mask is not None:
            weights = weights + mask
        found = weights.softmax(-1) @ values
        return module.out_proj(found.transpose(1, 2).flatten(2))

    def _split(self, states: Tensor) -> Tensor:
        return states.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)


def write(source: Source, folder: Path) -> None:
    """Write the three graphs and their weights."""
    import onnx

    model: Any = source.model
    config = model.config
    layers = range(config.decoder_layers)
    features = torch.zeros(2, config.num_mel_bins, 2 * config.max_source_positions)
    sound = torch.zeros(2, config.max_source_positions, config.d_model)
    tokens = torch.zeros(2, 3, dtype=torch.int64)
    heads = config.decoder_attention_heads
    own = torch.zeros(2, heads, 5, config.d_model // heads)
    cross = torch.zeros(2, heads, config.max_source_positions, config.d_model // heads)
    both = [f"{i}.{of}.{what}" for i in layers for of in ("decoder", "encoder") for what in PAIR]
    own_only = [name for name in both if ".decoder." in name]
    new, past = {0: "batch", 2: "tokens"}, {0: "batch", 2: "past"}
    sum_ = {0: "batch", 2: "past_and_tokens"}
    text = {0: "batch", 1: "tokens"}
    graphs = {
        ENCODER: (
            _Encoder(model.model.encoder),
            {"input_features": features},
            {"input_features": {0: "batch"}},
            {"last_hidden_state": {0: "batch"}},
        ),
        DECODER: (
            _Decoder(model, with_past=False),
            {"input_ids": tokens, "encoder_hidden_states": sound},
            {"input_ids": text, "encoder_hidden_states": {0: "batch"}},
            {"logits": text}
            | {f"present.{n}": new if ".decoder." in n else {0: "batch"} for n in both},
        ),
        DECODER_WITH_PAST: (
            _Decoder(model, with_past=True),
            {"input_ids": tokens}
            | {f"past_key_values.{n}": own if ".decoder." in n else cross for n in both},
            {"input_ids": text}
            | {f"past_key_values.{n}": past if ".decoder." in n else {0: "batch"} for n in both},
            {"logits": text} | {f"present.{n}": sum_ for n in own_only},
        ),
    }
    folder.mkdir(parents=True)
    with (folder / WEIGHTS).open("wb") as file:
        store = _Store(file)
        for name, (module, inputs, axes_in, axes_out) in graphs.items():
            graph = _trace(module, inputs, list(axes_out), axes_in | axes_out)
            for tensor in graph.graph.initializer:
                store.put(tensor)
            onnx.save_model(graph, str(folder / name))
    model.config.save_pretrained(folder)
    model.generation_config.save_pretrained(folder)
    save_processor(source.processor, folder)


def _trace(
    module: nn.Module, inputs: dict[str, Tensor], outputs: list[str], axes: dict[str, Any]
) -> Any:
    """Return the graph of a module, with its weights in it."""
    import onnx

    with tempfile.TemporaryDirectory() as temporary, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter about itself, and of sizes in the trace
        path = str(Path(temporary) / "graph.onnx")
        with torch.no_grad():
            torch.onnx.export(
                module.eval(),
                tuple(inputs.values()),
                path,
                input_names=list(inputs),
                output_names=outputs,
                dynamic_axes=axes,
                opset_version=_OPSET,
                do_constant_folding=False,  # it would store transposed copies
                dynamo=False,  # the other exporter needs onnxscript
            )
        return onnx.load(path)


@dataclass
class _Store:
    """A file of weights in which each content has one place."""

    file: Any
    places: dict[bytes, int] = field(default_factory=dict)

    def put(self, tensor: Any) -> None:
        """Move a tensor's bytes out of its graph."""
        from onnx import TensorProto, external_data_helper, numpy_helper

        content = np.ascontiguousarray(numpy_helper.to_array(tensor)).tobytes()
        if len(content) < _SMALLEST_OUTSIDE:
            return
        key = hashlib.sha256(content).digest()
        if key not in self.places:
            self.file.write(bytes(-self.file.tell() % _ALIGNMENT))
            self.places[key] = self.file.tell()
            self.file.write(content)
        tensor.ClearField("float_data")
        tensor.raw_data = content
        external_data_helper.set_external_data(
            tensor, WEIGHTS, offset=self.places[key], length=len(content)
        )
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL

"""An exported model in ONNX Runtime, decoded by this package's own loop and rules."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from distill.decoding import Limits, Prompt, decode
from distill.export.source import Source, Transcriber
from distill.longform import Window
from distill.rules import rules_of
from pipeline.features import log_mels

ENCODER = "encoder_model.onnx"
DECODER = "decoder_model.onnx"
DECODER_WITH_PAST = "decoder_with_past_model.onnx"
PAIR = ("key", "value")
_MAX_NEW_TOKENS = 224


@dataclass(kw_only=True)
class _Cache:
    """Keys and values of rows that have the same length."""

    encoded: np.ndarray
    own: list[np.ndarray] = field(default_factory=list)
    cross: list[np.ndarray] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)

    def select(self, rows: list[int]) -> None:
        """Keep these rows only."""
        self.own = [array[rows] for array in self.own]
        self.cross = [array[rows] for array in self.cross]
        self.lengths = [self.lengths[row] for row in rows]


class OnnxDecoder:
    """The exported decoder, behind what `distill.decoding.decode` asks of one."""

    def __init__(self, folder: Path, num_layers: int, max_positions: int) -> None:
        """Load both graphs.

        Raises:
            ImportError: onnxruntime is not installed.
        """
        self._first, self._next = session(folder / DECODER), session(folder / DECODER_WITH_PAST)
        self._layers = range(num_layers)
        self.max_positions = max_positions

    def begin(self, encoded: Tensor) -> _Cache:
        """Return an empty cache for encoder output (batch, positions, width)."""
        return _Cache(encoded=encoded.numpy(), lengths=[0] * len(encoded))

    def step(self, tokens: Tensor, cache: _Cache) -> Tensor:
        """Go on with tokens (batch, new); return logits (batch, new, vocabulary)."""
        ids = tokens.numpy()
        if not cache.own:
            logits, *found = self._first.run(
                None, {"input_ids": ids, "encoder_hidden_states": cache.encoded}
            )
            cache.own = [found[4 * i + k] for i in self._layers for k in (0, 1)]
            cache.cross = [found[4 * i + k] for i in self._layers for k in (2, 3)]
        else:
            given = {"input_ids": ids}
            for i in self._layers:
                for place, what in enumerate(PAIR):
                    of = f"past_key_values.{i}"
                    given[f"{of}.decoder.{what}"] = cache.own[2 * i + place]
                    given[f"{of}.encoder.{what}"] = cache.cross[2 * i + place]
            logits, *cache.own = self._next.run(None, given)
        cache.lengths = [length + ids.shape[1] for length in cache.lengths]
        return torch.from_numpy(logits)

    def logits(self, hidden: Tensor) -> Tensor:
        """Return what `step` returned: the graphs have the output layer in them."""
        return hidden


def session(path: Path) -> Any:
    """Open a graph on the CPU.

    Raises:
        ImportError: onnxruntime is not installed.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    return onnxruntime.InferenceSession(
        str(path), sess_options=options, providers=["CPUExecutionProvider"]
    )


def transcriber(folder: Path, source: Source) -> Transcriber:
    """Return what onnxruntime hears, decoded greedily by the rules of the source's settings.

    Raises:
        ImportError: onnxruntime is not installed.
    """
    config, vocabulary = source.model.config, source.vocabulary
    encoder = session(folder / ENCODER)
    decoder = OnnxDecoder(folder, config.decoder_layers, config.max_target_positions)
    rules = rules_of(
        source.model.generation_config,
        config.vocab_size,
        vocabulary.end,
        vocabulary.first_timestamp,
        timestamps=False,
    )

    def hear(windows: list[Window]) -> list[str]:
        features = log_mels((w.samples for w in windows), num_mels=config.num_mel_bins)
        (encoded,) = encoder.run(None, {"input_features": features})
        tasks = [vocabulary.task(w.language or "en", timestamps=False) for w in windows]
        answers = decode(
            cast(Any, decoder),
            torch.from_numpy(encoded),
            [Prompt(tokens=tuple(task)) for task in tasks],
            rules,
            Limits(max_new_tokens=_MAX_NEW_TOKENS),
        )
        return [vocabulary.decode(list(answer.tokens)).strip() for answer in answers]

    return hear

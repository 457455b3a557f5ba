"""The model that is exported, as every format takes it: plain weights in float32."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import WhisperForConditionalGeneration, WhisperProcessor

from distill.hearing import Recognizer
from distill.longform import Window
from distill.student import alignment_heads, is_multilingual, load_model, load_processor
from distill.vocabulary import TokenizerVocabulary
from pipeline.schema import model_path

Transcriber = Callable[[list[Window]], list[str]]
"""Writes down windows, without timestamps, as one runtime does it."""


def texts_of(recognizer: Recognizer) -> Transcriber:
    """Return what a recognizer writes down."""
    return lambda windows: [heard.text for heard in recognizer.hear(windows)]


@dataclass(frozen=True, kw_only=True)
class Source:
    """A loaded Whisper."""

    name: str
    """As it was given."""
    model: WhisperForConditionalGeneration
    processor: WhisperProcessor
    calibration: tuple[Window, ...] = ()
    """What it listens to before a format is written that rounds sound."""

    @property
    def vocabulary(self) -> TokenizerVocabulary:
        """Its tokens by name."""
        settings = self.model.generation_config
        return TokenizerVocabulary(
            self.processor.tokenizer,
            is_multilingual(self.model),
            getattr(settings, "lang_to_id", None),
        )

    def check_float16(self) -> None:
        """Refuse a model that float16 cannot hold; rounding would make infinities of its weights.

        Raises:
            ValueError: a weight is too large.
        """
        largest = torch.finfo(torch.float16).max
        for name, weight in self.model.named_parameters():
            if not weight.detach().abs().max() <= largest:
                raise ValueError(
                    f"{self.name} has weights in {name} that float16 cannot hold; "
                    "export onnx, which is in float32"
                )


def load_source(name: str) -> Source:
    """Load a plain or a quantised Whisper, with alignment heads that its decoder has.

    Raises:
        ValueError: there is no Whisper of that name, or it is a conversion itself.
    """
    if (Path(model_path(name)) / "model.bin").is_file():
        raise ValueError(
            f"{name} is a CTranslate2 model; export the Hugging Face folder that it was made from"
        )
    model = load_model(name).eval()
    config, settings = model.config, model.generation_config
    heads: Any = getattr(settings, "alignment_heads", None)
    if heads:
        # those of a larger teacher, where a student was made without thinking of them
        layers = list(range(config.decoder_layers))
        there = [pair for pair in heads if pair[1] < config.decoder_attention_heads]
        known = alignment_heads(there, layers, config.decoder_attention_heads)
        settings.alignment_heads = known  # pyright: ignore[reportAttributeAccessIssue]
    return Source(name=name, model=model, processor=load_processor(name))

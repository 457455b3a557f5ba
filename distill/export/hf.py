"""Plain Hugging Face: safetensors in float16 with config, generation settings and tokenizer.

A quantised student becomes a model that any version of transformers loads; its weights stay on
their grid, as far as float16 can hold them.
"""

import copy
from pathlib import Path

from distill.export.source import Source, Transcriber, texts_of
from distill.processor import save_processor
from distill.recognizers import load_recognizer
from distill.student import keep_generation_settings

NEEDS = ()
RUNTIME = "transformers"


def write(source: Source, folder: Path) -> None:
    """Write the model.

    Raises:
        ValueError: a weight is too large for float16.
    """
    source.check_float16()
    half = copy.deepcopy(source.model).half()
    keep_generation_settings(half)
    half.save_pretrained(folder)
    save_processor(source.processor, folder)


def transcriber(folder: Path, source: Source) -> Transcriber:
    """Return what the written model hears, computed in float32."""
    return texts_of(load_recognizer(str(folder), device="cpu", dtype="float32"))

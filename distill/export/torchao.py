"""Plain Hugging Face with torchao's int8 weights, which transformers loads where torchao is.

torchao's grid is not ours: a row's scale is its largest weight over 127.5 and the integers reach
-128, where ours are over 127 and symmetric. So a student that was trained on a grid is rounded once
more, by up to half a step of torchao's; the export says so. Embedding and convolutions stay float.
"""

import logging
import tempfile
from pathlib import Path
from typing import Any

from transformers import TorchAoConfig, WhisperForConditionalGeneration

from distill.export.source import Source, Transcriber
from distill.longform import Window
from distill.processor import save_processor
from distill.quantization.packed import is_packed
from distill.student import keep_generation_settings
from distill.whisper_recognizer import WhisperRecognizer

NEEDS = ("torchao",)
RUNTIME = "torchao"

logger = logging.getLogger(__name__)


def write(source: Source, folder: Path) -> None:
    """Write the model with int8 weights in its linear layers."""
    from torchao.quantization import Int8WeightOnlyConfig  # pyright: ignore[reportMissingImports]

    if is_packed(source.name):
        logger.warning(
            "%s is on a grid of 127 steps to each side, torchao's int8 has 127.5: its weights are "
            "rounded a second time. CTranslate2 (ct2-int8) keeps the integers of w8 and paper, "
            "ggml those of ggml_q8_0",
            source.name,
        )
    grid: Any = TorchAoConfig(Int8WeightOnlyConfig())
    with tempfile.TemporaryDirectory() as plain:
        source.model.save_pretrained(plain)
        model = WhisperForConditionalGeneration.from_pretrained(
            plain, quantization_config=grid, dtype="float32"
        )
    keep_generation_settings(model)
    model.save_pretrained(folder)
    save_processor(source.processor, folder)


def transcriber(folder: Path, source: Source) -> Transcriber:
    """Return what the written model hears.

    Raises:
        ImportError: torchao is not installed.
    """
    import torchao  # noqa: F401 # pyright: ignore[reportMissingImports]

    model = WhisperForConditionalGeneration.from_pretrained(folder, dtype="float32").eval()
    recognizer = WhisperRecognizer(model, source.processor, str(folder))

    def hear(windows: list[Window]) -> list[str]:
        return [heard.text for heard in recognizer.hear(windows)]

    return hear

"""CTranslate2, which faster-whisper runs: float16, or int8 with a scale for each row.

A student that was quantised on that very grid keeps its integers (`distill.quantization.export`).
Any other model is smoothed first (`distill.quantization.smoothing`): CTranslate2 rounds sound, too.
"""

import copy
from pathlib import Path

from transformers import WhisperForConditionalGeneration

from distill.export.source import Source, Transcriber, texts_of
from distill.quantization.export import convert, to_ctranslate2
from distill.quantization.packed import is_packed
from distill.quantization.smoothing import listening, smooth
from distill.recognizers import WhisperRecognizer, load_recognizer

NEEDS = ("ctranslate2",)
RUNTIME = "ctranslate2"
_BATCH = 16
"""Windows that are listened to at once before the weights are rounded."""


def write_float16(source: Source, folder: Path) -> None:
    """Write the weights in float16.

    Raises:
        ValueError: a weight is too large for float16.
    """
    source.check_float16()
    convert(source.model, source.processor, folder, "float16")


def write_int8(source: Source, folder: Path) -> None:
    """Write the weights in int8.

    Raises:
        ValueError: the source is quantised on a grid that would be rounded a second time.
    """
    if is_packed(source.name):
        to_ctranslate2(source.name, folder)
    else:
        convert(_smoothed(source), source.processor, folder, "int8")


def _smoothed(source: Source) -> WhisperForConditionalGeneration:
    """Return a copy in which no column is much louder than others, as far as clips tell."""
    model, windows = copy.deepcopy(source.model), list(source.calibration)
    recognizer = WhisperRecognizer(model, source.processor, source.name)
    with listening(model) as peaks:
        for first in range(0, len(windows), _BATCH):
            recognizer.hear(windows[first : first + _BATCH])
    smooth(model, peaks)
    return model


def transcriber(folder: Path, source: Source) -> Transcriber:
    """Return what CTranslate2 hears."""
    return texts_of(load_recognizer(str(folder), device="cpu"))

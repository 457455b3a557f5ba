"""Models that hear windows: transformers' Whisper with or without an assistant, and CTranslate2's.

What a folder holds is seen by its files, so that every command takes any of them by name: a plain
Whisper or a student, a quantised student (`quantized.safetensors`), a CTranslate2 model
(`model.bin`). All answer the same windows with the same evidence.
"""

from pathlib import Path
from typing import Any

import torch

from distill.ctranslate2_recognizer import CTranslate2Recognizer
from distill.quantization.packed import is_packed
from distill.speculative import load_assistant, make_assistant
from distill.student import MODEL_KINDS, load_model, load_processor
from distill.whisper_recognizer import WhisperRecognizer
from pipeline.schema import model_path


def load_recognizer(
    name: str,
    *,
    device: str = "auto",
    dtype: str = "auto",
    assistant: str | None = None,
    max_new_tokens: int = 224,
    seed: int = 0,
) -> WhisperRecognizer | CTranslate2Recognizer:
    """Load a model by name or folder, whatever its kind.

    Raises:
        ValueError: there is no such model or device, or model and assistant do not match.
    """
    where = choose_device(device)
    folder = Path(model_path(name))
    if (folder / "model.bin").is_file():
        if assistant is not None:
            raise ValueError(
                f"{name} is a CTranslate2 model, which cannot be assisted; "
                "give the Hugging Face folder that it was converted from"
            )
        return CTranslate2Recognizer(name, where, max_new_tokens, dtype, seed)
    model: Any = load_model(name, f"{MODEL_KINDS}, a CTranslate2 folder")
    kind = dtype if dtype != "auto" else ("float32" if where == "cpu" else "float16")
    model = model.to(torch.device(where), getattr(torch, kind)).eval()
    helper = None
    if assistant is not None:
        if is_packed(assistant):
            helper = make_assistant(load_model(assistant).eval(), model)
        else:
            helper = load_assistant(assistant, model)
    return WhisperRecognizer(
        model,
        load_processor(name),
        name,
        assistant=helper,
        max_new_tokens=max_new_tokens,
        seed=seed,
    )


def choose_device(device: str) -> str:
    """Return cpu or cuda.

    Raises:
        ValueError: the device is not there.
    """
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("device is cuda, but torch finds no CUDA device here; use cpu or auto")
    return device

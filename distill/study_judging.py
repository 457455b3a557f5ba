"""What the students of a study hear, each weight file once, and how fast the kinds of them are.

Most students of a study share the frozen encoder of their teacher, so features are computed once
and the encoder's output is kept for the next student that has the same one.
"""

import hashlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import WhisperForConditionalGeneration

from distill.evaluate_files import size_bytes
from distill.evaluate_scores import character_errors
from distill.quantization import packed
from distill.quantization.kernels import load_with_integers
from distill.shards import file_sha256
from distill.student import load_model, load_processor
from distill.validation import Clip
from distill.whisper_recognizer import WhisperRecognizer
from distill.windows import Window
from pipeline.audio import decode_flac
from pipeline.schema import model_path
from pipeline.scoring import normalize, score

KEPT_BYTES = 2 * 2**30
"""Encoder output beyond this is computed again for each student."""


class Listener:
    """The test clips, with what they cost only once."""

    def __init__(self, clips: list[Clip], batch_size: int) -> None:
        self.clips = clips
        self._batches = [clips[i : i + batch_size] for i in range(0, len(clips), batch_size)]
        self._features: list[Any] = []
        self._encoded: list[Tensor] = []
        self._encoder = ""
        digest = hashlib.sha256()
        for sample, flac in clips:
            digest.update(f"{sample.id}\0{sample.reference}\0{sample.language}\0".encode())
            digest.update(flac)
        self.key = digest.hexdigest()

    def counts(self, model: str, done: Path) -> np.ndarray:
        """Return errors and lengths of a model, (clips, 4); `done` keeps them.

        What was kept counts only for the same weights and the same clips.
        """
        key = {"weights": weights_sha256(model), "clips": self.key}
        try:
            known = json.loads(done.read_text())
            if {name: known[name] for name in key} == key:
                return np.array(known["counts"])
        except (OSError, ValueError, KeyError, TypeError):
            pass
        counts = self._hear(model)
        done.parent.mkdir(parents=True, exist_ok=True)
        temporary = done.with_suffix(".tmp")
        temporary.write_text(json.dumps(key | {"counts": counts}))
        temporary.replace(done)
        return np.array(counts)

    @torch.inference_mode()
    def _hear(self, model: str) -> list[list[int]]:
        recognizer = self._recognizer(model, load_model(model))
        if not self._features:
            self._features = [recognizer.extract(_sounds(batch)) for batch in self._batches]
        encoder = state_sha256(recognizer.model.model.encoder)
        if encoder != self._encoder:
            self._encoder, self._encoded = encoder, []
        counts = []
        for number, batch in enumerate(self._batches):
            encoded = self._encode(recognizer, number)
            texts = [h.text for h in recognizer.hear_encoded(encoded, _windows(batch))]
            counts += [count_errors(clip, text) for clip, text in zip(batch, texts, strict=True)]
        return counts

    def _encode(self, recognizer: WhisperRecognizer, number: int) -> Tensor:
        if number < len(self._encoded):
            return self._encoded[number]
        encoded = recognizer.model.model.encoder(self._features[number]).last_hidden_state
        kept = sum(tensor.nbytes for tensor in self._encoded) + encoded.nbytes
        if number == len(self._encoded) and kept <= KEPT_BYTES:
            self._encoded.append(encoded)
        return encoded

    @torch.inference_mode()
    def seconds(self, models: dict[str, str], rounds: int) -> dict[str, float]:
        """Return how long each model takes for a batch of clips of middling length.

        The models take turns; the fastest round counts. Layers in 8 bits multiply integers where
        this build of torch can.

        Args:
            models: folders by name.
            rounds: how often each hears the batch.
        """
        batch = self._batches[len(self._batches) // 2]
        windows = _windows(batch)
        recognizers = {
            name: self._recognizer(folder, _fastest(folder)) for name, folder in models.items()
        }
        found = dict.fromkeys(models, float("inf"))
        features = None
        for _ in range(rounds):
            for name, recognizer in recognizers.items():
                if features is None:
                    features = recognizer.extract(_sounds(batch))
                started = time.perf_counter()
                recognizer.hear_features(features, windows)
                found[name] = min(found[name], time.perf_counter() - started)
        return found

    def _recognizer(self, name: str, model: WhisperForConditionalGeneration) -> WhisperRecognizer:
        return WhisperRecognizer(model.eval(), load_processor(name), name)


def weights_sha256(model: str) -> str:
    """Return the hash of a model's weights: of its file, or of what a Hub's model loads as."""
    folder = Path(model_path(model))
    for name in (packed.FILE_NAME, "model.safetensors"):
        if (folder / name).is_file():
            return file_sha256(folder / name)
    return state_sha256(load_model(model))


def state_sha256(module: nn.Module) -> str:
    """Return a hash of a module's weights."""
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        digest.update(f"{name} {tuple(value.shape)}".encode())
        digest.update(value.detach().float().contiguous().numpy().tobytes())
    return digest.hexdigest()


def weight_bytes(model: str) -> int | None:
    """Return the bytes of a model's weights as a file: float16 where they are not quantised."""
    size = size_bytes(model)
    if packed.is_packed(model) or size is None:
        return size
    seen: dict[int, int] = {}
    for value in load_model(model).state_dict().values():
        seen[value.data_ptr()] = value.numel()  # a tied weight once
    return 2 * sum(seen.values())


def _fastest(folder: str) -> WhisperForConditionalGeneration:
    load: Callable[[str], WhisperForConditionalGeneration] = load_model
    if packed.is_packed(folder) and torch.backends.quantized.engine != "none":
        load = load_with_integers
    return load(folder)


def _sounds(batch: list[Clip]) -> list[np.ndarray]:
    return [decode_flac(flac) for _, flac in batch]


def _windows(batch: list[Clip]) -> list[Window]:
    nothing = np.zeros(0, dtype=np.float32)  # the features hold the sound
    return [Window(samples=nothing, language=sample.language) for sample, _ in batch]


def count_errors(clip: Clip, text: str) -> list[int]:
    """Return word errors, words, character errors and characters.

    In languages that are judged by characters the first two are of characters, too.
    """
    sample, _ = clip
    found = score(sample.reference, text, sample.language)
    reference = normalize(sample.reference, sample.language)
    return [found.errors, found.reference_length, *character_errors(found, reference)]

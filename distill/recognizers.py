"""Models that hear windows: transformers' Whisper with or without an assistant, and CTranslate2's.

What a folder holds is seen by its files, so that every command takes any of them by name: a plain
Whisper or a student, a quantised student (`quantized.safetensors`), a CTranslate2 model
(`model.bin`). All answer the same windows with the same evidence.
"""

import importlib
import itertools
import json
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from transformers import WhisperFeatureExtractor

from distill.alignment import FRAME_SECONDS, token_times
from distill.decoder import Decoder
from distill.decoding import Limits, Prompt, decode
from distill.longform import MAX_PROMPT_TOKENS, Heard, Window
from distill.rules import rules_of
from distill.speculative import load_assistant, make_assistant
from distill.student import load_model, load_processor, num_parameters
from distill.vocabulary import TokenizerVocabulary
from pipeline.schema import SAMPLE_RATE, model_path

QUANTISED_FILE = "quantized.safetensors"
_NUM_ENGLISH_TOKENS = 50256
"""Text tokens of the smaller of OpenAI's two vocabularies."""


class Recognizer(Protocol):
    """A model that hears windows."""

    vocabulary: TokenizerVocabulary
    name: str
    is_student: bool
    """It has fewer decoder layers than encoder layers."""

    def hear(self, windows: list[Window]) -> list[Heard]:
        """Hear windows in one batch, in the order given."""
        ...


def load_recognizer(
    name: str,
    *,
    device: str = "auto",
    dtype: str = "auto",
    assistant: str | None = None,
    max_new_tokens: int = 224,
    seed: int = 0,
) -> "WhisperRecognizer | CTranslate2Recognizer":
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
        return CTranslate2Recognizer(name, where, max_new_tokens, dtype)
    model = load_any(name)
    kind = dtype if dtype != "auto" else ("float32" if where == "cpu" else "float16")
    model = model.to(torch.device(where), getattr(torch, kind)).eval()
    helper = None
    if assistant is not None:
        if (Path(model_path(assistant)) / QUANTISED_FILE).is_file():
            helper = make_assistant(load_any(assistant), model)
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


def load_any(name: str) -> Any:
    """Load a plain or a quantised Whisper.

    Raises:
        ValueError: there is none of that name.
    """
    if (Path(model_path(name)) / QUANTISED_FILE).is_file():
        return importlib.import_module("distill.quantization").load(model_path(name)).eval()
    return load_model(name).eval()


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


class WhisperRecognizer:
    """transformers' Whisper, decoded by this package's own loop."""

    def __init__(
        self,
        model: Any,
        processor: Any,
        name: str,
        *,
        assistant: Any = None,
        max_new_tokens: int = 224,
        seed: int = 0,
    ) -> None:
        """Take a loaded model.

        Args:
            model: `WhisperForConditionalGeneration`.
            processor: its `WhisperProcessor`.
            name: as it was given.
            assistant: who drafts for it.
            max_new_tokens: in a window.
            seed: of the sampling at temperatures above 0.
        """
        self.model, self.name, self.assistant = model, name, assistant
        self.features = processor.feature_extractor
        config = model.generation_config
        multilingual = bool(getattr(config, "is_multilingual", True))
        self.vocabulary = TokenizerVocabulary(
            processor.tokenizer, multilingual, getattr(config, "lang_to_id", None)
        )
        self.decoder = Decoder(model.model.decoder, model.proj_out)
        self.is_student = model.config.decoder_layers < model.config.encoder_layers
        self._heads = [tuple(pair) for pair in getattr(config, "alignment_heads", None) or []]
        self._max_new_tokens, self._seed = max_new_tokens, seed

    @property
    def num_parameters(self) -> int:
        """Weights of the model, shared ones once."""
        return num_parameters(self.model)

    def extract(self, samples: list[np.ndarray]) -> torch.Tensor:
        """Compute features (batch, mels, 3000)."""
        return self.features(
            samples, sampling_rate=SAMPLE_RATE, return_tensors="pt"
        ).input_features.to(self.model.device, self.model.dtype)

    @torch.inference_mode()
    def hear(self, windows: list[Window]) -> list[Heard]:
        """Hear windows in one batch, in the order given.

        Raises:
            ValueError: the model does not know a language.
        """
        return self.hear_features(self.extract([window.samples for window in windows]), windows)

    @torch.inference_mode()
    def hear_features(self, features: Any, windows: list[Window]) -> list[Heard]:
        """Hear windows whose features (batch, mels, 3000) are there already."""
        encoded = self.model.model.encoder(features).last_hidden_state
        own = None
        if self.assistant is not None and self.assistant.encoder is not None:
            own = self.assistant.encoder(features).last_hidden_state
        languages = self._languages(encoded, windows)
        heard: dict[int, Heard] = {}
        kinds = {(window.timestamps, window.temperature) for window in windows}
        for timestamps, temperature in sorted(kinds):
            chosen = [
                number
                for number, window in enumerate(windows)
                if (window.timestamps, window.temperature) == (timestamps, temperature)
            ]
            everything = len(chosen) == len(windows)
            prompts = [self._prompt(windows[n], languages[n][0]) for n in chosen]
            answers = decode(
                self.decoder,
                encoded if everything else encoded[chosen],
                prompts,
                rules_of(
                    self.model.generation_config,
                    self.model.config.vocab_size,
                    self.vocabulary.end,
                    self.vocabulary.first_timestamp,
                    timestamps,
                ),
                Limits(
                    max_new_tokens=self._max_new_tokens, temperature=temperature, seed=self._seed
                ),
                no_speech=self.vocabulary.no_speech,
                assistant=self.assistant,
                assistant_encoded=own if own is None or everything else own[chosen],
            )
            for number, answer in zip(chosen, answers, strict=True):
                language, probability = languages[number]
                times = ()
                if windows[number].words:
                    times = self._times(windows[number], language, answer.tokens, encoded[number])
                heard[number] = Heard(
                    tokens=answer.tokens,
                    text=self.vocabulary.decode(list(answer.tokens)).strip(),
                    avg_logprob=answer.avg_logprob,
                    no_speech_prob=answer.no_speech_prob,
                    temperature=temperature,
                    language=language,
                    language_probability=probability,
                    truncated=answer.truncated,
                    token_times=times,
                    num_steps=answer.num_steps,
                    num_drafted=answer.num_drafted,
                    num_accepted=answer.num_accepted,
                )
        return [heard[number] for number in range(len(windows))]

    def _languages(self, encoded: torch.Tensor, windows: list[Window]) -> list[tuple[str, float]]:
        """Return the language of each window and how sure the model is of it."""
        given = [self.vocabulary.check_language(window.language) for window in windows]
        unknown = [number for number, language in enumerate(given) if language is None]
        found = [(language or "", 1.0) for language in given]
        if unknown:
            start = torch.full((len(unknown), 1), self.vocabulary.start, device=encoded.device)
            cache = self.decoder.begin(encoded[unknown])
            logits = self.decoder.logits(self.decoder.step(start, cache))[:, 0]
            codes = list(self.vocabulary.languages)
            among = logits[:, [self.vocabulary.languages[code] for code in codes]].softmax(-1)
            for number, row in zip(unknown, among, strict=True):
                best = int(row.argmax())
                found[number] = codes[best], float(row[best])
        return found

    def _prompt(self, window: Window, language: str) -> Prompt:
        previous = list(window.previous[-MAX_PROMPT_TOKENS:])
        before = [self.vocabulary.previous, *previous] if previous else []
        task = self.vocabulary.task(language, window.timestamps)
        return Prompt(tokens=(*before, *task), start=len(before))

    def _times(
        self, window: Window, language: str, tokens: tuple[int, ...], encoded: torch.Tensor
    ) -> tuple[tuple[float, float], ...]:
        text = [token for token in tokens if token < self.vocabulary.end]
        times = token_times(
            self.decoder,
            encoded[None],
            self.vocabulary.task(language, timestamps=False),
            text,
            self.vocabulary.end,
            self._heads or None,
            -(-len(window.samples) // round(FRAME_SECONDS * SAMPLE_RATE)),
        )
        last = times[-1] if times else (0.0, 0.0)
        return (*times, *itertools.repeat(last, len(text) - len(times)))


class CTranslate2Recognizer:
    """A Whisper that CTranslate2 runs; it decodes by its own loop and its own rules."""

    def __init__(self, name: str, device: str, max_new_tokens: int, dtype: str = "auto") -> None:
        """Load a converted model.

        Raises:
            ValueError: CTranslate2 is not installed, or the folder lacks its tokenizer.
        """
        try:
            import ctranslate2
        except ImportError as error:
            raise ValueError(f"{name} is a CTranslate2 model: install the `fast` extra") from error
        self._library = ctranslate2
        compute = "default" if dtype == "auto" else dtype
        self.model = ctranslate2.models.Whisper(
            name, device=device, compute_type=compute, intra_threads=torch.get_num_threads()
        )
        self.name = name
        path = Path(name) / "tokenizer.json"
        if not path.is_file():
            raise ValueError(
                f"{name} has no tokenizer.json; convert it with "
                "--copy_files tokenizer.json preprocessor_config.json, or copy it there"
            )
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_file(str(path))
        settings = json.loads((Path(name) / "config.json").read_text())
        # CTranslate2 tells by the size of OpenAI's vocabularies, which says nothing of smaller ones
        small = (tokenizer.token_to_id("<|endoftext|>") or 0) < _NUM_ENGLISH_TOKENS
        multilingual = bool(settings.get("lang_ids")) if small else self.model.is_multilingual
        self.vocabulary = TokenizerVocabulary(tokenizer, multilingual, None)
        self.features = WhisperFeatureExtractor(feature_size=self.model.n_mels)
        self.is_student = False
        self._max_new_tokens = max_new_tokens

    @property
    def num_parameters(self) -> int | None:
        """Not known of a converted model."""
        return None

    def hear(self, windows: list[Window]) -> list[Heard]:
        """Hear windows in one batch, in the order given.

        Raises:
            ValueError: the model does not know a language.
        """
        return self.hear_features(self.extract([window.samples for window in windows]), windows)

    def extract(self, samples: list[np.ndarray]) -> np.ndarray:
        """Compute features (batch, mels, 3000)."""
        return self.features(samples, sampling_rate=SAMPLE_RATE, return_tensors="np").input_features

    def hear_features(self, features: Any, windows: list[Window]) -> list[Heard]:
        """Hear windows whose features (batch, mels, 3000) are there already."""
        heard: dict[int, Heard] = {}
        kinds = {(window.timestamps, window.temperature) for window in windows}
        for timestamps, temperature in sorted(kinds):
            chosen = [
                number
                for number, window in enumerate(windows)
                if (window.timestamps, window.temperature) == (timestamps, temperature)
            ]
            found = self._hear([windows[n] for n in chosen], features[chosen])
            heard |= dict(zip(chosen, found, strict=True))
        return [heard[number] for number in range(len(windows))]

    def _hear(self, windows: list[Window], features: np.ndarray) -> list[Heard]:
        view = self._library.StorageView.from_array(np.ascontiguousarray(features))
        encoded = self.model.encode(view)
        languages = self._languages(encoded, windows)
        prompts = []
        for window, (language, _) in zip(windows, languages, strict=True):
            previous = list(window.previous[-MAX_PROMPT_TOKENS:])
            before = [self.vocabulary.previous, *previous] if previous else []
            prompts.append([*before, *self.vocabulary.task(language, window.timestamps)])
        longest = max(map(len, prompts))
        temperature = windows[0].temperature
        results = self.model.generate(
            encoded,
            prompts,
            beam_size=1,
            max_length=min(longest + self._max_new_tokens, 448),
            return_scores=True,
            return_no_speech_prob=True,
            sampling_topk=1 if temperature == 0 else 0,
            sampling_temperature=temperature or 1.0,
        )
        heard = []
        for window, (language, probability), result in zip(
            windows, languages, results, strict=True
        ):
            tokens = tuple(t for t in result.sequences_ids[0] if t != self.vocabulary.end)
            times = ()
            if window.words:
                times = self._times(window, language, tokens)
            heard.append(
                Heard(
                    tokens=tokens,
                    text=self.vocabulary.decode(list(tokens)).strip(),
                    # a mean over the tokens there; the end counts too, as for the other models
                    avg_logprob=result.scores[0] * len(tokens) / (len(tokens) + 1),
                    no_speech_prob=result.no_speech_prob,
                    temperature=window.temperature,
                    language=language,
                    language_probability=probability,
                    token_times=times,
                )
            )
        return heard

    def _languages(self, encoded: Any, windows: list[Window]) -> list[tuple[str, float]]:
        given = [self.vocabulary.check_language(window.language) for window in windows]
        if None not in given:
            return [(language or "", 1.0) for language in given]
        detected = self.model.detect_language(encoded)
        return [
            (language, 1.0) if language else (rows[0][0].strip("<|>"), rows[0][1])
            for language, rows in zip(given, detected, strict=True)
        ]

    def _times(
        self, window: Window, language: str, tokens: tuple[int, ...]
    ) -> tuple[tuple[float, float], ...]:
        text = [token for token in tokens if token < self.vocabulary.end]
        if not text:
            return ()
        frames = self.extract([window.samples])
        task = self.vocabulary.task(language, timestamps=False)[:-1]
        (result,) = self.model.align(
            self._library.StorageView.from_array(frames),
            task,
            [text],
            max(len(window.samples) // 160, 2),
        )
        starts = np.zeros(len(text) + 1)
        seen: set[int] = set()
        for token, frame in result.alignments:
            if token not in seen and token <= len(text):
                seen.add(token)
                starts[token] = frame * FRAME_SECONDS
        starts = np.maximum.accumulate(starts)
        if len(text) not in seen:
            starts[-1] = len(window.samples) / SAMPLE_RATE
        return tuple(zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True))

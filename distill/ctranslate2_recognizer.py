"""CTranslate2's Whisper as a recognizer."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from distill.alignment import FRAME_SECONDS
from distill.ctranslate2_files import num_layers
from distill.hearing import hear_alike
from distill.vocabulary import TokenizerVocabulary
from distill.windows import MAX_PROMPT_TOKENS, Heard, Window
from pipeline.features import log_mels
from pipeline.schema import SAMPLE_RATE

_POSITIONS = 448
"""Of every Whisper's decoder."""
_NUM_ENGLISH_TOKENS = 50256
"""Text tokens of the smaller of OpenAI's two vocabularies."""


class CTranslate2Recognizer:
    """A Whisper that CTranslate2 runs; it decodes by its own loop and its own rules."""

    def __init__(
        self, name: str, device: str, max_new_tokens: int, dtype: str = "auto", seed: int = 0
    ) -> None:
        """Load a converted model; the seed is of all such models of the process.

        Raises:
            ValueError: CTranslate2 is not installed, or cannot load the model, or the folder lacks
                its tokenizer.
        """
        try:
            import ctranslate2
        except ImportError as error:
            raise ValueError(f"{name} is a CTranslate2 model: install the `fast` extra") from error
        self._library = ctranslate2
        ctranslate2.set_random_seed(seed)
        compute = "default" if dtype == "auto" else dtype
        try:
            self.model = ctranslate2.models.Whisper(
                name, device=device, compute_type=compute, intra_threads=torch.get_num_threads()
            )
        except RuntimeError as error:
            raise ValueError(f"CTranslate2 could not load {name}: {error}") from error
        self.name = name
        path = Path(name) / "tokenizer.json"
        if not path.is_file():
            raise ValueError(
                f"{name} has no tokenizer.json; convert it with "
                "--copy_files tokenizer.json, or copy it there"
            )
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_file(str(path))
        settings = json.loads((Path(name) / "config.json").read_text())
        # CTranslate2 tells by the size of OpenAI's vocabularies, which says nothing of smaller ones
        small = (tokenizer.token_to_id("<|endoftext|>") or 0) < _NUM_ENGLISH_TOKENS
        multilingual = bool(settings.get("lang_ids")) if small else self.model.is_multilingual
        self.vocabulary = TokenizerVocabulary(tokenizer, multilingual, None)
        self.num_mels: int = self.model.n_mels
        encoder_layers, decoder_layers = num_layers(Path(name) / "model.bin") or (0, 0)
        self.is_student = decoder_layers < encoder_layers
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
        return log_mels(samples, num_mels=self.num_mels)

    def hear_features(self, features: Any, windows: list[Window]) -> list[Heard]:
        """Hear windows whose features (batch, mels, 3000) are there already."""

        def kind(window: Window) -> tuple[bool, float, int]:
            # the library wants the transcript to start at one position in all rows
            num_previous = len(window.previous[-MAX_PROMPT_TOKENS:])
            return window.timestamps, window.temperature, num_previous

        return hear_alike(
            windows, kind, lambda places: self._hear([windows[n] for n in places], features[places])
        )

    def _hear(self, windows: list[Window], features: np.ndarray) -> list[Heard]:
        view = self._library.StorageView.from_array(np.ascontiguousarray(features))
        encoded = self.model.encode(view)
        languages = self._languages(encoded, windows)
        prompts = []
        for window, (language, _) in zip(windows, languages, strict=True):
            previous = list(window.previous[-MAX_PROMPT_TOKENS:])
            before = [self.vocabulary.previous, *previous] if previous else []
            prompts.append([*before, *self.vocabulary.task(language, window.timestamps)])
        num_prompt, temperature = len(prompts[0]), windows[0].temperature
        most = min(self._max_new_tokens, _POSITIONS - num_prompt)
        results = self.model.generate(
            encoded,
            prompts,
            beam_size=1,
            # it stops after half of this, or this less the prompt but its last, whichever is less
            max_length=max(2 * most, most + num_prompt - 1),
            return_scores=True,
            length_penalty=0,  # a score is then a sum; a mean over no token would be nothing
            return_no_speech_prob=True,
            sampling_topk=1 if temperature == 0 else 0,
            sampling_temperature=temperature or 1.0,
        )
        heard, no_speech = [], self.vocabulary.no_speech
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
                    avg_logprob=result.scores[0] / (len(tokens) + 1),  # the end counts too
                    no_speech_prob=0.0 if no_speech is None else result.no_speech_prob,
                    temperature=window.temperature,
                    language=language,
                    language_probability=probability,
                    truncated=len(tokens) >= most,
                    token_times=times,
                )
            )
        return heard

    def _languages(self, encoded: Any, windows: list[Window]) -> list[tuple[str, float]]:
        given = [self.vocabulary.check_language(window.language) for window in windows]
        if None not in given:
            return [(language or "", 1.0) for language in given]
        codes = list(self.vocabulary.languages)
        found = []
        for language, among in zip(given, self._language_probs(encoded, len(given)), strict=True):
            best = int(among.argmax())
            found.append((language, 1.0) if language else (codes[best], float(among[best])))
        return found

    def _language_probs(self, encoded: Any, num_windows: int) -> np.ndarray:
        """Return probabilities (windows, languages), in the order of the vocabulary's languages."""
        # `detect_language` refuses small vocabularies. A token that is no part of the task makes
        # the first step one whose scores are told.
        aside = [self.vocabulary.start, self.vocabulary.end - 1]
        results = self.model.generate(
            encoded,
            [aside] * num_windows,
            beam_size=1,
            max_length=2,
            return_logits_vocab=True,
            suppress_blank=False,
            suppress_tokens=[],
        )
        steps = [result.logits[0][0].to_device(self._library.Device.cpu) for result in results]
        scores = [np.asarray(step.to(self._library.DataType.float32)).ravel() for step in steps]
        among = torch.from_numpy(np.stack(scores))[:, list(self.vocabulary.languages.values())]
        return among.softmax(-1).numpy()

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

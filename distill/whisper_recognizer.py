"""transformers' Whisper as a recognizer, alone or with a student that assists it."""

import itertools
from typing import Any

import numpy as np
import torch

from distill.alignment import FRAME_SECONDS, token_times
from distill.decoder import Decoder
from distill.decoding import Limits, Prompt, decode
from distill.hearing import hear_alike
from distill.rules import rules_of
from distill.student import is_multilingual, num_parameters
from distill.vocabulary import TokenizerVocabulary
from distill.windows import MAX_PROMPT_TOKENS, Heard, Window
from pipeline.features import log_mels
from pipeline.schema import SAMPLE_RATE


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
        config = model.generation_config
        self.vocabulary = TokenizerVocabulary(
            processor.tokenizer, is_multilingual(model), getattr(config, "lang_to_id", None)
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
        features = torch.from_numpy(log_mels(samples, num_mels=self.model.config.num_mel_bins))
        return features.to(self.model.device, self.model.dtype)

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
        return self.hear_encoded(encoded, windows, own)

    @torch.inference_mode()
    def hear_encoded(
        self, encoded: torch.Tensor, windows: list[Window], own: torch.Tensor | None = None
    ) -> list[Heard]:
        """Hear windows whose encoder output is there already; `own` is the assistant's."""
        languages = self._languages(encoded, windows)

        def hear(places: list[int]) -> list[Heard]:
            alone = len(places) == len(windows)
            return self._hear(
                [windows[place] for place in places],
                [languages[place] for place in places],
                encoded if alone else encoded[places],
                own if own is None or alone else own[places],
            )

        return hear_alike(windows, lambda w: (w.timestamps, w.temperature), hear)

    def _hear(
        self,
        windows: list[Window],
        languages: list[tuple[str, float]],
        encoded: torch.Tensor,
        own: torch.Tensor | None,
    ) -> list[Heard]:
        """Hear windows of one kind; `own` is the assistant's encoder output."""
        timestamps, temperature = windows[0].timestamps, windows[0].temperature
        answers = decode(
            self.decoder,
            encoded,
            [
                self._prompt(w, language)
                for w, (language, _) in zip(windows, languages, strict=True)
            ],
            rules_of(
                self.model.generation_config,
                self.model.config.vocab_size,
                self.vocabulary.end,
                self.vocabulary.first_timestamp,
                timestamps,
            ),
            Limits(max_new_tokens=self._max_new_tokens, temperature=temperature, seed=self._seed),
            no_speech=self.vocabulary.no_speech,
            assistant=self.assistant,
            assistant_encoded=own,
        )
        heard = []
        for row, (answer, window) in enumerate(zip(answers, windows, strict=True)):
            language, probability = languages[row]
            times = ()
            if window.words:
                times = self._times(window, language, answer.tokens, encoded[row])
            heard.append(
                Heard(
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
            )
        return heard

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

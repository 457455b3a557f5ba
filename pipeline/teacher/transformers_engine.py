"""Label with transformers' Whisper, the reference engine.

One `generate` call per batch gives tokens and their scores; one more decoder step on the same
encoder output gives the probabilities of language and of no speech. Whisper's own loop over
timestamps (`seek`) is switched off: a clip is one window, and what the teacher says of it must not
depend on where its last timestamp fell.
"""

import zlib
from typing import Any

import numpy as np
import torch
import transformers
from transformers.modeling_outputs import BaseModelOutput

from pipeline.config import DecodingConfig, TeacherConfig
from pipeline.schema import SAMPLE_RATE, Segment, model_path
from pipeline.teacher.label import Label
from pipeline.teacher.spelling import byte_pieces, spell, token_ends

_TIMESTAMP_STEP = 0.02
_MAX_PROMPT_TOKENS = 4
"""Start, language, task, no timestamps."""


class TransformersTeacher:
    """A Whisper model with what is needed to read its output."""

    def __init__(self, config: TeacherConfig, decoding: DecodingConfig, revision: str) -> None:
        """Load model and processor.

        Args:
            config: which model, on which device.
            decoding: how it decodes.
            revision: commit on the Hub; not used for a local folder.
        """
        # It warns of settings that Whisper's own `generate` makes, once for every process.
        transformers.logging.set_verbosity_error()
        transformers.logging.disable_progress_bar()
        # Sums over threads are grouped by their number: with another one the last bits differ.
        torch.set_num_threads(config.num_threads)
        name = model_path(config.model)
        device = config.device
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        model: Any = transformers.WhisperForConditionalGeneration.from_pretrained(
            name, revision=revision, dtype=getattr(torch, config.dtype)
        )
        self._model = model.to(torch.device(device)).eval()
        self._processor = transformers.WhisperProcessor.from_pretrained(name, revision=revision)
        self._multilingual = bool(getattr(model.generation_config, "is_multilingual", True))

        room = model.config.max_target_positions - _MAX_PROMPT_TOKENS
        self._options = {
            "return_timestamps": decoding.timestamps,
            "max_new_tokens": min(decoding.max_new_tokens, room),
            "num_beams": decoding.num_beams,
        }
        tokenizer = self._processor.tokenizer
        self._pieces = byte_pieces(tokenizer.backend_tokenizer)
        vocabulary = tokenizer.get_vocab()
        self._end = vocabulary["<|endoftext|>"]
        self._start = model.generation_config.decoder_start_token_id
        self._first_timestamp = vocabulary["<|0.00|>"]
        # Whisper v1 and v2 call it nocaptions on the Hub, later models nospeech.
        self._no_speech = vocabulary.get("<|nospeech|>", vocabulary.get("<|nocaptions|>"))
        languages = getattr(model.generation_config, "lang_to_id", None) or {}
        self._languages = {token.strip("<|>"): index for token, index in languages.items()}

    @torch.inference_mode()
    def label(self, clips: list[np.ndarray], language: str) -> list[Label]:
        """Label clips (float32 mono 16 kHz, at most 30 s each) in one batch, in the order given.

        Raises:
            ValueError: the teacher does not know the language.
        """
        if self._multilingual and language not in self._languages:
            raise ValueError(
                f"the teacher does not know language {language!r}; "
                f"it knows {', '.join(sorted(self._languages))}"
            )
        if not self._multilingual and language != "en":
            raise ValueError(f"the teacher knows English only, not {language!r}")
        prompt = {"language": language, "task": "transcribe"} if self._multilingual else {}
        encoded = self._encode(clips)
        language_probs, no_speech_probs = self._first_step(encoded, language)
        output = self._model.generate(
            encoder_outputs=encoded,
            **prompt,
            **self._options,
            force_unique_generate_call=True,
            return_dict_in_generate=True,
            output_scores=True,
        )
        generated = output.sequences[:, -len(output.scores) :]
        logprobs = torch.stack(
            [
                step.float().log_softmax(-1).gather(-1, token[:, None])[:, 0]
                for step, token in zip(output.scores, generated.T, strict=True)
            ],
            dim=1,
        )
        return [
            self._read(
                generated[i].tolist(),
                logprobs[i].tolist(),
                duration_seconds=len(clip) / SAMPLE_RATE,
                language=language,
                language_probability=language_probs[i],
                no_speech_prob=no_speech_probs[i],
            )
            for i, clip in enumerate(clips)
        ]

    def _encode(self, clips: list[np.ndarray]) -> BaseModelOutput:
        """Run the encoder over the clips, each padded to 30 s."""
        features = self._processor.feature_extractor(
            clips, sampling_rate=SAMPLE_RATE, return_tensors="pt"
        ).input_features
        return self._model.get_encoder()(features.to(self._model.device, self._model.dtype))

    def _first_step(
        self, encoded: BaseModelOutput, language: str
    ) -> tuple[list[float], list[float]]:
        """Return the probabilities of the language among all, and of no speech, for each clip."""
        assert encoded.last_hidden_state is not None
        num_clips = len(encoded.last_hidden_state)
        start = torch.full((num_clips, 1), self._start, device=self._model.device)
        logits = self._model(encoder_outputs=encoded, decoder_input_ids=start).logits[:, 0].float()
        no_speech = [0.0] * num_clips
        if self._no_speech is not None:
            no_speech = logits.softmax(-1)[:, self._no_speech].tolist()
        if not self._multilingual:
            return [1.0] * num_clips, no_speech
        known = list(self._languages)
        among = logits[:, [self._languages[code] for code in known]].softmax(-1)
        return among[:, known.index(language)].tolist(), no_speech

    def _read(
        self,
        generated: list[int],
        logprobs: list[float],
        *,
        duration_seconds: float,
        language: str,
        language_probability: float,
        no_speech_prob: float,
    ) -> Label:
        """Turn one row of generated tokens into a label."""
        truncated = self._end not in generated
        end = len(generated) if truncated else generated.index(self._end)
        tokens = generated[:end]
        counted = logprobs[:end] if truncated else logprobs[: end + 1]
        text = self._decode(tokens)
        return Label(
            text=text,
            tokens=tuple(tokens),
            token_ends=token_ends([self._pieces[token] for token in tokens]),
            segments=self._segments(tokens, duration_seconds),
            language=language,
            language_probability=round(language_probability, 4),
            avg_logprob=round(sum(counted) / len(counted), 4),
            no_speech_prob=round(no_speech_prob, 4),
            compression_ratio=round(compression_ratio(text), 4),
            temperature=0.0,
            truncated=truncated,
        )

    def _segments(self, tokens: list[int], duration_seconds: float) -> tuple[Segment, ...]:
        """Cut the tokens at their timestamps; text without an end lasts until the clip's end."""
        segments: list[Segment] = []
        start, held = 0.0, []
        for token in tokens:
            if token < self._first_timestamp:
                held.append(token)
                continue
            time = round((token - self._first_timestamp) * _TIMESTAMP_STEP, 2)
            if held:
                segments.append(Segment(start=start, end=time, text=self._decode(held)))
            start, held = time, []
        if held:
            last = round(round(duration_seconds / _TIMESTAMP_STEP) * _TIMESTAMP_STEP, 2)
            segments.append(Segment(start=start, end=max(start, last), text=self._decode(held)))
        return tuple(segments)

    def _decode(self, tokens: list[int]) -> str:
        """Return the text of tokens, without timestamps and special tokens."""
        return spell(self._pieces[token] for token in tokens)


def compression_ratio(text: str) -> float:
    """Return bytes per compressed byte, as OpenAI's Whisper computes it; 0 for no text."""
    data = text.encode()
    return len(data) / len(zlib.compress(data))

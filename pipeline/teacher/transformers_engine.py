"""Run the teacher with transformers, the reference engine, on CPU and GPU.

The decoding loop is this module's own and not `generate`: rows that are done leave the batch, the
scores of a step are used and dropped (`generate` keeps [steps, batch, vocabulary]), the first step
gives language and no-speech probability in passing, and each row draws its own numbers.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import transformers
from transformers.cache_utils import DynamicCache, EncoderDecoderCache
from transformers.modeling_outputs import BaseModelOutput

from pipeline.config import TeacherConfig
from pipeline.schema import model_path
from pipeline.teacher.engine import Generated, Search
from pipeline.teacher.rules import LEAST_LOGPROB, timestamp_bounds
from pipeline.teacher.sampling import Sampler
from pipeline.teacher.vocabulary import Vocabulary, read_vocabulary

_COMPACT_AT = 0.75
"""Finished rows leave once fewer than this part is at work: leaving copies the others' caches."""


def load(config: TeacherConfig, revision: str) -> "TransformersEngine":
    """Load a model whose device and number format are settled.

    Args:
        config: which model, on which device.
        revision: commit on the Hub; not used for a local folder.
    """
    # It warns of settings that Whisper's own `generate` makes, once for every process.
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    # Sums over threads are grouped by their number: with another one the last bits differ.
    torch.set_num_threads(config.num_threads)
    name = model_path(config.model)
    model: Any = transformers.WhisperForConditionalGeneration.from_pretrained(
        name, revision=revision, dtype=getattr(torch, config.dtype)
    )
    tokenizer = transformers.WhisperTokenizer.from_pretrained(name, revision=revision)
    vocabulary = read_vocabulary(
        tokenizer.backend_tokenizer, model.config.to_dict(), model.generation_config.to_dict()
    )
    return TransformersEngine(model.to(torch.device(config.device)).eval(), vocabulary)


class TransformersEngine:
    """A Whisper model with what is needed to decode with it."""

    short_windows = False

    def __init__(self, model: Any, vocabulary: Vocabulary) -> None:
        """Keep the model where it is."""
        self._model, self.vocabulary = model, vocabulary
        self.num_mels: int = model.config.num_mel_bins
        self.max_positions: int = model.config.max_target_positions
        self._masks = _Masks(vocabulary, model.device)
        # Where a model does not give this limit, `generate` has none, and beams break our rule.
        model.generation_config.max_initial_timestamp_index = vocabulary.max_initial_timestamp

    @torch.inference_mode()
    def encode(self, features: np.ndarray) -> torch.Tensor:
        """Run the encoder over float32 features of shape [clips, mels, frames]."""
        moved = torch.from_numpy(features).to(self._model.device, self._model.dtype)
        return self._model.get_encoder()(moved).last_hidden_state

    def select(self, encoded: torch.Tensor, rows: Sequence[int]) -> torch.Tensor:
        """Return some clips of what `encode` returned."""
        return encoded[list(rows)]

    @torch.inference_mode()
    def language_probs(self, encoded: torch.Tensor) -> np.ndarray:
        """Return [clips, languages], in the order of the vocabulary's languages."""
        start = torch.full((len(encoded), 1), self.vocabulary.start, device=encoded.device)
        scores, _ = self._step(start, encoded, None)
        return self._language_probs(scores[:, 0])

    @torch.inference_mode()
    def generate(
        self,
        encoded: torch.Tensor,
        prompts: Sequence[Sequence[int]],
        samplers: Sequence[Sampler],
        search: Search,
    ) -> list[Generated]:
        """Decode; all prompts have the same length, a row's tokens depend on that row alone."""
        if search.num_beams > 1 and samplers[0].temperature == 0:
            labels = self._beam_search(encoded, prompts, search)
            return self._score(encoded, prompts, labels, search)
        prompt = torch.tensor(prompts, device=encoded.device)
        scores, cache = self._step(prompt, encoded, None)
        rows = _rows(self, scores[:, 0], samplers)
        scores, alive = scores[:, -1], list(range(len(rows)))
        for position in range(search.max_tokens):
            active = [rows[i] for i in alive]
            self._masks.apply(scores, active, timestamps=search.timestamps)
            chosen = scores.argmax(-1).tolist()
            for place, row in enumerate(active):
                if row.sampler.temperature > 0 and not row.ended:
                    chosen[place] = row.sampler.choose(scores[place].cpu().numpy(), position)
            taken = torch.tensor(chosen, device=scores.device)[:, None]
            logprobs = scores.log_softmax(-1).gather(1, taken)[:, 0].tolist()
            for row, token, logprob in zip(active, chosen, logprobs, strict=True):
                row.add(token, logprob, self.vocabulary.end)
            going = [place for place, row in enumerate(active) if not row.ended]
            if not going or position + 1 == search.max_tokens:
                break
            if len(going) < _COMPACT_AT * len(active):
                keep = torch.tensor(going, device=scores.device)
                cache.batch_select_indices(keep)
                encoded, taken = encoded[keep], taken[keep]
                alive = [alive[place] for place in going]
            scores, cache = self._step(taken, encoded, cache)
            scores = scores[:, -1]
        return [row.generated(logprobs=search.logprobs) for row in rows]

    def _step(
        self, tokens: torch.Tensor, encoded: torch.Tensor, cache: EncoderDecoderCache | None
    ) -> tuple[torch.Tensor, EncoderDecoderCache]:
        """Return float32 scores of [clips, first and last position, vocabulary], and the cache."""
        if cache is None:
            cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
        hidden = self._model.model.decoder(
            input_ids=tokens, encoder_hidden_states=encoded, past_key_values=cache, use_cache=True
        ).last_hidden_state
        ends = hidden if hidden.shape[1] == 1 else hidden[:, [0, -1]]
        return self._model.proj_out(ends).float(), cache

    def _language_probs(self, first: torch.Tensor) -> np.ndarray:
        known = list(self.vocabulary.languages.values())
        return first[:, known].softmax(-1).cpu().numpy()

    def _beam_search(
        self, encoded: torch.Tensor, prompts: Sequence[Sequence[int]], search: Search
    ) -> list[list[int]]:
        """Return the best labels of `generate`'s beam search; it takes one language at a time."""
        found: dict[int, list[int]] = {}
        codes = {token: code for code, token in self.vocabulary.languages.items()}
        for prompt in sorted({tuple(prompt) for prompt in prompts}):
            rows = [i for i, other in enumerate(prompts) if tuple(other) == prompt]
            task = {"language": codes[prompt[1]], "task": "transcribe"} if codes else {}
            output = self._model.generate(
                encoder_outputs=BaseModelOutput(last_hidden_state=self.select(encoded, rows)),
                **task,
                return_timestamps=search.timestamps,
                max_new_tokens=search.max_tokens,
                num_beams=search.num_beams,
                force_unique_generate_call=True,
            )
            for i, said in zip(rows, output.tolist(), strict=True):
                tokens = said[len(prompt) :]
                assert tuple(said[: len(prompt)]) == prompt, "generate gives the prompt, too"
                ended = self.vocabulary.end in tokens
                found[i] = tokens[: tokens.index(self.vocabulary.end) + 1] if ended else tokens
        return [found[i] for i in range(len(prompts))]

    def _score(
        self,
        encoded: torch.Tensor,
        prompts: Sequence[Sequence[int]],
        labels: Sequence[list[int]],
        search: Search,
    ) -> list[Generated]:
        """Return the evidence of labels that are given, each with its end if it has one."""
        scored: list[Generated] = []
        for i, (prompt, label) in enumerate(zip(prompts, labels, strict=True)):
            tokens = torch.tensor([[*prompt, *label[:-1]]], device=encoded.device)
            hidden = self._model.model.decoder(
                input_ids=tokens, encoder_hidden_states=encoded[i : i + 1]
            ).last_hidden_state
            first = self._model.proj_out(hidden[:, 0]).float()
            (row,) = _rows(self, first, [Sampler(temperature=0.0, draws=np.empty(0))])
            for position, token in enumerate(label, start=len(prompt) - 1):
                scores = self._model.proj_out(hidden[:, position]).float()
                self._masks.apply(scores, [row], timestamps=search.timestamps)
                logprob = scores.log_softmax(-1)[0, token].item()
                row.add(token, max(logprob, LEAST_LOGPROB), self.vocabulary.end)
            scored.append(row.generated(logprobs=search.logprobs))
        return scored


@dataclass(kw_only=True)
class _Row:
    """One clip while it is decoded."""

    sampler: Sampler
    no_speech_prob: float
    language_probs: np.ndarray | None
    tokens: list[int]
    logprobs: list[float]
    ended: bool = False

    def add(self, token: int, logprob: float, end: int) -> None:
        """Take what was said; nothing after the end."""
        if self.ended:
            return
        self.logprobs.append(logprob)
        if token == end:
            self.ended = True
        else:
            self.tokens.append(token)

    def generated(self, *, logprobs: bool) -> Generated:
        """Return what was said."""
        return Generated(
            tokens=self.tokens,
            sum_logprob=float(np.sum(self.logprobs, dtype=np.float64)),
            ended=self.ended,
            no_speech_prob=self.no_speech_prob,
            logprobs=tuple(self.logprobs) if logprobs else None,
            language_probs=self.language_probs,
        )


def _rows(
    engine: TransformersEngine, first: torch.Tensor, samplers: Sequence[Sampler]
) -> list[_Row]:
    """Start a row for each clip from the scores of the first step ([clips, vocabulary])."""
    vocabulary = engine.vocabulary
    no_speech = [0.0] * len(samplers)
    if vocabulary.no_speech is not None:
        no_speech = first.softmax(-1)[:, vocabulary.no_speech].tolist()
    heard = engine._language_probs(first) if vocabulary.languages else [None] * len(samplers)
    return [
        _Row(sampler=s, no_speech_prob=p, language_probs=h, tokens=[], logprobs=[])
        for s, p, h in zip(samplers, no_speech, heard, strict=True)
    ]


class _Masks:
    """Whisper's rules on a batch of scores; `rules.constrain` says the same of one row in numpy."""

    def __init__(self, vocabulary: Vocabulary, device: torch.device) -> None:
        """Put on the device what does not change."""
        self._vocabulary = vocabulary
        self._suppressed = torch.tensor(vocabulary.suppressed, dtype=torch.long, device=device)
        first = vocabulary.suppressed_first
        self._suppressed_first = torch.tensor(first, dtype=torch.long, device=device)
        self._ids = torch.arange(vocabulary.size, device=device)

    def apply(self, scores: torch.Tensor, rows: Sequence[_Row], *, timestamps: bool) -> None:
        """Set what must not be said to -inf, in place."""
        vocabulary, begin = self._vocabulary, self._vocabulary.first_timestamp
        scores[:, self._suppressed] = -torch.inf
        if not rows[0].tokens and not rows[0].ended:
            scores[:, self._suppressed_first] = -torch.inf
        if not timestamps:
            return
        bounds = [timestamp_bounds(row.tokens, vocabulary) for row in rows]
        limits = [(b.first, b.first_timestamp, b.last_timestamp) for b in bounds]
        first, earliest, latest = torch.tensor(limits, device=scores.device).T[..., None]
        outside = (self._ids >= begin) & ((self._ids < earliest) | (self._ids > latest))
        outside |= self._ids < first
        outside[:, vocabulary.no_timestamps] = True
        scores.masked_fill_(outside, -torch.inf)
        together = scores[:, begin:].logsumexp(-1)
        of_time = together > scores[:, :begin].amax(-1)
        scores[:, :begin].masked_fill_(of_time[:, None], -torch.inf)

"""Run the teacher with CTranslate2, the fast engine: int8 on CPU, 16 bits on GPU, no torch.

Its own search decodes greedily and with beams. It cannot draw numbers by clip, nor say how probable
each token was; both are done here from the scores that it gives for tokens it is told to say: a
guess is replayed, the tokens are chosen from its scores, and where one differs the guess is mended.
"""

import dataclasses
import json
from collections.abc import Sequence
from typing import Any, NamedTuple

import ctranslate2
import numpy as np
import tokenizers

from pipeline.config import TeacherConfig
from pipeline.teacher.conversion import SETTINGS, TOKENIZER, converted
from pipeline.teacher.engine import Generated, Search
from pipeline.teacher.replay import Replay
from pipeline.teacher.rules import is_allowed, log_softmax
from pipeline.teacher.sampling import Sampler
from pipeline.teacher.vocabulary import Vocabulary, read_vocabulary

_REPLAY_ROWS = 4
"""Clips replayed together; every step of each keeps the scores of the whole vocabulary."""


def load(config: TeacherConfig, revision: str) -> "CTranslate2Engine":
    """Load a model whose device and number format are settled, converting it where needed.

    Raises:
        ValueError: the model cannot be converted, or the conversion is damaged.
    """
    folder = converted(config, revision)
    device, _, index = config.device.partition(":")
    try:
        model = ctranslate2.models.Whisper(
            str(folder),
            device=device,
            device_index=int(index or 0),
            compute_type=config.dtype,
            intra_threads=config.num_threads,
        )
        settings = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
        tokenizer = tokenizers.Tokenizer.from_file(str(folder / TOKENIZER))
    except Exception as error:  # tokenizers raises nothing narrower
        if "out of memory" in str(error):
            raise MemoryError(f"the teacher does not fit into {config.device}: {error}") from error
        raise ValueError(
            f"the converted teacher in {folder} cannot be loaded ({error}); if it is damaged, "
            "delete the folder, it is converted again"
        ) from error
    vocabulary = read_vocabulary(tokenizer, settings["config"], settings["generation"])
    return CTranslate2Engine(model, vocabulary, settings["config"]["max_target_positions"])


class _Encoded(NamedTuple):
    """What the encoder said of a batch."""

    states: Any
    num_clips: int


class CTranslate2Engine:
    """A converted Whisper model."""

    short_windows = True

    def __init__(self, model: Any, vocabulary: Vocabulary, max_positions: int) -> None:
        """Keep the model."""
        self._model, self.vocabulary = model, vocabulary
        self.num_mels: int = model.n_mels
        self.max_positions = max_positions

    def encode(self, features: np.ndarray) -> _Encoded:
        """Run the encoder over float32 features of shape [clips, mels, frames]."""
        return _Encoded(self._model.encode(_view(features)), len(features))

    def select(self, encoded: _Encoded, rows: Sequence[int]) -> _Encoded:
        """Return some clips of what `encode` returned."""
        return _Encoded(_view(_array(encoded.states)[list(rows)]), len(rows))

    def language_probs(self, encoded: _Encoded) -> np.ndarray:
        """Return [clips, languages], in the order of the vocabulary's languages."""
        # `detect_language` refuses small vocabularies. A token that is no part of the task makes
        # the first step one whose scores are told.
        aside = [self.vocabulary.start, self.vocabulary.end - 1]
        results = self._bare_scores(encoded.states, [aside] * encoded.num_clips, 1, 1)
        known = list(self.vocabulary.languages.values())
        rows = [_array(result.logits[0][0]).ravel()[known] for result in results]
        return np.exp([log_softmax(row) for row in rows])

    def generate(
        self,
        encoded: _Encoded,
        prompts: Sequence[Sequence[int]],
        samplers: Sequence[Sampler],
        search: Search,
    ) -> list[Generated]:
        """Decode; all prompts have the same length, a row's tokens depend on that row alone."""
        if samplers[0].temperature > 0:
            search = dataclasses.replace(search, num_beams=1)
        found = self._decode(encoded, prompts, search)
        again = [
            i
            for i, (said, sampler) in enumerate(zip(found, samplers, strict=True))
            if sampler.temperature > 0
            or search.logprobs
            or not np.isfinite(said.sum_logprob)  # its mean over beams that said nothing
            or (
                search.timestamps
                and search.num_beams == 1
                and not is_allowed(said.tokens, self.vocabulary)
            )
        ]
        for start in range(0, len(again), _REPLAY_ROWS):
            rows = again[start : start + _REPLAY_ROWS]
            replays = [
                Replay(
                    list(prompts[i]),
                    samplers[i],
                    found[i],
                    given=search.num_beams > 1,
                )
                for i in rows
            ]
            self._replay(self._on_host(self.select(encoded, rows)), replays, search)
            for i, replay in zip(rows, replays, strict=True):
                found[i] = replay.generated(logprobs=search.logprobs)
        return found

    def _decode(
        self, encoded: _Encoded, prompts: Sequence[Sequence[int]], search: Search
    ) -> list[Generated]:
        """Decode with the engine's own search."""
        beams = search.num_beams > 1
        results = self._model.generate(
            encoded.states,
            [list(prompt) for prompt in prompts],
            beam_size=search.num_beams,
            max_length=_max_length(search.max_tokens, len(prompts[0])),
            length_penalty=1 if beams else 0,
            return_scores=True,
            return_no_speech_prob=True,
            max_initial_timestamp_index=self.vocabulary.max_initial_timestamp,
            suppress_tokens=list(self.vocabulary.suppressed),
        )
        found = []
        for result in results:
            tokens = list(result.sequences_ids[0])
            # Its score of beams is a mean over the tokens without the end.
            total = result.scores[0] * max(len(tokens), 1) if beams else result.scores[0]
            no_speech = self.vocabulary.no_speech is not None
            found.append(
                Generated(
                    tokens=tokens,
                    sum_logprob=total,
                    ended=len(tokens) < search.max_tokens,
                    no_speech_prob=result.no_speech_prob if no_speech else 0.0,
                )
            )
        return found

    def _replay(self, states: np.ndarray, replays: Sequence[Replay], search: Search) -> None:
        """Decode token by token, as far at a time as the guesses are right.

        Args:
            states: float32 of shape [clips, positions, width].
            replays: one for each clip; they are brought to their end.
            search: how to decode.
        """
        vocabulary = self.vocabulary
        while active := [i for i, replay in enumerate(replays) if not replay.done]:
            some = [replays[i] for i in active]
            prefixes = [[*replay.prompt, *replay.told] for replay in some]
            rows, num_task = states[active], len(some[0].prompt)
            rules_off = not search.timestamps
            if search.timestamps and num_task > 1:
                # The engine looks at the first clip to see whether its own rules for timestamps
                # are wanted; without them all its scores are bare, and the guess goes on.
                aside = [*some[0].prompt[: num_task - 1], vocabulary.no_timestamps]
                prefixes, rows = [aside, *prefixes], np.concatenate([np.zeros_like(rows[:1]), rows])
                rules_off = True
            if rules_off:
                num_steps = min(max(replay.reach for replay in some), search.max_tokens)
            else:  # only the scores of what it is told to say are bare: one more, whatever it is
                prefixes = [[*prefix, 0] for prefix in prefixes]
                num_steps = min(1 + max(len(replay.told) for replay in some), search.max_tokens)
            results = self._bare_scores(_view(rows), prefixes, num_steps, num_task)
            for replay, result in zip(some, results[len(results) - len(some) :], strict=True):
                path = list(result.sequences_ids[0]) if rules_off else replay.told
                scores = [_array(step).ravel() for step in result.logits[0]]
                replay.follow(path, scores, vocabulary, search)

    def _bare_scores(
        self, states: Any, prefixes: list[list[int]], num_steps: int, num_task: int
    ) -> list[Any]:
        """Say the prefixes, then what is likeliest, and keep every step's scores as they are."""
        return self._model.generate(
            states,
            prefixes,
            beam_size=1,
            max_length=_max_length(num_steps, num_task),
            return_logits_vocab=True,
            suppress_blank=False,
            suppress_tokens=[],
        )

    def _on_host(self, encoded: _Encoded) -> np.ndarray:
        """Return the encoder's output as float32 in main memory."""
        return _array(encoded.states)


def _view(array: np.ndarray) -> Any:
    """Hand an array to the engine."""
    return ctranslate2.StorageView.from_array(np.ascontiguousarray(array, dtype=np.float32))


def _array(view: Any) -> np.ndarray:
    """Take an array from the engine, wherever it is, as float32."""
    if view.device != "cpu":
        view = view.to_device(ctranslate2.Device.cpu)
    if view.dtype != ctranslate2.DataType.float32:
        view = view.to(ctranslate2.DataType.float32)
    return np.asarray(view)


def _max_length(max_tokens: int, num_task: int) -> int:
    """Return the `max_length` with which the engine says so many tokens after the task's.

    It takes half of it, or it less the task tokens before the last, whichever is less.
    """
    return max(2 * max_tokens, max_tokens + num_task - 1)

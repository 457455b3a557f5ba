"""Label a batch clip by clip: what is one clip's own is decided for that clip alone.

The engine decodes the whole batch once. Clips whose label is not good enough are decoded again,
they alone, at the next temperature. Where memory is short the batch is halved, and stays so.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import numpy as np

from pipeline.config import DecodingConfig
from pipeline.features import HOP_SAMPLES, MAX_FRAMES, log_mel
from pipeline.schema import SAMPLE_RATE
from pipeline.teacher.engine import Engine, Generated, Search
from pipeline.teacher.evidence import avg_logprob, compression_ratio, make_label
from pipeline.teacher.fallback import needs_fallback
from pipeline.teacher.label import Label, Prepared
from pipeline.teacher.sampling import make_sampler

logger = logging.getLogger(__name__)

AUTO_LANGUAGE = "auto"

_WINDOW_STEP = SAMPLE_RATE // 2
_WINDOW_MARGIN = round(0.3 * SAMPLE_RATE)
"""Samples of silence after a clip in a short window; both as students are trained."""
_NO_MEMORY = ("out of memory", "bad_alloc", "can't allocate memory", "alloc_failed")

In = TypeVar("In")
Out = TypeVar("Out")


class BatchTeacher:
    """A teacher on top of any engine."""

    def __init__(
        self, engine: Engine, decoding: DecodingConfig, *, window: str, batch_size: int
    ) -> None:
        """Keep the engine and how it is to decode.

        Raises:
            ValueError: the engine cannot do what is asked.
        """
        if window == "clip" and not engine.short_windows:
            raise ValueError(
                "teacher.window clip needs an engine that takes short windows: use ctranslate2"
            )
        self._engine, self._decoding, self._batch_size = engine, decoding, batch_size
        self._short = window == "clip"

    def prepare(self, clips: list[np.ndarray]) -> Prepared:
        """Compute the features of clips; safe on another thread than `label`."""
        num_mels = self._engine.num_mels
        return Prepared(
            clips=clips,
            features=[
                log_mel(clip, num_mels=num_mels, num_frames=self._num_frames(clip))
                for clip in clips
            ],
        )

    def label(self, clips: list[np.ndarray] | Prepared, language: str) -> list[Label]:
        """Label clips, in the order given; see `Teacher.label`.

        Raises:
            ValueError: the teacher does not know the language.
            MemoryError: there is not even memory for one clip.
        """
        if language != AUTO_LANGUAGE:
            self._engine.vocabulary.check_language(language)
        prepared = clips if isinstance(clips, Prepared) else self.prepare(clips)
        labels: dict[int, Label] = {}
        for rows in self._same_window(prepared):
            labels |= self._label_rows(prepared, rows, language)
        return [labels[row] for row in range(len(prepared))]

    def _num_frames(self, clip: np.ndarray) -> int:
        """Return the window of a clip; in steps, so that clips can share a batch."""
        if not self._short:
            return MAX_FRAMES
        steps = -(-(len(clip) + _WINDOW_MARGIN) // _WINDOW_STEP)
        return min(steps * _WINDOW_STEP // HOP_SAMPLES, MAX_FRAMES)

    def _same_window(self, prepared: Prepared) -> Iterator[list[int]]:
        """Group rows whose windows are of one length, the longest first."""
        by_length: dict[int, list[int]] = {}
        for row, features in enumerate(prepared.features):
            by_length.setdefault(features.shape[1], []).append(row)
        for _, rows in sorted(by_length.items(), reverse=True):
            yield rows

    def _label_rows(self, prepared: Prepared, rows: list[int], language: str) -> dict[int, Label]:
        """Label some rows in as few batches as memory allows."""
        labels: dict[int, Label] = {}
        waiting = list(rows)
        while waiting:
            batch = waiting[: self._batch_size]
            try:
                labels |= self._label_batch(prepared, batch, language)
            except Exception as error:
                if not _is_out_of_memory(error):
                    raise
                if len(batch) == 1:
                    raise MemoryError(
                        f"not even one clip fits into memory ({error}): use a smaller teacher or "
                        "number format, or fewer workers on this device"
                    ) from error
                self._batch_size = len(batch) // 2
                logger.warning("memory is short: going on with batches of %d", self._batch_size)
                continue
            waiting = waiting[len(batch) :]
        return labels

    def _label_batch(self, prepared: Prepared, rows: list[int], language: str) -> dict[int, Label]:
        """Label rows that fit into memory together."""
        config, engine, vocabulary = self._decoding, self._engine, self._engine.vocabulary
        encoded = engine.encode(np.stack([prepared.features[row] for row in rows]))
        heard: np.ndarray | None = None
        languages = [language] * len(rows)
        if language == AUTO_LANGUAGE:
            languages = ["en"] * len(rows)
            if vocabulary.languages:
                heard = engine.language_probs(encoded)
                known = list(vocabulary.languages)
                languages = [known[int(best)] for best in heard.argmax(axis=1)]
        prompts = [vocabulary.prompt(code, timestamps=config.timestamps) for code in languages]
        search = Search(
            timestamps=config.timestamps,
            max_tokens=min(config.max_new_tokens, engine.max_positions - len(prompts[0])),
            num_beams=config.num_beams,
            logprobs=config.token_logprobs,
        )
        chosen = self._with_fallback(prepared, rows, encoded, prompts, search)
        by_the_way = chosen[0][0].language_probs is not None
        if heard is None and vocabulary.languages and config.language_probability:
            heard = (
                np.stack([generated.language_probs for generated, _ in chosen])  # pyright: ignore
                if by_the_way
                else engine.language_probs(encoded)
            )
        known = list(vocabulary.languages)
        return {
            row: make_label(
                generated,
                vocabulary,
                duration_seconds=len(prepared.clips[row]) / SAMPLE_RATE,
                language=code,
                language_probability=1.0 if heard is None else float(heard[i][known.index(code)]),
                temperature=temperature,
                config=config,
            )
            for i, (row, code, (generated, temperature)) in enumerate(
                zip(rows, languages, chosen, strict=True)
            )
        }

    def _with_fallback(
        self,
        prepared: Prepared,
        rows: Sequence[int],
        encoded: object,
        prompts: Sequence[Sequence[int]],
        search: Search,
    ) -> list[tuple[Generated, float]]:
        """Decode all rows, then those that need it again at the next temperature."""
        engine, config = self._engine, self._decoding
        chosen: dict[int, tuple[Generated, float]] = {}
        failing = list(range(len(rows)))
        for temperature in config.temperatures:
            part = engine.select(encoded, failing) if len(failing) < len(rows) else encoded
            samplers = [
                make_sampler(
                    prepared.clips[rows[i]],
                    temperature,
                    seed=config.seed,
                    max_tokens=search.max_tokens,
                )
                for i in failing
            ]
            results = engine.generate(part, [prompts[i] for i in failing], samplers, search)
            for i, generated in zip(failing, results, strict=True):
                chosen[i] = (generated, temperature)
            failing = [i for i in failing if self._needs_fallback(chosen[i][0])]
            if not failing:
                break
        return [chosen[i] for i in range(len(rows))]

    def _needs_fallback(self, generated: Generated) -> bool:
        return needs_fallback(
            compression_ratio=compression_ratio(self._engine.vocabulary.text(generated.tokens)),
            avg_logprob=avg_logprob(generated),
            no_speech_prob=generated.no_speech_prob,
            config=self._decoding,
        )


def ahead(items: Iterable[In], work: Callable[[In], Out]) -> Iterator[tuple[In, Out]]:
    """Yield each item with what work made of it, done on another thread while the last is used.

    With reading and `prepare` as the work, the decoder never waits for audio. One item is worked on
    ahead, not more, so memory holds two. What work raises comes out at that item's turn.
    """
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="ahead") as thread:
        waiting: list[tuple[In, Future[Out]]] = []
        for item in items:
            waiting.append((item, thread.submit(work, item)))
            if len(waiting) > 1:
                done, future = waiting.pop(0)
                yield done, future.result()
        for done, future in waiting:
            yield done, future.result()


def _is_out_of_memory(error: Exception) -> bool:
    """Tell by what torch, CTranslate2 and the C++ library raise."""
    if isinstance(error, MemoryError):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(sign in text for sign in _NO_MEMORY)

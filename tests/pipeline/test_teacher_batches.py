"""What stands above an engine, with an engine that is a few lines of arithmetic."""

import dataclasses
import math
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
import tokenizers

from pipeline.config import DecodingConfig
from pipeline.schema import EMBEDDED_FOLDER
from pipeline.teacher.batches import BatchTeacher, ahead
from pipeline.teacher.engine import Generated, Search
from pipeline.teacher.sampling import Sampler
from pipeline.teacher.vocabulary import read_vocabulary

TOKENIZER = tokenizers.Tokenizer.from_file(str(EMBEDDED_FOLDER / "teacher" / "tokenizer.json"))
VOCABULARY = read_vocabulary(TOKENIZER, {"vocab_size": 2248}, {"is_multilingual": False})
TEXT = " a small house"
TOKENS = TOKENIZER.encode(TEXT, add_special_tokens=False).ids
LOOP = TOKENIZER.encode(" again" * 60, add_special_tokens=False).ids


class Arithmetic:
    """An engine that says `TEXT`, and `LOOP` of loud clips below a temperature."""

    vocabulary = VOCABULARY
    num_mels = 80
    max_positions = 448
    short_windows = True

    def __init__(self, *, room: int = 100, cools_at: float = 0.4) -> None:
        self.room, self.cools_at = room, cools_at
        self.calls: list[tuple[int, float]] = []
        self.frames: list[int] = []

    def encode(self, features: np.ndarray) -> Any:
        if len(features) > self.room:
            raise RuntimeError("CUDA failed with error out of memory")
        self.frames.append(features.shape[-1])
        return features.mean(axis=(1, 2)) > -0.9  # loud

    def select(self, encoded: Any, rows: Sequence[int]) -> Any:
        return encoded[list(rows)]

    def language_probs(self, encoded: Any) -> np.ndarray:
        raise AssertionError("it knows one language")

    def generate(
        self,
        encoded: Any,
        prompts: Sequence[Sequence[int]],
        samplers: Sequence[Sampler],
        search: Search,
    ) -> list[Generated]:
        temperature = samplers[0].temperature
        self.calls.append((len(prompts), temperature))
        return [
            Generated(
                tokens=LOOP if loud and temperature < self.cools_at else TOKENS,
                sum_logprob=-1.0,
                ended=True,
                no_speech_prob=0.0,
            )
            for loud in encoded
        ]


def teacher(engine: Arithmetic, *, window: str = "full", batch_size: int = 8) -> BatchTeacher:
    decoding = DecodingConfig(timestamps=False)
    return BatchTeacher(engine, decoding, window=window, batch_size=batch_size)


def clip(seconds: float, *, loud: bool = False) -> np.ndarray:
    noise = np.random.default_rng(0).normal(size=round(seconds * 16_000))
    return (noise if loud else 0 * noise).astype(np.float32)


def test_only_the_failing_clip_is_decoded_again():
    engine = Arithmetic()
    labels = teacher(engine).label([clip(1), clip(29, loud=True), clip(2)], "en")
    assert engine.calls == [(3, 0.0), (1, 0.2), (1, 0.4)]
    assert [label.temperature for label in labels] == [0.0, 0.4, 0.0]
    assert {label.text for label in labels} == {TEXT.strip()}


def test_what_is_left_at_the_last_temperature_is_kept():
    (label,) = teacher(Arithmetic(cools_at=9)).label([clip(29, loud=True)], "en")
    assert label.temperature == 1.0
    assert label.compression_ratio > 2.4


@pytest.mark.parametrize("value", [math.nan, -math.inf])
def test_evidence_that_no_file_can_hold_is_an_error(value: float):
    class Broken(Arithmetic):
        def generate(self, *arguments: Any) -> list[Generated]:
            said = super().generate(*arguments)
            return [dataclasses.replace(one, sum_logprob=value) for one in said]

    with pytest.raises(ValueError, match="evidence is not finite: avg_logprob"):
        teacher(Broken()).label([clip(1)], "en")


def test_short_memory_halves_the_batch_and_goes_on():
    engine = Arithmetic(room=3)
    several = teacher(engine)
    labels = several.label([clip(i / 10 + 1) for i in range(8)], "en")
    assert len(labels) == 8
    assert [size for size, _ in engine.calls] == [2, 2, 2, 2]
    several.label([clip(1)] * 4, "en")
    assert [size for size, _ in engine.calls[4:]] == [2, 2]  # it stays halved


def test_a_clip_that_does_not_fit_alone_says_what_to_do():
    with pytest.raises(MemoryError, match=r"not even one clip.*smaller teacher"):
        teacher(Arithmetic(room=0)).label([clip(1)], "en")


def test_windows_are_as_long_as_their_clips_only_where_asked_for():
    clips = [clip(1.0), clip(4.1), clip(1.2), clip(30)]
    full = Arithmetic()
    teacher(full).label(clips, "en")
    assert full.frames == [3000]
    short = Arithmetic()
    labels = teacher(short, window="clip").label(clips, "en")
    assert short.frames == [3000, 450, 150]
    assert len(labels) == 4


def test_short_windows_need_an_engine_that_takes_them():
    engine = Arithmetic()
    engine.short_windows = False
    with pytest.raises(ValueError, match="use ctranslate2"):
        teacher(engine, window="clip")


def test_other_languages_are_refused_by_an_english_teacher():
    with pytest.raises(ValueError, match="English only, not 'de'"):
        teacher(Arithmetic()).label([clip(1)], "de")
    (label,) = teacher(Arithmetic()).label([clip(1)], "auto")
    assert (label.language, label.language_probability) == ("en", 1.0)


def test_work_ahead_is_done_on_another_thread_in_order():
    threads = set()

    def square(number: int) -> int:
        threads.add(threading.current_thread().name)
        return number * number

    assert list(ahead(range(5), square)) == [(n, n * n) for n in range(5)]
    assert threading.current_thread().name not in threads


def test_work_ahead_holds_one_item_more_and_not_all():
    begun: list[int] = []

    def items() -> Iterator[int]:
        for number in range(10):
            begun.append(number)
            yield number

    stream = ahead(items(), str)
    next(stream)
    assert len(begun) == 2


def test_what_work_ahead_raises_comes_out_at_its_turn():
    def fail(number: int) -> int:
        if number == 1:
            raise KeyError(number)
        return number

    stream = ahead(range(3), fail)
    assert next(stream) == (0, 0)
    with pytest.raises(KeyError):
        next(stream)

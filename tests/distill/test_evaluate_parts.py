"""Parts of an evaluation, with models whose answers the test decides."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distill import evaluate_parts
from distill.evaluate_config import EvaluateConfig, RobustnessConfig
from distill.evaluate_data import EvaluationClip
from distill.evaluate_hearing import hear_in_turns
from distill.recognizers import load_recognizer
from distill.windows import Heard, Window
from pipeline.schema import SAMPLE_RATE, ClipUtterance


class Words:
    """A vocabulary that gives each word a number."""

    first_timestamp, end = 1000, 900

    def __init__(self) -> None:
        self.words: list[str] = []

    def encode(self, text: str) -> list[int]:
        self.words += [word for word in text.split() if word not in self.words]
        return [self.words.index(word) for word in text.split()]

    def decode(self, tokens: list[int]) -> str:
        return " ".join(self.words[token] for token in tokens if token < self.end)


class Listener:
    """A recognizer that knows a clip by its loudness, notes its windows, and answers as told."""

    num_parameters, is_student = 1, False

    def __init__(self, name: str, answers: dict[int, tuple[int, ...]] | None = None) -> None:
        self.name, self.vocabulary = name, Words()
        self.answers, self.windows = answers or {}, list[Window]()

    def extract(self, samples: list[np.ndarray]) -> np.ndarray:
        return np.zeros((len(samples), 80, 3000))

    def hear(self, windows: list[Window]) -> list[Heard]:
        return self.hear_features(None, windows)

    def hear_features(self, features: Any, windows: list[Window]) -> list[Heard]:
        self.windows += windows
        return [
            Heard(tokens=tokens, text=self.vocabulary.decode(list(tokens)), language="en")
            for tokens in (self.answers.get(loudness(window), ()) for window in windows)
        ]


def loudness(window: Window) -> int:
    return round(float(np.abs(window.samples).max()) * 100)


def clip(number: int, text: str, **fields: Any) -> EvaluationClip:
    """The clip of number n is n / 100 loud."""
    made = EvaluationClip(
        id=f"c{number}", reference=text, language="en", speaker="", recording="r",
        start_seconds=0.0, duration_seconds=4.0,
        samples=np.full(4 * SAMPLE_RATE, number / 100, dtype=np.float32),
    )  # fmt: skip
    return dataclasses.replace(made, **fields)


def config(**fields: Any) -> EvaluateConfig:
    return EvaluateConfig(models=["m"], data=["d"], output="o", batch_size=2, **fields)


def test_no_clip_is_heard_behind_a_prompt_that_holds_its_own_text():
    clips = [clip(number, f"only{number} said{number}") for number in range(1, 8)]
    model: Any = Listener("m")
    rows = evaluate_parts.prompt_lengths(config(prompt_lengths=[0, 30]), [model], clips)
    prompts: dict[int, set[int]] = {}
    for window in model.windows:
        assert len(window.previous) in (0, 30)
        said = {int(model.vocabulary.words[t].removeprefix("only")) for t in window.previous[::2]}
        prompts[loudness(window)] = prompts.get(loudness(window), set()) | said
    assert prompts == {n: {2, 4, 6} if n % 2 else {1, 3, 5, 7} for n in range(1, 8)}
    assert [(row["prompt_tokens"], row["wer"]) for row in rows] == [(0, 1.0), (30, 1.0)]


def test_times_are_compared_with_the_utterances_and_clips_without_any_are_left_out():
    utterances = tuple(
        ClipUtterance(id=str(n), start=start, duration=1.0, reference=text)
        for n, (start, text) in enumerate(((0.5, "one"), (2.0, "two")))
    )
    clips = [clip(1, "one two", utterances=utterances), clip(2, "one two")]
    model: Any = Listener("m", {1: (1030, 0, 1070, 1100, 1, 1160)})  # 0.6 to 1.4 s, 2.0 to 3.2 s
    model.vocabulary.encode("one two")
    (row,) = evaluate_parts.timestamps(config(timestamps=True), [model], clips)
    assert row == {
        "model": "m", "clips": 1, "start_error": 0.1, "end_error": 0.2, "as_many_segments": 1.0,
    }  # fmt: skip


def test_every_length_at_the_edge_of_a_window_is_heard_whole():
    model: Any = Listener("m", {1: (0,)})
    model.vocabulary.encode("one")
    rows = evaluate_parts.edges([model], [clip(1, "one")])
    assert [(row["seconds"], row["words"]) for row in rows] == [
        (0.1, 1), (15.0, 1), (29.98, 1), (30.0, 1), (30.02, 2),
    ]  # fmt: skip
    heard = [len(window.samples) for window in model.windows]
    assert heard == [round(s * SAMPLE_RATE) for s in (0.1, 15.0, 29.98, 30.0, 30.0, 0.02)]


def test_in_noise_every_model_hears_the_same_mixtures():
    one, other = Listener("one"), Listener("other")
    noisy = config(robustness=RobustnessConfig(noises=["white"], snrs=[10.0, 0.0], max_clips=2))
    models: Any = [one, other]
    rows = evaluate_parts.robustness(noisy, models, [clip(n, "word") for n in (10, 20, 30)])
    assert [(r["model"], r["snr_db"]) for r in rows] == [
        ("one", 10.0), ("other", 10.0), ("one", 0.0), ("other", 0.0),
    ]  # fmt: skip
    mixtures = [[window.samples for window in model.windows] for model in (one, other)]
    assert all(np.array_equal(a, b) for a, b in zip(*mixtures, strict=True))
    assert len({float(s.std()) for s in mixtures[0]}) == 4  # two clips at two ratios


def test_noise_is_mixed_into_clips_of_all_languages_and_lengths():
    clips = [
        clip(n, "word", language=language, duration_seconds=float(n))
        for language, numbers in (("de", range(1, 7)), ("en", range(7, 13)))
        for n in numbers
    ]
    model: Any = Listener("m")
    noisy = config(robustness=RobustnessConfig(noises=["white"], snrs=[60.0], max_clips=4))
    evaluate_parts.robustness(noisy, [model], clips)
    assert {loudness(window) for window in model.windows} == {1, 4, 7, 10}


def test_every_word_to_a_sound_without_speech_is_counted():
    model: Any = Listener("m")
    rows = evaluate_parts.answers_to_no_speech(config(), [model])
    assert {row["sound"]: row["words"] for row in rows} == dict.fromkeys(
        ("silence", "white", "babble", "music"), 0
    )
    model.answers = {loudness(window): (0, 0, 0) for window in model.windows}
    model.vocabulary.encode("you")
    rows = evaluate_parts.answers_to_no_speech(config(), [model])
    assert {(row["words"], row["longest_loop"], row["text"]) for row in rows} == {
        (3, 2, "you you you")
    }


def test_models_take_turns_and_a_clip_that_cannot_be_read_is_left_out_for_all(tmp_path: Path):
    (tmp_path / "noise.wav").write_text("no audio at all")
    missing = clip(9, "word", samples=None, path=str(tmp_path / "missing.wav"))
    broken = clip(8, "word", samples=None, path=str(tmp_path / "noise.wav"))
    clips = [clip(1, "one"), missing, clip(2, "two"), clip(3, "three"), broken]
    order: list[str] = []

    class Noting(Listener):
        def hear_features(self, features: Any, windows: list[Window]) -> list[Heard]:
            order.append(self.name)
            return super().hear_features(features, windows)

    models: Any = [Noting("a", {n: (n,) for n in (1, 2, 3)}), Noting("b", {2: (7,)})]
    for model in models:
        model.vocabulary.encode(" ".join(map(str, range(10))))
    found = hear_in_turns(models, clips, 2)
    assert [c.id for c in found.clips] == ["c1", "c2", "c3"]
    assert found.texts == [["1", "2", "3"], ["", "7", ""]]
    assert order == ["a", "a", "b", "b", "b", "a"]  # the first call of each warms up
    assert set(found.unreadable) == {"c8", "c9"}
    assert "no such file" in found.unreadable["c9"].lower()


def test_only_the_work_of_the_models_counts_as_theirs(monkeypatch: pytest.MonkeyPatch):
    now = [0.0]
    monkeypatch.setattr("distill.evaluate_hearing.time.perf_counter", lambda: now[0])

    class Slow(Listener):
        def extract(self, samples: list[np.ndarray]) -> np.ndarray:
            now[0] += 3.0
            return super().extract(samples)

        def hear_features(self, features: Any, windows: list[Window]) -> list[Heard]:
            now[0] += 0.5 * len(windows)
            return super().hear_features(features, windows)

    models: Any = [Slow("a"), Slow("b")]
    found = hear_in_turns(models, [clip(n, "word") for n in range(1, 5)], 2)
    assert found.features_seconds == 4 * 3.0
    assert found.seconds == [2.0, 2.0]  # what warms them up is nobody's
    assert found.reading_seconds == 0.0


def test_speeds_are_relative_to_the_first_model_in_every_batch_size(teacher_folder: Path):
    models = [load_recognizer(str(teacher_folder), device="cpu", max_new_tokens=2)] * 2
    rows = evaluate_parts.latency(config(latency_batches=[1, 3]), models, [clip(1, "one")])
    assert [row["batch_size"] for row in rows] == [1, 1, 3, 3]
    for row in rows[::2]:
        assert row["relative_speed"] == 1.0
        assert row["rtfx"] == pytest.approx(4 * row["batch_size"] / row["batch_seconds"], rel=0.05)


def test_speeds_are_measured_on_clips_of_middling_length():
    seconds = {"de": (1.0, 9.0, 10.0, 30.0), "en": (2.0, 8.0, 11.0, 29.0)}
    clips = [
        clip(round(length), "word", language=language, duration_seconds=length)
        for language, lengths in seconds.items()
        for length in lengths
    ]
    model: Any = Listener("m")
    evaluate_parts.latency(config(latency_batches=[1, 4, 10]), [model], clips)
    heard = [loudness(window) for window in model.windows]
    assert set(heard[:6]) == {9}  # the batch of one, and its repetitions
    assert set(heard[6:30]) == {8, 9, 10, 11}
    assert set(heard[30:]) == {1, 2, 8, 9, 10, 11, 29, 30}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"modes": ["speculative"]}, "m cannot be assisted; speculative needs a plain Whisper"),
        ({"robustness": RobustnessConfig(noises=["rain"])}, "noise 'rain' is neither"),
    ],
)
def test_what_cannot_be_done_is_refused_before_anything_is_heard(
    fields: dict[str, Any], message: str
):
    model: Any = Listener("m")
    with pytest.raises(ValueError, match=message):
        evaluate_parts.check(config(**fields), [model], [])
    assert model.windows == []

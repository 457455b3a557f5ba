"""A teacher is asked what it hears in clips of known content before it labels others.

The broken teachers are the embedded one with one thing spoilt.
"""

import math
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from pipeline.config import DecodingConfig, TeacherConfig
from pipeline.schema import EMBEDDED_FOLDER, from_json, to_json
from pipeline.teacher import Label, Prepared, load_teacher, resolve_revision
from pipeline.teacher.canary import (
    CanaryError,
    CanaryLabel,
    CanaryResult,
    canary,
    check_canary,
    check_drift,
    drift,
    judge,
)
from tests.shared_data import ABSENT, TEACHER

SILENCE = {"silence", "noise", "tune"}


class Says:
    """A teacher that says one text of speech and another of everything else."""

    def __init__(self, of_speech: str, of_silence: str = "") -> None:
        self.texts = [of_silence, of_speech]

    def label(self, clips: list[np.ndarray] | Prepared, language: str) -> list[Label]:
        assert language == "en"
        assert not isinstance(clips, Prepared)
        num_silent = len(SILENCE)
        return [label(self.texts[number >= num_silent]) for number in range(len(clips))]

    def prepare(self, clips: list[np.ndarray]) -> Prepared:
        raise NotImplementedError


def label(text: str, **evidence: Any) -> Label:
    known = {"avg_logprob": -0.1, "no_speech_prob": 0.0, "compression_ratio": 1.0, **evidence}
    return Label(
        text=text,
        tokens=(),
        segments=(),
        language="en",
        language_probability=1.0,
        temperature=0.0,
        truncated=False,
        **known,
    )


def said(name: str, reference: str, text: str, **evidence: Any) -> CanaryLabel:
    return CanaryLabel(
        name=name, reference=reference, text=text, **{"avg_logprob": -0.1, **evidence}
    )


def test_canary_judges_speech_by_errors_and_the_rest_by_words():
    good = judge(
        [said("a", "two old boats", "Two old boats."), said("silence", "", "")],
        max_wer=0.1,
        max_words=0,
    )
    assert (good.wer, good.most_words, good.problems) == (0.0, 0, ())
    check_canary(good)
    bad = judge(
        [said("a", "two old boats", "two cold goats"), said("noise", "", "thank you")],
        max_wer=0.5,
        max_words=1,
    )
    assert len(bad.problems) == 2
    with pytest.raises(CanaryError, match=r"WER of 0\.67.*noise gave 2 words"):
        check_canary(bad)


def test_speech_is_used_only_where_there_is_english_to_label():
    other = canary(Says("anything"), TeacherConfig(), english=False)
    assert {label.name for label in other.labels} == SILENCE
    assert (other.wer, other.most_words, other.problems) == (None, 0, ())
    deaf = canary(Says("the old house"), TeacherConfig(), english=True)
    assert len(deaf.labels) == 6
    assert deaf.problems  # it says the same of everything


def test_a_few_words_of_silence_are_what_whisper_is_known_for():
    whisper = canary(Says("", "Thank you for watching!"), TeacherConfig(), english=False)
    assert (whisper.most_words, whisper.problems) == (4, ())


@pytest.mark.parametrize(
    ("heard", "problem"),
    [
        (said("noise", "", "", avg_logprob=math.nan), "noise gave probabilities that are no"),
        (said("noise", "", "", no_speech_prob=math.nan), "probabilities that are no numbers"),
        (said("noise", "", "!" * 200, compression_ratio=15.0), r"repeats itself: '!+…'"),
        (said("tune", "", "you " * 21), "tune gave 21 words, more than canary_max_words 20"),
        (said("speech", "two old boats", ""), r"WER of 1\.00"),
    ],
)
def test_each_sign_of_a_broken_teacher_is_a_problem_of_its_own(heard: CanaryLabel, problem: str):
    result = judge([heard], max_wer=0.75, max_words=20)
    assert len(result.problems) == 1
    with pytest.raises(CanaryError, match=f"{problem}.*teacher.canary false"):
        check_canary(result)


def test_message_stays_one_line_and_short():
    result = judge([said("noise", "", "so\n" * 999)], max_wer=1.0, max_words=20)
    with pytest.raises(CanaryError) as raised:
        check_canary(result)
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 500


def test_a_teacher_that_raises_has_failed():
    class Raises(Says):
        def label(self, clips: list[np.ndarray] | Prepared, language: str) -> list[Label]:
            raise ValueError("probabilities contain NaN")

    with pytest.raises(CanaryError, match="cannot label them: ValueError: probabilities contain"):
        canary(Raises(""), TeacherConfig(), english=False)


def heard(*labels: CanaryLabel) -> CanaryResult:
    return judge(labels, max_wer=1, max_words=9)


def test_canaries_of_two_workers_are_compared_by_text():
    first = heard(said("a", "x y", "x y"), said("noise", "", ""))
    same = heard(said("a", "x y", "X, y!"), said("noise", "", ""))
    other = heard(said("a", "x y", "z"), said("noise", "", "hm"))
    assert drift(first, same, max_wer=0.0, max_words=0) == ()
    assert len(drift(first, other, max_wer=0.5, max_words=0)) == 2
    with pytest.raises(CanaryError, match=r"a: 'z', where another worker heard 'x y'"):
        check_drift(first, other, TeacherConfig())


def test_another_word_in_noise_is_no_drift_but_another_probability_is():
    first = heard(said("noise", "", "", no_speech_prob=0.9))
    near = heard(said("noise", "", "you", no_speech_prob=0.8))
    far = heard(said("noise", "", "", no_speech_prob=0.3))
    assert drift(first, near, max_wer=0.75, max_words=20) == ()
    (problem,) = drift(first, far, max_wer=0.75, max_words=20)
    assert "probability of 0.30, where another worker has 0.90" in problem


def test_only_clips_that_both_workers_heard_are_compared():
    with_speech = heard(said("a", "x y", "x y"), said("noise", "", ""))
    assert drift(heard(said("noise", "", "")), with_speech, max_wer=0.0, max_words=0) == ()


def test_result_survives_its_file():
    result = heard(said("a", "x y", "x y", no_speech_prob=0.25), said("noise", "", ""))
    assert from_json(CanaryResult, to_json(result)) == result


@pytest.mark.parametrize("model", ["embedded", str(TEACHER)], ids=["embedded", "real"])
def test_weak_teacher_passes_even_without_a_second_try(model: str):
    if model != "embedded" and not TEACHER.is_dir():
        pytest.skip(ABSENT)
    config = TeacherConfig(model=model, device="cpu", engine="transformers", dtype="float32")
    decoding = DecodingConfig(temperatures=(0.0,))
    teacher = load_teacher(config, decoding, resolve_revision(config))
    check_canary(canary(teacher, config, english=True))


def spoil(folder: Path, change: Callable[[str, np.ndarray], np.ndarray]) -> Path:
    """Copy the embedded teacher with other weights."""
    shutil.copytree(EMBEDDED_FOLDER / "teacher", folder)
    (path,) = folder.glob("*.safetensors")
    weights = safetensors.numpy.load_file(path)
    changed = {name: change(name, value) for name, value in weights.items()}
    safetensors.numpy.save_file(changed, path, metadata={"format": "pt"})
    return folder


def not_a_number(name: str, value: np.ndarray) -> np.ndarray:
    return value * np.float32(np.nan) if name == "model.decoder.layer_norm.weight" else value


def at_random(name: str, value: np.ndarray) -> np.ndarray:
    if value.ndim < 2:
        return value
    generator = np.random.default_rng(len(name))
    spread = value.astype(np.float32).std()
    return generator.normal(0, spread, value.shape).astype(value.dtype)


def with_another_tokenizer(name: str, value: np.ndarray) -> np.ndarray:
    """Give every token of text the embedding of its neighbour, as another vocabulary would."""
    if "embed_tokens" not in name:
        return value
    num_text = 500
    return np.concatenate([np.roll(value[:num_text], 1, axis=0), value[num_text:]])


def that_says_one_word(name: str, value: np.ndarray) -> np.ndarray:
    """Let the decoder's last layer norm say the same whatever it is given."""
    if name == "model.decoder.layer_norm.weight":
        return value * 0
    if name == "model.decoder.layer_norm.bias":
        word = safetensors.numpy.load_file(EMBEDDED_FOLDER / "teacher" / "model.safetensors")
        return word["model.decoder.embed_tokens.weight"][400] * 10
    return value


def cut_off(name: str, value: np.ndarray) -> np.ndarray:
    return value * 0 if name.startswith("model.encoder.layers") else value


SPOILS: Sequence[Callable[[str, np.ndarray], np.ndarray]] = (
    not_a_number,
    at_random,
    with_another_tokenizer,
    that_says_one_word,
    cut_off,
)


@pytest.mark.parametrize("change", SPOILS, ids=lambda change: change.__name__)
def test_broken_teacher_fails(change, tmp_path: Path):
    config = TeacherConfig(
        model=str(spoil(tmp_path / "teacher", change)), device="cpu", engine="transformers"
    )
    decoding = DecodingConfig(temperatures=(0.0,), max_new_tokens=60)
    teacher = load_teacher(config, decoding, resolve_revision(config))
    with pytest.raises(CanaryError, match="the teacher failed its canary"):
        check_canary(canary(teacher, config, english=True))

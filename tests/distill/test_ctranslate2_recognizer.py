"""Converted models: what the engine does otherwise than this package's own loop."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from distill.__main__ import main
from distill.ctranslate2_files import num_layers
from distill.ctranslate2_recognizer import CTranslate2Recognizer
from distill.recognizers import load_recognizer
from distill.rules import rules_of
from distill.student import (
    keep_generation_settings,
    load_model,
    load_processor,
    make_student,
)
from distill.windows import Window
from pipeline.audio import load_audio
from pipeline.schema import EMBEDDED_FOLDER, SAMPLE_RATE
from pipeline.scoring import score
from tests.distill.material import make_audio

converters = pytest.importorskip("ctranslate2.converters")

CLIP = "test-000-en-us-f2.opus"


@pytest.fixture(scope="module")
def converted(teacher_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ctranslate2") / "model"
    converters.TransformersConverter(
        str(teacher_folder), copy_files=["tokenizer.json", "preprocessor_config.json"]
    ).convert(str(folder))
    return folder


@pytest.fixture(scope="module")
def converted_teacher(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("ctranslate2") / "teacher"
    converters.TransformersConverter(
        str(EMBEDDED_FOLDER / "teacher"),
        copy_files=["tokenizer.json", "preprocessor_config.json"],
    ).convert(str(folder))
    return str(folder)


def test_a_converted_student_is_known_by_its_layers(converted: Path, tmp_path: Path):
    assert num_layers(converted / "model.bin") == (2, 4)
    assert not load_recognizer(str(converted), device="cpu").is_student
    student = make_student(load_model("embedded"), decoder_layers=1)
    load_processor("embedded").save_pretrained(tmp_path / "plain")
    student.save_pretrained(tmp_path / "plain")
    converters.TransformersConverter(
        str(tmp_path / "plain"), copy_files=["tokenizer.json"]
    ).convert(str(tmp_path / "student"), quantization="int8")
    model = load_recognizer(str(tmp_path / "student"), device="cpu")
    assert model.is_student
    assert num_layers(tmp_path / "student" / "model.bin") == (student.config.encoder_layers, 1)


def test_a_format_that_is_not_known_says_nothing(tmp_path: Path):
    (tmp_path / "model.bin").write_bytes(b"\x07\0\0\0 and so on")
    assert num_layers(tmp_path / "model.bin") is None


@pytest.mark.parametrize("part", [0, 2])
def test_a_damaged_model_is_refused_by_the_name_of_its_folder(
    converted: Path, tmp_path: Path, part: int
):
    damaged = tmp_path / "damaged"
    shutil.copytree(converted, damaged)
    data = (converted / "model.bin").read_bytes()
    (damaged / "model.bin").write_bytes(data[: len(data) // part] if part else b"junk" * 1000)
    with pytest.raises(ValueError, match=f"could not load {damaged}"):
        load_recognizer(str(damaged), device="cpu")


class Endless(CTranslate2Recognizer):
    """A model that may not end its text."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        whole, end = self.model, self.vocabulary.end

        def generate(*given: Any, **options: Any) -> Any:
            return whole.generate(*given, **options, suppress_tokens=[end])

        self.model = SimpleNamespace(encode=whole.encode, generate=generate)


@pytest.mark.parametrize("max_new_tokens", [5, 60, 224])
@pytest.mark.parametrize("num_previous", [0, 100, 223])
def test_a_text_may_be_as_long_as_was_asked_for(
    converted: Path, max_new_tokens: int, num_previous: int
):
    model = Endless(str(converted), "cpu", max_new_tokens)
    window = Window(samples=make_audio(1.0), language="en", previous=(5,) * num_previous)
    (heard,) = model.hear([window])
    num_prompt = num_previous + (num_previous > 0) + len(model.vocabulary.task("en", False))
    assert len(heard.tokens) == min(max_new_tokens, 448 - num_prompt)
    assert heard.truncated


def test_windows_behind_previous_text_of_any_length_share_a_call(converted: Path):
    model = load_recognizer(str(converted), device="cpu", max_new_tokens=6)
    windows = [
        Window(samples=make_audio(1.0, n), language="en", previous=(5,) * length)
        for n, length in enumerate((0, 7, 0, 3, 300))
    ]
    alone = [model.hear([window])[0].tokens for window in windows]
    assert [heard.tokens for heard in model.hear(windows)] == alone


def test_the_seed_decides_what_is_sampled(converted: Path):
    window = Window(samples=make_audio(1.0), language="en", temperature=1.0)
    first, again, other = (
        load_recognizer(str(converted), device="cpu", max_new_tokens=30, seed=seed).hear([window])
        for seed in (1, 1, 2)
    )
    assert first[0].tokens == again[0].tokens != other[0].tokens


@pytest.mark.parametrize("timestamps", [False, True])
@pytest.mark.parametrize("max_new_tokens", [3, 60])
def test_a_text_is_as_probable_as_transformers_finds_it(
    converted: Path, teacher_folder: Path, max_new_tokens: int, timestamps: bool
):
    windows = [
        Window(samples=make_audio(2.0, n), language="en", timestamps=timestamps) for n in range(3)
    ]
    ours, theirs = (
        load_recognizer(str(f), device="cpu", max_new_tokens=max_new_tokens, dtype="float32")
        for f in (teacher_folder, converted)
    )
    for own, other in zip(ours.hear(windows), theirs.hear(windows), strict=True):
        assert other.tokens == own.tokens
        assert other.truncated == own.truncated
        assert other.avg_logprob == pytest.approx(own.avg_logprob, abs=1e-3)


@pytest.fixture(scope="module")
def choosy(teacher_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A model that must not write what it would like best, and the same converted."""
    folder = tmp_path_factory.mktemp("choosy")
    model = load_model(str(teacher_folder))
    wanted = model.model.decoder.embed_tokens.weight.data[100:140]
    wanted *= 40 / wanted.norm(dim=-1, keepdim=True)
    model.generation_config.suppress_tokens = list(range(100, 140))
    model.generation_config.begin_suppress_tokens = [5, model.generation_config.eos_token_id]
    keep_generation_settings(model)
    model.save_pretrained(folder / "plain")
    load_processor(str(teacher_folder)).save_pretrained(folder / "plain")
    converters.TransformersConverter(str(folder / "plain"), copy_files=["tokenizer.json"]).convert(
        str(folder / "converted")
    )
    return folder / "plain", folder / "converted"


@torch.inference_mode()
def logprobs(model: Any, window: Window, tokens: tuple[int, ...], allowed_only: bool) -> float:
    """Mean log-probability of a text that was cut off, worked out in one step by transformers."""
    vocabulary, settings = model.vocabulary, model.model.generation_config
    task = [vocabulary.previous, *window.previous] if window.previous else []
    task += vocabulary.task(window.language, window.timestamps)
    written = torch.tensor([[*task, *tokens]])
    features = model.extract([window.samples])
    logits = model.model(features, decoder_input_ids=written[:, :-1]).logits[:, len(task) - 1 :]
    if allowed_only:
        rules = rules_of(
            settings, logits.shape[-1], vocabulary.end, vocabulary.first_timestamp,
            window.timestamps,
        )  # fmt: skip
        index = torch.arange(len(task), written.shape[1])[None]
        logits = rules.apply(logits, written, torch.tensor([len(task)]), index)
    found = logits.log_softmax(-1).gather(-1, written[:, len(task) :, None])
    return float(found.sum()) / (len(tokens) + 1)


@pytest.mark.parametrize("timestamps", [False, True])
@pytest.mark.parametrize("temperature", [0.0, 0.6])
def test_a_text_is_as_probable_as_it_is_among_those_that_are_allowed(
    choosy: tuple[Path, Path], temperature: float, timestamps: bool
):
    plain, converted = (
        load_recognizer(str(folder), device="cpu", dtype="float32", max_new_tokens=10)
        for folder in choosy
    )
    windows = [
        Window(
            samples=make_audio(1.0, number), language="en", timestamps=timestamps,
            temperature=temperature, previous=(300, 301, 302)[:number],
        )
        for number in range(3)
    ]  # fmt: skip
    for model in (plain, converted):
        for window, heard in zip(windows, model.hear(windows), strict=True):
            assert heard.truncated
            among_allowed, among_all = (
                logprobs(plain, window, heard.tokens, allowed_only)
                for allowed_only in (True, False)
            )
            assert heard.avg_logprob == pytest.approx(among_allowed, abs=1e-3)
            assert among_all < among_allowed - 0.1


def test_an_empty_text_has_a_probability(converted_teacher: str):
    silence = Window(samples=np.zeros(SAMPLE_RATE, np.float32), language="en")
    ours, theirs = (
        load_recognizer(name, device="cpu", dtype="float32").hear([silence])[0]
        for name in ("embedded", converted_teacher)
    )
    assert theirs.tokens == ours.tokens == ()
    assert theirs.avg_logprob == pytest.approx(ours.avg_logprob, abs=1e-3)


def test_a_small_vocabulary_does_not_keep_the_language_from_being_heard(converted_teacher: str):
    windows = [
        Window(samples=load_audio(EMBEDDED_FOLDER / "audio" / CLIP, 0.4961, 3.3414)),
        Window(samples=make_audio(1.0), language="de"),
    ]
    ours, theirs = (
        load_recognizer(name, device="cpu", max_new_tokens=2, dtype="float32").hear(windows)
        for name in ("embedded", converted_teacher)
    )
    assert [h.language for h in theirs] == [h.language for h in ours] == ["en", "de"]
    for own, other in zip(ours, theirs, strict=True):
        assert other.language_probability == pytest.approx(own.language_probability, abs=1e-3)


def test_a_model_without_its_tokenizer_is_refused(converted: Path, tmp_path: Path):
    for name in ("model.bin", "config.json", "vocabulary.json"):
        (tmp_path / name).write_bytes((converted / name).read_bytes())
    with pytest.raises(ValueError, match=r"has no tokenizer.json; convert it with"):
        load_recognizer(str(tmp_path), device="cpu")


def test_a_converted_model_says_much_the_same(
    converted_teacher: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    converted, embedded = converted_teacher, EMBEDDED_FOLDER / "teacher"
    clip = tmp_path / "clip.wav"
    speech = load_audio(EMBEDDED_FOLDER / "audio" / CLIP, 0.4961, 3.3414)
    soundfile.write(clip, speech, SAMPLE_RATE)
    arguments = ["transcribe", "--device=cpu", "--language=en", "--mode=short", str(clip)]
    printed = []
    for model in (str(embedded), converted):
        assert main([*arguments, f"--model={model}"]) == 0
        printed.append(capsys.readouterr().out)
    assert score(printed[0], printed[1], "en").wer <= 0.25  # near ties may fall the other way
    assert main([*arguments, f"--model={converted}", "--words", "--format=json"]) == 0
    words = [w for s in json.loads(capsys.readouterr().out)["segments"] for w in s["words"]]
    times = [time for word in words for time in (word["start"], word["end"])]
    assert times == sorted(times)
    assert main([*arguments, f"--model={converted}", "--assistant=embedded"]) == 1
    assert "cannot be assisted" in capsys.readouterr().err

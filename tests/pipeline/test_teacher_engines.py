"""Conversion, and what the two engines must agree on."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.audio import load_audio
from pipeline.config import DecodingConfig, TeacherConfig
from pipeline.parity import compare
from pipeline.teacher import Teacher, engine_identity, load_teacher, resolve_revision
from pipeline.teacher.conversion import CACHE_VARIABLE, conversion_folder, converted
from tests.pipeline.conftest import SENTENCE, write_teacher
from tests.shared_data import ABSENT, SPEECH, TEACHER

MANIFEST = SPEECH / "en_kathleen" / "manifest.jsonl"

LABEL_WITHOUT_TORCH = """
import sys
import numpy as np
from pipeline.config import DecodingConfig, TeacherConfig
from pipeline.teacher import load_teacher

config = TeacherConfig(model={model!r}, engine="ctranslate2", device="cpu", dtype="float32")
teacher = load_teacher(config, DecodingConfig(max_new_tokens=20), {revision!r})
print(teacher.label([np.zeros(16000, np.float32)], "en")[0].text)
print(sorted({{"torch", "transformers"}} & sys.modules.keys()))
"""


def run_python(code: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_converted_teacher_labels_without_torch(teacher_folder: Path):
    config = TeacherConfig(model=str(teacher_folder), engine="ctranslate2")
    revision = resolve_revision(config)
    folder = converted(config, revision)
    assert not list(folder.parent.glob(f".{folder.name}*"))  # nothing half done is left
    process = run_python(LABEL_WITHOUT_TORCH.format(model=config.model, revision=revision))
    shown, errors = process.communicate()
    assert process.returncode == 0, errors
    assert shown.splitlines() == [SENTENCE, "[]"]


def test_workers_that_race_convert_once_and_both_label(teacher_folder: Path, tmp_path: Path):
    config = TeacherConfig(model=str(teacher_folder))
    code = LABEL_WITHOUT_TORCH.format(model=config.model, revision=resolve_revision(config))
    racing = [run_python(code, **{CACHE_VARIABLE: str(tmp_path)}) for _ in range(2)]
    for process in racing:
        shown, errors = process.communicate()
        assert process.returncode == 0, errors
        assert shown.splitlines()[0] == SENTENCE
    folders = [path for path in (tmp_path / "ctranslate2").iterdir() if path.is_dir()]
    assert len(folders) == 1


def test_conversion_is_found_by_weights_and_settings(teacher_folder: Path, tmp_path: Path):
    config = TeacherConfig(model=str(teacher_folder))
    here = conversion_folder(config, "weights")
    assert conversion_folder(config, "other weights") != here
    other = TeacherConfig(model=str(write_teacher(tmp_path / "other")))
    assert conversion_folder(other, "weights") == here  # the same settings elsewhere
    settings = Path(other.model) / "generation_config.json"
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"suppress_tokens": [3]}))
    assert conversion_folder(other, "weights") != here


def test_an_engine_is_told_by_its_version_and_its_conversion(
    teacher_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def identity() -> str:
        engine_identity.cache_clear()
        return engine_identity(config, "r")

    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    config = TeacherConfig(model=str(teacher_folder), engine="ctranslate2", device="cpu")
    seen = {identity()}
    model = conversion_folder(config, "r") / "model.bin"
    model.parent.mkdir(parents=True)
    for content in (b"converted", b"converted again"):
        model.write_bytes(content)
        seen.add(identity())
    assert identity() in seen
    monkeypatch.setattr("importlib.metadata.version", lambda name: "99")
    seen.add(identity())
    assert len(seen) == 4


def test_damaged_conversion_says_what_to_delete(
    teacher_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    config = TeacherConfig(model=str(teacher_folder), engine="ctranslate2", device="cpu")
    folder = conversion_folder(config, "r")
    folder.mkdir(parents=True)
    (folder / "model.bin").write_bytes(b"no model")
    with pytest.raises(ValueError, match=r"cannot be loaded .*delete the folder"):
        load_teacher(config, DecodingConfig(), "r")


@pytest.fixture(scope="module")
def speech() -> list[np.ndarray]:
    """Four short utterances of a human reader, of different lengths."""
    if not MANIFEST.is_file() or not TEACHER.is_dir():
        pytest.skip(ABSENT)
    with MANIFEST.open() as lines:
        paths = [MANIFEST.parent / json.loads(line)["audio_filepath"] for line in lines]
    return [load_audio(path) for path in paths[:16:4]]


@pytest.fixture(scope="module")
def load() -> Callable[..., Teacher]:
    def make(engine: Any, **decoding: Any) -> Teacher:
        config = TeacherConfig(model=str(TEACHER), engine=engine, device="cpu", dtype="float32")
        options = DecodingConfig(**{"timestamps": False, "max_new_tokens": 60, **decoding})
        return load_teacher(config, options, resolve_revision(config))

    return make


@pytest.mark.parametrize("engine", ["transformers", "ctranslate2"])
def test_tokens_of_a_clip_do_not_depend_on_its_neighbours(
    engine: str, speech: list[np.ndarray], load: Callable[..., Teacher]
):
    teacher = load(engine)
    together = teacher.label(speech, "en")
    backwards = teacher.label(speech[::-1], "en")[::-1]
    (alone,) = teacher.label(speech[2:3], "en")
    assert [label.tokens for label in backwards] == [label.tokens for label in together]
    assert alone.tokens == together[2].tokens
    assert alone.avg_logprob == pytest.approx(together[2].avg_logprob, abs=1e-3)


def test_engines_say_the_same_and_give_the_same_evidence(
    speech: list[np.ndarray], load: Callable[..., Teacher]
):
    # A hot temperature too: what is drawn follows from seed and clip, with whichever engine.
    for temperatures in ((0.0,), (0.4,)):
        options = {"temperatures": temperatures, "token_logprobs": True}
        first = load("transformers", **options).label(speech[:2], "en")
        second = load("ctranslate2", **options).label(speech[:2], "en")
        for one, other in zip(first, second, strict=True):
            assert one.tokens == other.tokens
            assert one.avg_logprob == pytest.approx(other.avg_logprob, abs=1e-3)
            assert one.no_speech_prob == pytest.approx(other.no_speech_prob, abs=1e-3)
            assert one.token_logprobs == pytest.approx(other.token_logprobs, abs=1e-2)


def test_agreement_is_counted_in_normalised_text():
    texts = {
        "transformers": ["Two boats.", "a house", "x"],
        "ctranslate2": ["two boats", "a mouse", "x"],
    }
    reference, other = compare(texts, ["two boats", "a house", ""], ["en"] * 3)
    assert (reference.identical, reference.wer, reference.wer_difference) == (1.0, 0.0, 0.0)
    assert other.identical == pytest.approx(2 / 3)
    assert other.wer == other.wer_difference == pytest.approx(1 / 4)

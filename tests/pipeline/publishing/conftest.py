"""A finished dataset of two corpora, made once by a real run, and a Hub on loopback."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.config import (
    BlocksConfig,
    CorpusConfig,
    DecodingConfig,
    FilterConfig,
    PipelineConfig,
    TeacherConfig,
)
from pipeline.run import run
from tests.hub_server import HubServer, hub_in_process
from tests.pipeline.conftest import SENTENCE, write_tone

PARTS: tuple[tuple[str, str, str, int], ...] = (
    ("tones", "train", "cc-by-4.0", 7),
    ("tones", "test-clean", "cc-by-4.0", 2),
    ("bells", "train", "cc-by-nc-4.0", 3),
)
"""Corpus, split, licence, number of utterances."""


def write_corpus(folder: Path, name: str, split: str, licence: str, count: int) -> CorpusConfig:
    """Write tones of which every fourth has a transcript that the teacher does not agree with."""
    lines = []
    for number in range(count):
        audio = f"{name}-{split}-{number}.wav"
        write_tone(folder / audio, 1 + number / 4, hertz=200 + 20 * number)
        text = "something else" if number % 4 == 3 else SENTENCE
        lines.append({"audio_filepath": audio, "text": text})
    path = folder / f"{name}-{split}.jsonl"
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return CorpusConfig(name=name, kind="manifest", path=str(path), licence=licence, split=split)


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, teacher_folder: Path) -> Path:
    """The output of a real run; read only."""
    folder = tmp_path_factory.mktemp("published")
    return make_dataset(folder, teacher_folder, PARTS)


def make_dataset(folder: Path, teacher: Path, parts: Any) -> Path:
    """Label and filter the parts."""
    config = PipelineConfig(
        corpora=[write_corpus(folder, *part) for part in parts],
        output=str(folder / "out"),
        teacher=TeacherConfig(
            model=str(teacher), engine="transformers", device="cpu", batch_size=8, canary=False
        ),
        decoding=DecodingConfig(max_new_tokens=20),
        filter=FilterConfig(),
        blocks=BlocksConfig(minutes=0.08),
        beam={"direct_num_workers": 1},
    )
    run(config)
    return folder / "out"


@pytest.fixture
def output(finished: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return shutil.copytree(finished, tmp_path / "out")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    with hub_in_process(monkeypatch) as server:
        yield server

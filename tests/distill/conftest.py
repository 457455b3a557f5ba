"""A tiny real Whisper with a real tokenizer, and a finished dataset of tones and noise."""

import dataclasses
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import settings
from transformers import (
    GenerationConfig,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
    WhisperProcessor,
    WhisperTokenizer,
)

from distill.config import InitConfig, TrainConfig
from distill.data_config import DataConfig, Stage
from distill.student import keep_generation_settings, load_model, load_processor
from distill.train import init
from pipeline.embedded.architecture import make_model, make_tokenizer
from tests.distill.material import make_clips, write_dataset

torch.set_num_threads(1)
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")

ENCODER_LAYERS, DECODER_LAYERS, WIDTH = 2, 4, 32


@pytest.fixture(autouse=True)
def root_logger() -> Iterator[None]:
    """Undo what a command sets up: its handler writes to a stream that ends with the test."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture(scope="session")
def tokenizer() -> WhisperTokenizer:
    return make_tokenizer()


@pytest.fixture(scope="session")
def teacher_folder(tmp_path_factory: pytest.TempPathFactory, tokenizer: WhisperTokenizer) -> Path:
    """A tiny untrained Whisper with every generation setting of a real one."""
    folder = tmp_path_factory.mktemp("teacher")
    full = make_model(tokenizer)
    sizes = {
        "d_model": WIDTH,
        "encoder_layers": ENCODER_LAYERS,
        "decoder_layers": DECODER_LAYERS,
        "encoder_attention_heads": 2,
        "decoder_attention_heads": 2,
        "encoder_ffn_dim": 2 * WIDTH,
        "decoder_ffn_dim": 2 * WIDTH,
        "num_hidden_layers": ENCODER_LAYERS,
    }
    torch.manual_seed(0)
    model = WhisperForConditionalGeneration(WhisperConfig.from_dict(full.config.to_dict() | sizes))
    settings = {"alignment_heads": [[2, 0], [3, 1]], "max_length": 24}
    model.generation_config = GenerationConfig.from_dict(
        full.generation_config.to_dict() | settings
    )
    keep_generation_settings(model)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    WhisperFeatureExtractor(feature_size=80).save_pretrained(folder)
    return folder


@pytest.fixture
def teacher(teacher_folder: Path) -> WhisperForConditionalGeneration:
    return load_model(str(teacher_folder)).eval()


@pytest.fixture(scope="session")
def processor(teacher_folder: Path) -> WhisperProcessor:
    return load_processor(str(teacher_folder))


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished dataset: the train split in two shards, the test split in one."""
    train, test = make_clips("train"), make_clips("test")
    return write_dataset(tmp_path_factory.mktemp("dataset"), train[:5], train[5:], test)


@pytest.fixture
def data_config(dataset: Path) -> Callable[..., DataConfig]:
    """Return the data configuration of the dataset with small batches, in this process."""

    def make(**fields: Any) -> DataConfig:
        config = DataConfig(shards=[str(dataset)], batch_seconds=30.0, num_workers=0)
        return dataclasses.replace(config, **fields)

    return make


@pytest.fixture(scope="session")
def student_folder(teacher_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first and the last layer of the teacher."""
    output = tmp_path_factory.mktemp("student")
    return init(InitConfig(teacher=str(teacher_folder), output=str(output), decoder_layers=2))


@pytest.fixture
def short_training(
    data_config: Callable[..., DataConfig],
    student_folder: Path,
    teacher_folder: Path,
    tmp_path: Path,
) -> TrainConfig:
    """A short training on short windows that gives the same twice."""
    return TrainConfig(
        output=str(tmp_path / "run"),
        data=data_config(curriculum=[Stage(max_seconds=4.0, full_windows=0.0)]),
        student=str(student_folder),
        teacher=str(teacher_folder),
        device="cpu",
        max_steps=4,
        save_steps=2,
        logging_steps=1,
        warmup_steps=0,
        schedule="constant_with_warmup",
    )

"""The tiny teacher with feed forward layers as wide as whisper.cpp has them."""

from pathlib import Path

import pytest
import torch
from transformers import WhisperConfig, WhisperForConditionalGeneration

from distill.export.source import Source, load_source
from distill.student import keep_generation_settings, load_model, load_processor


@pytest.fixture(scope="session")
def usual_folder(teacher_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("usual")
    tiny = load_model(str(teacher_folder))
    sizes = dict.fromkeys(("encoder_ffn_dim", "decoder_ffn_dim"), 4 * tiny.config.d_model)
    torch.manual_seed(0)
    model = WhisperForConditionalGeneration(WhisperConfig.from_dict(tiny.config.to_dict() | sizes))
    model.generation_config = tiny.generation_config
    keep_generation_settings(model)
    model.save_pretrained(folder)
    load_processor(str(teacher_folder)).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def source(usual_folder: Path) -> Source:
    return load_source(str(usual_folder))

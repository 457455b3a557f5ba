import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import WhisperForConditionalGeneration

from distill.export.source import Source, load_source
from distill.export.torchao import transcriber, write
from distill.longform import Window
from distill.quantization.config import QuantizeConfig
from distill.quantize import quantize
from tests.distill.material import make_audio

pytest.importorskip("torchao")


@pytest.fixture
def quantised(usual_folder: Path, tmp_path: Path) -> Source:
    config = QuantizeConfig(model=str(usual_folder), output=str(tmp_path / "w8"), preset="w8")
    return load_source(str(quantize(config)))


def test_weights_on_another_grid_move_by_half_a_step_at_most_and_the_export_says_so(
    quantised: Source, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    write(quantised, tmp_path / "ao")
    assert "rounded a second time" in caplog.text
    found = WhisperForConditionalGeneration.from_pretrained(tmp_path / "ao")
    for name in ("model.decoder.layers.0.fc1", "model.encoder.layers.1.self_attn.q_proj"):
        weight: Any = found.get_submodule(name).weight
        expected: Any = quantised.model.get_submodule(name).weight
        assert weight.qdata.dtype == torch.int8
        steps = (weight.dequantize() - expected).abs() / weight.scale
        assert 0 < steps.max() <= 0.5001
    assert found.proj_out.weight is found.model.decoder.embed_tokens.weight


def test_a_float_model_is_written_without_a_warning_and_heard(
    source: Source, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    with caplog.at_level(logging.WARNING, logger="distill"):
        write(source, tmp_path / "ao")
    assert not [record for record in caplog.records if record.name.startswith("distill")]
    window = Window(samples=make_audio(1.0), language="en")
    assert len(transcriber(tmp_path / "ao", source)([window, window])) == 2

"""The graphs compute what the model computes, with and without a past."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from distill.export import onnx, onnx_runtime
from distill.export.source import Source

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def folder(source: Source, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("onnx") / "onnx"
    onnx.write(source, folder)
    return folder


def test_encoder_and_decoder_give_the_models_logits_step_by_step(source: Source, folder: Path):
    model: Any = source.model
    torch.manual_seed(0)
    features, tokens = torch.randn(3, 80, 3000), torch.randint(600, (3, 9))
    with torch.no_grad():
        encoded = model.model.encoder(features).last_hidden_state
        expected = model(
            encoder_outputs=(encoded,), decoder_input_ids=tokens, use_cache=False
        ).logits
    encoder = onnx_runtime.session(folder / onnx_runtime.ENCODER)
    (sound,) = encoder.run(None, {"input_features": features.numpy()})
    np.testing.assert_allclose(sound, encoded.numpy(), atol=1e-4)
    decoder = onnx_runtime.OnnxDecoder(folder, model.config.decoder_layers, 448)
    cache = decoder.begin(torch.from_numpy(sound))
    # a beginning of four, one more, then two that leave the first row out, then two
    found = [decoder.step(tokens[:, :4], cache), decoder.step(tokens[:, 4:5], cache)]
    for place, logits in zip((slice(0, 4), slice(4, 5)), found, strict=True):
        np.testing.assert_allclose(logits, expected[:, place], atol=1e-4)
    cache.select([1, 2])
    for place in (slice(5, 7), slice(7, 9)):
        logits = decoder.step(tokens[1:, place], cache)
        np.testing.assert_allclose(logits, expected[1:, place], atol=1e-4)
    assert cache.lengths == [9, 9]


def test_every_weight_is_stored_once(source: Source, folder: Path):
    stored = (folder / onnx.WEIGHTS).stat().st_size
    weights = [w for w in source.model.parameters() if w.numel() * 4 >= 1024]
    needed = sum(weight.numel() for weight in weights) * 4
    assert needed <= stored <= needed + 4096 * (len(weights) + 8) + 448 * 448 * 4
    for name in (onnx_runtime.ENCODER, onnx_runtime.DECODER, onnx_runtime.DECODER_WITH_PAST):
        assert (folder / name).stat().st_size < 300_000


def test_inputs_and_outputs_are_named_as_optimum_names_them(source: Source, folder: Path):
    layers = range(source.model.config.decoder_layers)
    own = [f"{i}.decoder.{what}" for i in layers for what in ("key", "value")]
    first, after = (
        onnx_runtime.session(folder / name)
        for name in (onnx_runtime.DECODER, onnx_runtime.DECODER_WITH_PAST)
    )
    assert [i.name for i in first.get_inputs()] == ["input_ids", "encoder_hidden_states"]
    assert {o.name for o in after.get_outputs()} == {"logits", *(f"present.{n}" for n in own)}
    assert {i.name for i in after.get_inputs()} == {
        "input_ids",
        *(f"past_key_values.{i}.{of}.{what}" for i in layers
          for of in ("decoder", "encoder") for what in ("key", "value")),
    }  # fmt: skip
    assert len(first.get_outputs()) == 1 + 4 * len(layers)

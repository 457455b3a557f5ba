"""Quantised students outside our own float path: CTranslate2, and integer kernels."""

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from distill.data import pad_targets
from distill.losses import IGNORED
from distill.quantization import load, load_with_integers, save
from distill.quantization.export import is_lossless, to_ctranslate2
from distill.quantization.fake import plan, quantise
from distill.quantization.grid import dequantize, quantize
from distill.quantization.kernels import IntegerLinear
from distill.quantization.packed import read
from distill.quantization.presets import PRESETS, Grid, rules_of
from distill.student import load_model, load_processor
from distill.targets import make_target
from pipeline.audio import load_audio
from pipeline.schema import EMBEDDED_FOLDER
from tests.distill.material import make_sample


def parse_ctranslate2(path: Path) -> dict[str, np.ndarray]:
    """Read the variables of a model.bin by its layout, without CTranslate2."""
    content, place = path.read_bytes(), 0

    def take(code: str) -> Any:
        nonlocal place
        (value,) = struct.unpack_from(f"<{code}", content, place)
        place += struct.calcsize(f"<{code}")
        return value

    def text() -> str:
        nonlocal place
        length = take("H")
        place += length
        return content[place - length : place].rstrip(b"\0").decode()

    assert take("I") >= 6
    assert "whisper" in text().lower()
    take("I")
    found = {}
    for _ in range(take("I")):
        name = text()
        shape = [take("I") for _ in range(take("B"))]
        kind, size = take("B"), take("I")
        dtype = {0: np.float32, 1: np.int8, 2: np.int16, 3: np.int32, 4: np.float16}[kind]
        found[name] = np.frombuffer(content, dtype, size // dtype().itemsize, place).reshape(shape)
        place += size
    return found


def theirs_by_our_name(found: dict[str, np.ndarray], part: str, layers: int) -> dict[str, Any]:
    """Map our layers to (integers, inverse scales) of CTranslate2; it fuses projections."""
    mapped = {}
    for i in range(layers):
        ours, other = f"model.{part}.layers.{i}", f"{part}/layer_{i}"
        fused = {
            f"{other}/self_attention/linear_0": ["self_attn.q_proj", "k_proj", "v_proj"],
            f"{other}/self_attention/linear_1": ["self_attn.out_proj"],
            f"{other}/ffn/linear_0": ["fc1"],
            f"{other}/ffn/linear_1": ["fc2"],
        }
        if part == "decoder":
            fused |= {
                f"{other}/attention/linear_0": ["encoder_attn.q_proj"],
                f"{other}/attention/linear_1": ["encoder_attn.k_proj", "v_proj"],
                f"{other}/attention/linear_2": ["encoder_attn.out_proj"],
            }
        for name, parts in fused.items():
            integers, scales = found[f"{name}/weight"], found[f"{name}/weight_scale"]
            prefix = parts[0].rpartition(".")[0]
            names = [p if "." in p or not prefix else f"{prefix}.{p}" for p in parts]
            split = zip(np.split(integers, len(names)), np.split(scales, len(names)), strict=True)
            mapped |= {f"{ours}.{n}": both for n, both in zip(names, split, strict=True)}
    return mapped


@pytest.mark.parametrize("preset", ["paper", "w8", "ct2_int8"])
def test_ctranslate2_keeps_every_integer(teacher, processor, preset: str, tmp_path: Path):
    pytest.importorskip("ctranslate2")
    folder = tmp_path / "ours"
    save(teacher, quantise(teacher, rules_of(preset)), folder)
    processor.save_pretrained(folder)
    packed, found = (
        read(folder),
        parse_ctranslate2(to_ctranslate2(folder, tmp_path / "c") / "model.bin"),
    )
    theirs = theirs_by_our_name(found, "encoder", 2) | theirs_by_our_name(found, "decoder", 4)
    embedding = "decoder/embeddings"
    theirs["model.decoder.embed_tokens"] = (
        found[f"{embedding}/weight"],
        found[f"{embedding}/weight_scale"],
    )
    compared = 0
    for name in packed.grids:
        integers, inverse = theirs[name]
        assert integers.dtype == np.int8
        assert np.array_equal(integers, packed.integers(name).numpy()), name
        ours = packed.scale(name).flatten().numpy()
        np.testing.assert_allclose(1 / inverse.flatten(), ours, rtol=3e-7)
        compared += integers.size
    assert compared == sum(packed.integers(name).numel() for name in packed.grids) > 100_000


def test_grids_that_ctranslate2_would_round_again_are_refused(teacher, tmp_path: Path):
    lossless = {p for p in PRESETS if is_lossless(plan(teacher, rules_of(p)))}
    assert lossless == {"paper", "w8", "ct2_int8"}
    save(teacher, quantise(teacher, rules_of("w4")), tmp_path)
    pytest.importorskip("ctranslate2")
    with pytest.raises(ValueError, match="round a second time; quantise the model with ct2_int8"):
        to_ctranslate2(tmp_path, tmp_path / "c")


def test_an_integer_layer_is_as_near_as_its_rounded_activations_allow():
    torch.manual_seed(0)
    weight, bias, sound = torch.randn(48, 64), torch.randn(48), torch.randn(3, 7, 64)
    grid = Grid()
    integers, scale = quantize(weight, grid), (weight.abs().amax(1) / 127).half().float()
    layer = IntegerLinear(integers, scale, bias)
    exact = torch.nn.functional.linear(sound, dequantize(integers, scale[:, None], grid), bias)
    step = (sound.max() - sound.min()) / (127 if layer._reduce_range else 255)
    bound = dequantize(integers, scale[:, None], grid).abs().sum(1) * step
    assert layer(sound).shape == exact.shape
    assert ((layer(sound) - exact).abs() <= bound).all()
    assert (layer(sound) - exact).abs().max() > 0


@pytest.mark.parametrize("preset", ["paper", "paper_strict", "w8", "w4"])
def test_a_model_on_integer_kernels_says_nearly_the_same(teacher, preset: str, tmp_path: Path):
    save(teacher, quantise(teacher, rules_of(preset)), tmp_path)
    model, exact = load_with_integers(tmp_path), load(tmp_path)
    replaced = {n for n, layer in model.named_modules() if isinstance(layer, IntegerLinear)}
    expected = {"paper": 4 * 10 + 1, "paper_strict": 4 * 10, "w8": 4 * 10 + 1 + 2 * 6, "w4": 1}
    assert len(replaced) == expected[preset]
    inputs: dict[str, Any] = {
        "input_features": torch.randn(2, 80, 3000),
        "decoder_input_ids": torch.randint(600, (2, 9)),
    }
    with torch.no_grad():
        ours, theirs = model(**inputs).logits, exact(**inputs).logits
    assert (ours - theirs).norm() < 0.1 * theirs.norm()
    generated = model.generate(inputs["input_features"], language="en", max_new_tokens=4)
    assert torch.as_tensor(generated).shape[0] == 2


@pytest.fixture(scope="module")
def embedded_batch() -> dict[str, torch.Tensor]:
    """The embedded test clips' features, and their references as the decoder is given them."""
    rows = [json.loads(line) for line in (EMBEDDED_FOLDER / "test.jsonl").open()][:8]
    sounds = [
        load_audio(EMBEDDED_FOLDER / row["audio_filepath"], row["offset"], row["duration"])
        for row in rows
    ]
    processor = load_processor("embedded")
    features = processor.feature_extractor(sounds, sampling_rate=16_000, return_tensors="pt")
    targets = [
        make_target(make_sample(row["text"], row["duration"]), processor.tokenizer) for row in rows
    ]
    inputs, labels = pad_targets([target for target in targets if target is not None], 0)
    return {
        "input_features": features.input_features, "decoder_input_ids": inputs, "labels": labels
    }  # fmt: skip


@pytest.mark.parametrize("preset", ["paper", "w8"])
def test_integers_choose_the_token_of_the_float_kernels_in_99_of_100(
    embedded_batch: dict[str, torch.Tensor], preset: str, tmp_path: Path
):
    """Real speech by the embedded teacher, word by word along the references."""
    teacher = load_model("embedded")
    save(teacher, quantise(teacher, rules_of(preset)), tmp_path)
    kept = embedded_batch["labels"] != IGNORED
    inputs = {name: value for name, value in embedded_batch.items() if name != "labels"}
    with torch.no_grad():
        chosen = [
            loading(tmp_path).eval()(**inputs).logits[kept].argmax(-1)
            for loading in (load_with_integers, load)
        ]
    assert len(chosen[0]) > 80
    assert (chosen[0] == chosen[1]).float().mean() >= 0.99

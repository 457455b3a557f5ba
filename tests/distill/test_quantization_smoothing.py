"""Loud columns are levelled without a change in what the model computes."""

import copy
import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from transformers import WhisperForConditionalGeneration

from distill.export import ct2
from distill.export.config import ExportConfig
from distill.export.source import Source, load_source
from distill.export.verification import CALIBRATION_CLIPS, calibration_of
from distill.quantization import export, save
from distill.quantization.fake import quantise
from distill.quantization.presets import rules_of
from distill.quantization.smoothing import listening, place_of, smooth
from distill.windows import Window

Model = WhisperForConditionalGeneration
LOUD = 5
"""A column."""


@pytest.fixture
def loud(teacher: Model) -> Model:
    """A model in which one column of the norms speaks forty times as loudly as the others.

    Not of the last norm: the output layer that hears it is the embedding, too.
    """
    model = copy.deepcopy(teacher).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, layer in model.named_modules():
            if isinstance(layer, nn.LayerNorm) and name != "model.decoder.layer_norm":
                layer.weight.uniform_(0.5, 1.5, generator=generator)
                layer.bias.normal_(0.0, 0.1, generator=generator)
                layer.weight[LOUD] *= 40
    return model


@pytest.fixture
def logits(teacher: Model) -> Callable[[Model], Tensor]:
    """What a model says to one sound and some tokens, (tokens, vocabulary)."""
    generator = torch.Generator().manual_seed(1)
    config = teacher.config
    features = torch.randn(2, config.num_mel_bins, 3000, generator=generator)
    tokens = torch.randint(config.vocab_size, (2, 12), generator=generator)

    @torch.no_grad()
    def say(model: Model) -> Tensor:
        return model(input_features=features, decoder_input_ids=tokens).logits.flatten(0, 1)

    return say


def rounding_sound(model: Model) -> Model:
    """Let every linear layer hear in 8 bits, each row by its loudest value, as CTranslate2 does."""

    def rounded(_layer: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
        step = inputs[0].abs().amax(-1, keepdim=True).clamp_min(1e-9) / 127
        return ((inputs[0] / step).round() * step,)

    for layer in model.modules():
        if isinstance(layer, nn.Linear):
            layer.register_forward_pre_hook(rounded)
    return model


def smoothed(model: Model, say: Callable[[Model], Tensor], strength: float = 0.5) -> Model:
    model = copy.deepcopy(model)
    with listening(model) as peaks:
        say(model)
    smooth(model, peaks, strength)
    return model


def test_smoothing_changes_nothing_that_is_computed_in_float(loud: Model, logits):
    expected, found = logits(loud), logits(smoothed(loud, logits))
    assert (found - expected).abs().max() < 1e-4 * expected.abs().max()


def test_smoothed_sound_loses_less_when_it_is_rounded(loud: Model, logits):
    expected = logits(loud)
    plain = (logits(rounding_sound(copy.deepcopy(loud))) - expected).abs().mean()
    level = (logits(rounding_sound(smoothed(loud, logits))) - expected).abs().mean()
    assert level < plain / 3


def test_full_strength_makes_all_columns_of_the_sound_equally_loud(loud: Model, logits):
    model = smoothed(loud, logits, strength=1.0)
    with listening(model) as peaks:
        logits(model)
    left_alone = {name for name in peaks if name.endswith(".fc2") or name == "proj_out"}
    for place, peak in peaks.items():
        loudest_of_quietest = peak.max() / peak.min()
        assert (loudest_of_quietest < 1.01) == (place not in left_alone), place


def test_every_linear_layer_is_listened_to_once(teacher: Model, logits):
    linear = {name for name, layer in teacher.named_modules() if isinstance(layer, nn.Linear)}
    with listening(teacher) as peaks:
        logits(teacher)
    assert set(peaks) == {place_of(name) for name in linear}
    assert not any(layer._forward_pre_hooks for layer in teacher.modules())
    assert len(peaks) < len(linear)


def test_a_layer_that_nothing_came_by_stays_as_it_is(loud: Model):
    untouched = copy.deepcopy(loud)
    smooth(loud, {})
    for name, weight in loud.state_dict().items():
        assert torch.equal(weight, untouched.state_dict()[name]), name


@pytest.fixture
def windows() -> tuple[Window, ...]:
    config = ExportConfig(model="embedded", output="", max_clips=1)
    found = calibration_of(config)
    assert len(found) == CALIBRATION_CLIPS
    assert {window.language for window in found} == {"en"}
    return found[:1]


def written(source: Source, folder: Path) -> bytes:
    pytest.importorskip("ctranslate2")
    ct2.write_int8(source, folder)
    return (folder / "model.bin").read_bytes()


def test_int8_is_smoothed_unless_there_is_nothing_to_listen_to(
    loud: Model, processor, windows: tuple[Window, ...], tmp_path: Path
):
    assert calibration_of(ExportConfig(model="embedded", output="", calibration=None)) == ()
    before = copy.deepcopy(loud.state_dict())
    source = Source(name="loud", model=loud, processor=processor)
    plain = written(source, tmp_path / "plain")
    heard = written(
        Source(name="loud", model=loud, processor=processor, calibration=windows),
        tmp_path / "heard",
    )
    export.convert(loud, processor, tmp_path / "expected", "int8")
    assert plain == (tmp_path / "expected" / "model.bin").read_bytes()
    assert heard != plain
    assert all(torch.equal(before[name], weight) for name, weight in loud.state_dict().items())


def test_a_quantised_student_is_not_smoothed(
    teacher: Model, processor, windows: tuple[Window, ...], tmp_path: Path
):
    folder = tmp_path / "packed"
    model = copy.deepcopy(teacher)
    save(model, quantise(model, rules_of("ct2_int8")), folder)
    processor.save_pretrained(folder)
    source = dataclasses.replace(load_source(str(folder)), calibration=windows)
    export.to_ctranslate2(folder, tmp_path / "expected")
    assert written(source, tmp_path / "found") == (tmp_path / "expected" / "model.bin").read_bytes()

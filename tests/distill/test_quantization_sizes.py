"""The bytes of whole Whisper models, computed without weights and written with random ones."""

from pathlib import Path

import pytest
from transformers import WhisperForConditionalGeneration

from distill.quantization import inspect, save, size_report
from distill.quantization.fake import plan
from distill.quantization.presets import rules_of
from distill.quantization.sizes import authors_bytes, standard_config


@pytest.mark.parametrize(
    ("size", "preset", "most", "least_ratio"),
    [
        ("base", "paper", 93.8e6, 5.15),
        ("tiny", "paper", 46.5e6, 10.39),
        ("base", "w8", 75.0e6, 6.4),
        ("tiny", "w8", 39.4e6, 12.2),
        ("base", "w4", 55.6e6, 8.7),
        ("tiny", "w4", 32.1e6, 15.0),
    ],
)
def test_a_small_model_is_as_small_as_promised(
    size: str, preset: str, most: float, least_ratio: float
):
    report = size_report(size, preset)
    assert report.file_bytes <= most
    assert size_report("small", "float16").file_bytes / report.file_bytes >= least_ratio
    assert sum(report.parts.values()) == report.file_bytes


@pytest.mark.parametrize(("size", "ratio"), [("base", "5.18"), ("tiny", "10.48")])
def test_the_ratios_of_the_papers_come_out_by_their_own_accounting(size: str, ratio: str):
    small, ours = authors_bytes("small"), authors_bytes(size, 8)
    in_mebibytes = [round(size_bytes / 2**20) for size_bytes in (small, ours)]
    assert in_mebibytes == [461, 89 if size == "base" else 44]
    assert f"{in_mebibytes[0] / in_mebibytes[1]:.2f}" == ratio


def test_the_embedding_is_in_eight_bits_where_it_is_counted_in_eight_bits():
    parts = size_report("base", "paper").parts
    assert parts["token embedding"] == 51865 * 512
    assert size_report("base", "paper_strict").parts["token embedding"] == 2 * 51865 * 512


def test_a_written_file_is_as_long_as_computed(tmp_path: Path):
    model = WhisperForConditionalGeneration(standard_config("tiny"))
    for preset in ("paper", "w4"):
        size_bytes = save(model, plan(model, rules_of(preset)), tmp_path)
        assert size_bytes == size_report("tiny", preset).file_bytes
        assert inspect(tmp_path) == size_report("tiny", preset)


@pytest.mark.slow
def test_a_written_base_file_is_as_long_as_computed(tmp_path: Path):
    model = WhisperForConditionalGeneration(standard_config("base"))
    size_bytes = save(model, plan(model, rules_of("paper")), tmp_path)
    assert size_bytes == size_report("base", "paper").file_bytes <= 93.8e6


def test_a_plain_float16_file_is_as_long_as_computed(tmp_path: Path):
    model = WhisperForConditionalGeneration(standard_config("tiny")).half()
    model.save_pretrained(tmp_path)
    assert inspect(tmp_path) == size_report("tiny", "float16")
    assert inspect(tmp_path).float16_ratio == 1


@pytest.mark.parametrize("size", ["large-v2", "large-v3-turbo"])
def test_large_models_are_computed_without_their_weights(size: str):
    for preset in ("w8", "w4"):
        report = size_report(size, preset)
        assert 1 < report.float16_ratio < 4


def test_an_unknown_size_or_preset_is_refused():
    with pytest.raises(ValueError, match="no Whisper is called 'huge'; choose from tiny"):
        size_report("huge")
    with pytest.raises(ValueError, match="no preset is called 'w5'; choose from float16, paper"):
        size_report("tiny", "w5")

"""The commands `quantize` and `inspect`."""

import json
from pathlib import Path

import pytest
import torch

from distill.__main__ import main
from distill.quantization.packed import FILE_NAME
from distill.student import load_model, load_processor


@pytest.fixture
def quantized(teacher_folder: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "w8"
    assert main(["quantize", f"--model={teacher_folder}", "--preset=w8", f"--output={folder}"]) == 0
    return folder


def test_the_folder_is_a_model_like_any_other(quantized: Path, teacher, processor):
    model = load_model(str(quantized))
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    tokenizer = load_processor(str(quantized)).tokenizer
    assert tokenizer.get_vocab() == processor.tokenizer.get_vocab()
    name = "model.decoder.layers.0.fc1.weight"
    exact, ours = teacher.get_parameter(name), model.get_parameter(name)
    assert not torch.equal(exact, ours)
    torch.testing.assert_close(ours, exact, atol=2e-3, rtol=0)


def test_rules_by_name_take_the_place_of_the_preset(teacher_folder: Path, tmp_path: Path):
    config = tmp_path / "rules.yaml"
    config.write_text(
        "rules:\n- {layers: '*.decoder.layers.*.fc?', grid: {bits: 4, group: 16}}\n"
        f"model: {teacher_folder}\noutput: {tmp_path}/out\n"
    )
    assert main(["quantize", f"--config={config}"]) == 0
    assert main(["inspect", str(tmp_path / "out")]) == 0


def test_a_quantised_model_is_not_quantised_again(quantized: Path, capsys):
    arguments = ["quantize", f"--model={quantized}", "--preset=w4", f"--output={quantized}-2"]
    assert main(arguments) == 1
    assert "is quantised already; quantise the model that it was made from" in (
        capsys.readouterr().err
    )
    assert not Path(f"{quantized}-2").exists()


def test_a_plain_model_is_not_overwritten(teacher_folder: Path, capsys):
    arguments = ["quantize", f"--model={teacher_folder}", f"--output={teacher_folder}"]
    assert main(arguments) == 1
    assert "holds a model that is not quantised" in capsys.readouterr().err
    assert not (teacher_folder / FILE_NAME).exists()


def test_an_odd_group_is_a_bad_argument(teacher_folder: Path, tmp_path: Path, capsys):
    config = tmp_path / "rules.yaml"
    config.write_text("rules: [{layers: '*', grid: {bits: 4, group: 31}}]")
    arguments = [f"--config={config}", f"--model={teacher_folder}", f"--output={tmp_path}/out"]
    try:
        code = main(["quantize", *arguments])
    except SystemExit as stop:
        code = stop.code
    assert code == 2
    assert "group is 31; it must be an even number" in capsys.readouterr().err


def test_inspect_prints_sizes_by_part(quantized: Path, capsys):
    assert main(["inspect", str(quantized)]) == 0
    printed = capsys.readouterr().out
    for part in ("decoder layers", "token embedding", "scales", "header", "in float16"):
        assert part in printed


def test_inspect_prints_json(quantized: Path, teacher_folder: Path, capsys):
    for folder, name in ((quantized, FILE_NAME), (teacher_folder, "model.safetensors")):
        assert main(["inspect", str(folder), "--json"]) == 0
        printed = json.loads(capsys.readouterr().out)
        size_bytes = (folder / name).stat().st_size
        assert printed["file_bytes"] == sum(printed["parts"].values()) == size_bytes


def test_inspect_of_a_folder_without_a_model_fails(tmp_path: Path, capsys):
    assert main(["inspect", str(tmp_path)]) == 1
    assert "holds no safetensors file" in capsys.readouterr().err

import json
from pathlib import Path

import pytest

from distill.model_files import find_variant, read_student, variants_beside
from distill.weight_files import weights_sha256


def write(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_bytes(name.encode())
    return folder


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ("model.safetensors", "transformers"),
        ("model-00001-of-00002.safetensors", "transformers"),
        ("quantized.safetensors", "packed integers (whisper-distill)"),
        ("model.bin", "CTranslate2 (faster-whisper)"),
        ("encoder.onnx", "ONNX (onnxruntime)"),
        ("ggml-model.bin", "ggml (whisper.cpp)"),
    ],
)
def test_a_format_is_known_by_its_weights(tmp_path: Path, weights: str, expected: str):
    found = find_variant(write(tmp_path / "m", weights, "config.json"))
    assert found is not None
    assert found.format == expected
    assert found.weight_bytes == len(weights)  # the texts beside them do not count


def test_files_that_are_no_part_of_a_model_are_left_out(tmp_path: Path):
    folder = write(
        tmp_path / "m", "model.safetensors", "config.json", "training_args.bin", "optimizer.pt"
    )
    found = find_variant(folder)
    assert found is not None
    assert [path.name for path in found.files] == ["config.json", "model.safetensors"]


def test_a_folder_without_weights_and_no_folder_are_no_model(tmp_path: Path):
    assert find_variant(write(tmp_path / "m", "config.json")) is None
    assert find_variant(tmp_path / "nothing") is None


def report(folder: Path, model: Path, **passed: bool | None) -> None:
    """Write what an export leaves: of each format whether it passed, or None for not compared."""
    folder.mkdir(parents=True, exist_ok=True)
    formats = [
        {
            "format": name.replace("_", "-"),
            "passed": did is not False,
            "agreement": None if did is None else {"identical": float(did)},
        }
        for name, did in passed.items()
    ]
    found = {"model": str(model), "weights_sha256": weights_sha256(str(model)), "formats": formats}
    (folder / "export.json").write_text(json.dumps(found))


def test_other_formats_beside_a_student_are_found_and_plain_models_and_checkpoints_are_not(
    tmp_path: Path,
):
    student = write(tmp_path / "run" / "student", "model.safetensors")
    write(tmp_path / "run", "run.json")
    write(tmp_path / "run" / "small", "quantized.safetensors")
    write(tmp_path / "run" / "export" / "ct2-int8", "model.bin")
    report(tmp_path / "run" / "export", student, ct2_int8=True)
    write(tmp_path / "run" / "init", "model.safetensors")
    write(tmp_path / "run" / "checkpoints" / "checkpoint-1", "quantized.safetensors")
    assert [v.folder.name for v in variants_beside(student)] == ["ct2-int8", "small"]


def test_models_that_nothing_ties_to_the_student_are_not_taken_for_it(tmp_path: Path, caplog):
    student = write(tmp_path / "models" / "student", "model.safetensors")
    write(tmp_path / "models" / "other-w8", "quantized.safetensors")  # no training's folder
    write(tmp_path / "models" / "whisper-small-ct2", "model.bin")
    write(tmp_path / "models" / "another" / "ct2-int8", "model.bin")
    report(tmp_path / "models" / "another", tmp_path / "models" / "another", ct2_int8=True)
    write(tmp_path / "models" / "damaged" / "onnx", "encoder_model.onnx")
    write(tmp_path / "models" / "damaged", "export.json")
    with caplog.at_level("INFO"):
        assert variants_beside(student) == []
    assert "whisper-small-ct2, CTranslate2 (faster-whisper), is not published" in caplog.text


def test_an_export_that_writes_other_texts_than_the_student_is_not_taken(tmp_path: Path):
    student = write(tmp_path / "student", "model.safetensors")
    write(tmp_path / "export" / "ct2-int8", "model.bin")
    write(tmp_path / "export" / "ggml", "ggml-model.bin")
    write(tmp_path / "export" / "onnx", "encoder_model.onnx")
    report(tmp_path / "export", student, ct2_int8=False, ggml=True, onnx=None)
    assert [v.folder.name for v in variants_beside(student)] == ["ggml"], "onnx was not compared"


def test_an_export_of_earlier_weights_is_not_taken(tmp_path: Path):
    student = write(tmp_path / "student", "model.safetensors")
    write(tmp_path / "export" / "ggml", "ggml-model.bin")
    report(tmp_path / "export", student, ggml=True)
    (student / "model.safetensors").write_bytes(b"trained further")
    assert variants_beside(student) == []


def test_a_student_that_lacks_what_a_reader_needs_is_refused_by_name(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="holds no student"):
        read_student(write(tmp_path / "ct2", "model.bin"))
    with pytest.raises(FileNotFoundError, match="lacks .*tokenizer_config.json, preprocessor"):
        read_student(
            write(tmp_path / "s", "model.safetensors", "config.json", "generation_config.json")
        )

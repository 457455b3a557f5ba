import json
import shutil
from pathlib import Path

import pytest

from pipeline.config import DecodingConfig, TeacherConfig
from pipeline.schema import EMBEDDED_FOLDER
from pipeline.teacher import hardware
from pipeline.teacher.checks import check_safetensors, check_teacher
from pipeline.teacher.hardware import check_dtype, choose_device, claim_device, num_gpus, settle

EMBEDDED = EMBEDDED_FOLDER / "teacher"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return shutil.copytree(EMBEDDED, tmp_path / "teacher")


def check(folder: Path, *languages: str) -> None:
    check_teacher(TeacherConfig(model=str(folder)), "", languages or ("en",))


def change(path: Path, **fields: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def test_the_embedded_teacher_is_whole():
    check_teacher(TeacherConfig(), "", ["en", "auto"])


def test_folder_without_a_config_is_refused(folder: Path):
    (folder / "config.json").unlink()
    with pytest.raises(FileNotFoundError, match="no config.json"):
        check(folder)


def test_model_that_is_no_whisper_is_refused_by_name(folder: Path):
    change(folder / "config.json", model_type="wav2vec2")
    with pytest.raises(ValueError, match="is a wav2vec2 model"):
        check(folder)


def test_tokenizer_larger_than_the_output_is_refused(folder: Path):
    change(folder / "config.json", vocab_size=1000)
    with pytest.raises(ValueError, match="of different models"):
        check(folder)


def test_tokenizer_that_is_no_whispers_is_refused(folder: Path):
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["added_tokens"] = []
    tokenizer["post_processor"] = None
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(ValueError, match="not a Whisper tokenizer"):
        check(folder)


def test_features_of_another_size_are_refused(folder: Path):
    change(folder / "preprocessor_config.json", feature_size=128)
    with pytest.raises(ValueError, match="takes 80 mel bands, but its preprocessor makes 128"):
        check(folder)


def test_language_the_teacher_lacks_is_refused_with_those_known(folder: Path):
    with pytest.raises(ValueError, match=r"does not know language 'tlh'; it knows .*en"):
        check(folder, "en", "tlh")
    change(folder / "generation_config.json", is_multilingual=False)
    with pytest.raises(ValueError, match="English only"):
        check(folder, "de")


@pytest.mark.parametrize("kept", [0, 4, 1000, -1])
def test_weights_cut_short_are_refused(folder: Path, kept: int):
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:kept])
    with pytest.raises(ValueError, match=r"model\.safetensors is damaged"):
        check(folder)


def test_weights_with_a_damaged_header_are_refused(tmp_path: Path):
    path = tmp_path / "model.safetensors"
    path.write_bytes((8).to_bytes(8, "little") + b"{broken}")
    with pytest.raises(ValueError, match="header cannot be read"):
        check_safetensors(path)


def test_damaged_settings_are_refused_by_file(folder: Path):
    (folder / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config\.json is damaged"):
        check(folder)


def test_number_format_that_the_machine_lacks_is_refused_with_those_it_has():
    with pytest.raises(ValueError, match="float16 does not run with ctranslate2 on cpu"):
        check_dtype(TeacherConfig(engine="ctranslate2", device="cpu", dtype="float16"))
    with pytest.raises(ValueError, match="float16 does not run with transformers on cpu"):
        check_dtype(TeacherConfig(engine="transformers", device="cpu", dtype="float16"))
    with pytest.raises(ValueError, match="needs teacher.engine ctranslate2"):
        TeacherConfig(engine="transformers", dtype="int8")


@pytest.mark.parametrize("device", ["gpu", "cuda:", "tpu:0", ""])
def test_device_that_is_none_is_refused(device: str):
    with pytest.raises(ValueError, match="teacher.device is"):
        TeacherConfig(device=device)


def test_gpu_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match="this machine has"):
        choose_device(TeacherConfig(device=f"cuda:{num_gpus()}"))


def test_auto_settles_on_the_fast_engine_and_its_fastest_format_on_a_cpu():
    settled = settle(TeacherConfig(device="cpu"))
    assert (settled.engine, settled.dtype) == ("ctranslate2", "int8_float32")
    assert settle(settled) == settled
    reference = settle(TeacherConfig(device="cpu", engine="transformers"))
    assert reference.dtype == "float32"


@pytest.mark.parametrize("temperatures", [(), (-0.1,)])
def test_temperatures_that_cannot_be_are_refused(temperatures: tuple[float, ...]):
    with pytest.raises(ValueError, match="temperatures"):
        DecodingConfig(temperatures=temperatures)


def test_jobs_with_gpus_of_their_own_do_not_claim_those_of_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("ctranslate2.get_cuda_device_count", lambda: 2)  # a machine without any
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(hardware, "_CLAIMS", [])
    for visible in ("0,1", "2, GPU-8932f937"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        assert [claim_device(TeacherConfig()) for _ in range(2)] == ["cuda:0", "cuda:1"]
    claimed = sorted(path.name.rpartition("gpu")[2] for path in tmp_path.iterdir())
    assert claimed == ["0", "1", "2", "GPU-8932f937"]

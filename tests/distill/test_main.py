import subprocess
import sys
from pathlib import Path

import pytest

from distill.__main__ import main
from distill.checkpoints import commit
from distill.config import TrainConfig
from distill.data_config import DataConfig


def exit_code(*arguments: str) -> int:
    """What the shell would see."""
    try:
        return main(arguments)
    except SystemExit as stop:
        return int(stop.code or 0)


def test_help_lists_the_commands(capsys):
    assert exit_code("--help") == 0
    printed = capsys.readouterr().out
    for command in ("init", "train", "transcribe", "evaluate"):
        assert command in printed


def test_help_of_a_command_explains_every_key(capsys):
    assert exit_code("train", "--help") == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "Folders that `whisper-pipeline run` finished." in printed
    assert "--data.timestamp_probability TIMESTAMP_PROBABILITY Share of clips" in printed
    assert "--max_steps MAX_STEPS Optimiser steps." in printed


def test_help_does_not_wait_for_torch():
    code = (
        "import sys\nfrom distill.__main__ import main\n"
        "try:\n    main(['train', '--help'])\nexcept SystemExit:\n    pass\n"
        "sys.exit('torch' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert result.returncode == 0, result.stderr.decode()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "subcommand"),
        (("trian",), "trian"),
        (("train", "--loss.perset", "paper"), "loss.perset"),
        (("train", "--output", "x", "--student", "y"), "data.shards"),
        (("evaluate", "--data", "a"), "models"),
        (("train", "--config", "nowhere.yaml"), "nowhere.yaml"),
        (("init", "--decoder_layers", "two"), "decoder_layers"),
    ],
)
def test_bad_arguments_exit_with_2_and_are_named(capsys, arguments: tuple[str, ...], message: str):
    assert exit_code(*arguments) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("max_setps: 3", "max_setps"),
        ("data: {shards: [a], batch_secs: 3}", "batch_secs"),
        ("max_steps: many", "max_steps"),
        ("loss: {preset: papre}", "preset"),
        ("loss: {temperature: -1}", "loss.temperature is -1.0; it must be above 0"),
        ("teacher: null", "the KL term needs a teacher"),
        ("data: {shards: []}", "data.shards is empty"),
        ("data: {shards: [a], curriculum: [{from_batch: 3}]}", "no stage with from_batch 0"),
    ],
)
def test_a_bad_config_exits_with_2_and_names_the_key(
    tmp_path: Path, capsys, line: str, message: str
):
    path = tmp_path / "config.yaml"
    lines = [f"output: {tmp_path}/out", "student: embedded", line]
    if not line.startswith("data"):
        lines.append("data: {shards: [a]}")
    path.write_text("\n".join(lines))
    assert exit_code("train", f"--config={path}") == 2
    assert message in capsys.readouterr().err


def test_a_missing_shards_folder_exits_with_1_and_says_what_to_do(
    tmp_path: Path, teacher_folder: Path, capsys
):
    arguments = [f"--data.shards=[{tmp_path}/nowhere]", f"--student={teacher_folder}"]
    assert exit_code("train", *arguments, f"--output={tmp_path}/out") == 1
    error = capsys.readouterr().err
    assert f"{tmp_path}/nowhere/index.json does not exist" in error
    assert "whisper-pipeline run" in error


@pytest.mark.parametrize("command", ["train", "evaluate", "init"])
def test_a_missing_model_exits_with_1_and_one_readable_line(
    dataset: Path, tmp_path: Path, capsys, command: str
):
    missing, output = tmp_path / "no" / "model", f"--output={tmp_path}/out"
    arguments = {
        "train": [f"--data.shards=[{dataset}]", f"--student={missing}", output],
        "evaluate": ["--data", str(dataset), "--models", str(missing), output],
        "init": [f"--teacher={missing}", output],
    }
    assert exit_code(command, *arguments[command]) == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("whisper-distill: error: no Whisper model could be loaded from")
    assert str(missing) in line
    assert "or `train` wrote, one that `quantize` wrote, " in line
    assert ("CTranslate2" in line) == (command == "evaluate")


INTERRUPTED = [
    (["transcribe", "a.wav", "--model=m"], ""),
    (["transcribe", "a.wav", "--model=m", "--output=out"], "run it again to go on from what is"),
    (["transcribe", "a.wav", "--model=m", "--output=out", "--overwrite"], "again without --overw"),
    (["transcribe", "-", "--model=m", "--output=out"], ""),
    (["train", "--student=m", "--data.shards=[d]", "--output=out"], "before the first checkpoint"),
    (["train", "--student=m", "--data.shards=[d]", "--output=saved"], "to go on from saved/"),
    (
        ["train", "--student=m", "--data.shards=[d]", "--output=saved", "--resume=false"],
        "again with --resume true to go on from saved/",
    ),
    (["evaluate", "--models=[m]", "--data=[d]", "--output=out"], ""),
    (["init", "--output=out"], ""),
    (["quantize", "--model=m", "--output=out"], ""),
    (["export", "m", "out", "--formats=onnx"], ""),
    (["publish", "m", "me/m"], "run it again to finish the upload"),
    (["publish", "m", "me/m", "--dry_run"], ""),
]


@pytest.mark.parametrize(("arguments", "told"), INTERRUPTED)
def test_only_what_can_be_gone_on_with_is_said_to_be_when_it_is_interrupted(
    tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch, arguments: list[str], told: str
):
    def interrupt(config: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "saved" / "checkpoints" / "checkpoint-2"
    folder.mkdir(parents=True)
    data = DataConfig(shards=["d"])
    commit(folder, 2, 10, TrainConfig(output="saved", data=data, student="m", teacher="t"), 1)
    monkeypatch.setattr("distill.__main__._call", interrupt)
    assert exit_code(*arguments) == 130
    line = capsys.readouterr().err.strip()
    assert told in line
    assert (line == "whisper-distill: error: interrupted") == (not told)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_clip_that_cannot_be_read_is_said_in_one_line(
    dataset: Path, teacher_folder: Path, tmp_path: Path, capfd, num_workers: int
):
    arguments = [
        f"--data.shards=[{dataset}]",
        f"--data.num_workers={num_workers}",
        "--data.curriculum=[{max_seconds: 0.1}]",
        f"--student={teacher_folder}",
        f"--teacher={teacher_folder}",
        f"--output={tmp_path}/out",
        "--device=cpu",
    ]
    assert exit_code("train", *arguments) == 1
    error = capfd.readouterr().err
    assert "gave no clip to train on" in error.strip().splitlines()[-1]
    assert "Traceback" not in error


def test_init_and_evaluate_from_the_command_line(
    teacher_folder: Path, dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    student, output = tmp_path / "student", tmp_path / "evaluation"
    init = ["--decoder_layers=1", f"--teacher={teacher_folder}", f"--output={student}"]
    assert main(["init", *init]) == 0
    models = ["--models", str(teacher_folder), str(student)]
    assert main(["evaluate", *models, "--data", str(dataset), "--output", str(output)]) == 0
    assert (output / "results.json").is_file()
    assert f"| {student} | " in capsys.readouterr().out

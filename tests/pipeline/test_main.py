import json
import os
import signal
import time
from pathlib import Path

import pytest

from pipeline.__main__ import main
from pipeline.config_files import to_yaml
from pipeline.locking import locked


@pytest.fixture
def config_file(corpus, configure, tones, tmp_path: Path) -> Path:
    config = configure(corpus(*tones(3), {"audio_filepath": "tone0.wav", "text": "x", "id": "odd"}))
    path = tmp_path / "config.yaml"
    path.write_text(to_yaml(config), encoding="utf-8")
    return path


def exit_code(*arguments: object) -> int:
    """Run the command as a shell would."""
    try:
        return main([str(a) for a in arguments])
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1


def test_plan_says_what_would_be_done_and_does_nothing(config_file, tmp_path, capsys):
    assert exit_code("plan", "--config", config_file) == 0
    out = capsys.readouterr().out
    assert "mine" in out
    assert "cc0-1.0" in out
    assert "to label" in out
    assert not (tmp_path / "out").exists()


def test_plan_as_json(config_file, capsys):
    assert exit_code("plan", "--config", config_file, "--json") == 0
    forecast = json.loads(capsys.readouterr().out)
    assert forecast["utterances"] == 4
    assert forecast["corpora"][0]["licence"] == "cc0-1.0"


def test_run_says_what_became_of_it_and_then_that_nothing_is_to_do(config_file, capsys):
    assert exit_code("run", "--config", config_file) == 0
    out = capsys.readouterr().out
    assert "rejected: wer" in out
    assert "report.html" in out
    assert exit_code("run", "--config", config_file) == 0
    assert "Nothing to do" in capsys.readouterr().out


def test_parts_do_the_blocks_and_a_whole_run_writes_the_index(config_file, tmp_path, capsys):
    index = tmp_path / "out/index.json"
    for number in range(2):
        options = ["--num_shards", 2, "--shard", number]
        assert exit_code("run", "--config", config_file, *options) == 0
        assert f"Done with shard {number} of 2" in capsys.readouterr().out
        assert not index.exists()
    assert exit_code("run", "--config", config_file) == 0
    assert "0 of 2 blocks labelled, 0 shards written" in capsys.readouterr().out
    assert json.loads(index.read_text())["totals"]["planned"] == 4
    assert exit_code("run", "--config", config_file) == 0
    assert "Nothing to do" in capsys.readouterr().out


def test_run_verifies_and_tries_again_when_told(config_file, capsys):
    assert exit_code("run", "--config", config_file, "--verify", "--retry_failed") == 0
    assert exit_code("run", "--config", config_file, "--verify", "--retry_failed") == 0
    assert "Nothing to do" in capsys.readouterr().out


def test_plan_measures_and_names_the_price(config_file, capsys):
    options = ["--measure", 2, "--price_per_hour", 1.5]
    assert exit_code("plan", "--config", config_file, *options) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "worker-hours to label the rest, which cost" in out
    assert "Measured on 2 utterances" in out
    assert exit_code("plan", "--config", config_file, *options, "--json") == 0
    assert json.loads(capsys.readouterr().out)["estimate"]["sample_utterances"] == 2


def test_output_in_use_exits_with_1_and_says_by_whom(config_file, tmp_path, capsys):
    with locked(tmp_path / "out"):
        assert exit_code("run", "--config", config_file) == 1
    assert f"is in use by a run, process {os.getpid()}" in capsys.readouterr().err


def test_dotted_override_beats_the_file(config_file, tmp_path, capsys):
    assert exit_code("run", "--config", config_file, "--filter.max_wer", "3.0") == 0
    assert json.loads((tmp_path / "out/index.json").read_text())["filter"]["max_wer"] == 3.0
    assert json.loads((tmp_path / "out/index.json").read_text())["totals"]["kept"] == 4


def test_report_and_explain_of_a_finished_run(config_file, tmp_path, capsys):
    exit_code("run", "--config", config_file)
    assert exit_code("report", tmp_path / "out") == 0
    assert exit_code("explain", tmp_path / "out", "odd") == 0
    assert "odd: rejected, reason: wer" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--filter.max_werr", "1"], "max_werr"),
        (["--teacher.dtype", "int3"], "int3"),
        (["--filter.max_wer=-1"], "max_wer"),
        (["--blocks.minutes", "0"], "blocks.minutes must be above 0"),
        (["--beam.bogus", "1"], "no option bogus"),
        (["--num_shards", "2"], "--num_shards and --shard belong together"),
        (["--num_shards", "2", "--shard", "2"], "--shard 2 of --num_shards 2 does not exist"),
        (["--teacher.model", "no/such/folder"], "teacher.model 'no/such/folder'"),
    ],
)
def test_bad_argument_exits_with_2_and_is_named(config_file, capsys, arguments, said):
    assert exit_code("run", "--config", config_file, *arguments) == 2
    assert said in capsys.readouterr().err


def test_unknown_key_in_the_file_exits_with_2_and_is_named(config_file, capsys):
    config_file.write_text(config_file.read_text() + "bogus: 1\n")
    assert exit_code("run", "--config", config_file) == 2
    assert "bogus" in capsys.readouterr().err


def test_missing_manifest_exits_with_2_and_is_named(config_file, tmp_path, capsys):
    (tmp_path / "train.jsonl").unlink()
    assert exit_code("run", "--config", config_file) == 2
    assert "there is no file" in capsys.readouterr().err


def test_missing_config_file_exits_with_2(capsys):
    assert exit_code("run", "--config", "no/such.yaml") == 2
    assert "no/such.yaml" in capsys.readouterr().err


def test_spent_budget_exits_with_1_and_says_what_to_do(config_file, tmp_path, capsys):
    with (tmp_path / "train.jsonl").open("a") as manifest:
        manifest.write("{oops\n")
    assert exit_code("run", "--config", config_file) == 1
    assert "max_failed_fraction" in capsys.readouterr().err
    assert exit_code("run", "--config", config_file, "--max_failed_fraction", 0.5) == 0
    out = capsys.readouterr().out
    assert "Nothing to do" not in out
    assert "failed: plan" in out or "failed: read" in out


def test_a_limit_that_looks_like_per_cent_is_warned_of(config_file, capsys):
    assert exit_code("run", "--config", config_file, "--filter.max_wer", 10) == 0
    assert "0.1 keeps labels up to 10 % WER" in capsys.readouterr().err


def test_report_of_a_folder_without_a_run_exits_with_2(tmp_path, capsys):
    assert exit_code("report", tmp_path) == 2
    assert "holds no run" in capsys.readouterr().err


def test_no_command_exits_with_2(capsys):
    assert exit_code() == 2


def test_help_lists_the_commands(capsys):
    assert exit_code("--help") == 0
    out = capsys.readouterr().out
    for command in ("plan", "run", "report", "explain"):
        assert command in out


def test_printed_config_can_be_run(config_file, tmp_path, capsys):
    assert exit_code("run", "--config", config_file, "--print_config") == 0
    printed = tmp_path / "printed.yaml"
    printed.write_text(capsys.readouterr().out)
    assert exit_code("plan", "--config", printed) == 0


def test_a_second_sigterm_does_not_cut_short_how_a_run_is_stopped(monkeypatch, tmp_path, capsys):
    stopped = []

    def terminated(*_, **__) -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(60)
        finally:  # here a run kills its workers
            os.kill(os.getpid(), signal.SIGTERM)
            stopped.append("workers")

    monkeypatch.setattr("pipeline.report.write_report", terminated)
    before = signal.getsignal(signal.SIGTERM)
    try:
        assert exit_code("report", tmp_path) == 143
    finally:
        signal.signal(signal.SIGTERM, before)
    assert stopped == ["workers"]
    assert "error: terminated" in capsys.readouterr().err

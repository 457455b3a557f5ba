import json
import logging
import re

import pytest

from pipeline import logs
from pipeline.__main__ import main
from pipeline.config_files import to_yaml


@pytest.fixture(autouse=True)
def _chosen_for_this_test(monkeypatch):
    monkeypatch.setenv(logs.LOG_FORMAT_VARIABLE, "text")
    handlers, level = logging.root.handlers[:], logging.root.level
    yield
    logging.root.handlers[:], logging.root.level = handlers, level


def record(**extra) -> logging.LogRecord:
    made = logging.makeLogRecord(
        {"name": "pipeline.blocks", "levelname": "INFO", "msg": "line\n%s", **extra}
    )
    made.args = ("naïve",)
    return made


def test_a_json_line_is_one_line_with_what_the_record_carries(monkeypatch):
    logs.choose_format("json")
    handler = logs.formatted(logging.StreamHandler(), "%(message)s")
    line = handler.format(record(block="a-00001", stage="read", seconds=0.5))
    assert "\n" not in line
    said = json.loads(line)
    assert said.pop("time").endswith("+00:00")
    assert said == {
        "level": "info",
        "logger": "pipeline.blocks",
        "message": "line\nnaïve",
        "block": "a-00001",
        "stage": "read",
        "seconds": 0.5,
    }
    assert "block" not in json.loads(handler.format(record()))


def test_people_are_not_told_of_every_stage(caplog):
    handler = logs.formatted(logging.StreamHandler())
    assert re.fullmatch(r"\d\d:\d\d:\d\d INFO line\nnaïve", handler.format(record()))
    with caplog.at_level(logging.INFO):
        logs.log_stage("a-00001", "read", 0.5)
        assert caplog.records == []
        logs.choose_format("json")
        logs.log_stage("a-00001", "read", 0.5)
    (said,) = caplog.records
    assert said.getMessage() == "a-00001: read took 0.500 s"


def test_run_says_every_stage_of_every_block_and_its_error_in_json(
    corpus, configure, tones, tmp_path, capfd
):
    config = configure(corpus(*tones(3)))
    path = tmp_path / "config.yaml"
    path.write_text(to_yaml(config), encoding="utf-8")
    assert main(["run", "--config", str(path), "--log_format", "json"]) == 0
    said = [json.loads(line) for line in capfd.readouterr().err.splitlines()]
    stages = [(line["block"], line["stage"]) for line in said if "stage" in line]
    assert sorted(stages) == sorted(
        (f"mine-train-{block:05d}", stage)
        for block in range(2)
        for stage in ("read", "features", "teacher", "score", "write")
    )
    assert all(line["seconds"] >= 0 for line in said if "stage" in line)
    (tmp_path / "train.jsonl").unlink()
    assert main(["run", "--config", str(path), "--log_format", "json"]) == 2
    failed = json.loads(capfd.readouterr().err.splitlines()[-1])
    assert failed["level"] == "error"
    assert "train.jsonl" in failed["message"]

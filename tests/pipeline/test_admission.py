import json
from pathlib import Path

import numpy as np
import pytest

from pipeline.admission import HeardCanary, admit, read_canary
from pipeline.config import TeacherConfig
from pipeline.run import run
from pipeline.schema import read_index
from pipeline.teacher import CanaryError, Label, Prepared
from pipeline.workers import RunError
from tests.pipeline.test_canary import Says

CONFIG = TeacherConfig()


class Counts(Says):
    """Says one text of everything and counts how often it is asked."""

    def __init__(self, text: str = "") -> None:
        super().__init__(text, text)
        self.asked = 0

    def label(self, clips: list[np.ndarray] | Prepared, language: str) -> list[Label]:
        self.asked += 1
        return super().label(clips, language)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger" / "canary.json"


@pytest.fixture
def elsewhere(monkeypatch):
    """Let what follows happen on another machine."""
    return lambda: monkeypatch.setattr("platform.node", lambda: "another machine")


def ask(
    teacher: Counts, path: Path, *, accelerated: bool = False, engine: str = "engine 1"
) -> None:
    admit(teacher, CONFIG, path, english=False, accelerated=accelerated, engine=engine)


def test_first_worker_leaves_its_result_and_later_ones_there_are_not_asked(path: Path):
    first, second = Counts("thank you"), Counts("anything else, in as many words as it likes " * 9)
    ask(first, path)
    ask(first, path)
    ask(second, path)
    assert (first.asked, second.asked) == (1, 0)
    heard = read_canary(path)
    assert heard
    assert heard.result.most_words == 2


def test_worker_elsewhere_is_asked_once_and_compared(path: Path, elsewhere):
    ask(Counts(), path)
    left = path.read_bytes()
    elsewhere()
    agrees = Counts("you")
    ask(agrees, path)
    ask(agrees, path)
    assert agrees.asked == 1
    assert path.read_bytes() == left


def test_worker_that_hears_something_else_is_refused(path: Path, elsewhere):
    ask(Counts(), path)
    text = path.read_text()
    path.write_text(text.replace('"no_speech_prob":0.0', '"no_speech_prob":0.9'))
    elsewhere()
    with pytest.raises(CanaryError, match="where another worker has 0.90"):
        ask(Counts(), path)


def test_another_engine_on_the_same_machine_is_asked_and_compared(path: Path):
    ask(Counts(), path)
    updated = Counts("you")
    ask(updated, path, engine="engine 2")
    assert updated.asked == 1
    path.write_text(path.read_text().replace('"no_speech_prob":0.0', '"no_speech_prob":0.9'))
    with pytest.raises(CanaryError, match="where another worker has 0.90"):
        ask(Counts(), path, engine="engine 2")


def test_every_accelerator_is_asked(path: Path):
    for teacher in (Counts(), Counts()):
        ask(teacher, path, accelerated=True)
        assert teacher.asked == 1


def test_teacher_that_fails_leaves_nothing(path: Path):
    with pytest.raises(CanaryError):
        ask(Counts("word " * 21), path)
    assert not path.exists()


def test_damaged_result_is_made_again(path: Path):
    ask(Counts(), path)
    left = path.read_bytes()
    path.write_bytes(left[:30])
    assert read_canary(path) is None
    ask(Counts(), path)
    assert path.read_bytes() == left
    assert isinstance(read_canary(path), HeardCanary)


def test_run_stops_before_anything_is_committed(corpus, configure, tones, teacher_folder):
    teacher = TeacherConfig(model=str(teacher_folder), device="cpu")
    config = configure(corpus(*tones(2)), teacher=teacher)
    with pytest.raises(RunError, match=r"the teacher failed its canary.*teacher\.canary false"):
        run(config)
    root = Path(config.output)
    assert not [*root.glob("ledger/*/*"), *root.glob("failures/*/*"), *root.glob("shards/*")]
    assert not (root / "index.json").exists()


def test_index_and_report_have_the_result_and_the_next_run_keeps_it(
    corpus, configure, tones, teacher_folder
):
    teacher = TeacherConfig(model=str(teacher_folder), device="cpu", canary_max_wer=9.0)
    lines = tones(2)
    config = configure(corpus(*lines), teacher=teacher)
    run(config)
    root = Path(config.output)
    heard = read_index(root).canary
    assert heard
    assert heard["most_words"] == 3
    assert heard["wer"] >= 0.9
    assert json.loads((root / "report.json").read_text())["canary"] == heard
    page = (root / "report.html").read_text()
    assert "at most 3 words of silence, noise and a tune; WER" in page
    (left,) = root.glob("ledger/*/canary.json")
    before = left.stat()
    corpus(*lines, dict(lines[0], id="new"))
    assert run(config).labelled == 1
    assert left.stat().st_ino == before.st_ino
    assert read_index(root).canary == heard

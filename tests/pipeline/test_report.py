import dataclasses
import json
from pathlib import Path

import pytest

from pipeline import blocks
from pipeline.report import render, write_report
from pipeline.run import run


@pytest.fixture
def finished(corpus, configure, tones) -> Path:
    """Three good clips, one with a third of its words wrong, one bad line, and a test split."""
    train = corpus(
        *tones(3),
        {"audio_filepath": "tone0.wav", "text": "the old horse", "id": "near"},
        "{oops",
    )
    test = corpus(*tones(2, text="something else entirely"), split="test", licence="cc-by-4.0")
    config = configure(train, test, max_failed_fraction=0.5)
    run(config)
    return Path(config.output)


def test_report_counts_by_split(finished: Path):
    report = json.loads((finished / "report.json").read_text())
    train, test = report["splits"]
    assert (train["planned"], train["kept"], train["licence"]) == (5, 3, "cc0-1.0")
    assert (train["rejected"], train["failed"]) == ({"wer": 1}, {"plan": 1})
    assert (test["planned"], test["kept"], test["licence"]) == (2, 2, "cc-by-4.0")
    assert report["planned"] == 7


def test_sweep_says_what_other_thresholds_would_keep_of_the_filtered_splits(finished: Path):
    report = write_report(finished)
    kept = {point.max_wer: point.clips for point in report.sweep}
    assert (kept[0.0], kept[0.1], kept[0.3], kept[0.4], kept[1.0]) == (3, 3, 3, 4, 4)
    assert report.sweep[-1].hours == round((1 + 1.5 + 2 + 1) / 3600, 4)


def test_sweep_agrees_with_a_run_at_that_threshold(finished: Path, corpus, configure):
    kept = {point.max_wer: point.clips for point in write_report(finished).sweep}
    report = json.loads((finished / "report.json").read_text())
    assert report["splits"][0]["kept"] == kept[report["max_wer"]]


def test_histogram_holds_every_judged_clip_once(finished: Path):
    bins = {b.upper: b.clips for b in write_report(finished).histogram}
    assert (bins[0.0], bins[0.5]) == (3, 1)
    assert sum(bins.values()) == 4


def test_page_is_one_file_and_escapes_what_it_shows(finished: Path):
    report = dataclasses.replace(write_report(finished), teacher="<script>")
    page = render(report)
    assert "&lt;script&gt;" in page
    assert "<script" not in page
    assert "http" not in page
    assert page.startswith("<!doctype html>")


def test_report_is_made_again_without_teacher_and_audio(finished: Path, monkeypatch, tmp_path):
    first = (finished / "report.json").read_text()
    (finished / "report.json").unlink()
    for audio in tmp_path.glob("*.wav"):
        audio.unlink()
    monkeypatch.setattr(blocks, "_teacher", lambda *_: pytest.fail("the teacher was loaded"))
    write_report(finished)
    assert (finished / "report.json").read_text() == first


def test_folder_without_a_run_is_refused(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="holds no run"):
        write_report(tmp_path)

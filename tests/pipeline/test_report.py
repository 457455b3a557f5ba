import base64
import dataclasses
import html
import io
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import soundfile

from pipeline import blocks
from pipeline.config import ClipConfig
from pipeline.limits import FilterConfig
from pipeline.report import render, write_report
from pipeline.run import run
from tests.pipeline.hearing import HearsTones, speak


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
    assert (train["clips"], train["fill"]) == (3, round((1 + 1.5 + 2) / 90, 4))


def test_sweep_says_what_other_thresholds_would_keep_of_the_filtered_splits(finished: Path):
    report = write_report(finished)
    kept = {point.max_wer: point.clips for point in report.sweep}
    assert (kept[0.0], kept[0.1], kept[0.2], kept[0.4], kept[1.0]) == (3, 3, 3, 4, 4)
    assert report.sweep[2].mean_wer == 0.0
    assert report.sweep[-1].mean_wer == pytest.approx(1 / 12, abs=1e-4)
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
    page = render(report, {})
    assert "&lt;script&gt;" in page
    assert "<script" not in page
    assert "http:" not in page
    assert "https:" not in page
    assert page.startswith("<!doctype html>")


def test_page_shows_the_rate_of_each_metric_where_there_are_two(finished: Path):
    report = write_report(finished)
    both = dataclasses.replace(
        report.sweep[-1], mean_wer=None, mean_rates={"wer": 0.125, "cer": 0.05}
    )
    page = render(dataclasses.replace(report, sweep=(*report.sweep[:-1], both)), {})
    assert "12.5 % WER" in page
    assert "5.0 % CER" in page


def test_report_is_made_again_without_teacher_and_audio(finished: Path, monkeypatch, tmp_path):
    first = (finished / "report.json").read_text()
    (finished / "report.json").unlink()
    for audio in tmp_path.glob("*.wav"):
        audio.unlink()
    monkeypatch.setattr(blocks, "_teacher", lambda *_: pytest.fail("the teacher was loaded"))
    write_report(finished)
    assert (finished / "report.json").read_text() == first


def test_totals_are_those_of_the_index_and_add_up(finished: Path):
    report, index = (
        json.loads((finished / name).read_text()) for name in ("report.json", "index.json")
    )
    for name in ("planned", "kept", "rejected", "failed", "hours_kept", "rtfx"):
        assert report[name] == index["totals"][name]
    assert report["planned"] == report["kept"] + sum(
        sum(report[part].values()) for part in ("rejected", "failed")
    )
    assert sum(rule["first"] for rule in report["rules"]) == report["rejected"]["wer"] == 1
    (language,) = report["languages"]
    assert (language["clips"], language["kept"], language["wer_kept"]) == (4, 3, 0.0)
    assert language["metric"] == "wer"
    assert report["stage_seconds"] == index["totals"]["stage_seconds"]


def test_the_reasons_add_up_where_some_were_turned_away_before_the_teacher(
    corpus, configure, tones
):
    too_long = {"audio_filepath": "tone0.wav", "text": "x", "id": "long", "duration": 31}
    config = configure(corpus(*tones(2), too_long))
    run(config)
    page = (Path(config.output) / "report.html").read_text()
    (before,) = re.findall(r">too_long <.*?</tr>", page)
    assert '<td class="lost">1</td>' in before
    assert '<td id="sum-reasons">1</td>' in page
    assert '<b id="total-rejected">1</b>' in page


@pytest.mark.parametrize(
    ("min_seconds", "parts", "lost"), [(2.9, 3, 1), (2.0, 1, 0)], ids=["all parts", "one part"]
)
def test_the_reasons_add_up_where_a_recording_was_cut(
    corpus, configure, tmp_path, monkeypatch, min_seconds, parts, lost
):
    monkeypatch.setattr(blocks, "_teacher", lambda *_: HearsTones())
    speak(tmp_path / "talk.wav", "red blue green white black - - brown pink red - red blue")
    line = {"audio_filepath": "talk.wav", "text": None}
    config = configure(
        corpus(line, references=False),
        clips=ClipConfig(max_seconds=3.0, long="sequential"),
        filter=FilterConfig(min_seconds=min_seconds),
    )
    run(config)
    report = json.loads((Path(config.output) / "report.json").read_text())
    page = (Path(config.output) / "report.html").read_text()
    assert [rule["rejected"] for rule in report["rules"]] == [parts]
    assert report["rejected"] == ({"too_short": 1} if lost else {})
    counted = [int(n) for n in re.findall(r'<td class="lost">(-?\d+)</td>', page)]
    (footer,) = re.findall(r'<td id="sum-reasons">(\d+)</td>', page)
    assert sum(counted) == int(footer) == lost
    assert f'<b id="total-rejected">{lost}</b>' in page


def test_the_worst_clip_is_shown_with_what_is_wrong(finished: Path):
    (example,) = json.loads((finished / "report.json").read_text())["examples"]
    assert (example["group"], example["id"], example["rejected_by"]) == ("worst", "near", ["wer"])
    assert example["diff"] == [
        {"kind": "equal", "reference": "the old", "label": "the old"},
        {"kind": "replace", "reference": "horse", "label": "house"},
    ]
    page = (finished / "report.html").read_text()
    assert page.count("data:audio/mpeg;base64,") == 1
    assert "as written" in page
    assert '<del title="substituted: in the reference">horse</del>' in page


def test_utterances_of_a_pack_and_parts_of_a_recording_are_shown_and_heard_by_themselves(
    corpus, configure, tmp_path, monkeypatch
):
    monkeypatch.setattr(blocks, "_teacher", lambda *_: HearsTones())
    lines, wrong = [], "pink pink pink pink pink brown pink red"
    for name, said, text, speaker in (
        ("u0", "red blue", "red blue", "ann"),
        ("u1", "green white black", "brown pink pink", "ann"),
        ("talk", "red blue green white black - - brown pink red", wrong, ""),
    ):
        speak(tmp_path / f"{name}.wav", said)
        lines.append({"audio_filepath": f"{name}.wav", "text": text, "speaker": speaker})
    clips = ClipConfig(max_seconds=3.0, pack="before_label", long="sequential")
    config = configure(corpus(*lines), clips=clips)
    run(config)
    report = json.loads((Path(config.output) / "report.json").read_text())
    shown = {e["id"]: (e["label"], e["reference"], e["rejected_by"]) for e in report["examples"]}
    assert shown == {
        "u1": ("green white black", "brown pink pink", ["wer"]),
        "talk-00000000": ("red blue green white black", "pink pink pink pink pink", ["wer"]),
    }
    page = (Path(config.output) / "report.html").read_text()
    seconds = {
        name: soundfile.info(io.BytesIO(base64.b64decode(data))).duration
        for data, name in re.findall(
            r'src="data:audio/mpeg;base64,([^"]*)" aria-label="audio of ([^"]*)"', page
        )
    }
    assert seconds == pytest.approx({"u1": 1.5, "talk-00000000": 2.5}, abs=0.1)


def test_other_thresholds_can_be_asked_for(finished: Path):
    report = write_report(finished, limits=[0.34, 0.5])
    assert [p.clips for p in report.sweep] == [4, 4]
    for limit in (-1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match=f"threshold {limit} is out of range"):
            write_report(finished, limits=[limit])


def test_folder_without_an_index_is_refused(finished: Path):
    (finished / "index.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"index\.json does not exist"):
        write_report(finished)


PROBE = """<script>
window.failures = [];
addEventListener("error", e => failures.push(String(e.message || e.target)), true);
document.addEventListener(
  "securitypolicyviolation", e => failures.push("asked for " + e.blockedURI)
);
addEventListener("load", async () => {
  const audio = document.querySelector("audio");
  audio.muted = true;
  try { await audio.play(); } catch (e) { failures.push(String(e)); }
  const text = id => Number(document.getElementById(id).textContent);
  document.body.dataset.result = JSON.stringify({
    failures, seconds: audio.duration, plays: !audio.paused,
    requests: performance.getEntriesByType("resource").map(r => r.name)
      .filter(name => !name.startsWith("data:")),
    totals: ["planned", "kept", "rejected", "failed"].map(name => text("total-" + name)),
    reasons: text("sum-reasons"),
    unnamed: [...document.querySelectorAll("svg, audio, section, [role=region]")].filter(e =>
      !(e.querySelector(":scope > title") || e.getAttribute("aria-label") ||
        document.getElementById(e.getAttribute("aria-labelledby")))).length,
    unreachable: [...document.querySelectorAll("nav a, .skip")].filter(e =>
      !document.querySelector(e.getAttribute("href")) || e.tabIndex < 0).length,
    wide: document.documentElement.scrollWidth - innerWidth,
  });
});
</script>"""
POLICY = (
    '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
    "style-src 'unsafe-inline'; script-src 'unsafe-inline'; media-src data:\">"
)


def test_page_opens_in_a_browser_plays_and_asks_for_nothing(finished: Path, tmp_path: Path):
    browser = next(
        filter(None, map(shutil.which, ("chromium", "chromium-browser", "chrome"))), None
    )
    if browser is None:
        pytest.skip("no Chromium is installed")
    page = (finished / "report.html").read_text()
    probed = tmp_path / "probed.html"
    probed.write_text(page.replace("<head>", f"<head>{POLICY}{PROBE}", 1))
    command = [
        browser,
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-background-networking",
        "--window-size=500,900",
        "--autoplay-policy=no-user-gesture-required",
        "--enable-logging=stderr",
        f"--user-data-dir={tmp_path / 'profile'}",
        "--virtual-time-budget=5000",
        "--dump-dom",
        probed.as_uri(),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, check=True)
    (found,) = re.findall(r'data-result="([^"]*)"', done.stdout)
    result = json.loads(html.unescape(found))
    assert result["failures"] == []
    assert result["requests"] == []
    assert result["plays"]
    assert result["seconds"] == pytest.approx(1.0, abs=0.1)
    totals = json.loads((finished / "index.json").read_text())["totals"]
    sums = [sum(totals[part].values()) for part in ("rejected", "failed")]
    assert result["totals"] == [totals["planned"], totals["kept"], *sums]
    assert result["reasons"] == sums[0]
    assert (result["unnamed"], result["unreachable"]) == (0, 0)
    assert result["wide"] <= 0  # what is wide scrolls by itself
    assert "CONSOLE" not in done.stderr


def test_folder_without_a_run_is_refused(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="holds no run"):
        write_report(tmp_path)

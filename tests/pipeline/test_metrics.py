from pathlib import Path

import pytest

from pipeline import metrics
from pipeline.metrics import MetricsFile, exposition
from pipeline.parts import Part
from pipeline.progress import Progress
from pipeline.run import run, run_part

START = Progress(
    blocks_done=0,
    blocks=8,
    utterances_failed=0,
    hours_planned=2,
    hours_labelled=0,
    hours_kept=0,
    rtfx=None,
    eta_seconds=None,
)


def values(path: Path) -> dict[str, float]:
    """Read a file of the text format, as strictly as Prometheus does."""
    found = {}
    for line in path.read_text().splitlines():
        if line.startswith("# "):
            assert line.split()[1] in ("HELP", "TYPE")
            continue
        series, _, value = line.rpartition(" ")
        name, _, labels = series.partition("{")
        assert labels.endswith("}")
        assert series not in found
        found[name.removeprefix("whisper_pipeline_")] = float(value)
    return found


def test_what_is_not_known_yet_is_left_out_and_not_zero(tmp_path: Path):
    text = exposition(START, {"output": "runs/x"}, 1.0)
    assert 'whisper_pipeline_blocks_planned{output="runs/x"} 8\n' in text
    assert "rtfx" not in text
    assert "eta" not in text


def test_labels_are_escaped():
    assert r'{output="a\"b\\c\nd"}' in exposition(START, {"output": 'a"b\\c\nd'}, 1.0)


def test_the_file_is_written_now_and_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    file = MetricsFile(path=tmp_path / "run.prom", labels={})
    file.write(START)
    (tmp_path / "run.prom").unlink()
    file.write(START)
    assert not (tmp_path / "run.prom").exists()
    file.write(START, now=True)
    monkeypatch.setattr(metrics, "INTERVAL_SECONDS", 0.0)
    (tmp_path / "run.prom").unlink()
    file.write(START)
    assert [path.name for path in tmp_path.iterdir()] == ["run.prom"]


def test_a_run_and_one_with_nothing_to_do_end_with_all_blocks_done(
    corpus, configure, tones, tmp_path: Path
):
    config = configure(corpus(*tones(3), "{oops"), max_failed_fraction=0.5)
    path = tmp_path / "metrics" / "run.prom"
    blocks = run(config, metrics_file=path).blocks
    first = values(path)
    assert first["blocks_done"] == first["blocks_planned"] == blocks
    assert first["audio_kept_seconds"] == pytest.approx(4.5)
    assert first["utterances_failed"] == 1
    path.unlink()
    assert run(config, metrics_file=path).nothing_to_do
    assert values(path)["blocks_done"] == blocks


def test_a_part_counts_its_own_blocks_and_says_which_part_it_is(
    corpus, configure, tones, tmp_path: Path
):
    config = configure(corpus(*tones(3)))
    path = tmp_path / "part.prom"
    part = run_part(config, Part(number=0, of=2), metrics_file=path)
    assert values(path)["blocks_planned"] == part.blocks
    assert 'shard="0 of 2"' in path.read_text()


def test_a_file_that_cannot_be_written_is_said_before_anything_is_labelled(
    corpus, configure, tones, tmp_path: Path
):
    config = configure(corpus(*tones(1)))
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        run(config, metrics_file=tmp_path / "file" / "run.prom")
    assert not list(Path(config.output).glob("ledger"))

import logging
from pathlib import Path

import pytest

from pipeline import stopwatch
from pipeline.layout import Layout
from pipeline.run import run
from pipeline.schema import read_index
from tests.pipeline.killing import ledger, tree


class NoTime:
    @staticmethod
    def perf_counter() -> float:
        return 0.0


@pytest.fixture
def finished(corpus, configure, tones, monkeypatch):
    monkeypatch.setattr(stopwatch, "time", NoTime)
    config = configure(corpus(*tones(4)))
    run(config)
    output = Path(config.output)
    return config, output, Layout(output), read_index(output).label_key


def flip(path: Path, share: float) -> None:
    """Change one bit of a file and nothing of its size."""
    content = bytearray(path.read_bytes())
    content[int(len(content) * share)] ^= 1
    path.write_bytes(content)


def test_flipped_bit_in_a_shard_is_found_and_the_shard_written_again(finished, caplog):
    config, output, layout, _ = finished
    before, labels = tree(output), ledger(output)
    flip(layout.shard("mine-train-00001"), 0.4)
    assert run(config).nothing_to_do
    outcome = run(config, verify=True)
    assert (outcome.labelled, outcome.rebuilt) == (0, 1)
    assert "the shard of mine-train-00001 is not what was committed" in caplog.text
    assert (tree(output), ledger(output)) == (before, labels)


def test_flipped_bit_in_the_ledger_is_found_and_the_block_labelled_again(finished):
    config, output, layout, key = finished
    before = tree(output)
    flip(layout.ledger(key, "mine-train-00000"), 0.02)
    outcome = run(config, verify=True)
    assert (outcome.labelled, outcome.rebuilt) == (1, 1)
    assert tree(output) == before


def test_lost_failures_are_found(finished):
    config, output, layout, key = finished
    before = tree(output)
    layout.failures(key, "mine-train-00000").unlink()
    assert run(config, verify=True).labelled == 1
    assert tree(output) == before


def test_whole_dataset_is_left_alone(finished):
    config, output, _, _ = finished
    before = {p: p.stat().st_mtime_ns for p in output.glob("shards/*")}
    assert run(config, verify=True).nothing_to_do
    assert {p: p.stat().st_mtime_ns for p in output.glob("shards/*")} == before


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_truncated_ledger_part_is_labelled_again_without_being_asked(finished, share, caplog):
    caplog.set_level(logging.WARNING)
    config, output, layout, key = finished
    before = tree(output)
    part = layout.ledger(key, "mine-train-00001")
    part.write_bytes(part.read_bytes()[: int(part.stat().st_size * share)])
    assert run(config).labelled == 1
    assert "its ledger part is damaged" in caplog.text
    assert tree(output) == before


def test_temporary_files_of_killed_runs_are_removed(finished, caplog):
    config, output, layout, _ = finished
    before = tree(output)
    (layout.shards / ".mine-train-00000.tar.abc.tmp").write_bytes(b"half")
    (output / ".plan.json.xyz.tmp").write_text("{")
    run(config)
    assert tree(output) == before

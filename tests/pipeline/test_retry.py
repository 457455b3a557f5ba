import dataclasses
from pathlib import Path

import numpy as np
import pytest
import soundfile

from pipeline import blocks
from pipeline.config import ClipConfig, FilterConfig
from pipeline.layout import Layout
from pipeline.ledger import read_failures, read_ledger, write_failures
from pipeline.run import run
from pipeline.schema import read_index
from pipeline.teacher import Prepared, load_teacher
from tests.pipeline.killing import tree
from tests.pipeline.test_blocks import FailsOnLoud


@pytest.fixture
def failed(corpus, configure, tones, tmp_path, monkeypatch):
    """A finished run of three blocks in which one clip could not be labelled."""
    lines = tones(4)
    soundfile.write(tmp_path / "tone2.wav", np.ones(32_000) * 0.9, 16_000)
    twice = dict(lines[0])
    config = configure(corpus(*lines, twice), max_failed_fraction=0.5)
    monkeypatch.setattr(blocks, "_teacher", lambda *args: FailsOnLoud(load_teacher(*args)))
    assert run(config).totals.failed == {"label": 1, "plan": 1}
    return config


def only_block_of(config, utterance: str) -> tuple[str, Layout, str]:
    """Return the block whose failures name an utterance, the layout and the label key."""
    layout = Layout(Path(config.output))
    key = read_index(config.output).label_key
    (name,) = [
        path.stem
        for path in layout.failures(key, "").parent.glob("*.jsonl")
        if utterance in [f.id for f in read_failures(path)]
    ]
    return name, layout, key


def test_what_failed_is_labelled_and_only_its_block_is_touched(failed, monkeypatch):
    output = Path(failed.output)
    block, layout, key = only_block_of(failed, "tone2")
    before = {path: path.stat().st_mtime_ns for path in output.rglob("*") if path.is_file()}
    old_rows, _ = read_ledger(layout.ledger(key, block))
    batches = []

    class Counts:
        def __init__(self, real) -> None:
            self.real = real

        def prepare(self, clips):
            return self.real.prepare(clips)

        def label(self, clips, language):
            batches.append(len(clips))
            return self.real.label(clips, language)

    monkeypatch.setattr(blocks, "_teacher", lambda *args: Counts(load_teacher(*args)))
    outcome = run(failed, retry_failed=True)
    assert batches == [1]
    assert outcome.rebuilt == 1
    assert outcome.totals.failed == {"plan": 1}
    assert outcome.totals.kept == 4
    rows, metadata = read_ledger(layout.ledger(key, block))
    assert [r.id for r in rows if r.id != "tone2"] == [r.id for r in old_rows]
    assert float(metadata["audio_seconds"]) == pytest.approx(sum(r.duration_seconds for r in rows))
    assert read_failures(layout.failures(key, block)) == []
    mine = (block, "index", "report", "plan", "config")
    for path, time in before.items():
        if not path.name.startswith(mine):
            assert path.stat().st_mtime_ns == time, path


def test_what_fails_again_is_counted_and_its_labels_stay(failed):
    block, layout, key = only_block_of(failed, "tone2")
    ledger, shard = layout.ledger(key, block).read_bytes(), layout.shard(block)
    before = shard.read_bytes() if shard.exists() else None
    (first,) = read_failures(layout.failures(key, block))
    assert run(failed, retry_failed=True).totals.failed == {"label": 1, "plan": 1}
    (again,) = read_failures(layout.failures(key, block))
    assert again.attempts > first.attempts
    assert dataclasses.replace(again, attempts=0) == dataclasses.replace(first, attempts=0)
    assert layout.ledger(key, block).read_bytes() == ledger
    assert (shard.read_bytes() if shard.exists() else None) == before


def test_without_failures_there_is_nothing_to_retry(corpus, configure, tones):
    config = configure(corpus(*tones(2), "{oops"), max_failed_fraction=0.5)
    run(config)
    before = tree(Path(config.output))
    assert run(config, retry_failed=True).nothing_to_do
    assert tree(Path(config.output)) == before


def test_utterance_in_both_ledger_and_failures_counts_once(failed, monkeypatch):
    block, layout, key = only_block_of(failed, "tone2")
    failures = read_failures(layout.failures(key, block))
    monkeypatch.setattr(blocks, "_teacher", load_teacher)
    run(failed, retry_failed=True)
    write_failures(layout.failures(key, block), failures)  # as if killed between the two files
    layout.commit_record(block).unlink()
    assert run(failed).totals.failed == {"plan": 1}
    assert run(failed, retry_failed=True).totals.kept == 4
    rows, _ = read_ledger(layout.ledger(key, block))
    assert len({row.id for row in rows}) == len(rows)


def test_utterance_of_a_pack_is_retried_in_a_clip_of_its_own(
    corpus, configure, tones, tmp_path, monkeypatch
):
    lines = tones(3)
    config = configure(
        corpus(*lines),
        clips=ClipConfig(pack="before_label", pack_by="any"),
        max_failed_fraction=1.0,
    )
    monkeypatch.setattr(blocks, "_teacher", lambda *args: FailsAlways())
    failed = run(config)
    assert failed.totals.failed == {"label": 3}
    monkeypatch.setattr(blocks, "_teacher", load_teacher)
    outcome = run(config, retry_failed=True)
    assert outcome.totals.failed == {}
    assert outcome.totals.planned == 3


@pytest.mark.parametrize("mended", [True, False])
def test_a_copy_of_what_a_retry_labels_is_judged_again(
    mended, corpus, configure, tones, tmp_path: Path
):
    """The first of two copies cannot be read, so the second is kept; then the first is mended."""
    first, *others = tones(4)
    original = tmp_path / first["audio_filepath"]
    sound = original.read_bytes()
    (tmp_path / "copy.wav").write_bytes(sound)
    original.write_bytes(bytes(len(sound)))
    lines = [{**first, "duration": 1.0}, *others, {**first, "audio_filepath": "copy.wav"}]
    config = configure(
        corpus(*lines), filter=FilterConfig(drop_duplicates=True), max_failed_fraction=0.5
    )
    outcome = run(config)
    assert (outcome.totals.failed, outcome.totals.kept) == ({"read": 1}, 4)
    assert outcome.blocks > 1
    shards = tree(Path(config.output) / "shards")

    if mended:
        original.write_bytes(sound)
    again = run(config, retry_failed=True)
    assert again.totals.kept == 4
    if mended:
        assert (again.totals.failed, again.totals.rejected) == ({}, {"duplicate": 1})
        assert again.rebuilt == again.blocks
    else:
        assert (again.totals.failed, again.rebuilt) == ({"read": 1}, 0)
        assert tree(Path(config.output) / "shards") == shards
    assert run(config).nothing_to_do


class FailsAlways:
    """A teacher that is ready for every clip and labels none."""

    def prepare(self, clips):
        return Prepared(clips=clips, features=[])

    def label(self, clips, language):
        raise RuntimeError("away")

import dataclasses
import json
import time
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from pipeline import blocks, rows
from pipeline.blocks import (
    build_shard,
    committed,
    is_labelled,
    label_block,
    loaded_teacher,
    process_block,
)
from pipeline.config import BlocksConfig, DecodingConfig, PipelineConfig
from pipeline.filters import FilterConfig
from pipeline.layout import Layout
from pipeline.ledger import read_failures, read_ledger
from pipeline.plan import Block, Keys, make_plan
from pipeline.scoring import score
from pipeline.shards import read_shard
from pipeline.teacher import Label, Prepared, Teacher, load_teacher, resolve_revision
from tests.pipeline.conftest import SENTENCE, write_tone


def plan_one(config: PipelineConfig) -> tuple[Block, Keys, Layout]:
    """Plan a corpus that fits into one block."""
    config = dataclasses.replace(config, blocks=BlocksConfig(minutes=60))
    plan = make_plan(config, resolve_revision(config.teacher))
    (block,) = plan.blocks
    return block, plan.keys, Layout(Path(config.output))


class FailsOnLoud:
    """A teacher that cannot stand a batch with loud audio."""

    def __init__(self, real: Teacher) -> None:
        self.real = real

    def prepare(self, clips: list[np.ndarray]) -> Prepared:
        return self.real.prepare(clips)

    def label(self, clips: list[np.ndarray] | Prepared, language: str) -> list[Label]:
        heard = clips.clips if isinstance(clips, Prepared) else clips
        if any(np.abs(clip).max() > 0.5 for clip in heard):
            raise RuntimeError("too loud")
        return self.real.label(clips, language)


def test_labelled_clips_become_ledger_rows_in_corpus_order(corpus, configure, tones):
    config = configure(corpus(*tones(5)))
    block, keys, layout = plan_one(config)
    label_block(block, config, keys)
    rows, metadata = read_ledger(layout.ledger(keys.label_key, block.id))
    assert [row.id for row in rows] == [f"tone{i}" for i in range(5)]
    assert metadata["fingerprint"] == block.fingerprint
    assert float(metadata["teacher_seconds"]) > 0
    assert float(metadata["audio_seconds"]) == 10
    row = rows[3]
    assert (row.pseudo_label, row.reference, row.wer, row.metric) == (SENTENCE, SENTENCE, 0, "wer")
    assert (row.duration_seconds, row.recording) == (2.5, "tone3.wav")
    assert row.utterances[0].id == row.id
    assert row.teacher_revision == keys.teacher_revision


def test_log_probability_of_every_token_is_kept_where_asked_for(corpus, configure, tones):
    decoding = DecodingConfig(max_new_tokens=20, token_logprobs=True)
    config = configure(corpus(*tones(1)), decoding=decoding)
    block, keys, layout = plan_one(config)
    process_block(block, config, keys)
    ((row,), _) = read_ledger(layout.ledger(keys.label_key, block.id))
    assert len(row.token_logprobs) == len(row.tokens) > 0
    assert all(-5 < logprob <= 0 for logprob in row.token_logprobs)
    ((sample, _),) = read_shard(layout.shard(block.id))
    assert sample.token_logprobs == row.token_logprobs


def test_a_clip_of_one_utterance_is_scored_once(corpus, configure, tones, monkeypatch):
    scored = []
    monkeypatch.setattr(rows, "score", lambda *pair: scored.append(pair) or score(*pair))
    config = configure(corpus(*tones(2, text="the new car")))
    block, keys, layout = plan_one(config)
    label_block(block, config, keys)
    assert len(scored) == 2
    for row in read_ledger(layout.ledger(keys.label_key, block.id))[0]:
        (utterance,) = row.utterances
        assert (utterance.wer, utterance.cer) == (row.wer, row.cer)
        assert utterance.substitutions == row.substitutions == 2


def test_metric_is_the_one_that_counted_the_errors(corpus, configure, tones):
    config = configure(corpus(*tones(1, text="今日は晴れです")))
    block, keys, layout = plan_one(config)
    label_block(block, config, keys)
    ((row,), _) = read_ledger(layout.ledger(keys.label_key, block.id))
    errors = (row.substitutions or 0) + (row.deletions or 0) + (row.insertions or 0)
    assert (row.metric, row.normalizer) == ("cer", "english")
    assert row.cer == pytest.approx(errors / 7)


def test_a_row_says_how_its_texts_were_compared_and_what_they_differ_in_as_written(
    corpus, configure, tones
):
    config = configure(corpus(*tones(1, text="The old house.")))
    block, keys, layout = plan_one(config)
    label_block(block, config, keys)
    ((row,), _) = read_ledger(layout.ledger(keys.label_key, block.id))
    assert (row.wer, row.metric, row.normalizer) == (0.0, "wer", "english")
    assert row.orthographic_wer == pytest.approx(2 / 3)  # "The" and "house."


def test_wrong_reference_is_scored_and_kept_in_the_ledger(corpus, configure, tones):
    config = configure(corpus(*tones(1, text="the new car")))
    block, keys, layout = plan_one(config)
    label_block(block, config, keys)
    ((row,), _) = read_ledger(layout.ledger(keys.label_key, block.id))
    assert row.wer == pytest.approx(2 / 3)
    assert (row.substitutions, row.deletions, row.insertions) == (2, 0, 0)


def test_clip_without_reference_has_no_score(corpus, configure, tones):
    config = configure(corpus(*tones(1, text=" ")))
    block, keys, layout = plan_one(config)
    record = process_block(block, config, keys)
    ((row,), _) = read_ledger(layout.ledger(keys.label_key, block.id))
    assert (row.wer, row.cer, row.metric, row.substitutions) == (None, None, "wer", None)
    assert record.rejected == {"empty_reference": 1}


def test_previous_label_is_that_of_the_span_before_in_the_recording(corpus, configure, tmp_path):
    write_tone(tmp_path / "long.wav", 6)
    write_tone(tmp_path / "other.wav", 2)
    spans = [{"audio_filepath": "long.wav", "offset": o, "duration": 2} for o in (4, 0, 2)]
    lines = [dict(s, text=SENTENCE) for s in (*spans, {"audio_filepath": "other.wav"})]
    config = configure(corpus(*lines))
    block, keys, layout = plan_one(config)
    process_block(block, config, keys)
    previous = {s.id: s.previous_pseudo_label for s, _ in read_shard(layout.shard(block.id))}
    assert previous == {
        "long-0000000": None,
        "long-0002000": SENTENCE,
        "long-0004000": SENTENCE,
        "other": None,
    }


def test_bad_clip_fails_alone_and_its_batch_is_labelled(corpus, configure, tones, monkeypatch):
    lines = tones(3)
    path = Path(configure(corpus(*lines)).corpora[0].path).parent / "tone1.wav"
    soundfile.write(path, np.ones(16_000) * 0.9, 16_000)
    config = configure(corpus(*lines))
    monkeypatch.setattr(blocks, "_teacher", lambda *args: FailsOnLoud(load_teacher(*args)))
    block, keys, layout = plan_one(config)
    record = process_block(block, config, keys)
    assert (record.kept, record.failed) == (2, {"label": 1})
    (failed,) = read_failures(layout.failures(keys.label_key, block.id))
    assert (failed.id, failed.error, failed.message) == ("tone1", "RuntimeError", "too loud")
    assert failed.attempts == 2


def test_features_that_fail_ahead_are_told_of_and_cost_no_clip(
    corpus, configure, tones, monkeypatch, caplog
):
    class CannotPrepare(FailsOnLoud):
        def prepare(self, clips: list[np.ndarray]) -> Prepared:
            raise RuntimeError("no room for features")

    config = configure(corpus(*tones(3)))
    monkeypatch.setattr(blocks, "_teacher", lambda *args: CannotPrepare(load_teacher(*args)))
    block, keys, _ = plan_one(config)
    record = process_block(block, config, keys)
    assert (record.kept, record.failed) == (3, {})
    assert "features of a batch of 3 clips failed" in caplog.text
    assert "no room for features" in caplog.text


def test_any_sample_rate_and_stereo_work(corpus, configure, tmp_path):
    lines = []
    for rate in (8_000, 22_050, 48_000):
        write_tone(tmp_path / f"{rate}.wav", 1.0, sample_rate=rate)
        lines.append({"audio_filepath": f"{rate}.wav", "text": SENTENCE})
    config = configure(corpus(*lines))
    block, keys, layout = plan_one(config)
    record = process_block(block, config, keys)
    assert record.kept == 3
    samples = list(read_shard(layout.shard(block.id)))
    assert {sample.duration_seconds for sample, _ in samples} == {1.0}


def test_duration_of_a_clip_is_that_of_its_audio_and_not_of_the_manifest(
    corpus, configure, tmp_path
):
    write_tone(tmp_path / "a.wav", 1.5)
    line = {"audio_filepath": "a.wav", "text": SENTENCE, "duration": 9.0}
    config = configure(corpus(line))
    block, keys, layout = plan_one(config)
    assert process_block(block, config, keys).kept_seconds == 1.5


def test_everything_is_kept_rejected_or_failed_and_says_why(corpus, configure, tones, tmp_path):
    write_tone(tmp_path / "long.wav", 31)
    (tmp_path / "broken.wav").write_text("this is no audio")
    lines = [
        *tones(2),
        {"audio_filepath": "long.wav", "text": "x"},
        {"audio_filepath": "broken.wav", "text": "x"},
        {"audio_filepath": "nowhere.wav", "text": "x"},
        {"audio_filepath": "tone0.wav", "text": "x", "id": "wrong"},
        {"audio_filepath": "tone0.wav", "text": "", "id": "silent"},
        {"audio_filepath": "tone1.wav", "text": "x", "id": "wrong"},
        "{oops",
    ]
    config = configure(corpus(*lines))
    block, keys, layout = plan_one(config)
    record = process_block(block, config, keys)
    assert record.kept == 2
    assert record.rejected == {"empty_reference": 1, "too_long": 1, "wer": 1}
    assert record.failed == {"plan": 2, "read": 2}
    assert record.planned == block.num_utterances == len(lines)
    failures = read_failures(layout.failures(keys.label_key, block.id))
    assert {f.error for f in failures} == {"too_long", "AudioError", "duplicate_id", "bad_line"}


def test_shard_of_a_split_that_is_not_filtered_has_bad_labels_too(corpus, configure, tones):
    config = configure(corpus(*tones(2, text="something else"), split="test"))
    block, keys, _ = plan_one(config)
    assert process_block(block, config, keys).kept == 2


def test_block_of_which_nothing_is_kept_has_a_record_and_no_shard(corpus, configure, tones):
    config = configure(corpus(*tones(2)))
    block, keys, layout = plan_one(config)
    process_block(block, config, keys)
    assert layout.shard(block.id).is_file()
    Path(config.corpora[0].path).write_text(
        "".join(json.dumps(dict(line, text="something else")) + "\n" for line in tones(2))
    )
    block, keys, _ = plan_one(config)
    record = process_block(block, config, keys)
    assert record.shard is None
    assert not layout.shard(block.id).exists()
    assert committed(block, layout, keys) == record


def test_committed_block_is_not_touched_again(corpus, configure, tones, monkeypatch):
    config = configure(corpus(*tones(2)))
    block, keys, layout = plan_one(config)
    record = process_block(block, config, keys)
    monkeypatch.setattr(blocks, "_teacher", no_teacher)
    monkeypatch.setattr(blocks, "write_shard", no_teacher)
    assert process_block(block, config, keys) == record


def no_teacher(*args):
    pytest.fail("this was done already")


def test_filter_is_applied_again_without_the_teacher(corpus, configure, tones, monkeypatch):
    config = configure(corpus(*tones(2, text="the new house")))
    block, keys, _ = plan_one(config)
    assert process_block(block, config, keys).kept == 0
    monkeypatch.setattr(blocks, "_teacher", no_teacher)
    looser = dataclasses.replace(config, filter=FilterConfig(max_wer=0.5))
    block, keys, _ = plan_one(looser)
    assert process_block(block, looser, keys).kept == 2


def test_shard_is_the_same_byte_for_byte_when_built_again(corpus, configure, tones):
    config = configure(corpus(*tones(4)))
    block, keys, layout = plan_one(config)
    process_block(block, config, keys)
    first = layout.shard(block.id).read_bytes()
    layout.shard(block.id).unlink()
    assert committed(block, layout, keys) is None
    build_shard(block, config, keys)
    assert layout.shard(block.id).read_bytes() == first


def test_labels_are_the_same_when_made_again(corpus, configure, tones):
    config = configure(corpus(*tones(4)))
    block, keys, layout = plan_one(config)
    part = layout.ledger(keys.label_key, block.id)
    label_block(block, config, keys)
    first = read_ledger(part)[0]
    part.unlink()
    label_block(block, config, keys)
    assert read_ledger(part)[0] == first


def test_damaged_files_are_made_again(corpus, configure, tones, caplog):
    config = configure(corpus(*tones(1)))
    block, keys, layout = plan_one(config)
    record = process_block(block, config, keys)
    layout.ledger(keys.label_key, block.id).write_bytes(b"damaged")
    layout.commit_record(block.id).write_bytes(b"damaged")
    assert not is_labelled(block, layout, keys)
    assert process_block(block, config, keys) == record
    assert "damaged" in caplog.text


def test_audio_that_became_unreadable_after_labelling_is_counted(
    corpus, configure, tones, tmp_path
):
    config = configure(corpus(*tones(2)))
    block, keys, layout = plan_one(config)
    label_block(block, config, keys)
    size = (tmp_path / "tone0.wav").stat().st_size
    (tmp_path / "tone0.wav").write_bytes(b"x" * size)  # the fingerprint sees sizes only
    record = build_shard(block, config, keys)
    assert record.planned == 2
    assert record.kept == 1
    assert record.failed == {"shard": 1}


def test_threads_of_a_worker_load_one_teacher(corpus, configure, tones, monkeypatch):
    config = configure(corpus(*tones(1)))
    plan = make_plan(config, "r")
    loaded = []

    def load(*arguments: Any) -> object:
        loaded.append(arguments)
        time.sleep(0.3)
        return object()

    monkeypatch.setattr(blocks, "_teacher", lru_cache(maxsize=1)(load))
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda _: loaded_teacher(config, plan.keys), range(4)))
    assert len(loaded) == len(set(map(id, found))) == 1

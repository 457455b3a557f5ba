"""Blocks whose clips hold several utterances, or only a part of one."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import soundfile

from pipeline import blocks
from pipeline.audio import decode_flac
from pipeline.blocks import build_shard, process_block
from pipeline.config import ClipConfig, PipelineConfig
from pipeline.filters import FilterConfig
from pipeline.layout import Layout
from pipeline.ledger import read_ledger
from pipeline.schema import Sample
from pipeline.shards import CommitRecord, read_shard
from tests.pipeline.hearing import HearsTones, sound, speak
from tests.pipeline.test_blocks import plan_one
from tests.pipeline.test_duplicates import ROW, write_second


@pytest.fixture
def teacher(monkeypatch) -> HearsTones:
    hears = HearsTones()
    monkeypatch.setattr(blocks, "_teacher", lambda *args: hears)
    return hears


@pytest.fixture
def spoken(tmp_path: Path, corpus, configure):
    """Return a configuration of a corpus of (said, reference) by one speaker."""

    def make(*pairs: tuple[str, str], references: bool = True, **options) -> PipelineConfig:
        lines = []
        for number, (said, reference) in enumerate(pairs):
            speak(tmp_path / f"u{number}.wav", said)
            lines.append({"audio_filepath": f"u{number}.wav", "text": reference, "speaker": "ann"})
        return configure(corpus(*lines, references=references), clips=ClipConfig(**options))

    return make


def built(config: PipelineConfig) -> tuple[CommitRecord, list[tuple[Sample, bytes]], Layout]:
    block, keys, layout = plan_one(config)
    record = process_block(block, config, keys)
    shard = layout.shard(block.id)
    return record, list(read_shard(shard)) if shard.is_file() else [], layout


GOOD = [("red blue", "red blue"), ("green white black", "green white black"), ("brown", "brown")]


def test_a_good_pack_is_one_clip_as_it_was_labelled(spoken, teacher):
    record, samples, _ = built(spoken(*GOOD, pack="before_label"))
    ((sample, flac),) = samples
    assert teacher.batches == [[3.0]]
    assert sample.pseudo_label == sample.reference == "red blue green white black brown"
    assert [u.pseudo_label for u in sample.utterances] == ["red blue", "green white black", "brown"]
    assert [(u.id, u.start, u.duration) for u in sample.utterances] == [
        ("u0", 0.0, 1.0),
        ("u1", 1.0, 1.5),
        ("u2", 2.5, 0.5),
    ]
    assert sample.tokens
    assert decode_flac(flac).size == 48_000
    assert (record.kept, record.planned) == (3, 3)


def test_a_bad_utterance_is_cut_out_of_a_good_pack(spoken, teacher):
    wrong = [GOOD[0], ("green white black", "pink pink"), GOOD[2]]
    record, samples, layout = built(spoken(*wrong, pack="before_label"))
    ((sample, flac),) = samples
    assert (record.kept, record.rejected, record.planned) == (2, {"wer": 1}, 3)
    assert [u.id for u in sample.utterances] == ["u0", "u2"]
    assert sample.pseudo_label == sample.reference == "red blue brown"
    assert (sample.wer, sample.duration_seconds) == (0.0, 1.5)
    assert [(s.start, s.text) for s in sample.segments] == [(0.0, "red blue"), (1.0, "brown")]
    assert np.abs(decode_flac(flac) - sound("red blue brown")).max() < 1e-3
    ((row,), _) = read_ledger(layout.ledger(record.label_key, record.block))
    assert row.wer == pytest.approx(3 / 5)
    assert [u.wer for u in row.utterances] == [0.0, 1.5, 0.0]


def test_a_pack_of_bad_utterances_is_dropped_whole(spoken, teacher):
    record, samples, _ = built(spoken(("red", "blue"), ("green", "white"), pack="before_label"))
    assert (record.kept, record.rejected, samples) == (0, {"wer": 2}, [])


def test_a_pack_without_references_is_kept_with_all_its_sound_and_all_its_words(spoken, teacher):
    record, ((sample, flac),), _ = built(spoken(*GOOD, references=False, pack="before_label"))
    assert (record.kept, record.rejected) == (3, {})
    assert sample.pseudo_label == "red blue green white black brown"
    assert [(u.id, u.pseudo_label, u.wer) for u in sample.utterances] == [
        ("u0", "", None),
        ("u1", "", None),
        ("u2", "", None),
    ]
    assert decode_flac(flac).size == 48_000


def test_a_pack_without_references_is_dropped_as_one(spoken, teacher):
    config = spoken(*GOOD, references=False, pack="before_label")
    strict = dataclasses.replace(config, filter=FilterConfig(max_seconds=2.0))
    record, samples, _ = built(strict)
    assert (record.kept, record.rejected, samples) == (0, {"too_long": 3}, [])


def test_another_threshold_cuts_the_same_pack_elsewhere(spoken, teacher):
    config = spoken(GOOD[0], ("green white black", "green white brown"), pack="before_label")
    assert built(config)[0].kept == 1
    teacher.batches.clear()
    looser = dataclasses.replace(config, filter=FilterConfig(max_wer=0.5))
    record, ((sample, _),), _ = built(looser)
    assert record.kept == 2
    assert not teacher.batches
    assert sample.pseudo_label == "red blue green white black"


def test_a_second_teacher_that_never_heard_a_block_is_warned_of(spoken, teacher, tmp_path, caplog):
    second = write_second(tmp_path / "second", ROW)
    limits = FilterConfig(max_disagreement=0.2, second_ledger=second)
    record, _, _ = built(dataclasses.replace(spoken(*GOOD, pack="before_label"), filter=limits))
    assert record.kept == 3
    assert f"{second} has labels for 0 of the 3 clips of mine-train-00000" in caplog.text


def test_a_cut_pack_is_the_same_byte_for_byte_when_built_again(spoken, teacher):
    config = spoken(GOOD[0], ("red", "blue"), GOOD[2], pack="before_label")
    block, keys, layout = plan_one(config)
    process_block(block, config, keys)
    first = layout.shard(block.id).read_bytes()
    layout.shard(block.id).unlink()
    build_shard(block, config, keys)
    assert layout.shard(block.id).read_bytes() == first


def test_an_unreadable_utterance_fails_and_its_pack_does_not(spoken, teacher, tmp_path):
    config = spoken(*GOOD, pack="before_label")
    (tmp_path / "u1.wav").write_text("no audio")
    record, ((sample, flac),), _ = built(config)
    assert (record.kept, record.failed) == (2, {"read": 1})
    assert sample.pseudo_label == "red blue brown"
    assert decode_flac(flac).size == sample.duration_seconds * 16_000 == 24_000


def test_good_utterances_are_packed_after_the_filter(spoken, teacher):
    wrong = [GOOD[0], ("green", "pink"), *GOOD[1:]]
    record, ((sample, flac),), _ = built(spoken(*wrong, pack="after_filter"))
    assert sorted(teacher.batches[0]) == [0.5, 0.5, 1.0, 1.5]
    assert (record.kept, record.rejected) == (3, {"wer": 1})
    assert sample.pseudo_label == "red blue green white black brown"
    assert [u.start for u in sample.utterances] == [0.0, 1.0, 2.5]
    assert [(s.start, s.end) for s in sample.segments] == [(0.0, 1.0), (1.0, 2.5), (2.5, 3.0)]
    assert decode_flac(flac).size == 48_000


def test_packing_after_the_filter_needs_no_new_labels(spoken, teacher):
    built(spoken(*GOOD))
    teacher.batches.clear()
    record, samples, _ = built(spoken(*GOOD, pack="after_filter"))
    assert (record.kept, len(samples)) == (3, 1)
    assert not teacher.batches


@pytest.fixture
def recording(tmp_path: Path, corpus, configure):
    """Return a configuration of a corpus with one long recording, and small windows."""

    def make(said: str, reference: str | None, **options) -> PipelineConfig:
        speak(tmp_path / "talk.wav", said)
        line = {"audio_filepath": "talk.wav", "text": reference}
        return configure(corpus(line), clips=ClipConfig(max_seconds=5.0, **options))

    return make


TALK = "red blue green - - white black brown pink - - red green black pink blue - - white brown"


def test_a_long_recording_is_labelled_window_by_window(recording, teacher):
    reference = TALK.replace("- ", "")
    record, samples, layout = built(recording(TALK, reference, long="sequential"))
    rows, _ = read_ledger(layout.ledger(record.label_key, record.block))
    # The second window of 5 s ends within a segment, which is left to the third.
    assert [(r.start_seconds, r.duration_seconds) for r in rows] == [(0, 4.5), (4.5, 4.5), (9, 1)]
    assert " ".join(r.pseudo_label for r in rows) == reference
    assert [r.reference for r in rows] == [r.pseudo_label for r in rows]
    assert (record.kept, record.planned) == (1, 1)
    assert {u.id for s, _ in samples for u in s.utterances} == {"talk"}
    assert all(s.duration_seconds <= 5.0 for s, _ in samples)


def test_a_clip_that_goes_on_where_a_kept_one_ended_has_its_label_as_prompt(recording, teacher):
    reference = TALK.replace("- ", "")
    _, samples, _ = built(recording(TALK, reference, long="sequential"))
    in_order = sorted((s for s, _ in samples), key=lambda s: s.start_seconds)
    assert [s.previous_pseudo_label for s in in_order] == [
        None,
        *(s.pseudo_label for s in in_order[:-1]),
    ]


def test_a_dropped_clip_is_no_prompt(recording, teacher):
    reference = TALK.replace("- ", "").replace("red blue green white", "pink pink pink pink")
    record, samples, _ = built(recording(TALK, reference, long="sequential"))
    in_order = sorted((s for s, _ in samples), key=lambda s: s.start_seconds)
    assert in_order[0].start_seconds > 0
    assert in_order[0].previous_pseudo_label is None
    assert in_order[1].previous_pseudo_label == in_order[0].pseudo_label
    assert (record.kept, record.rejected) == (1, {})


def test_clips_of_a_recording_with_a_long_pause_between_are_no_prompts(
    tmp_path, corpus, configure, teacher
):
    speak(tmp_path / "a.wav", "red blue - - - - - green white black brown")
    spans = [(0.0, 1.0, "red blue"), (3.5, 1.0, "green white"), (4.5, 1.0, "black brown")]
    lines = [
        {"audio_filepath": "a.wav", "offset": o, "duration": d, "text": t} for o, d, t in spans
    ]
    _, samples, _ = built(configure(corpus(*lines)))
    previous = {s.pseudo_label: s.previous_pseudo_label for s, _ in samples}
    assert previous == {"red blue": None, "green white": None, "black brown": "green white"}


def test_an_utterance_in_the_shard_names_its_recording_and_place(
    tmp_path, corpus, configure, teacher
):
    soundfile.write(tmp_path / "a.wav", sound("- red blue - green"), 16_000)
    spans = [(0.5, 1.0, "red blue"), (2.0, 0.5, "green")]
    lines = [
        {"audio_filepath": "a.wav", "offset": o, "duration": d, "text": t} for o, d, t in spans
    ]
    config = configure(corpus(*lines), clips=ClipConfig(pack="before_label", pack_by="recording"))
    _, ((sample, _),), _ = built(config)
    assert [(u.recording, u.recording_start_seconds) for u in sample.utterances] == [
        ("a.wav", 0.5),
        ("a.wav", 2.0),
    ]
    assert all(len(u.audio_sha256) == 64 for u in sample.utterances)

import dataclasses
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from pipeline.clips import RULE_STAGE, Clips, Span, make_clips, read_clip
from pipeline.config import ClipConfig
from pipeline.corpora import Utterance
from tests.pipeline.conftest import write_tone


def utterance(
    file: Path | str, start: float = 0.0, duration: float | None = None, **fields
) -> Utterance:
    return Utterance(
        **{
            "id": "u1",
            "corpus": "mine",
            "split": "train",
            "language": "en",
            "licence": "cc0-1.0",
            "speaker": "",
            "recording": str(file),
            "path": str(file),
            "start_seconds": start,
            "duration_seconds": duration,
            "reference": "x",
            **fields,
        }
    )


def made(*utterances: Utterance, **options) -> Clips:
    return make_clips(utterances, ClipConfig(**options), no_voice)


def no_voice(span: Span, max_seconds: float) -> list[Span]:
    return []


def test_length_is_measured_where_the_corpus_does_not_say(tmp_path: Path):
    (clip,) = made(utterance(write_tone(tmp_path / "a.wav", 2.5), start=0.5)).clips
    assert clip.duration_seconds == 2.0


def test_exactly_thirty_seconds_is_a_clip():
    assert made(utterance("a.wav", duration=30.0)).clips


@pytest.mark.parametrize(
    ("duration", "reason"), [(30.001, "too_long"), (31.0, "too_long"), (0.05, "too_short")]
)
def test_other_lengths_are_rejected_by_rule(duration: float, reason: str):
    (rejected,) = made(utterance("a.wav", duration=duration)).failures
    assert (rejected.stage, rejected.error) == (RULE_STAGE, reason)
    assert rejected.duration_seconds == duration


def test_unreadable_recording_fails_to_be_read():
    (failed,) = made(utterance("no/such.wav")).failures
    assert (failed.stage, failed.error) == ("read", "AudioError")


def test_offset_behind_the_end_fails_to_be_read(tmp_path: Path):
    (failed,) = made(utterance(write_tone(tmp_path / "a.wav", 1), start=2.0)).failures
    assert (failed.stage, failed.error) == ("read", "AudioError")


def short(number: int, seconds: float = 7.0, **fields) -> Utterance:
    return utterance(f"{number}.wav", duration=seconds, id=f"u{number}", **fields)


def ids(clips: Clips) -> list[list[str]]:
    return [[span.utterance.id for span in clip.spans] for clip in clips.clips]


def test_utterances_of_one_speaker_share_clips_in_their_order():
    spoken = [short(i, speaker="ab"[i % 2]) for i in range(10)]
    clips = made(*spoken, pack="before_label")
    assert ids(clips) == [["u0", "u2", "u4", "u6"], ["u1", "u3", "u5", "u7"], ["u8"], ["u9"]]
    assert [clip.id for clip in clips.clips[1:3]] == ["u1_and_3_more", "u8"]


def test_what_must_not_be_mixed_is_not_mixed():
    other: list[dict[str, Any]] = [{"language": "de"}, {"licence": "cc-by-4.0"}, {"speaker": "b"}]
    spoken = [short(i, **{"speaker": "a", **fields}) for i, fields in enumerate([{}, *other])]
    assert ids(made(*spoken, pack="before_label")) == [["u0"], ["u1"], ["u2"], ["u3"]]
    assert ids(made(*spoken, pack="before_label", pack_by="any")) == [["u0", "u3"], ["u1"], ["u2"]]


def test_an_unknown_speaker_shares_a_clip_within_a_recording_only():
    spoken = [short(i, path=f"{i // 2}.wav") for i in range(4)]
    assert ids(made(*spoken, pack="before_label")) == [["u0", "u1"], ["u2", "u3"]]


def test_a_recordings_clips_follow_one_another():
    spoken = [short(i, seconds, path="a.wav") for i, seconds in enumerate([20.0, 15.0, 5.0])]
    clips = made(*spoken, pack="before_label", pack_by="recording")
    assert ids(clips) == [["u0"], ["u1", "u2"]]


def test_a_pack_is_full_at_thirty_seconds_with_its_gaps():
    spoken = [short(i, 10.0, speaker="a") for i in range(3)]
    assert ids(made(*spoken, pack="before_label")) == [["u0", "u1", "u2"]]
    assert ids(made(*spoken, pack="before_label", pack_gap_seconds=0.02)) == [["u0", "u1"], ["u2"]]


def test_packs_are_as_short_as_asked_for_and_longer_utterances_stay_whole():
    spoken = [short(i, seconds, speaker="a") for i, seconds in enumerate([4.0, 12.0, 6.0, 1.0])]
    clips = made(*spoken, pack="before_label", pack_seconds=10.0)
    assert ids(clips) == [["u0", "u2"], ["u1"], ["u3"]]


@pytest.mark.parametrize("seconds", [0.0, 30.1])
def test_a_pack_longer_than_the_window_is_refused(seconds: float):
    with pytest.raises(ValueError, match=r"pack_seconds is .*at most 30"):
        ClipConfig(pack_seconds=seconds)


@pytest.mark.parametrize("num_speakers", [1, 4, 10])
def test_blocks_of_seven_second_utterances_fill_nine_tenths_of_their_windows(num_speakers: int):
    rng = random.Random(0)
    filled = windows = 0.0
    for _ in range(5):  # blocks of an hour
        lengths = [min(max(rng.gammavariate(4, 7 / 4), 0.5), 30.0) for _ in range(514)]
        spoken = [
            short(i, seconds, speaker=str(rng.randrange(num_speakers)))
            for i, seconds in enumerate(lengths)
        ]
        clips = made(*spoken, pack="before_label").clips
        assert sum(len(clip.spans) for clip in clips) == len(spoken)
        assert max(clip.duration_seconds for clip in clips) <= 30.0
        filled, windows = filled + sum(lengths), windows + 30.0 * len(clips)
    assert 0.9 < filled / windows <= 1.0


def test_a_pack_is_read_with_its_spans_on_the_grid(tmp_path: Path):
    spoken = [
        short(i, seconds, speaker="a", path=str(write_tone(tmp_path / f"{i}.wav", seconds)))
        for i, seconds in enumerate([1.005, 2.0])
    ]
    (clip,) = made(*spoken, pack="before_label", pack_gap_seconds=0.1).clips
    read, failures = read_clip(clip)
    assert read
    assert not failures
    heard, audio = read
    assert (heard.starts, heard.lengths) == ((0, 17_920), (16_080, 32_000))
    assert audio.size == heard.num_samples == 17_920 + 32_000
    assert clip.duration_seconds == audio.size / 16_000
    assert not audio[16_080:17_920].any()
    assert len(set(heard.hashes)) == 2


def test_an_unreadable_utterance_fails_alone_and_its_pack_moves_up(tmp_path: Path):
    spoken = [
        short(i, 1.0, speaker="a", path=str(write_tone(tmp_path / f"{i}.wav", 1))) for i in range(3)
    ]
    (tmp_path / "1.wav").write_text("no audio")
    (clip,) = made(*spoken, pack="before_label").clips
    read, failures = read_clip(clip)
    assert read
    assert [f.utterance_ids for f in failures] == [("u1",)]
    assert [s.utterance.id for s in read[0].clip.spans] == ["u0", "u2"]
    assert read[0].starts == (0, 16_000)


def test_equal_sound_has_an_equal_hash(tmp_path: Path):
    tone = (9_000 * np.sin(np.arange(16_000) / 9)).astype(np.int16)
    soundfile.write(tmp_path / "a.wav", tone, 16_000)
    soundfile.write(tmp_path / "b.flac", tone, 16_000)
    soundfile.write(tmp_path / "c.flac", tone // 2, 16_000)
    spoken = [
        short(i, 1.0, path=str(tmp_path / n)) for i, n in enumerate(["a.wav", "b.flac", "c.flac"])
    ]
    hashes = []
    for clip in made(*spoken).clips:
        read, _ = read_clip(clip)
        assert read
        hashes += read[0].hashes
    assert hashes[0] == hashes[1] != hashes[2]


def test_a_long_utterance_is_cut_where_the_voice_pauses():
    def halves(span: Span, max_seconds: float) -> list[Span]:
        assert max_seconds == 30.0
        half = dataclasses.replace(span, duration_seconds=20.0)
        return [half, dataclasses.replace(half, start_seconds=span.start_seconds + 20.0)]

    long = utterance("a.wav", start=5.0, duration=40.0)
    clips = make_clips([long, short(2)], ClipConfig(long="vad"), halves)
    assert [clip.id for clip in clips.clips] == ["u1-00005000", "u1-00025000", "u2"]


def test_a_recording_without_voice_is_rejected():
    (rejected,) = made(utterance("a.wav", duration=40.0), long="vad").failures
    assert (rejected.stage, rejected.error) == (RULE_STAGE, "no_speech")


def test_a_long_utterance_waits_for_the_teacher_to_cut_it():
    clips = made(utterance("a.wav", duration=40.0), short(2), long="sequential")
    assert [span.utterance.id for span in clips.long] == ["u1"]
    assert ids(clips) == [["u2"]]

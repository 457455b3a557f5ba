"""Cutting and joining samples that are in memory; test_packed_blocks has them with their sound."""

import dataclasses
from dataclasses import replace

import pytest

from pipeline.cutting import CONTINUOUS_SECONDS, join, keep_only, reasons, with_previous
from pipeline.limits import FilterConfig
from pipeline.pieces import pieces
from pipeline.schema import ClipUtterance, Sample, Segment
from tests.pipeline.test_filters import GOOD


def utterance(name: str, start: float, text: str, **fields) -> ClipUtterance:
    return ClipUtterance(
        id=name, start=start, duration=2.0, reference=text, recording=f"{name}.wav",
        recording_start_seconds=10.0, pseudo_label=text,
        **{"wer": 0.0, "cer": 0.0, "substitutions": 0, "deletions": 0, "insertions": 0, **fields},
    )  # fmt: skip


PACK = replace(
    GOOD,
    id="pack",
    duration_seconds=4.5,
    utterances=(utterance("a", 0.0, "one two"), utterance("b", 2.5, "three four")),
    reference="one two three four",
    pseudo_label="one two three four",
    tokens=(1, 2, 3),
    token_logprobs=(-0.1, -0.2, -0.3),
    segments=(
        Segment(start=0.0, end=2.02, text="one two"),
        Segment(start=2.48, end=4.5, text="three four"),
    ),
    previous_pseudo_label="before",
)


def test_a_clip_of_one_utterance_is_its_own_piece():
    alone = replace(GOOD, utterances=(utterance("u", 0.0, "x"),))
    assert pieces(alone) == [alone]
    assert keep_only(alone, [True], 0) is alone


def test_a_good_pack_keeps_the_tokens_that_were_said():
    assert keep_only(PACK, [True, True], 0) is PACK


def test_a_piece_has_its_own_text_times_and_place_and_no_tokens():
    _, second = pieces(PACK)
    assert (second.id, second.recording, second.start_seconds) == ("b", "b.wav", 10.0)
    assert (second.pseudo_label, second.reference) == ("three four", "three four")
    assert (second.duration_seconds, second.utterances[0].start) == (2.0, 0.0)
    assert second.segments == (Segment(start=0.0, end=2.0, text="three four"),)
    assert (second.tokens, second.token_logprobs) == ((), ())
    assert second.previous_pseudo_label is None


def test_segments_that_overlap_utterances_become_one_over_each():
    blurred = replace(PACK, segments=(Segment(start=0.0, end=4.5, text="one two three four"),))
    assert [piece.segments for piece in pieces(blurred)] == [
        (Segment(start=0.0, end=2.0, text="one two"),),
        (Segment(start=0.0, end=2.0, text="three four"),),
    ]


def test_a_piece_without_text_has_no_segments():
    silent = replace(PACK, utterances=(PACK.utterances[0], utterance("b", 2.5, "")))
    assert pieces(silent)[1].segments == ()


def test_a_reason_of_the_clip_is_one_of_all_its_utterances():
    cut_off = replace(PACK, truncated=True)
    assert reasons(cut_off, FilterConfig()) == ["truncated", "truncated"]
    bad = replace(PACK, utterances=(PACK.utterances[0], utterance("b", 2.5, "x y", wer=0.5)))
    assert reasons(bad, FilterConfig(speaking_rate="off")) == [None, "wer"]


def test_what_is_left_of_a_pack_begins_at_its_start():
    left = keep_only(PACK, [False, True], 0)
    assert (left.id, left.pseudo_label, left.duration_seconds) == ("pack", "three four", 2.0)
    assert [u.start for u in left.utterances] == [0.0]
    assert left.tokens == ()


def test_joined_clips_follow_each_other_with_a_gap_and_show_the_worst_evidence():
    first, second = pieces(PACK)
    first = replace(first, avg_logprob=-0.1, temperature=0.0, no_speech_prob=0.3, speaker="ann")
    second = replace(
        second, avg_logprob=-0.5, temperature=0.4, compression_ratio=2.0, speaker="bob",
        language_probability=0.5,
    )  # fmt: skip
    joined = join([first, second], "joined", 8000)
    assert (joined.id, joined.duration_seconds) == ("joined", 4.5)
    assert [u.start for u in joined.utterances] == [0.0, 2.5]
    assert [s.start for s in joined.segments] == [0.0, 2.5]
    assert joined.pseudo_label == joined.reference == "one two three four"
    assert (joined.wer, joined.speaker) == (0.0, "")
    assert (joined.temperature, joined.no_speech_prob, joined.compression_ratio) == (0.4, 0.3, 2.0)
    assert joined.language_probability == 0.5
    assert joined.avg_logprob == pytest.approx((-0.1 * 7 - 0.5 * 10) / 17, abs=1e-4)
    assert (joined.tokens, joined.token_logprobs) == ((), ())


def test_joined_clips_of_a_language_without_spaces_have_none():
    parts = [replace(piece, language="ja", reference="") for piece in pieces(PACK)]
    parts = [replace(p, pseudo_label=text) for p, text in zip(parts, ("今日", "晴れ"), strict=True)]
    joined = join(parts, "joined", 0)
    assert (joined.pseudo_label, joined.wer) == ("今日晴れ", None)


def spoken(name: str, start: float, *, recording: str = "r.wav") -> Sample:
    only = dataclasses.replace(
        utterance(name, 0.0, name), recording=recording, recording_start_seconds=start
    )
    return replace(
        GOOD, id=name, recording=recording, start_seconds=start, duration_seconds=2.0,
        utterances=(only,), pseudo_label=f"said in {name}",
    )  # fmt: skip


CHANNELS = dict.fromkeys("abcd")


@pytest.mark.parametrize(
    ("start", "previous"),
    [
        (2.0, "said in a"),
        (2.0 + CONTINUOUS_SECONDS - 0.02, "said in a"),
        (2.0 + CONTINUOUS_SECONDS + 0.02, None),
        (1.5, None),  # they overlap
    ],
)
def test_a_clip_continues_the_one_before_up_to_a_pause(start, previous):
    rows = [spoken("a", 0.0), spoken("b", start)]
    completed = with_previous(rows, rows, CHANNELS)
    assert [s.previous_pseudo_label for s in completed] == [None, previous]


def test_only_a_kept_neighbour_of_the_same_recording_is_continued():
    first, second, third = spoken("a", 0.0), spoken("b", 2.0), spoken("c", 4.0)
    (left,) = with_previous([third], [first, second, third], CHANNELS)
    assert left.previous_pseudo_label is None
    elsewhere = spoken("d", 2.0, recording="other.wav")
    (alone,) = with_previous([elsewhere], [first, elsewhere], CHANNELS)
    assert alone.previous_pseudo_label is None


def test_each_side_of_a_call_continues_itself_and_not_the_other():
    rows = [spoken(name, start) for name, start in (("a", 0.0), ("b", 2.1), ("c", 3.0), ("d", 4.2))]
    completed = with_previous(rows, rows, {"a": 0, "b": 1, "c": 0, "d": 1})
    previous = [sample.previous_pseudo_label for sample in completed]
    assert previous == [None, None, "said in a", "said in b"]

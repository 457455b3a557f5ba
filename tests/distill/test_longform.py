"""Windows, segments and joints of long recordings, with models that say what the test decides."""

import json
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from distill.alignment import warp
from distill.longform import Options, sequential, short
from distill.longform_chunked import chunked, find_join, merge_regions
from distill.recordings import Recording
from distill.subtitles import render
from distill.transcribe import Meter, chunk_seconds, make_job, run
from distill.transcribe_config import LongformConfig, TranscribeConfig
from distill.transcript import Job, Transcript, TranscriptSegment, Word
from distill.windows import Heard, Window
from pipeline.schema import SAMPLE_RATE
from tests.distill.material import make_audio

FIRST = 1000
"""`<|0.00|>`; text tokens are numbers below 900, spoken one each second: token 7 in second 7."""


class Numbers:
    """A vocabulary whose words are numbers."""

    first_timestamp, end = FIRST, 900

    def encode(self, text: str) -> list[int]:
        return [int(word) for word in text.split()]

    def decode(self, tokens: list[int]) -> str:
        return "".join(f" {token}" for token in tokens if token < self.end)

    def split_words(self, tokens: list[int], language: str) -> list[list[int]]:
        return [[token] for token in tokens]


class Ramp:
    """A recording whose samples say at which second they are."""

    def __init__(self, seconds: float) -> None:
        self.num_samples, self.position = round(seconds * SAMPLE_RATE), 0

    def read(self, start: int, num_samples: int) -> np.ndarray:
        assert start >= self.position, "a recording is read forward only"
        self.position = start
        end = min(start + num_samples, self.num_samples)
        return (1 + np.arange(start, max(end, start)) / SAMPLE_RATE).astype(np.float32)


def spoken(window: Window) -> list[int]:
    """The seconds that a window holds in full."""
    start = float(window.samples[0]) - 1
    first = int(np.ceil(start - 1e-3))
    return list(range(first, int(start + len(window.samples) / SAMPLE_RATE + 1e-3)))


def by_second(window: Window) -> Heard:
    """Say every second's number, in segments of five seconds if times are asked for."""
    start, tokens = float(window.samples[0]) - 1, []
    for number in spoken(window):
        stamp = FIRST + round((number - start) * 50)
        if window.timestamps:
            tokens += [stamp, number, stamp + 50]
        else:
            tokens.append(number)
    text = Numbers().decode([t for t in tokens if t < FIRST])
    return Heard(tokens=tuple(tokens), text=text, language="en")


def drive(job: Job, hear: Callable[[Window], Heard] = by_second) -> Transcript:
    try:
        windows = next(job)
        while True:
            windows = job.send([hear(window) for window in windows])
    except StopIteration as stop:
        return stop.value


@pytest.mark.parametrize("seconds", [0.5, 12.0, 30.0, 30.02, 59.98, 61.0, 200.0])
def test_sequential_hears_every_second_once(seconds: float):
    transcript = drive(sequential(Ramp(seconds), Numbers(), Options(language="en")))
    assert [int(word) for word in transcript.text.split()] == list(range(int(seconds)))
    assert transcript.duration_seconds == pytest.approx(seconds, abs=0.03)
    for segment in transcript.segments:
        assert segment.start == pytest.approx(int(segment.text), abs=0.021)


def test_without_timestamps_whole_windows_follow_each_other():
    options = Options(longform=LongformConfig(timestamps=False))
    windows: list[Window] = []

    def note(window: Window) -> Heard:
        windows.append(window)
        return by_second(window)

    transcript = drive(sequential(Ramp(70.0), Numbers(), options), note)
    assert [len(window.samples) / SAMPLE_RATE for window in windows] == [30.0, 30.0, 10.0]
    assert not any(window.timestamps for window in windows)
    assert [(s.start, s.end) for s in transcript.segments] == [(0, 30), (30, 60), (60, 70)]
    assert transcript.text.split() == [str(number) for number in range(70)]


@pytest.mark.parametrize("seconds", [0.5, 15.0, 15.02, 30.0, 100.0, 333.3])
@pytest.mark.parametrize("timestamps", [False, True])
@pytest.mark.parametrize("chunk_seconds", [15.0, 25.0, 30.0])
def test_chunks_are_joined_without_loss_or_repetition(
    seconds: float, timestamps: bool, chunk_seconds: float
):
    options = Options(language="en", timestamps=timestamps)
    transcript = drive(chunked(Ramp(seconds), Numbers(), options, chunk_seconds, 4))
    assert [int(word) for word in transcript.text.split()] == list(range(int(seconds)))
    if timestamps:
        for segment in transcript.segments:
            assert segment.start == pytest.approx(int(segment.text), abs=0.021)


def in_one_segment(window: Window) -> Heard:
    """Say every second's number, all in one segment, each token in its second."""
    start, numbers = float(window.samples[0]) - 1, spoken(window)
    times = [(number - start, number + 1 - start) for number in numbers]
    ends = FIRST + round(len(window.samples) / SAMPLE_RATE * 50)
    return Heard(
        tokens=(FIRST, *numbers, ends), text="", language="en",
        token_times=tuple(times) if window.words else (),
    )  # fmt: skip


@pytest.mark.parametrize("words", [False, True])
def test_a_segment_that_a_joint_cuts_ends_where_the_next_begins(words: bool):
    options = Options(language="en", timestamps=True, words=words)
    found = drive(chunked(Ramp(35.0), Numbers(), options, 15.0, 4), in_one_segment)
    assert [int(word) for word in found.text.split()] == list(range(35))
    assert len(found.segments) > 2
    for segment in found.segments:
        numbers = [int(word) for word in segment.text.split()]
        assert (segment.start, segment.end) == pytest.approx((numbers[0], numbers[-1] + 1))
        if words:
            assert [word.start for word in segment.words] == pytest.approx(numbers)


@pytest.mark.parametrize("second", [(7, 8, 9), (3, 4, 5)])
@pytest.mark.parametrize("step", [0, 25, -25])
def test_cues_never_overlap_and_lose_no_text_whatever_two_chunks_say(
    second: tuple[int, ...], step: int
):
    def cues(numbers: tuple[int, ...], first: int) -> tuple[int, ...]:
        places = range(FIRST + first * 50, FIRST + 800, 100)
        return tuple(t for n, at in zip(numbers, places, strict=False) for t in (at, n, at + 100))

    said = [cues((1, 2, 3, 4, 5), 5), (*cues(second, 1)[:-1], FIRST + 350 + step)]
    answers = iter(Heard(tokens=tokens, text="", language="en") for tokens in said)
    options = Options(language="en", timestamps=True, longform=LongformConfig(stride_seconds=2.5))
    found = drive(chunked(Ramp(25.0), Numbers(), options, 15.0, 1), lambda _window: next(answers))
    expected = [1, 2, 3, 4, 5] if second == (3, 4, 5) else [1, 2, 3, 4, 5, 7, 8, 9]
    assert [int(word) for word in found.text.split()] == expected
    times = [time for segment in found.segments for time in (segment.start, segment.end)]
    assert times == sorted(times)
    assert all(segment.end > segment.start for segment in found.segments)


def test_a_chunk_without_speech_says_nothing():
    def hear(window: Window) -> Heard:
        silent = float(window.samples[0]) - 1 > 15
        spoken = by_second(window)
        return replace(spoken, no_speech_prob=0.9, avg_logprob=-2.0) if silent else spoken

    options = Options(language="en", longform=LongformConfig(stride_seconds=0.0))
    found = drive(chunked(Ramp(45.0), Numbers(), options, 15.0, 1), hear)
    assert [int(word) for word in found.text.split()] == list(range(15 + 15))
    strict = LongformConfig(stride_seconds=0.0, no_speech_threshold=0.95)
    options = Options(language="en", longform=strict)
    found = drive(chunked(Ramp(45.0), Numbers(), options, 15.0, 1), hear)
    assert len(found.text.split()) == 45


def test_chunks_overlap_by_two_strides_and_stop_when_all_is_heard():
    asked: list[tuple[float, float]] = []

    def note(window: Window) -> Heard:
        asked.append((float(window.samples[0]) - 1, len(window.samples) / SAMPLE_RATE))
        return by_second(window)

    options = Options(language="en", longform=LongformConfig(stride_seconds=2.0))
    drive(chunked(Ramp(35.0), Numbers(), options, 15.0, 2), note)
    assert asked == [pytest.approx(pair, abs=1e-3) for pair in ((0, 15), (11, 15), (22, 13))]


def test_chunks_that_would_never_advance_are_refused():
    options = Options(language="en", longform=LongformConfig(stride_seconds=5.0))
    with pytest.raises(ValueError, match="below half a chunk of 10.0 s"):
        drive(chunked(Ramp(35.0), Numbers(), options, 10.0, 2))


def test_the_language_is_settled_by_the_first_window_before_others_are_asked_for():
    asked: list[list[str | None]] = []
    job = chunked(Ramp(100.0), Numbers(), Options(), 15.0, 4)
    windows = next(job)
    try:
        while True:
            asked.append([window.language for window in windows])
            heard = by_second(windows[0])
            answer = Heard(tokens=heard.tokens, text="", language="nl", language_probability=0.7)
            windows = job.send([answer] * len(windows))
    except StopIteration as stop:
        transcript = stop.value
    assert asked[:2] == [[None], ["nl"] * 4]
    assert (transcript.language, transcript.language_probability) == ("nl", 0.7)


@pytest.mark.parametrize(
    ("is_student", "given", "expected"),
    [(False, None, 30.0), (True, None, 15.0), (True, 25.0, 25.0), (False, 12.0, 12.0)],
)
def test_a_chunk_is_as_long_as_suits_the_model(
    is_student: bool, given: float | None, expected: float
):
    longform = LongformConfig(chunk_seconds=given)
    config = TranscribeConfig(files=["a"], model="m", mode="chunked", longform=longform)
    model: Any = SimpleNamespace(is_student=is_student)
    assert chunk_seconds(model, config.longform) == expected


@pytest.mark.parametrize("mode", ["sequential", "chunked"])
def test_an_hour_needs_no_more_memory_than_twenty_minutes(mode: Any, tmp_path: Path):
    class Constant(Counting):
        is_student, name = False, "constant"

        def hear(self, windows: list[Window]) -> list[Heard]:
            self.sizes.append(len(windows))
            return [Heard(tokens=(FIRST, 1, FIRST + 1500), text=" 1", language="en")] * len(windows)

    def peak(minutes: int) -> tuple[int, int]:
        path = tmp_path / f"{minutes}.wav"
        with soundfile.SoundFile(path, "w", SAMPLE_RATE, 1, "PCM_16") as file:
            for _ in range(minutes):
                file.write(make_audio(60.0))
        recognizer: Any = Constant()
        config = TranscribeConfig(files=[str(path)], model="m", mode=mode, language="en")
        recording = Recording(name="a", source=str(path), output_name=Path("a"))
        tracemalloc.start()
        job = make_job(recording, recognizer, config, Meter(num_recordings=1))
        ((_, result),) = run([job], recognizer, config.batch_size)
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert isinstance(result, Transcript)
        assert result.duration_seconds == pytest.approx(60.0 * minutes, abs=0.03)
        return most, sum(recognizer.sizes)

    (short_peak, few), (long_peak, many) = peak(20), peak(60)
    assert many > 2.5 * few
    assert long_peak < 1.1 * short_peak


@pytest.mark.parametrize("mode", ["short", "sequential", "chunked"])
def test_a_model_without_timestamps_is_asked_for_none_whatever_the_format(
    tmp_path: Path, mode: Any
):
    class Deaf:
        vocabulary, is_student = Numbers(), False

    soundfile.write(tmp_path / "a.wav", make_audio(3.0), SAMPLE_RATE)
    recording = Recording(name="a", source=str(tmp_path / "a.wav"), output_name=Path("a"))
    recognizer: Any = Deaf()
    for wanted in (False, True):
        config = TranscribeConfig(
            files=["a"], model="m", mode=mode, format="txt,srt", language="en",
            longform=LongformConfig(timestamps=wanted),
        )  # fmt: skip
        job = make_job(recording, recognizer, config, Meter(num_recordings=1))
        (window,) = next(job)
        assert window.timestamps == wanted
        with pytest.raises(StopIteration) as ended:
            job.send([Heard(tokens=(1, 2), text=" 1 2", language="en")])
        (segment,) = ended.value.value.segments
        assert (segment.start, segment.end, segment.text) == (0.0, 3.0, "1 2")


@pytest.mark.parametrize("middle", ["silent", "wordless"])
def test_chunks_that_are_no_neighbours_are_not_joined_though_their_words_agree(middle: str):
    class Gap(Ramp):
        def read(self, start: int, num_samples: int) -> np.ndarray:
            samples = super().read(start, num_samples)
            inside = (samples - 1 >= 10) & (samples - 1 < 25)
            return np.where(inside & (middle == "silent"), 0, samples).astype(np.float32)

    said = iter([(7, 8), (7, 8, 5)] if middle == "silent" else [(7, 8), (), (7, 8, 5)])
    options = Options(language="en", longform=LongformConfig(stride_seconds=2.5))
    found = drive(
        chunked(Gap(35.0), Numbers(), options, 15.0, 1),
        lambda _window: Heard(tokens=next(said), text="", language="en"),
    )
    assert found.text == "7 8 7 8 5"


def test_only_speech_is_heard_where_regions_say_so():
    regions = [(20 * SAMPLE_RATE, 24 * SAMPLE_RATE), (80 * SAMPLE_RATE, 83 * SAMPLE_RATE)]
    options = Options(language="en", regions=regions)
    expected = [20, 21, 22, 23, 80, 81, 82]
    for job in (
        sequential(Ramp(100.0), Numbers(), options),
        chunked(Ramp(100.0), Numbers(), options, 15.0, 4),
    ):
        assert [int(word) for word in drive(job).text.split()] == expected


def test_unfinished_text_is_left_to_the_next_window_but_not_by_the_only_one():
    def cut_off(window: Window) -> Heard:
        tokens = (FIRST, 1, FIRST + 100, FIRST + 100, 2)
        return Heard(tokens=tokens, text=" 1 2", language="en")

    one = drive(short(Ramp(10.0), Numbers(), Options(language="en", timestamps=True)), cut_off)
    assert one.text == "1 2"
    windows = []
    job = sequential(Ramp(4.5), Numbers(), Options(language="en"))
    windows += next(job)
    windows += job.send([cut_off(windows[0])])
    assert float(windows[1].samples[0]) - 1 == pytest.approx(2.0, abs=1e-3)


@pytest.mark.parametrize("algorithm", [short, sequential])
def test_text_that_begins_late_and_never_closes_is_kept_to_the_end_of_the_window(algorithm: Any):
    def unclosed(window: Window) -> Heard:
        return Heard(tokens=(FIRST + 20, 1, 2), text=" 1 2", language="en")

    options = Options(language="en", timestamps=True)
    (segment,) = drive(algorithm(Ramp(10.0), Numbers(), options), unclosed).segments
    assert (segment.start, segment.end, segment.text) == (0.4, 10.0, "1 2")


def test_no_segment_begins_before_its_window_though_no_time_comes_first():
    def untimed(window: Window) -> Heard:
        tokens = (1, FIRST + 100, FIRST + 100, 2, FIRST + 200)
        return Heard(tokens=tokens, text=" 1 2", language="en")

    found = drive(sequential(Ramp(10.0), Numbers(), Options(language="en")), untimed).segments
    assert [(s.start, s.end, s.text) for s in found] == [(0.0, 2.0, "1"), (2.0, 4.0, "2")]


def test_text_that_looks_wrong_is_tried_at_higher_temperatures():
    asked = []

    def unsure(window: Window) -> Heard:
        asked.append(window.temperature)
        logprob = -0.5 if window.temperature >= 0.4 else -2.0
        return Heard(tokens=(1,), text=" 1", avg_logprob=logprob, temperature=window.temperature)

    drive(sequential(Ramp(10.0), Numbers(), Options(language="en")), unsure)
    assert asked == [0.0, 0.2, 0.4]


def test_a_loop_is_tried_again_and_silence_is_not():
    asked = []

    def hear(window: Window) -> Heard:
        asked.append(window.temperature)
        if len(asked) < 3:
            return Heard(tokens=(1,) * 60, text=" 1" * 60, avg_logprob=-0.1)
        return Heard(tokens=(5,), text=" 5", avg_logprob=-2.0, no_speech_prob=0.9)

    transcript = drive(sequential(Ramp(10.0), Numbers(), Options(language="en")), hear)
    assert asked == [0.0, 0.2, 0.4]
    assert transcript.text == ""


@pytest.mark.parametrize(("condition", "expected"), [(True, [(), (1,), (1, 1)]), (False, [()] * 3)])
def test_previous_text_is_given_only_where_asked_for(condition: bool, expected: list[Any]):
    previous = []

    def hear(window: Window) -> Heard:
        previous.append(window.previous)
        return Heard(tokens=(FIRST, 1, FIRST + 1000), text=" 1", language="en")

    longform = LongformConfig(condition_on_previous=condition)
    drive(sequential(Ramp(80.0), Numbers(), Options(language="en", longform=longform)), hear)
    assert previous == expected


def test_no_window_is_heard_of_a_recording_without_any_sound():
    class Silence(Ramp):
        def read(self, start: int, num_samples: int) -> np.ndarray:
            return super().read(start, num_samples) * 0

    def never(window: Window) -> Heard:
        raise AssertionError("silence was heard")

    for algorithm in (short, sequential):
        assert drive(algorithm(Silence(20.0), Numbers(), Options()), never).text == ""
    assert drive(chunked(Silence(70.0), Numbers(), Options(), 15.0, 4), never).text == ""


def test_a_model_that_never_advances_does_not_hang():
    def stuck(window: Window) -> Heard:
        return Heard(tokens=(FIRST, 1, FIRST, FIRST), text=" 1", language="en")

    drive(sequential(Ramp(65.0), Numbers(), Options(language="en")), stuck)


class Counting:
    """A recognizer that notes the size of its batches."""

    vocabulary = Numbers()

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def hear(self, windows: list[Window]) -> list[Heard]:
        self.sizes.append(len(windows))
        return [by_second(window) for window in windows]


def test_windows_of_many_recordings_share_batches_and_results_keep_their_numbers():
    lengths = [3.0, 70.0, 8.0, 100.0, 5.0, 2.0]
    recognizer: Any = Counting()
    jobs = (
        (short if seconds <= 30 else sequential)(Ramp(seconds), Numbers(), Options(language="en"))
        for seconds in lengths
    )
    results = dict(run(jobs, recognizer, 4))
    for number, seconds in enumerate(lengths):
        result = results[number]
        assert isinstance(result, Transcript)
        assert len(result.text.split()) == int(seconds)
    assert max(recognizer.sizes) == 4


def test_a_recording_that_fails_does_not_stop_the_others():
    def broken() -> Job:
        raise ValueError("damaged")
        yield []

    recognizer: Any = Counting()
    good = (short(Ramp(3.0), Numbers(), Options(language="en")) for _ in range(2))
    results = dict(run(iter([next(good), broken(), next(good)]), recognizer, 2))
    assert str(results[1]) == "damaged"
    assert [type(results[number]) for number in (0, 2)] == [Transcript, Transcript]


@given(
    st.lists(st.integers(0, 5), max_size=12),
    st.lists(st.integers(0, 500), min_size=2, max_size=12, unique=True),
    st.lists(st.integers(50, 55), max_size=12),
)
def test_a_joint_lies_within_what_both_sides_say(before, common, after):
    common = [token + 100 for token in common]
    stop, begin = find_join(before + common, common + after)
    assert (before + common)[:stop] + (common + after)[begin:] == before + common + after


def test_sides_without_a_common_run_are_both_kept():
    assert find_join([1, 2, 3], [4, 2, 5]) == (3, 0)


def test_neighbouring_speech_shares_a_chunk_while_it_fits():
    assert merge_regions([(0, 4), (6, 9), (11, 30), (31, 33)], 10) == [(0, 9), (11, 30), (31, 33)]


def test_the_warp_finds_the_frames_of_each_token():
    cost = np.ones((3, 9))
    cost[0, :2] = cost[1, 2:7] = cost[2, 7:] = -1
    assert warp(cost).tolist() == [0, 2, 7]


TRANSCRIPT = Transcript(
    text="one --> two", language="en", language_probability=1.0, duration_seconds=4000.0,
    segments=(
        TranscriptSegment(start=0.0, end=1.5, text="one -->"),
        TranscriptSegment(
            start=3661.25, end=3662.0, text="two",
            words=(Word(start=3661.5, end=3661.9, text="two"),),
        ),
    ),
)  # fmt: skip


def test_subtitles_have_the_clocks_of_their_formats():
    srt, vtt, tsv = (render(TRANSCRIPT, kind) for kind in ("srt", "vtt", "tsv"))
    assert srt == (
        "1\n00:00:00,000 --> 00:00:01,500\none ->\n\n2\n01:01:01,500 --> 01:01:01,900\ntwo\n\n"
    )
    assert vtt.startswith("WEBVTT\n\n00:00:00.000 --> 00:00:01.500\none ->\n\n")
    assert tsv == "start\tend\ttext\n0\t1500\tone ->\n3661500\t3661900\ttwo\n"


def test_words_in_subtitles_have_the_spaces_of_the_text_and_no_other():
    def cues(text: str, words: list[str]) -> list[str]:
        timed = [Word(start=i, end=i + 1.0, text=word) for i, word in enumerate(words)]
        segment = TranscriptSegment(start=0.0, end=len(words), text=text, words=tuple(timed))
        found = Transcript(
            text=text, language="ja", language_probability=1.0, duration_seconds=9.0,
            segments=(segment,),
        )  # fmt: skip
        return [line.split("\t")[2] for line in render(found, "tsv").splitlines()[1:]]

    assert cues("今日は Open AI です。", ["今", "日", "は", "Open", "AI", "で", "す。"]) == [
        "今日は Open AI です。"
    ]
    assert cues("so it goes, on", ["so", "it", "goes,", "on"]) == ["so it goes, on"]
    assert cues("時間" * 30, ["時間"] * 30) == ["時間" * 21, "時間" * 9]
    assert cues("not the words", ["other", "words"]) == ["other words"]


def test_json_holds_text_segments_and_words():
    found = json.loads(render(TRANSCRIPT, "json"))
    assert found["text"] == "one --> two"
    assert found["segments"][1]["words"] == [{"start": 3661.5, "end": 3661.9, "text": "two"}]

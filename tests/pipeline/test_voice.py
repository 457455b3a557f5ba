import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from pipeline.audio import load_audio
from pipeline.clips import Span
from pipeline.schema import EMBEDDED_FOLDER
from pipeline.voice import FRAME_SECONDS, cut, find_speech, pad, speech, speech_probabilities
from tests.pipeline.test_clips import utterance

PROBABILITIES = npst.arrays(np.float32, st.integers(0, 400), elements=st.floats(0, 1, width=32))


@given(PROBABILITIES, st.integers(12, 100))
def test_cuts_are_in_order_apart_and_short_enough(probabilities, max_frames):
    found = speech(probabilities)
    cuts = pad(cut(found, probabilities, max_frames), max_frames, len(probabilities))
    ends = [0]
    for first, last in cuts:
        assert ends[-1] <= first < last <= len(probabilities)
        assert last - first <= max_frames
        ends.append(last)


@given(PROBABILITIES)
def test_no_speech_is_cut_away(probabilities):
    found = speech(probabilities)
    kept = np.zeros(len(probabilities), dtype=bool)
    for first, last in cut(found, probabilities, 50):
        kept[first:last] = True
    assert all(kept[first:last].all() for first, last in found)


@given(PROBABILITIES, st.integers(12, 100))
def test_no_speech_is_padded_away(probabilities, max_frames):
    cuts = cut(speech(probabilities), probabilities, max_frames)
    for (first, last), (low, high) in zip(
        cuts, pad(cuts, max_frames, len(probabilities)), strict=True
    ):
        assert low <= first < last <= high


def test_a_span_as_long_as_the_limit_keeps_its_end():
    assert pad([(10, 60)], 50, 100) == [(10, 60)]
    assert pad([(10, 59)], 50, 100) == [(9, 59)]
    assert pad([(10, 40)], 50, 100) == [(7, 43)]


def frames(*stretches: tuple[float, float]) -> np.ndarray:
    """Probabilities by (seconds, probability)."""
    return np.concatenate([np.full(round(s / FRAME_SECONDS), p, "f4") for s, p in stretches])


def test_short_pauses_do_not_end_speech_and_clicks_are_none():
    pause = frames((1, 0.9), (0.2, 0.1), (1, 0.9))
    assert speech(pause) == [(0, len(pause))]
    assert speech(frames((1, 0.1), (0.1, 0.9), (1, 0.1))) == []
    assert len(speech(frames((1, 0.9), (0.5, 0.1), (1, 0.9)))) == 2


def test_speech_goes_on_at_a_probability_at_which_it_would_not_begin():
    assert speech(frames((1, 0.9), (1, 0.4))) == [(0, 62)]
    assert speech(frames((1, 0.4))) == []


def test_long_speech_is_cut_where_it_is_least_likely():
    probabilities = frames((50, 0.9))
    probabilities[800] = 0.6
    assert cut([(0, len(probabilities))], probabilities, 937)[0] == (0, 801)


def test_neighbours_are_joined_over_short_pauses_only():
    second = round(1 / FRAME_SECONDS)
    stretches = [(0, second), (2 * second, 3 * second), (6 * second, 7 * second)]
    assert cut(stretches, np.zeros(300), 937) == [(0, 3 * second), (6 * second, 7 * second)]


def test_real_utterances_are_found_between_silences(tmp_path: Path):
    lines = [json.loads(line) for line in (EMBEDDED_FOLDER / "test.jsonl").open()]
    parts, truth, seconds = [], [], 0.0
    for line in [x for x in lines if x["condition"] == "clean"][:6]:
        audio = load_audio(
            EMBEDDED_FOLDER / line["audio_filepath"], line["offset"], line["duration"]
        )
        parts += [audio, np.zeros(3 * 16_000, dtype=np.float32)]
        truth.append((seconds, seconds + audio.size / 16_000))
        seconds += audio.size / 16_000 + 3
    path = tmp_path / "long.wav"
    soundfile.write(path, np.concatenate(parts), 16_000)
    whole = utterance(path, duration=seconds)
    found = find_speech(Span(utterance=whole, start_seconds=0, duration_seconds=seconds), 30.0)
    spans = [(s.start_seconds, s.start_seconds + s.duration_seconds) for s in found]
    assert len(spans) == len(truth)
    assert np.abs(np.array(spans) - np.array(truth)).max() < 0.4


def test_threads_hear_what_one_alone_hears(tmp_path: Path):
    lines = [json.loads(line) for line in (EMBEDDED_FOLDER / "test.jsonl").open()][:4]
    spans = [
        Span(
            utterance=utterance(EMBEDDED_FOLDER / line["audio_filepath"]),
            start_seconds=line["offset"],
            duration_seconds=line["duration"],
        )
        for line in lines
    ]

    def hear(span: Span) -> list[float]:
        return list(speech_probabilities(span))

    alone = list(map(hear, spans))
    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(hear, spans)) == alone


def test_noise_has_no_speech(tmp_path: Path):
    rng = np.random.default_rng(0)
    soundfile.write(tmp_path / "noise.wav", rng.normal(0, 0.05, 16_000 * 35), 16_000)
    noise = utterance(tmp_path / "noise.wav", duration=35.0)
    assert find_speech(Span(utterance=noise, start_seconds=0, duration_seconds=35.0), 30.0) == []


@pytest.mark.parametrize("start", [0.0, 1.5])
def test_a_recording_that_ends_before_its_header_says_is_cut_there(tmp_path: Path, start: float):
    soundfile.write(tmp_path / "a.wav", np.zeros(16_000 * 3), 16_000)
    short = utterance(tmp_path / "a.wav", duration=90.0)
    span = Span(utterance=short, start_seconds=start, duration_seconds=90.0)
    assert find_speech(span, 30.0) == []

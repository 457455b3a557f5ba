"""Noise at the ratio that was asked for, and text that repeats itself."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.hallucination import find_loops, longest_loop, non_speech, repeated_ngrams
from distill.robustness import Noise, add_noise, pub_noise
from pipeline.schema import SAMPLE_RATE
from tests.distill.material import make_audio


@settings(deadline=None, max_examples=20)
@given(snr=st.floats(-10, 40), kind=st.sampled_from(["white", "pub"]), seconds=st.floats(0.1, 2.0))
def test_noise_has_the_ratio_that_was_asked_for(snr: float, kind: str, seconds: float):
    speech = 0.01 * make_audio(seconds).astype(np.float64)  # so quiet that nothing is clipped
    added = add_noise(speech, Noise(kind), snr, "clip", 0) - speech
    found = 10 * np.log10(np.mean(speech**2) / np.mean(added**2))
    assert found == pytest.approx(snr, abs=0.01)


def test_a_mixture_that_would_be_clipped_is_turned_down():
    mixed = add_noise(make_audio(1.0), Noise("white"), -10.0, "clip", 0)
    assert np.abs(mixed).max() == pytest.approx(1.0)


def test_noise_is_the_same_again_and_another_for_another_clip_or_seed():
    speech, noise = make_audio(1.0), Noise("pub")
    first = add_noise(speech, noise, 5.0, "a", 0)
    assert np.array_equal(first, add_noise(speech, noise, 5.0, "a", 0))
    assert not np.array_equal(first, add_noise(speech, noise, 5.0, "b", 0))
    assert not np.array_equal(first, add_noise(speech, noise, 5.0, "a", 1))


def test_a_pub_sounds_low_and_uneven():
    noise = pub_noise(4 * SAMPLE_RATE, 0)
    spectrum = np.abs(np.fft.rfft(noise)) ** 2
    hertz = np.fft.rfftfreq(len(noise), 1 / SAMPLE_RATE)
    assert spectrum[hertz < 1500].sum() > 0.7 * spectrum.sum()
    assert np.mean(noise**2) == pytest.approx(1.0)


def test_a_folder_of_noise_is_used_and_an_empty_one_refused(tmp_path: Path):
    with pytest.raises(ValueError, match="neither white, pub, nor a folder"):
        Noise(str(tmp_path))
    soundfile.write(tmp_path / "hum.wav", make_audio(0.3), SAMPLE_RATE)
    assert np.mean(Noise(str(tmp_path)).make(SAMPLE_RATE, 1) ** 2) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("text", "repeated", "loop"),
    [
        ("a b c d e f", 0, 0),
        ("a a a a a a", 1, 5),
        ("x a b c a b c a b c y", 2, 6),
        ("thank you thank you", 0, 2),
        ("", 0, 0),
    ],
)
def test_loops_are_counted(text: str, repeated: int, loop: int):
    assert repeated_ngrams(text.split()) == repeated
    assert longest_loop(text.split()) == loop


def test_what_the_reference_repeats_is_not_held_against_a_model():
    song = ["la"] * 16
    found = find_loops(["a", "b"], [song, ["one"]], [song, ["no"] * 9])
    assert found.repeated_five_grams == 4
    assert (found.recordings_with_loops, found.longest_loop, found.longest_loop_id) == (1, 8, "b")


def test_sounds_without_speech_are_the_same_each_time():
    first, again = non_speech(3), non_speech(3)
    assert set(first) == {"silence", "white", "babble", "music"}
    for kind, samples in first.items():
        assert np.array_equal(samples, again[kind])
        assert samples.dtype == np.float32
        assert np.abs(samples).max() <= 1.0

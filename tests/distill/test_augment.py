from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given
from hypothesis import strategies as st

from distill.augment import (
    at_speed,
    change_sound,
    cut_noise,
    draw_speed,
    mask_features,
    mix,
    noise_files,
)
from distill.data_config import AugmentConfig
from tests.distill.material import make_audio, make_sample


@given(snr=st.floats(-10, 40))
def test_noise_is_mixed_at_the_ratio_asked_for(snr: float):
    audio, noise = make_audio(0.5), np.random.default_rng(1).normal(0, 3, 8000).astype(np.float32)
    added = mix(audio, noise, snr).astype(np.float64) - audio
    found = 10 * np.log10(np.mean(np.square(audio, dtype=np.float64)) / np.mean(added**2))
    assert found == pytest.approx(snr, abs=0.05)


@pytest.mark.parametrize("silent", ["audio", "noise"])
def test_silence_has_no_ratio_and_stays_without_noise(silent: str):
    sounds = {"audio": make_audio(0.1), "noise": make_audio(0.1, 3)}
    sounds[silent] = np.zeros(1600, np.float32)
    assert np.array_equal(mix(sounds["audio"], sounds["noise"], 10.0), sounds["audio"])


def test_a_short_noise_goes_round(monkeypatch: pytest.MonkeyPatch):
    class First:
        def randrange(self, _size: int) -> int:
            return 2

    found = cut_noise(np.arange(3, dtype=np.float32), 5, First())  # pyright: ignore
    assert found.tolist() == [2, 0, 1, 2, 0]


def test_noises_are_found_below_the_folder_and_drawn_by_the_key(tmp_path: Path):
    for number in range(3):
        path = tmp_path / "noise" / f"part-{number}" / "n.wav"
        path.parent.mkdir(parents=True)
        soundfile.write(path, make_audio(0.3, number + 5), 16000)
    config = AugmentConfig(noise=str(tmp_path), noise_probability=1.0)
    assert len(noise_files(str(tmp_path))) == 3
    audio = make_audio(0.5)
    one, again, other = (change_sound(audio, config, 1.0, key) for key in ("a", "a", "b"))
    assert np.array_equal(one, again)
    assert not np.array_equal(one, other)
    assert not np.array_equal(one, audio)
    assert one.dtype == np.float32
    never = AugmentConfig(noise=str(tmp_path), noise_probability=0.0)
    assert change_sound(audio, never, 1.0, "a") is audio


def test_a_folder_without_noises_is_refused(tmp_path: Path):
    with pytest.raises(ValueError, match="no sound file lies in it"):
        noise_files(str(tmp_path))


def test_a_faster_clip_is_shorter_in_sound_and_in_all_its_times():
    audio = make_audio(2.0)
    found = change_sound(audio, AugmentConfig(), 1.25, "a")
    assert found.size == pytest.approx(audio.size / 1.25, abs=1)
    sample = at_speed(make_sample(seconds=2.0), 1.25)
    assert sample.duration_seconds == pytest.approx(1.6)
    assert sample.segments[0].end == pytest.approx(1.6)
    assert sample.utterances[0].duration == pytest.approx(1.6)


@given(seconds=st.floats(0.1, 30.0), key=st.text(max_size=5))
def test_a_clip_is_never_slowed_beyond_30_seconds(seconds: float, key: str):
    config = AugmentConfig(speed_probability=1.0, min_speed=0.5, max_speed=1.5)
    speed = draw_speed(config, seconds, key)
    assert seconds / speed <= 30.0
    assert draw_speed(config, seconds, key) == speed
    assert draw_speed(AugmentConfig(), seconds, key) == 1.0


def test_named_speeds_are_the_only_ones_and_all_of_them_come():
    config = AugmentConfig(speed_probability=0.5, speeds=[0.9, 1.1])
    drawn = [draw_speed(config, 5.0, f"clip-{n}") for n in range(200)]
    assert set(drawn) == {0.9, 1.0, 1.1}
    assert 60 < drawn.count(1.0) < 140
    too_long_for_slow = {draw_speed(config, 28.0, f"clip-{n}") for n in range(200)}
    assert too_long_for_slow == {1.0, 1.1}


def test_masks_cover_the_clip_and_not_the_silence_behind_it():
    features = torch.randn(80, 400)
    masked = features.clone()
    config = AugmentConfig(time_masks=2, mel_masks=2)
    mask_features(masked, 2.0, config, "a")
    changed = masked != features
    assert 0 < changed.sum() < 0.8 * 80 * 200
    assert not changed[:, 200:].any()
    assert masked[changed].unique().numel() == 1
    again = features.clone()
    mask_features(again, 2.0, config, "a")
    assert torch.equal(masked, again)


@given(seconds=st.floats(0.01, 40.0), masks=st.integers(0, 5), key=st.text(max_size=3))
def test_masks_fit_clips_of_any_length(seconds: float, masks: int, key: str):
    features = torch.zeros(80, 300)
    mask_features(features, seconds, AugmentConfig(time_masks=masks, mel_masks=masks), key)
    assert features.isfinite().all()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"time_masks": -1}, "time_masks is -1"),
        ({"noise_probability": 1.5}, "noise_probability is 1.5"),
        ({"min_speed": 0.0}, "min_speed is 0.0"),
        ({"speeds": [0.9, -1.0]}, "speeds is .0.9, -1.0."),
        ({"min_speed": 1.2}, "in this order"),
        ({"min_snr_db": 40.0}, "above max_snr_db"),
    ],
)
def test_changes_that_cannot_be_are_refused(fields: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        AugmentConfig(**fields)

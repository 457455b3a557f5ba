import numpy as np
import pytest
import transformers

from pipeline.features import MAX_FRAMES, log_mel, log_mels

RATE = 16_000


def sound(seconds: float, seed: int = 0) -> np.ndarray:
    """Noise that comes and goes, with a tone."""
    time = np.arange(round(seconds * RATE)) / RATE
    noise = np.random.default_rng(seed).normal(size=len(time)) * np.abs(np.sin(3 * time))
    return (0.1 * noise + 0.1 * np.sin(2 * np.pi * 440 * time)).astype(np.float32)


@pytest.mark.parametrize("num_mels", [80, 128])
@pytest.mark.parametrize("seconds", [0.005, 0.1, 3.21, 29.995, 30.0])
def test_features_are_those_of_transformers(num_mels: int, seconds: float):
    clip = sound(seconds)
    extractor = transformers.WhisperFeatureExtractor(feature_size=num_mels)
    expected = extractor(clip, sampling_rate=RATE, return_tensors="np").input_features[0]
    found = log_mel(clip, num_mels=num_mels)
    assert found.dtype == np.float32
    assert found.shape == (num_mels, MAX_FRAMES)
    assert np.abs(found - expected).max() < 2e-3
    assert np.abs(found - expected).mean() < 1e-5


def test_silence_is_flat():
    found = log_mel(np.zeros(RATE, np.float32), num_mels=80)
    assert np.ptp(found) == 0
    assert found[0, 0] == pytest.approx(-1.5)


def test_no_samples_are_silence():
    silence = log_mel(np.zeros(RATE, np.float32), num_mels=80)
    assert np.array_equal(log_mel(np.zeros(0, np.float32), num_mels=80), silence)


def test_a_short_window_is_the_beginning_of_a_long_one():
    clip = sound(2.0)
    short = log_mel(clip, num_mels=80, num_frames=300)
    assert short == pytest.approx(log_mel(clip, num_mels=80)[:, :300], abs=1e-6)


def test_a_batch_is_its_clips_cut_to_the_window():
    clips = [sound(0.5), sound(2.5, seed=1), sound(2.0)]
    batch = log_mels(clips, num_mels=80, num_frames=200)
    assert batch.shape == (3, 80, 200)
    for found, clip in zip(batch, clips, strict=True):
        assert np.array_equal(found, log_mel(clip[: 2 * RATE], num_mels=80, num_frames=200))


@pytest.mark.parametrize("shape", [(30 * RATE + 1,), (2, 100)])
def test_clip_that_does_not_fit_is_refused(shape: tuple[int, ...]):
    with pytest.raises(ValueError, match="a clip must be one row of at most 480000 samples"):
        log_mel(np.zeros(shape, np.float32), num_mels=80)

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pipeline.audio import AudioError, decode_flac, encode_flac, load_audio, probe
from pipeline.schema import MAX_CLIP_SAMPLES, SAMPLE_RATE


def tone(seconds: float, rate: int = SAMPLE_RATE, hertz: float = 440.0) -> np.ndarray:
    time = np.arange(round(seconds * rate)) / rate
    return (0.5 * np.sin(2 * np.pi * hertz * time)).astype(np.float32)


@pytest.mark.parametrize("rate", [8_000, 11_025, 16_000, 22_050, 44_100, 48_000])
def test_thirty_seconds_at_any_rate_are_exactly_one_clip(tmp_path, rate):
    soundfile.write(tmp_path / "a.wav", tone(30.0, rate), rate)
    samples = load_audio(tmp_path / "a.wav", duration_seconds=30.0)
    assert samples.shape == (MAX_CLIP_SAMPLES,)
    assert samples.dtype == np.float32
    assert load_audio(tmp_path / "a.wav").size == MAX_CLIP_SAMPLES


def test_resampling_keeps_the_sound(tmp_path):
    soundfile.write(tmp_path / "a.wav", tone(1.0, 44_100), 44_100, subtype="FLOAT")
    samples = load_audio(tmp_path / "a.wav")
    assert np.abs(samples - tone(1.0))[200:-200].max() < 1e-3


@pytest.mark.parametrize(
    ("kind", "subtype"),
    [("WAV", "PCM_16"), ("FLAC", "PCM_24"), ("OGG", "OPUS"), ("OGG", "VORBIS"), ("MP3", None)],
)
def test_a_span_is_the_same_piece_of_the_recording_in_every_format(tmp_path, kind, subtype):
    noise = np.random.default_rng(0).normal(0, 0.1, 4 * SAMPLE_RATE)
    soundfile.write(tmp_path / "a", noise, SAMPLE_RATE, format=kind, subtype=subtype)
    whole = load_audio(tmp_path / "a")
    span = load_audio(tmp_path / "a", start_seconds=1.25, duration_seconds=1.5)
    assert span.size == 24_000
    assert np.abs(whole[20_000:44_000] - span).max() < 1e-5


def test_channels_are_averaged(tmp_path):
    stereo = np.stack([tone(0.5), -tone(0.5)], axis=1)
    soundfile.write(tmp_path / "a.wav", stereo, SAMPLE_RATE, subtype="FLOAT")
    assert np.abs(load_audio(tmp_path / "a.wav")).max() == 0.0


def test_a_span_that_runs_past_the_end_is_cut_there(tmp_path):
    soundfile.write(tmp_path / "a.wav", tone(2.0), SAMPLE_RATE)
    assert load_audio(tmp_path / "a.wav", 1.5, 10.0).size == SAMPLE_RATE // 2


def test_probe_tells_length_and_rate(tmp_path):
    soundfile.write(tmp_path / "a.flac", np.zeros((11_025, 2)), 22_050)
    info = probe(tmp_path / "a.flac")
    assert (info.duration_seconds, info.sample_rate, info.num_channels) == (0.5, 22_050, 2)


@pytest.mark.parametrize("read", [probe, load_audio])
def test_a_missing_file_is_named(tmp_path, read):
    with pytest.raises(AudioError, match=r"gone\.wav: no such file"):
        read(tmp_path / "gone.wav")


@pytest.mark.parametrize("content", [b"", b"not audio at all", b"RIFF\x00\x00\x00\x00WAVE"])
def test_what_is_no_audio_is_refused(tmp_path, content):
    (tmp_path / "a.wav").write_bytes(content)
    with pytest.raises(AudioError, match=r"a\.wav: (not readable as audio|holds no audio)"):
        load_audio(tmp_path / "a.wav")


def test_a_folder_is_no_audio(tmp_path):
    with pytest.raises(AudioError, match="no such file"):
        load_audio(tmp_path)


def test_a_recording_without_samples_is_refused(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.zeros(0), SAMPLE_RATE)
    with pytest.raises(AudioError, match="holds no audio"):
        probe(tmp_path / "a.wav")


@pytest.mark.parametrize("kind", ["FLAC", "MP3"])
def test_a_file_that_was_cut_off_is_refused(tmp_path, kind):
    soundfile.write(tmp_path / "a", tone(5.0), SAMPLE_RATE, format=kind)
    whole = (tmp_path / "a").read_bytes()
    (tmp_path / "a").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(AudioError, match="damaged audio|cut off"):
        load_audio(tmp_path / "a")


def test_samples_that_are_not_numbers_are_refused(tmp_path):
    samples = tone(0.1)
    samples[7] = np.nan
    soundfile.write(tmp_path / "a.wav", samples, SAMPLE_RATE, subtype="FLOAT")
    with pytest.raises(AudioError, match="not finite"):
        load_audio(tmp_path / "a.wav")


@pytest.mark.parametrize(
    ("start", "duration", "message"),
    [
        (-0.1, 1.0, "must not be negative"),
        (0.0, 0.0, "must be above 0"),
        (float("nan"), None, "must not be negative"),
        (2.0, 1.0, r"the recording ends at 2\.00 s"),
        (0.0, 1e-9, "holds no audio"),
    ],
)
def test_a_span_outside_the_recording_is_refused(tmp_path, start, duration, message):
    soundfile.write(tmp_path / "a.wav", tone(2.0), SAMPLE_RATE)
    with pytest.raises(AudioError, match=message):
        load_audio(tmp_path / "a.wav", start, duration)


@settings(max_examples=30, deadline=None)
@given(arrays(np.float32, st.integers(1, 2000), elements=st.floats(-1.5, 1.5, width=32)))
def test_flac_holds_sixteen_bits_and_does_not_wear_out(samples):
    data = encode_flac(samples)
    decoded = decode_flac(data)
    assert np.abs(decoded - np.clip(samples, -1, 1)).max() <= 1 / 32768
    assert encode_flac(decoded) == data


def test_flac_of_the_longest_clip_loses_no_sample():
    assert decode_flac(encode_flac(tone(30.0))).size == MAX_CLIP_SAMPLES


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (np.zeros(0, np.float32), "holds no audio"),
        (np.zeros((10, 2), np.float32), r"got an array of shape \(10, 2\)"),
        (np.full(10, np.inf, np.float32), "not finite"),
    ],
)
def test_audio_that_no_clip_could_hold_is_not_encoded(samples, message):
    with pytest.raises(AudioError, match=message):
        encode_flac(samples)


def test_damaged_flac_is_refused():
    data = encode_flac(np.random.default_rng(0).normal(0, 0.1, 50_000).astype(np.float32))
    with pytest.raises(AudioError, match="FLAC of 1000 bytes"):
        decode_flac(data[:1000])

import sys

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pipeline.audio import (
    AudioError,
    decode_flac,
    encode_flac,
    load_audio,
    probe,
    stream_audio,
)
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


@pytest.mark.parametrize(
    ("kind", "subtype", "name"),
    [
        ("WAV", "PCM_U8", "a.wav"),
        ("WAV", "PCM_24", "a.wav"),
        ("WAV", "DOUBLE", "a.wav"),
        ("WAV", "ULAW", "a.wav"),
        ("RF64", "PCM_32", "a.wav"),
        ("FLAC", "PCM_S8", "a.flac"),
        ("NIST", "PCM_16", "a.sph"),
        ("NIST", "ULAW", "a.sph"),
        ("OGG", "OPUS", "a.opus"),
        ("AIFF", "PCM_16", "a.aiff"),
    ],
)
def test_formats_and_bit_depths_are_read(tmp_path, kind, subtype, name):
    soundfile.write(tmp_path / name, tone(0.5), SAMPLE_RATE, format=kind, subtype=subtype)
    samples = load_audio(tmp_path / name)
    assert samples.size == SAMPLE_RATE // 2
    assert np.abs(samples - tone(0.5)).mean() < 0.02


@pytest.mark.parametrize("name", ["a.mp3", "a.raw", "a.txt", "a"])
def test_an_extension_that_lies_does_no_harm(tmp_path, name):
    soundfile.write(tmp_path / "a.flac", tone(0.5), SAMPLE_RATE)
    (tmp_path / "a.flac").rename(tmp_path / name)
    assert load_audio(tmp_path / name).size == 8_000


def test_a_channel_can_be_chosen(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.stack([tone(0.5), np.zeros(8_000)], axis=1), 16_000)
    assert np.abs(load_audio(tmp_path / "a.wav", channel=0)).max() > 0.4
    assert np.abs(load_audio(tmp_path / "a.wav", channel=1)).max() == 0
    with pytest.raises(AudioError, match="no channel 2; the recording has 2, counted from 0"):
        load_audio(tmp_path / "a.wav", channel=2)


def test_hundreds_of_channels_are_mixed(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.tile(tone(0.5)[:, None], (1, 300)), SAMPLE_RATE)
    assert np.abs(load_audio(tmp_path / "a.wav") - tone(0.5)).max() < 1e-3


def test_clipped_audio_is_read_as_it_is(tmp_path):
    loud = 8 * tone(0.5)
    soundfile.write(tmp_path / "clipped.wav", loud, SAMPLE_RATE)
    soundfile.write(tmp_path / "beyond.wav", loud, SAMPLE_RATE, subtype="FLOAT")
    assert np.abs(load_audio(tmp_path / "clipped.wav")).max() <= 1
    samples = load_audio(tmp_path / "beyond.wav")
    assert np.abs(decode_flac(encode_flac(samples))).max() <= 1


def test_a_wav_that_holds_less_than_its_header_says_is_cut_off(tmp_path):
    soundfile.write(tmp_path / "a.wav", tone(5.0), SAMPLE_RATE)
    whole = (tmp_path / "a.wav").read_bytes()
    (tmp_path / "a.wav").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(AudioError, match=r"cut off, 2\.5\d s"):
        load_audio(tmp_path / "a.wav")
    assert load_audio(tmp_path / "a.wav", 1.0, 1.0).size == SAMPLE_RATE  # what is there is good


def test_a_wav_that_was_cut_off_is_not_taken_for_a_shorter_one(tmp_path):
    soundfile.write(tmp_path / "a.wav", tone(5.0), SAMPLE_RATE)
    whole = (tmp_path / "a.wav").read_bytes()
    (tmp_path / "a.wav").write_bytes(whole[: len(whole) // 2])
    measured = probe(tmp_path / "a.wav").duration_seconds
    assert measured == pytest.approx(5.0, abs=0.01)
    with pytest.raises(AudioError, match=r"cut off, 2\.\d\d s"):
        load_audio(tmp_path / "a.wav", 0.0, measured)


@pytest.mark.parametrize("size", [0xFFFFFFFF, 0x7FFFFFFF])
def test_a_wav_written_to_a_pipe_has_no_length_and_is_whole(tmp_path, size):
    soundfile.write(tmp_path / "a.wav", tone(1.0), SAMPLE_RATE)
    data = bytearray((tmp_path / "a.wav").read_bytes())
    where = data.index(b"data") + 4
    data[4:8] = data[where : where + 4] = size.to_bytes(4, "little")
    (tmp_path / "a.wav").write_bytes(data)
    assert load_audio(tmp_path / "a.wav").size == SAMPLE_RATE


def flac_with_length(path, num_frames: int) -> None:
    """Write two seconds of FLAC whose header tells another length."""
    soundfile.write(path, tone(2.0), SAMPLE_RATE, format="FLAC")
    data = bytearray(path.read_bytes())
    data[21] = (data[21] & 0xF0) | (num_frames >> 32)
    data[22:26] = (num_frames & 0xFFFFFFFF).to_bytes(4, "big")
    path.write_bytes(data)


def test_a_flac_without_a_length_is_measured(tmp_path):
    flac_with_length(tmp_path / "a.flac", 0)
    assert probe(tmp_path / "a.flac").duration_seconds == 2.0
    assert load_audio(tmp_path / "a.flac").size == 2 * SAMPLE_RATE
    assert load_audio(tmp_path / "a.flac", 1.5, 1.0).size == SAMPLE_RATE // 2
    with pytest.raises(AudioError, match="the span starts at 3"):
        load_audio(tmp_path / "a.flac", 3.0)


def test_a_header_that_promises_a_month_is_refused_without_the_memory_for_it(tmp_path):
    flac_with_length(tmp_path / "a.flac", 2**36 - 1)
    assert probe(tmp_path / "a.flac").duration_seconds > 30 * 24 * 3600
    with pytest.raises(AudioError, match="damaged audio|cut off|longer than"):
        load_audio(tmp_path / "a.flac")


def test_hours_of_silence_in_a_few_bytes_are_refused_and_can_be_streamed(tmp_path):
    with soundfile.SoundFile(tmp_path / "a.flac", "w", 8_000, 1) as file:
        for _ in range(4):
            file.write(np.zeros(8_000 * 1000, np.int16))
    assert (tmp_path / "a.flac").stat().st_size < 200_000
    with pytest.raises(AudioError, match="longer than 3600 s, the most that is decoded at once"):
        load_audio(tmp_path / "a.flac")
    with pytest.raises(AudioError, match="longer than 30 s"):
        load_audio(tmp_path / "a.flac", max_seconds=30)
    assert sum(b.size for b in stream_audio(tmp_path / "a.flac")) == 4000 * SAMPLE_RATE


@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100])
def test_streamed_blocks_joined_are_the_recording(tmp_path, rate):
    noise = np.random.default_rng(0).normal(0, 0.1, (round(7.3 * rate), 2))
    soundfile.write(tmp_path / "a.flac", noise, rate)
    blocks = list(stream_audio(tmp_path / "a.flac", block_seconds=2.0))
    assert [b.size for b in blocks[:-1]] == [2 * SAMPLE_RATE] * 3
    whole, joined = load_audio(tmp_path / "a.flac"), np.concatenate(blocks)
    assert joined.dtype == np.float32
    assert abs(joined.size - whole.size) <= 1
    size = min(joined.size, whole.size)
    assert np.abs(joined[:size] - whole[:size])[: size - 100].max() < 1e-4
    span = np.concatenate(list(stream_audio(tmp_path / "a.flac", 1.0, 2.5, channel=1)))
    assert span.size == round(2.5 * SAMPLE_RATE)


def test_a_stream_finds_damage_where_it_is(tmp_path):
    soundfile.write(tmp_path / "a.flac", np.random.default_rng(0).normal(0, 0.1, 160_000), 16_000)
    data = (tmp_path / "a.flac").read_bytes()
    (tmp_path / "a.flac").write_bytes(data[: len(data) * 3 // 4])
    blocks = stream_audio(tmp_path / "a.flac", block_seconds=1.0)
    with pytest.raises(AudioError, match="damaged audio|cut off"):
        list(blocks)
    with pytest.raises(AudioError, match="no such file"):
        next(stream_audio(tmp_path / "gone.flac"))


def test_a_long_recording_that_was_replaced_is_opened_again(tmp_path):
    path = tmp_path / "a.wav"
    for value in (0.25, 0.5):
        soundfile.write(path, np.full(8_000 * 301, value), 8_000)
        assert load_audio(path, 300.0, 0.5).mean() == pytest.approx(value, abs=0.01)


def test_a_recording_that_may_not_be_read_is_said_so(without_privileges):
    path = without_privileges / "a.wav"
    soundfile.write(path, tone(0.1), SAMPLE_RATE)
    path.chmod(0)
    with pytest.raises(AudioError, match="cannot be opened .Permission denied"):
        load_audio(path)


def test_a_name_that_no_file_can_have_is_an_audio_error():
    with pytest.raises(AudioError, match="cannot be opened"):
        load_audio("a\0b.wav")


def write_m4a(path, seconds: float, rate: int = 44_100) -> None:
    av = pytest.importorskip("av", reason="needs whisper-distillery[video]")
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=rate, layout="mono")
        samples = tone(seconds, rate)[None]
        frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
        frame.sample_rate, frame.pts = rate, 0
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)


def test_m4a_is_read_and_entered_at_any_place(tmp_path):
    write_m4a(tmp_path / "a.m4a", 6.0)
    assert probe(tmp_path / "a.m4a").duration_seconds == pytest.approx(6.0, abs=0.1)
    whole = load_audio(tmp_path / "a.m4a")
    span = load_audio(tmp_path / "a.m4a", 3.0, 1.0)
    assert span.size == SAMPLE_RATE
    assert np.abs(span - whole[48_000:64_000])[200:-200].max() < 0.02
    assert np.abs(whole[16_000:32_000]).max() > 0.3


def test_damaged_m4a_is_refused(tmp_path):
    write_m4a(tmp_path / "a.m4a", 2.0)
    data = (tmp_path / "a.m4a").read_bytes()
    (tmp_path / "a.m4a").write_bytes(data[: len(data) // 2])
    with pytest.raises(AudioError, match=r"a\.m4a: (not readable|damaged|cut off)"):
        load_audio(tmp_path / "a.m4a")


def test_without_pyav_m4a_says_what_to_install(tmp_path, monkeypatch):
    (tmp_path / "a.m4a").write_bytes(b"\0\0\0\x20ftypM4A " + bytes(100))
    monkeypatch.setitem(sys.modules, "av", None)
    monkeypatch.delitem(sys.modules, "pipeline.recordings.movie", raising=False)
    with pytest.raises(AudioError, match=r"pip install 'whisper-distillery\[video\]'"):
        load_audio(tmp_path / "a.m4a")

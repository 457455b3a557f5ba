"""What is decoded in another process is what would be decoded here, whatever becomes of it."""

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import psutil
import pytest

from pipeline import audio, guard
from pipeline.audio import AudioError
from pipeline.guard import CrashError
from tests.pipeline.conftest import write_tone
from tests.pipeline.killing import FAULTS


@pytest.fixture
def tone(tmp_path: Path) -> Path:
    return write_tone(tmp_path / "tone.wav", 3.0, sample_rate=44_100)


@pytest.fixture
def poison(monkeypatch: pytest.MonkeyPatch, tone: Path) -> Path:
    """Let a file crash whatever process opens it, as a decoder in C would."""
    monkeypatch.setenv("PYTHONPATH", str(FAULTS))
    monkeypatch.setenv("FAULT_POISON", "poison.wav")
    return tone.rename(tone.with_name("poison.wav"))


def decoders() -> list[psutil.Process]:
    return [
        child
        for child in psutil.Process().children()
        if child.status() != psutil.STATUS_ZOMBIE and "decoder_process" in " ".join(child.cmdline())
    ]


def test_the_calls_return_what_those_of_audio_do(tone: Path):
    assert guard.probe(tone) == audio.probe(tone)
    heard = guard.load_audio(tone, 0.5, 1.25)
    assert np.array_equal(heard, audio.load_audio(tone, 0.5, 1.25))
    heard[:] = 0  # it is the caller's
    blocks, same = (
        list(kind.stream_audio(tone, 0.5, 2.0, block_seconds=0.4)) for kind in (guard, audio)
    )
    assert list(map(len, blocks)) == list(map(len, same))
    assert np.array_equal(np.concatenate(blocks), np.concatenate(same))


def test_errors_are_those_of_audio(tmp_path: Path, tone: Path):
    (tmp_path / "bad.wav").write_text("this is no audio")
    for path, channel in ((tmp_path / "bad.wav", None), (tmp_path / "gone.wav", None), (tone, 7)):
        with pytest.raises(AudioError) as there:
            audio.load_audio(path, channel=channel)
        with pytest.raises(AudioError) as here:
            guard.load_audio(path, channel=channel)
        assert str(here.value) == str(there.value)
    with pytest.raises(AudioError, match="no such file"):
        list(guard.stream_audio(tmp_path / "gone.wav"))


def test_one_process_serves_call_after_call_and_a_folder_or_setting_that_changed_is_seen(
    tone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    guard.probe(tone)
    before = {child.pid for child in decoders()}
    for _ in range(3):
        guard.probe(tone)
    assert {child.pid for child in decoders()} == before
    monkeypatch.chdir(tmp_path)
    assert guard.probe("tone.wav").duration_seconds == 3.0
    assert {child.pid for child in decoders()} != before


def test_a_process_that_was_ended_by_others_costs_nothing(tone: Path):
    guard.probe(tone)
    for child in decoders():
        child.send_signal(signal.SIGKILL)
        child.wait()
    assert guard.load_audio(tone).size == 48_000


def test_signals_that_end_a_run_do_not_make_a_recording_look_damaged(tone: Path):
    guard.probe(tone)
    (child,) = decoders()
    for number in (signal.SIGINT, signal.SIGTERM):
        child.send_signal(number)
    assert guard.load_audio(tone).size == 48_000
    assert [c.pid for c in decoders()] == [child.pid]


def test_what_crashes_two_processes_is_said_to(poison: Path):
    for call in (guard.load_audio, guard.probe):
        with pytest.raises(CrashError, match="2 processes ended .*SIGSEGV") as crash:
            call(poison)
        assert crash.value.attempts == 2
    with pytest.raises(CrashError, match=r"poison.wav: 1 process ended"):
        list(guard.stream_audio(poison))


def test_the_next_recording_is_read_after_a_crash(poison: Path, tmp_path: Path):
    good = write_tone(tmp_path / "good.wav", 1.0)
    with pytest.raises(CrashError):
        guard.load_audio(poison)
    assert guard.load_audio(good).size == 16_000


def test_a_decoder_that_says_nothing_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    os.mkfifo(tmp_path / "pipe.wav")  # to open it waits for somebody who writes
    monkeypatch.setattr(guard, "PATIENCE_SECONDS", 0.2)
    with pytest.raises(CrashError, match="no answer for 0.2 s"):
        guard.load_audio(tmp_path / "pipe.wav")
    assert decoders() == []


def test_a_stream_that_is_left_does_not_disturb_the_next_call(tone: Path):
    blocks = guard.stream_audio(tone, block_seconds=0.1)
    next(blocks)
    blocks.close()  # type: ignore[attr-defined]
    assert guard.load_audio(tone).size == 48_000


def test_threads_are_served_side_by_side(tmp_path: Path):
    tones = [write_tone(tmp_path / f"{n}.wav", 0.5 + n / 10) for n in range(8)]
    with ThreadPoolExecutor(8) as pool:
        lengths = [heard.size for heard in pool.map(guard.load_audio, tones * 3)]
    assert lengths == [round(16_000 * (0.5 + n / 10)) for n in range(8)] * 3
    assert len(decoders()) <= (os.cpu_count() or 1)


def test_a_process_that_ends_in_the_middle_of_an_answer_costs_one_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    class CutOff(Connection):
        ended = False

        def recv(self) -> object:
            answer = super().recv()
            if isinstance(answer, int) and not CutOff.ended:
                CutOff.ended = True
                time.sleep(0.2)  # a part of the samples is on its way; the rest does not fit
                for child in decoders():
                    child.kill()
            return answer

    long = write_tone(tmp_path / "long.wav", 30.0)
    monkeypatch.setattr(guard, "_idle", [])
    monkeypatch.setattr(guard, "Connection", CutOff)
    assert guard.load_audio(long).size == 480_000
    assert CutOff.ended


def test_a_lost_connection_over_there_is_raised_here_and_the_process_goes_on(
    tone: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("PYTHONPATH", str(FAULTS))
    monkeypatch.setenv("FAULT_OFFLINE", "offline.wav")
    offline = tone.rename(tone.with_name("offline.wav"))
    with pytest.raises(ConnectionResetError, match="by peer"):
        guard.load_audio(offline)
    (child,) = decoders()
    assert guard.load_audio(write_tone(tone, 1.0)).size == 16_000
    assert [c.pid for c in decoders()] == [child.pid]


def test_an_idle_process_that_is_gone_does_not_count_as_a_try(
    poison: Path, monkeypatch: pytest.MonkeyPatch
):
    started = []

    class Counted(guard._Child):
        def __init__(self) -> None:
            started.append(self)
            super().__init__()

    monkeypatch.setattr(guard, "_Child", Counted)
    good = write_tone(poison.with_name("good.wav"), 1.0)
    guard.probe(good)
    for child in decoders():
        child.send_signal(signal.SIGKILL)
        child.wait()
    before = len(started)
    with pytest.raises(CrashError, match="2 processes ended"):
        guard.probe(poison)
    assert len(started) == before + 2

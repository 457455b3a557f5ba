"""The command: which recordings, which outputs, and what happens with bad ones."""

import functools
import io
import json
import shutil
import threading
import time
from collections.abc import Callable
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from transformers import WhisperForConditionalGeneration, WhisperProcessor

from distill.__main__ import main
from distill.arguments import expand
from distill.recognizers import load_recognizer
from distill.recordings import AudioStream, check_output_names, find_recordings
from distill.student import make_student
from distill.transcribe_config import TranscribeConfig
from distill.vad import speech_regions
from distill.whisper_recognizer import WhisperRecognizer
from distill.windows import Window
from pipeline.audio import AudioError, load_audio
from pipeline.schema import EMBEDDED_FOLDER, SAMPLE_RATE
from tests.distill.material import make_audio

Transcribe = Callable[..., int]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three recordings, one of them in a folder and one of 33 s."""
    folder = tmp_path / "recordings"
    (folder / "inner").mkdir(parents=True)
    soundfile.write(folder / "a.wav", make_audio(1.0, 1), SAMPLE_RATE)
    soundfile.write(folder / "b.flac", make_audio(33.0, 2), SAMPLE_RATE)
    soundfile.write(folder / "inner" / "a.wav", make_audio(0.1, 3), SAMPLE_RATE)
    return folder


@pytest.fixture
def transcribe(teacher_folder: Path) -> Transcribe:
    def call(*arguments: object, model: Path = teacher_folder) -> int:
        fixed = ["--device=cpu", "--max_new_tokens=6", "--longform.temperatures=[0.0]"]
        return main(["transcribe", f"--model={model}", *fixed, *map(str, arguments)])

    return call


def test_without_an_output_there_is_one_line_for_each_recording_in_order(
    transcribe: Transcribe, folder: Path, capsys: pytest.CaptureFixture[str]
):
    files = [folder / "b.flac", folder / "a.wav", folder / "inner" / "a.wav"]
    lines = []
    for batch_size in (1, 16):
        assert transcribe("--language=en", f"--batch_size={batch_size}", *files) == 0
        lines.append(capsys.readouterr().out.splitlines())
    assert len(lines[0]) == 3
    assert lines[0] == lines[1]
    assert transcribe("--language=en", "--format=json", *files) == 0
    printed = map(json.loads, capsys.readouterr().out.splitlines())
    assert [line["file"] for line in printed] == list(map(str, files))


def test_a_folder_is_written_with_its_tree_and_gone_on_with(
    transcribe: Transcribe, folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    output = tmp_path / "out"
    arguments = ["--language=en", "--format=txt,json,srt", "--words", f"--output={output}", folder]
    assert transcribe(*arguments) == 0
    written = {str(p.relative_to(output)) for p in output.rglob("*") if p.is_file()}
    names = {f"{n}.{kind}" for n in ("a", "b", "inner/a") for kind in ("txt", "json", "srt")}
    assert written == names | {".transcribe.jsonl"}
    found = json.loads((output / "b.json").read_text())
    assert found["duration_seconds"] == pytest.approx(33.0)
    (output / "b.txt").unlink()
    (output / "a.txt").write_text("untouched")
    assert transcribe(*arguments) == 0
    assert (output / "b.txt").is_file()
    assert (output / "a.txt").read_text() == "untouched"
    assert transcribe(*arguments, "--overwrite") == 0
    assert (output / "a.txt").read_text() != "untouched"


def test_output_of_other_settings_is_refused(
    transcribe: Transcribe, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    arguments = [f"--output={tmp_path}/out", folder / "a.wav"]
    assert transcribe("--language=en", *arguments) == 0
    assert transcribe("--language=de", *arguments) == 1
    error = capsys.readouterr().err
    assert "out/a.txt exists already" in error
    assert 'language (was "en", now "de")' in error
    assert transcribe("--language=de", "--overwrite", *arguments) == 0


def test_a_text_of_standard_input_is_never_taken_for_that_of_another(
    transcribe: Transcribe, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):  # fmt: skip
    for path, code in ((folder / "a.wav", 0), (folder / "b.flac", 1)):
        with path.open("rb") as file:
            monkeypatch.setattr("sys.stdin", io.TextIOWrapper(file))
            assert transcribe("--language=en", f"--output={tmp_path}/out", "-") == code
    assert "standard input, which may be another recording" in capsys.readouterr().err


def test_nothing_is_overwritten_before_the_model_is_there(
    transcribe: Transcribe, folder: Path, tmp_path: Path
):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.txt").write_text("old")
    arguments = ["--overwrite", f"--output={tmp_path}/out", folder / "a.wav"]
    assert transcribe(*arguments, model=tmp_path / "no-model") == 1
    assert transcribe(*arguments, "--language=xx") == 1
    assert (tmp_path / "out" / "a.txt").read_text() == "old"


def test_a_language_that_is_given_by_its_name_is_written_down_by_its_code(
    transcribe: Transcribe, folder: Path, capsys: pytest.CaptureFixture[str]
):
    assert transcribe("--language=German", "--format=json", folder / "a.wav") == 0
    assert json.loads(capsys.readouterr().out)["language"] == "de"


@pytest.mark.parametrize("mode", ["sequential", "chunked"])
def test_a_recording_is_as_long_with_the_detector_as_without(
    transcribe: Transcribe, tmp_path: Path, capsys: pytest.CaptureFixture[str], mode: str
):
    pytest.importorskip("silero_vad")
    speech = load_audio(EMBEDDED_FOLDER / "audio" / "test-000-en-us-f2.opus", 0.4961, 3.3414)
    audio = np.random.default_rng(0).normal(0, 1e-3, 40 * SAMPLE_RATE).astype(np.float32)
    soundfile.write(tmp_path / "none.wav", audio, SAMPLE_RATE)
    audio[2 * SAMPLE_RATE :][: len(speech)] = speech
    soundfile.write(tmp_path / "some.wav", audio, SAMPLE_RATE)
    files = [tmp_path / "none.wav", tmp_path / "some.wav"]
    options = ["--vad", f"--mode={mode}", "--language=en", "--format=json"]
    assert transcribe(*options, *files) == 0
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [one["duration_seconds"] for one in found] == [40.0, 40.0]
    assert [one["num_steps"] > 0 for one in found] == [False, True]


def test_a_stride_is_held_against_the_chunks_of_the_model(
    transcribe: Transcribe, teacher: WhisperForConditionalGeneration, tmp_path: Path, folder: Path,
    processor: WhisperProcessor, capsys: pytest.CaptureFixture[str],
):  # fmt: skip
    student = tmp_path / "student"
    make_student(teacher, decoder_layers=1).save_pretrained(student)
    processor.save_pretrained(student)
    options = ["--mode=chunked", "--language=en", "--longform.stride_seconds=10"]
    assert transcribe(*options, folder / "b.flac") == 0  # of 30 s
    output = ["--overwrite", f"--output={tmp_path}/out"]
    assert transcribe(*options, *output, folder / "b.flac", model=student) == 1
    assert "must be below half a chunk of 15.0 s" in capsys.readouterr().err


@pytest.mark.parametrize("role", ["model", "assistant"])
def test_weights_that_are_cut_off_are_said_of_their_folder(
    transcribe: Transcribe, teacher_folder: Path, tmp_path: Path, folder: Path, role: str,
    capsys: pytest.CaptureFixture[str],
):  # fmt: skip
    damaged = tmp_path / "damaged"
    shutil.copytree(teacher_folder, damaged)
    data = (damaged / "model.safetensors").read_bytes()
    (damaged / "model.safetensors").write_bytes(data[: len(data) // 2])
    options = {"model": damaged} if role == "model" else {}
    given = [f"--assistant={damaged}"] if role == "assistant" else []
    assert transcribe(folder / "a.wav", *given, **options) == 1
    assert f"the weights of {damaged} are damaged or cut off" in capsys.readouterr().err


def test_bad_recordings_are_listed_and_do_not_stop_the_others(
    transcribe: Transcribe, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    (folder / "c.wav").write_bytes(b"")
    (folder / "d.wav").write_text("no audio at all")
    soundfile.write(folder / "e.wav", np.zeros(0, dtype=np.float32), SAMPLE_RATE)
    soundfile.write(folder / "f.wav", np.zeros(SAMPLE_RATE, dtype=np.float32), SAMPLE_RATE)
    (folder / "g.raw").write_bytes(bytes(1000))
    named = [
        folder / "g.raw", folder / "missing.wav",
        "http://127.0.0.1/my talk.mp3", "http://127.0.0.1:port/h.mp3",
    ]  # fmt: skip
    output = tmp_path / "out"
    assert transcribe("--language=en", f"--output={output}", folder, *named) == 1
    error = capsys.readouterr().err
    assert "7 of 11 recordings failed" in error
    for name, reason in {
        "c.wav": "not readable", "d.wav": "not readable", "e.wav": "holds no audio",
        "g.raw": "not readable", "missing.wav": "no such file",
        "my talk.mp3": "control characters", "port/h.mp3": "nonnumeric port",
    }.items():  # fmt: skip
        (line,) = [line for line in error.splitlines() if name in line and ":" in line]
        assert reason in line
    assert (output / "f.txt").read_text() == "\n"
    assert (output / "b.txt").is_file()


def test_a_recording_that_fails_has_its_line_among_those_of_the_others(
    transcribe: Transcribe, folder: Path, capsys: pytest.CaptureFixture[str]
):
    (folder / "broken.wav").write_text("no audio at all")
    files = [folder / "a.wav", folder / "broken.wav", folder / "inner" / "a.wav"]
    assert transcribe("--language=en", *files) == 1
    lines = capsys.readouterr().out.split("\n")
    assert len(lines) == 4
    assert lines[1] == lines[3] == ""
    assert transcribe("--language=en", "--format=json", *files) == 1
    printed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["file"] for line in printed] == list(map(str, files))
    assert ["error" in line for line in printed] == [False, True, False]
    assert "not readable" in printed[1]["error"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing/*.wav"], "no file matches"),
        (["--device=cuda"], "no CUDA device here"),
        (["--language=xx"], "does not know language 'xx'"),
        (["--format=srt"], "needs a folder"),
    ],
)
def test_what_cannot_be_done_is_said(
    transcribe: Transcribe, folder: Path, capsys: pytest.CaptureFixture[str],
    arguments: list[str], message: str,
):  # fmt: skip
    assert transcribe(folder, *arguments) == 1
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    "fields",
    [
        ["format=doc"], ["batch_size=0"], ["longform.chunk_seconds=40"],
        ["longform.stride_seconds=15"], ["mode=short", "vad=true"],
    ],
)  # fmt: skip
def test_bad_settings_are_refused(transcribe: Transcribe, fields: list[str]):
    assert transcribe("x.wav", *[f"--{field}" for field in fields]) == 2


@pytest.mark.parametrize("mode", ["sequential", "chunked"])
def test_an_assistant_changes_no_text(
    teacher: WhisperForConditionalGeneration, teacher_folder: Path, transcribe: Transcribe,
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], mode: str,
):  # fmt: skip
    student = tmp_path / "student"
    make_student(teacher, decoder_layers=1).save_pretrained(student)
    printed = []
    options = [
        "--language=en", f"--mode={mode}", "--max_new_tokens=30",
        "--longform.condition_on_previous", "--longform.temperatures=[0.0,0.4]",
    ]  # fmt: skip
    for extra in ([], [f"--assistant={student}"]):
        assert transcribe(*options, *extra, folder / "b.flac") == 0
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[1]


def test_the_language_that_is_heard_is_the_librarys(teacher_folder: Path):
    model = load_recognizer(str(teacher_folder), device="cpu", max_new_tokens=2)
    assert isinstance(model, WhisperRecognizer)
    samples = [make_audio(2.0, number) for number in range(4)]
    expected = model.model.detect_language(model.extract(samples)).tolist()
    windows = [Window(samples=audio) for audio in samples]
    windows[2] = Window(samples=samples[2], language="de")
    heard = model.hear(windows)
    codes = [model.vocabulary.languages[one.language] for one in heard]
    assert [codes[n] for n in (0, 1, 3)] == [expected[n] for n in (0, 1, 3)]
    assert (heard[2].language, heard[2].language_probability) == ("de", 1.0)
    assert all(0 < heard[n].language_probability < 1 for n in (0, 1, 3))


def test_an_english_model_is_asked_as_it_was_trained_though_its_settings_are_silent(
    teacher: WhisperForConditionalGeneration, processor: WhisperProcessor
):
    settings: Any = teacher.generation_config
    del settings.is_multilingual
    teacher.config.vocab_size = 51864  # of OpenAI's English models
    vocabulary = WhisperRecognizer(teacher, processor, "tiny.en").vocabulary
    assert vocabulary.task("en", False) == [vocabulary.start, vocabulary.no_timestamps]
    assert vocabulary.check_language(None) == "en"


def test_an_assistant_of_another_vocabulary_is_refused(
    transcribe: Transcribe, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    teacher: WhisperForConditionalGeneration,
):  # fmt: skip
    teacher.resize_token_embeddings(2300)
    teacher.save_pretrained(tmp_path / "other")
    assert transcribe(folder, f"--assistant={tmp_path}/other") == 1
    assert "2300 tokens, the model 2248" in capsys.readouterr().err


def test_words_lie_in_their_segments_in_order(
    transcribe: Transcribe, folder: Path, capsys: pytest.CaptureFixture[str]
):
    arguments = ["--language=en", "--format=json", "--words", "--max_new_tokens=12"]
    assert transcribe(*arguments, folder / "a.wav") == 0
    for segment in json.loads(capsys.readouterr().out)["segments"]:
        times = [t for word in segment["words"] for t in (word["start"], word["end"])]
        assert times == sorted(times)
        assert all(segment["start"] <= t <= segment["end"] for t in times)


@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100])
def test_a_stream_is_the_whole_file_whatever_the_windows(tmp_path: Path, rate: int):
    path = tmp_path / "tone.wav"
    audio = np.repeat(make_audio(25.0)[: 12 * rate, None], 2, axis=1)
    soundfile.write(path, audio, rate)
    whole = load_audio(path)
    with AudioStream(str(path)) as stream:
        parts, position = [], 0
        while (part := stream.read(position, 30_011)).size:
            parts.append(part.copy())
            position += len(part)
    joined = np.concatenate(parts)
    assert abs(len(joined) - len(whole)) <= 1
    assert np.abs(joined[: len(whole)] - whole[: len(joined)]).max() < 1e-3


def test_a_url_and_standard_input_are_recordings_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    soundfile.write(tmp_path / "tone.flac", make_audio(2.0), SAMPLE_RATE)
    with AudioStream(str(tmp_path / "tone.flac")) as stream:
        expected = stream.read(0, 100_000).copy()
    handler = functools.partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        with AudioStream(f"{url}/tone.flac") as stream:
            assert np.array_equal(stream.read(0, 100_000), expected)
        with pytest.raises(AudioError, match="could not be fetched"):
            AudioStream(f"{url}/nothing.flac")
        server.shutdown()
    with (tmp_path / "tone.flac").open("rb") as file:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(file))
        with AudioStream("-") as stream:
            assert np.array_equal(stream.read(0, 100_000), expected)


def test_the_sound_of_an_m4a_file_is_read(tmp_path: Path):
    av = pytest.importorskip("av")
    path = str(tmp_path / "tone.m4a")
    with av.open(path, "w") as container:
        track = container.add_stream("aac", rate=SAMPLE_RATE, layout="mono")
        frame = av.AudioFrame.from_ndarray(make_audio(3.0)[None], format="fltp", layout="mono")
        frame.sample_rate = SAMPLE_RATE
        container.mux(track.encode(frame))
        container.mux(track.encode(None))
    with AudioStream(path) as stream:
        assert len(stream.read(0, 100_000)) == pytest.approx(3 * SAMPLE_RATE, abs=3000)


def test_a_stream_jumps_forward_and_forgets_what_lies_behind(tmp_path: Path):
    path = tmp_path / "tone.wav"
    soundfile.write(path, make_audio(100.0), SAMPLE_RATE, subtype="FLOAT")
    with AudioStream(str(path)) as stream:
        assert np.array_equal(
            stream.read(90 * SAMPLE_RATE, 160), make_audio(100.0)[1_440_000:][:160]
        )
        assert len(stream._held) < 15 * SAMPLE_RATE
        with pytest.raises(ValueError, match="was asked for after"):
            stream.read(0, 10)


@pytest.mark.parametrize("kind", ["flac", "wav", "mp3"])
def test_a_cut_off_file_is_an_error(tmp_path: Path, kind: str):
    path = tmp_path / f"cut.{kind}"
    soundfile.write(path, make_audio(30.0), SAMPLE_RATE)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    refused = pytest.raises(AudioError, match=f"^{path}: (cut off|damaged)")
    with refused, AudioStream(str(path)) as stream:
        stream.read(29 * SAMPLE_RATE, SAMPLE_RATE)


def test_a_file_whose_header_tells_no_length_is_read_to_its_end(tmp_path: Path):
    path, audio = tmp_path / "piped.flac", make_audio(33.0)
    soundfile.write(path, audio, SAMPLE_RATE, subtype="PCM_16")
    data = bytearray(path.read_bytes())
    data[21] &= 0xF0  # the 36 bits of STREAMINFO that count the samples
    data[22:26] = bytes(4)
    path.write_bytes(data)
    with AudioStream(str(path)) as stream:
        assert np.abs(stream.read(0, 40 * SAMPLE_RATE) - audio).max() < 1e-4
        stream.rewind()
        assert stream.read(32 * SAMPLE_RATE, 2 * SAMPLE_RATE).size == SAMPLE_RATE


def test_a_video_whose_picture_outlasts_its_sound_is_not_cut_off(tmp_path: Path):
    av = pytest.importorskip("av")
    path = str(tmp_path / "talk.mkv")
    with av.open(path, "w") as container:
        sound = container.add_stream("aac", rate=SAMPLE_RATE, layout="mono")
        picture = container.add_stream("mpeg4", rate=10)
        picture.width = picture.height = 64
        picture.pix_fmt = "yuv420p"
        frame = av.AudioFrame.from_ndarray(make_audio(3.0)[None], format="fltp", layout="mono")
        frame.sample_rate = SAMPLE_RATE
        container.mux(sound.encode(frame))
        container.mux(sound.encode(None))
        for number in range(50):
            image = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")
            image.pts = number
            container.mux(picture.encode(image))
        container.mux(picture.encode(None))
    with AudioStream(path) as stream:
        assert len(stream.read(0, 100_000)) == pytest.approx(3 * SAMPLE_RATE, abs=3000)
    data = Path(path).read_bytes()
    Path(path).write_bytes(data[: len(data) // 4])
    with pytest.raises(AudioError, match="cut off"), AudioStream(path) as stream:
        stream.read(0, 100_000)


def test_a_glob_stands_for_the_files_that_match(folder: Path):
    def names(pattern: str) -> list[str]:
        return [str(Path(r.source).relative_to(folder)) for r in find_recordings([pattern])]

    assert names(f"{folder}/*.wav") == ["a.wav"]
    assert names(f"{folder}/**/*.wav") == ["a.wav", "inner/a.wav"]
    assert names(f"{folder}/?.[fw]*") == ["a.wav", "b.flac"]
    soundfile.write(folder / "[live].wav", make_audio(0.5), SAMPLE_RATE)
    assert names(f"{folder}/[live].wav") == ["[live].wav"]  # a file of that name comes first


def test_two_recordings_of_one_name_are_told_apart_or_refused(folder: Path, tmp_path: Path):
    soundfile.write(folder / "a.flac", make_audio(0.5), SAMPLE_RATE)
    found = find_recordings([str(folder / "a.wav"), str(folder / "a.flac")])
    assert [str(r.output_name) for r in found] == ["a.wav", "a.flac"]
    with pytest.raises(ValueError, match="would both be written to a.wav"):
        check_output_names(
            find_recordings([str(folder / "a.wav"), str(folder / "inner" / "a.wav")])
        )
    assert len(find_recordings([str(folder), str(folder / "b.flac")])) == 4


def test_names_of_many_recordings_take_seconds_not_minutes():
    started = time.perf_counter()
    found = find_recordings([f"missing/{number}.wav" for number in range(20_000)])
    assert len(found) == 20_000
    assert time.perf_counter() - started < 30  # comparing each with each takes minutes


def test_speech_is_found_in_noise():
    pytest.importorskip("silero_vad")
    path = EMBEDDED_FOLDER / "audio" / "test-000-en-us-f2.opus"
    speech = load_audio(path, 0.4961, 3.3414)
    quiet = np.random.default_rng(0).normal(0, 1e-3, 5 * SAMPLE_RATE).astype(np.float32)

    class Memory:
        def read(self, start: int, num_samples: int) -> np.ndarray:
            return np.concatenate([quiet, speech, quiet])[start : start + num_samples]

    (region,) = speech_regions(Memory())
    assert region[0] / SAMPLE_RATE == pytest.approx(5.0, abs=0.5)
    assert region[1] / SAMPLE_RATE == pytest.approx(8.34, abs=0.7)


def test_speech_is_found_in_standard_input_which_is_read_once(
    folder: Path,
    transcribe: Transcribe,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    pytest.importorskip("silero_vad")
    assert transcribe("--vad", "--language=en", folder / "a.wav") == 0
    expected = capsys.readouterr().out
    with (folder / "a.wav").open("rb") as file:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(file))
        assert transcribe("--vad", "--language=en", "-") == 0
    assert capsys.readouterr().out == expected


def test_a_stream_can_be_read_again(tmp_path: Path):
    soundfile.write(tmp_path / "tone.wav", make_audio(45.0), SAMPLE_RATE, subtype="FLOAT")
    with AudioStream(str(tmp_path / "tone.wav")) as stream:
        first = stream.read(40 * SAMPLE_RATE, 1000).copy()
        stream.rewind()
        assert np.array_equal(stream.read(0, 45 * SAMPLE_RATE), make_audio(45.0))
        stream.rewind()
        assert np.array_equal(stream.read(40 * SAMPLE_RATE, 1000), first)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["a", "b c"], ['--files=["a", "b c"]']),
        (["--model", "m", "x", "-"], ["--model", "m", '--files=["x", "-"]']),
        (["--words", "x", "--vad=true"], ["--words=true", "--vad=true", '--files=["x"]']),
        (["--words", "false", "x"], ["--words=false", '--files=["x"]']),
        (
            ["--longform.condition_on_previous", "x"],
            ["--longform.condition_on_previous=true", '--files=["x"]'],
        ),
        (["--longform.temperatures", "0", "0.5"], ["--longform.temperatures=[0, 0.5]"]),
        (["--help"], ["--help"]),
    ],
)
def test_arguments_may_be_written_short(given: list[str], expected: list[str]):
    assert expand(given, TranscribeConfig) == expected

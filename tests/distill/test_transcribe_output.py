"""What is done already in an output folder, and what is refused because something else wrote it."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from distill.recordings import find_recordings
from distill.transcribe_config import LongformConfig, TranscribeConfig
from distill.transcribe_output import (
    JOURNAL_FILE,
    claim_output,
    prepare_output,
    write,
    writer_of,
)
from distill.transcript import Transcript


def plan(folder: Path, names: str, **settings: Any) -> tuple[TranscribeConfig, list[str]]:
    """Begin a run as the command does; return its config and what it is going to write."""
    files = [str(folder / name) for name in names.split()]
    model = folder / "model"
    model.mkdir(exist_ok=True)
    fixed = {"model": str(model), "output": str(folder / "out")}
    config = TranscribeConfig(files=files, **{**fixed, **settings})
    writer = writer_of(config)
    waiting = prepare_output(config, find_recordings(files), writer)
    claim_output(config, waiting, writer)
    return config, [str(recording.output_name) for recording in waiting]


def heard(folder: Path, name: str, config: TranscribeConfig) -> None:
    """Write what a run would write of a recording."""
    (recording,) = find_recordings([str(folder / name)])
    write(
        Transcript(
            text=str(config.language), language="en", language_probability=1.0,
            duration_seconds=1.0, segments=(),
        ),
        recording, config,
    )  # fmt: skip


def test_a_run_with_overwrite_that_died_is_gone_on_with_and_keeps_no_old_text(tmp_path: Path):
    old, _ = plan(tmp_path, "a.wav b.wav", language="en")
    for name in ("a.wav", "b.wav"):
        heard(tmp_path, name, old)
    new, waiting = plan(tmp_path, "a.wav b.wav", language="de", overwrite=True)
    assert waiting == ["a", "b"]
    heard(tmp_path, "a.wav", new)  # and it dies
    assert plan(tmp_path, "a.wav b.wav", language="de")[1] == ["b"]


def test_a_folder_remembers_which_settings_wrote_each_file(tmp_path: Path):
    first, _ = plan(tmp_path, "a.wav", language="en")
    heard(tmp_path, "a.wav", first)
    second, _ = plan(tmp_path, "b.wav", language="de")
    heard(tmp_path, "b.wav", second)
    with pytest.raises(ValueError, match=r"out/a.txt exists already, not written with these"):
        plan(tmp_path, "a.wav b.wav", language="de")
    assert plan(tmp_path, "a.wav c.wav", language="en")[1] == ["c"]
    assert plan(tmp_path, "b.wav", language="de")[1] == []


def test_a_line_of_the_journal_that_was_cut_off_spoils_no_other(tmp_path: Path):
    first, _ = plan(tmp_path, "a.wav")
    heard(tmp_path, "a.wav", first)
    with (tmp_path / "out" / JOURNAL_FILE).open("a") as journal:
        journal.write('{"settings": {"mod')
    second, _ = plan(tmp_path, "b.wav")
    heard(tmp_path, "b.wav", second)
    assert plan(tmp_path, "a.wav b.wav c.wav")[1] == ["c"]


def test_a_recording_named_as_the_command_is_one_like_any_other(tmp_path: Path):
    config, waiting = plan(tmp_path, "transcribe.wav", format="json")
    assert waiting == ["transcribe"]
    assert plan(tmp_path, "transcribe.wav", format="json")[1] == ["transcribe"]
    heard(tmp_path, "transcribe.wav", config)
    assert plan(tmp_path, "transcribe.wav", format="json")[1] == []


def recorded(folder: Path, name: str, content: bytes = b"sound") -> Path:
    """Put a file there whose time is as old as its content is long."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    os.utime(path, (len(content), len(content)))
    return path


def test_another_recording_of_the_same_name_is_refused_and_both_are_named(tmp_path: Path):
    first, second = recorded(tmp_path, "mon/a.wav"), recorded(tmp_path, "tue/a.wav")
    config, _ = plan(tmp_path, "mon/a.wav")
    heard(tmp_path, "mon/a.wav", config)
    with pytest.raises(ValueError, match="a.txt exists already") as refusal:
        plan(tmp_path, "tue/a.wav")
    assert f"written from {first.resolve()}, not from {second.resolve()}" in str(refusal.value)
    assert "--overwrite to replace it, or another --output" in str(refusal.value)
    assert plan(tmp_path, "mon/a.wav")[1] == []
    taken, _ = plan(tmp_path, "tue/a.wav", overwrite=True)
    heard(tmp_path, "tue/a.wav", taken)
    assert plan(tmp_path, "tue/a.wav")[1] == []
    with pytest.raises(ValueError, match="not from .*mon/a.wav"):
        plan(tmp_path, "mon/a.wav")


@pytest.mark.parametrize("content", [b"other", b"longer than before"])
def test_a_recording_that_was_made_again_at_its_path_is_not_done(tmp_path: Path, content: bytes):
    path = recorded(tmp_path, "a.wav")
    config, _ = plan(tmp_path, "a.wav")
    heard(tmp_path, "a.wav", config)
    path.write_bytes(content)
    os.utime(path, (99, 99))
    with pytest.raises(ValueError, match=r"a.wav of 1970-01-01 00:00:05 UTC with 5 bytes; now it"):
        plan(tmp_path, "a.wav")


@pytest.mark.parametrize("role", ["model", "assistant"])
def test_a_model_that_was_trained_again_at_its_path_has_written_nothing_yet(
    tmp_path: Path, role: str
):
    weights = recorded(tmp_path, "student/model.safetensors")
    settings = {role: str(weights.parent)}
    config, _ = plan(tmp_path, "a.wav", **settings)
    heard(tmp_path, "a.wav", config)
    assert plan(tmp_path, "a.wav", **settings)[1] == []
    os.utime(weights, (99, 99))
    with pytest.raises(ValueError, match="by other weights of .*student than are there now"):
        plan(tmp_path, "a.wav", **settings)


def test_each_setting_that_is_different_is_named_with_both_values(tmp_path: Path):
    old = LongformConfig(temperatures=[0.0, 0.5])
    config, _ = plan(tmp_path, "a.wav", longform=old, language="en")
    heard(tmp_path, "a.wav", config)
    with pytest.raises(ValueError, match="not written with these settings") as refusal:
        plan(tmp_path, "a.wav", longform=LongformConfig(temperatures=[0.0]), words=True)
    assert (
        'settings: language (was "en", now null), '
        "longform.temperatures (was [0.0, 0.5], now [0.0]), words (was false, now true);"
    ) in str(refusal.value)


def test_a_setting_that_the_journal_does_not_know_had_its_default(tmp_path: Path):
    config, _ = plan(tmp_path, "a.wav")
    heard(tmp_path, "a.wav", config)
    journal = tmp_path / "out" / JOURNAL_FILE
    line = json.loads(journal.read_text())
    del line["settings"]["vad"], line["settings"]["longform"]["initial_prompt"]
    journal.write_text(json.dumps(line))
    assert plan(tmp_path, "a.wav")[1] == []
    with pytest.raises(ValueError, match=r"settings: vad \(was false, now true\);"):
        plan(tmp_path, "a.wav", vad=True)


def test_a_text_whose_recording_was_not_noted_is_refused(tmp_path: Path):
    config, _ = plan(tmp_path, "a.wav")
    heard(tmp_path, "a.wav", config)
    journal = tmp_path / "out" / JOURNAL_FILE
    settings = json.loads(journal.read_text())["settings"]
    journal.write_text(json.dumps({"settings": settings, "files": ["a.txt"]}))
    with pytest.raises(ValueError, match="did not note of which recording; give --overwrite"):
        plan(tmp_path, "a.wav")


def test_a_link_that_was_signed_anew_is_of_the_same_recording_and_its_signature_is_not_kept(
    tmp_path: Path,
):
    link, model = "https://example.org/a.wav?part=2&X-Amz-Signature=", tmp_path / "model"
    model.mkdir()
    for signature, waiting in (("monday", ["a"]), ("tuesday", [])):
        config = TranscribeConfig(
            files=[link + signature], model=str(model), output=str(tmp_path / "out")
        )
        recordings, writer = find_recordings(config.files), writer_of(config)
        found = prepare_output(config, recordings, writer)
        assert [str(recording.output_name) for recording in found] == waiting
        claim_output(config, found, writer)
        (tmp_path / "out" / "a.txt").write_text("said")
    journal = (tmp_path / "out" / JOURNAL_FILE).read_text()
    assert "part=2" in journal
    assert "monday" not in journal

import os
import shutil
from pathlib import Path

import pytest

from pipeline import corpora
from pipeline.audio import AudioError, load_audio
from pipeline.corpora import CorpusError, Utterance
from pipeline.ledger import Failure
from pipeline.schema import to_json
from tests.pipeline.conftest import write_tone
from tests.pipeline.corpora.material import check_positions, configured, read_all


def librispeech(root: Path) -> Path:
    """Two speakers, three chapters, as train-clean-100 is laid out."""
    for speaker, chapter, texts in (
        (103, 1240, ("ONE", "TWO")),
        (103, 1241, ("THREE",)),
        (26, 5, ("IT'S",)),
    ):
        folder = root / str(speaker) / str(chapter)
        folder.mkdir(parents=True)
        lines = []
        for number, text in enumerate(texts):
            name = f"{speaker}-{chapter}-{number:04d}"
            write_tone(folder / f"{name}.flac", 0.2)
            lines.append(f"{name} {text} MORE\n")
        (folder / f"{speaker}-{chapter}.trans.txt").write_text("".join(lines))
    (root / "README.TXT").write_text("about")
    return root


def test_librispeech_layout(tmp_path: Path):
    config = configured("folder", librispeech(tmp_path))
    found = read_all(config)
    assert [(u.id, u.speaker, u.reference) for u in found] == [
        ("103-1240-0000", "103", "ONE MORE"),
        ("103-1240-0001", "103", "TWO MORE"),
        ("103-1241-0000", "103", "THREE MORE"),
        ("26-5-0000", "26", "IT'S MORE"),
    ]
    assert found[0].recording == "103/1240/103-1240-0000.flac"
    assert all(load_audio(u.path).size == 3200 for u in found)
    check_positions(config)


def test_ljspeech_layout(tmp_path: Path):
    (tmp_path / "wavs").mkdir()
    write_tone(tmp_path / "wavs/LJ001-0001.wav", 0.2)
    lines = ["LJ001-0001|Mr. Smith, 1866|mister smith", "LJ001-0002|no audio|no audio", "broken"]
    (tmp_path / "metadata.csv").write_text("\n".join(lines))
    first, second, bad = check_positions(configured("folder", tmp_path))
    assert isinstance(first, Utterance)
    assert isinstance(second, Utterance)
    assert isinstance(bad, Failure)
    assert (first.id, first.reference) == ("LJ001-0001", "Mr. Smith, 1866")
    with pytest.raises(AudioError, match=r"LJ001-0002\.wav: no such file"):
        load_audio(second.path)


def test_text_beside_audio(tmp_path: Path):
    (tmp_path / "b").mkdir()
    for name in ("a.wav", "b/c.d.wav", "b/é.wav"):
        write_tone(tmp_path / name, 0.1)
        (tmp_path / name).with_suffix(".txt").write_text("\ufeffsome\ntext\n", encoding="utf-8")
    found = read_all(configured("folder", tmp_path))
    assert [(u.id, u.reference) for u in found] == [
        ("a", "some text"),
        ("b/c.d", "some text"),
        ("b/é", "some text"),
    ]


def test_audio_without_any_text(tmp_path: Path):
    for name in ("one.mp3", "two.M4A", "three.opus", "cover.jpg", "notes.txt"):
        (tmp_path / name).write_bytes(b"")
    found = read_all(configured("folder", tmp_path, references=False))
    assert [(u.id, u.reference, u.duration_seconds) for u in found] == [
        ("one", None, None),
        ("three", None, None),
        ("two", None, None),
    ]


def test_recording_without_text_is_a_failure_that_says_what_to_do(tmp_path: Path):
    librispeech(tmp_path)
    shutil.copy(tmp_path / "26/5/26-5-0000.flac", tmp_path / "26/5/26-5-0001.flac")
    failures = [
        e for e in check_positions(configured("folder", tmp_path)) if isinstance(e, Failure)
    ]
    assert [(f.id, f.error) for f in failures] == [("26/5/26-5-0001", "no_text")]
    assert "references: false" in failures[0].message


def test_text_without_recording_is_a_failure(tmp_path: Path):
    (librispeech(tmp_path) / "26/5/26-5-0000.flac").unlink()
    entries = check_positions(configured("folder", tmp_path))
    assert len(entries) == 4
    (failure,) = (e for e in entries if isinstance(e, Failure))
    assert (failure.id, failure.error) == ("26/5/26-5-0000", "no_audio")


def test_text_that_is_not_utf8_is_a_failure(tmp_path: Path):
    for name in ("a", "b"):
        write_tone(tmp_path / f"{name}.wav", 0.1)
    (tmp_path / "a.txt").write_bytes("Gr\u00fc\u00dfe".encode("latin-1"))
    (tmp_path / "b.txt").write_text("fine")
    bad, good = corpora.read(configured("folder", tmp_path))
    assert isinstance(bad, Failure)
    assert isinstance(good, Utterance)
    assert (bad.id, bad.error) == ("a", "bad_text")
    librispeech(tmp_path / "ls")
    (tmp_path / "ls/26/5/26-5.trans.txt").write_bytes(b"26-5-0000 \xff\n")
    entries = check_positions(configured("folder", tmp_path / "ls"))
    assert [e.error for e in entries if isinstance(e, Failure)] == ["no_text", "bad_text"]


def test_name_that_is_not_utf8_is_a_failure(tmp_path: Path):
    write_tone(tmp_path / "a.wav", 0.1)
    try:
        shutil.copy(tmp_path / "a.wav", tmp_path / os.fsdecode(b"\xff.wav"))
    except OSError:
        pytest.skip("this filesystem has UTF-8 names only")
    bad, good = check_positions(configured("folder", tmp_path, references=False))
    assert isinstance(good, Utterance)
    assert isinstance(bad, Failure)
    assert bad.error == "bad_name"
    bad.id.encode()


def test_folder_whose_name_is_not_utf8_fails_and_those_beside_it_are_read(tmp_path: Path):
    try:
        folders = [tmp_path / os.fsdecode(name) for name in (b"caf\xe9", b"caf\xc3\xa9", b"caz")]
        for folder in folders:
            (folder / "in").mkdir(parents=True)
    except OSError:
        pytest.skip("this filesystem has UTF-8 names only")
    tone = write_tone(tmp_path / "z.wav", 0.1)
    for folder in folders:
        shutil.copy(tone, folder / "a.wav")
        shutil.copy(tone, folder / "in/b.wav")
    entries = check_positions(configured("folder", tmp_path, references=False))
    good = [entry.id for entry in entries if isinstance(entry, Utterance)]
    assert good == ["z", "café/a", "café/in/b", "caz/a", "caz/in/b"]
    bad = [entry for entry in entries if isinstance(entry, Failure)]
    assert [entry.id for entry in bad] == ["caf\\udce9/a", "caf\\udce9/in/b"]
    assert {entry.error for entry in bad} == {"bad_name"}
    to_json(bad[0]).encode()


def test_symlink_loop_is_told_once_and_not_followed_and_a_link_to_a_folder_is(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    (tmp_path / "corpus").mkdir()
    (tmp_path / "elsewhere").mkdir()
    write_tone(tmp_path / "corpus/a.wav", 0.1)
    write_tone(tmp_path / "elsewhere/b.wav", 0.1)
    (tmp_path / "corpus/loop").symlink_to(tmp_path / "corpus")
    (tmp_path / "corpus/linked").symlink_to(tmp_path / "elsewhere")
    config = configured("folder", tmp_path / "corpus", references=False)
    assert [u.id for u in read_all(config)] == ["a", "linked/b"]
    read_all(config)
    warnings = [r.getMessage() for r in caplog.records if "loop" in r.getMessage()]
    assert len(warnings) == 1
    assert f"{tmp_path}/corpus/loop leads back to" in warnings[0]


def test_link_to_itself_is_a_recording_that_cannot_be_read(tmp_path: Path):
    (tmp_path / "a.wav").symlink_to(tmp_path / "a.wav")
    (utterance,) = read_all(configured("folder", tmp_path, references=False))
    with pytest.raises(AudioError, match=r"a\.wav: cannot be opened"):
        load_audio(utterance.path)


def test_folder_that_may_not_be_listed_is_a_failure(without_privileges: Path):
    folder = without_privileges
    (folder / "closed").mkdir(mode=0)
    write_tone(folder / "open.wav", 0.1)
    good, bad = check_positions(configured("folder", folder, references=False))
    assert isinstance(good, Utterance)
    assert isinstance(bad, Failure)
    assert bad.error == "unreadable_folder"
    with pytest.raises(CorpusError, match="'mine'"):
        list(corpora.read(configured("folder", folder / "closed")))


def test_what_macos_leaves_beside_recordings_is_no_recording(tmp_path: Path):
    write_tone(tmp_path / "a.wav", 0.1)
    (tmp_path / "a.txt").write_text("some text")
    for name in ("._a.wav", "._a.txt", "._b.trans.txt"):
        (tmp_path / name).write_bytes(b"\0\5\x16\7Mac OS X")
    assert [u.id for u in read_all(configured("folder", tmp_path))] == ["a"]


def test_missing_folder_is_said_so(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="there is no folder .*gone"):
        list(corpora.read(configured("folder", tmp_path / "gone")))

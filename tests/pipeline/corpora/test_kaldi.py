from pathlib import Path

import pytest

from pipeline import corpora
from pipeline.audio import load_audio
from pipeline.corpora import Utterance
from pipeline.ledger import Failure
from tests.pipeline.conftest import write_tone
from tests.pipeline.corpora.material import check_positions, configured, read_all


def ami(root: Path, **files: str) -> Path:
    """Two meetings with segments, as Kaldi's AMI recipe leaves them once the audio is in files."""
    for name in ("m1", "m2"):
        write_tone(root / f"{name}.wav", 3.0)
    contents = {
        "wav_scp": f"m1 m1.wav\nm2 {root}/m2.wav\n",
        "segments": "u1 m1 0.00 1.50\nu2 m1 1.25 2.00\nu3 m2 0.5 -1\n",
        "text": "u1 YEAH OKAY\nu2\nu3 RIGHT Ü\n",
        "utt2spk": "u1 FEE005\nu2 FEE005\nu3 MEE006\n",
    } | files
    for name, content in contents.items():
        if content:
            path = root / name.replace("wav_scp", "wav.scp")
            path.write_text(content, encoding="utf-8")
    return root


def test_segments_text_and_speakers_are_joined(tmp_path: Path):
    config = configured("kaldi", ami(tmp_path))
    found = read_all(config)
    assert [(u.id, u.speaker, u.recording, u.reference) for u in found] == [
        ("u1", "FEE005", "m1", "YEAH OKAY"),
        ("u2", "FEE005", "m1", ""),
        ("u3", "MEE006", "m2", "RIGHT Ü"),
    ]
    assert [(u.start_seconds, u.duration_seconds) for u in found] == [
        (0, 1.5),
        (1.25, 0.75),
        (0.5, None),
    ]
    assert load_audio(found[1].path, 1.25, 0.75).size == 12_000
    check_positions(config)


def test_without_segments_each_recording_is_an_utterance(tmp_path: Path):
    ami(tmp_path, segments="", text="m1 A\nm2 B\n", utt2spk="")
    found = read_all(configured("kaldi", tmp_path))
    assert [(u.id, u.duration_seconds, u.reference) for u in found] == [
        ("m1", None, "A"),
        ("m2", None, "B"),
    ]


def test_without_references_no_text_is_needed(tmp_path: Path):
    config = configured("kaldi", ami(tmp_path, text=""), references=False)
    assert {u.reference for u in read_all(config)} == {None}
    with pytest.raises(FileNotFoundError, match="no file text. .*references: false"):
        list(corpora.read(configured("kaldi", tmp_path)))


def test_commands_are_refused_and_not_run(tmp_path: Path):
    ami(tmp_path, wav_scp=f"m1 m1.wav\nm2 touch {tmp_path}/ran |\n")
    with pytest.raises(ValueError, match=r"'m2' is a command \('touch .*Commands are not run"):
        list(corpora.read(configured("kaldi", tmp_path)))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("segment", "message"),
    [
        ("u1 m1 2.0 1.0", "the segment ends at 1 s but starts at 2 s"),
        ("u1 m1 -2 1.0", "the segment starts at -2 s"),
        ("u1 m1 a b", "could not convert"),
        ("u1 m1 nan 1", "the segment starts at nan s"),
        ("u1 m1 0 inf", "the segment ends at inf s but starts at 0 s"),
        ("u1 m1 inf -1", "the segment starts at inf s"),
        ("u1 m1", "expected: utterance recording start end"),
        ("u1 m9 0 1", "wav.scp has no recording 'm9'"),
        ("u9 m1 0 1", "text has no line for 'u9'"),
    ],
)
def test_bad_segment_is_a_failure_and_the_next_is_read(tmp_path: Path, segment: str, message: str):
    ami(tmp_path, segments=f"{segment}\nu3 m2 0 1\n")
    bad, good = check_positions(configured("kaldi", tmp_path))
    assert isinstance(bad, Failure)
    assert isinstance(good, Utterance)
    assert message in bad.message


def test_text_that_is_not_utf8_costs_only_its_utterance(tmp_path: Path):
    ami(tmp_path)
    (tmp_path / "text").write_bytes(b"u1 \xff\nu2 fine\nu3 fine\n")
    entries = check_positions(configured("kaldi", tmp_path))
    assert [isinstance(e, Failure) for e in entries] == [True, False, False]


def test_changed_text_is_read_again(tmp_path: Path):
    config = configured("kaldi", ami(tmp_path))
    read_all(config)
    (tmp_path / "text").write_text("u1 other words\nu2 x\nu3 y\n")
    assert read_all(config)[0].reference == "other words"

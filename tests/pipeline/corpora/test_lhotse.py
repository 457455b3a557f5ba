import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from pipeline import corpora
from pipeline.corpora import Utterance
from pipeline.ledger import Failure
from tests.pipeline.corpora.material import check_positions, configured, read_all


def recording(name: str, kind: str = "file") -> dict[str, Any]:
    return {
        "id": name,
        "sources": [{"type": kind, "channels": [0], "source": f"audio/{name}.opus"}],
        "sampling_rate": 16_000,
        "num_samples": 160_000,
        "duration": 10.0,
    }


def supervision(name: str, of: str, **fields: Any) -> dict[str, Any]:
    fields = {"start": 1.5, "duration": 2.0, "channel": 0, "text": "HELLO", **fields}
    return {"id": name, "recording_id": of, "language": "English", "speaker": "s1", **fields}


def write(path: Path, *lines: Any) -> Path:
    data = "".join(f"{x if isinstance(x, str) else json.dumps(x)}\n" for x in lines).encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def test_gigaspeech_layout(tmp_path: Path):
    recordings = write(tmp_path / "recordings.jsonl.gz", recording("POD1"), recording("YOU1"))
    lines = supervision("POD1_0", "POD1"), supervision("YOU1_0", "YOU1", custom={"licence": "mit"})
    path = write(tmp_path / "supervisions.jsonl.gz", *lines)
    config = configured("lhotse", path, audio=str(recordings))
    first, second = read_all(config)
    assert (first.id, first.language, first.speaker) == ("POD1_0", "en", "s1")
    assert (first.start_seconds, first.duration_seconds, first.channel) == (1.5, 2.0, 0)
    assert first.path == f"{tmp_path}/audio/POD1.opus"
    assert (first.licence, second.licence) == ("cc0-1.0", "mit")
    check_positions(config)


def test_cuts_carry_their_recordings(tmp_path: Path):
    cut = {"id": "c1", "start": 4.0, "duration": 5.0, "channel": 0, "recording": recording("r")}
    both = [supervision("s1", "r", start=0.5), supervision("s2", "r", start=3.0, duration=1.0)]
    path = write(
        tmp_path / "cuts.jsonl", {**cut, "supervisions": both}, {**cut, "supervisions": []}
    )
    first, second, bad = check_positions(configured("lhotse", path))
    assert isinstance(first, Utterance)
    assert isinstance(second, Utterance)
    assert isinstance(bad, Failure)
    assert [(u.id, u.start_seconds) for u in (first, second)] == [("s1", 4.5), ("s2", 7.0)]
    assert "references: false" in bad.message
    without = list(corpora.read(configured("lhotse", path, references=False)))
    assert isinstance(without[2], Utterance)
    assert (without[2].start_seconds, without[2].reference) == (4.0, None)


def test_recordings_alone_are_unlabelled_audio(tmp_path: Path):
    path = write(tmp_path / "recordings.jsonl", recording("a"), recording("b"))
    found = read_all(configured("lhotse", path, references=False))
    assert [(u.id, u.duration_seconds, u.reference) for u in found] == [
        ("a", 10.0, None),
        ("b", 10.0, None),
    ]


def test_bad_lines_are_failures(tmp_path: Path):
    recordings = write(tmp_path / "r.jsonl", recording("a"), recording("cmd", "command"), "{oops")
    lines = (
        supervision("1", "a"),
        supervision("2", "gone"),
        supervision("3", "cmd"),
        "{oops",
        {"id": "x"},
        supervision("6", "a", duration=-1),
    )
    path = write(tmp_path / "s.jsonl", *lines)
    good, *bad = check_positions(configured("lhotse", path, audio=str(recordings)))
    assert isinstance(good, Utterance)
    messages = [e.message for e in bad if isinstance(e, Failure)]
    for message, expected in zip(
        messages,
        [
            "no recording 'gone'",
            "commands are never run",
            "line 4",
            "neither a supervision",
            "seconds",
        ],
        strict=True,
    ):
        assert expected in message


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"recording": None}, "recording None has 0 sources"),
        ({"recording": "r"}, "recording must be an object, got 'r'"),
        ({"recording": {"id": "r", "sources": ["a.wav"]}}, "sources must be a list of objects"),
        ({"supervisions": ["s"]}, "supervisions must be a list of objects, got ['s']"),
        ({"supervisions": {"id": "s"}}, "supervisions must be a list of objects"),
        ({"supervisions": [supervision("s", "r", custom=5)]}, "custom must be an object, got 5"),
        ({"supervisions": [supervision("s", "r", start="1")]}, "start must be seconds"),
        ({"start": [1]}, "start must be seconds"),
        ({"start": 10**400}, "start must be seconds"),
    ],
)
def test_a_cut_of_another_shape_is_a_failure_and_the_next_is_read(tmp_path, changes, message):
    cut = {"id": "c", "start": 4.0, "duration": 5.0, "recording": recording("r")}
    cut |= {"supervisions": [supervision("s", "r")]}
    bad, good = check_positions(
        configured("lhotse", write(tmp_path / "cuts.jsonl", cut | changes, cut))
    )
    assert isinstance(bad, Failure)
    assert isinstance(good, Utterance)
    assert message in bad.message


def test_a_cut_without_a_start_begins_with_its_recording(tmp_path: Path):
    cut = {"id": "c", "start": None, "duration": 5.0, "recording": recording("r")}
    line = cut | {"supervisions": [supervision("s", "r", start=None)]}
    (utterance,) = read_all(configured("lhotse", write(tmp_path / "cuts.jsonl", line)))
    assert utterance.start_seconds == 0.0


@pytest.mark.parametrize("name", [["a"], {"a": 1}, None])
def test_a_supervision_of_no_recording_is_a_failure(tmp_path: Path, name: Any):
    recordings = write(tmp_path / "r.jsonl", recording("a"))
    path = write(tmp_path / "s.jsonl", supervision("1", name))
    (bad,) = corpora.read(configured("lhotse", path, audio=str(recordings)))
    assert isinstance(bad, Failure)
    assert "has no recording" in bad.message


def test_supervisions_without_recordings_say_what_is_missing(tmp_path: Path):
    path = write(tmp_path / "s.jsonl", supervision("1", "a"))
    (bad,) = corpora.read(configured("lhotse", path))
    assert isinstance(bad, Failure)
    assert "name that manifest as audio" in bad.message

import io
import json
import os
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline import corpora
from pipeline.audio import encode_flac, load_audio, probe
from pipeline.config import ColumnsConfig
from pipeline.corpora import Utterance
from pipeline.ledger import Failure
from pipeline.schema import to_json
from tests.pipeline.corpora.material import check_positions, configured, read_all

ROOT = Path(__file__).parents[3]


def flac(seconds: float, value: float = 0.1) -> bytes:
    return encode_flac(np.full(round(seconds * 16_000), value, np.float32))


def write_tar(path: Path, members: list[tuple[str, bytes]], **kinds: bytes) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            if name in kinds:
                info.type, info.size, info.linkname = kinds[name], 0, "/etc/passwd"
            tar.addfile(info, io.BytesIO(data))
    return path


def sample(name: str, seconds: float = 0.5, **fields: Any) -> list[tuple[str, bytes]]:
    fields = {"text": name.upper(), **fields}
    return [(f"{name}.flac", flac(seconds)), (f"{name}.json", json.dumps(fields).encode())]


def test_samples_of_several_tars_are_read_by_their_place(tmp_path: Path):
    write_tar(tmp_path / "a-000.tar", sample("x", 0.5) + sample("d/y", 1.0, id="why", speaker="s"))
    write_tar(tmp_path / "a-001.tar", sample("z" * 150, 1.5))
    config = configured("webdataset", tmp_path / "a-{000..001}.tar")
    found = read_all(config)
    assert [(u.id, u.speaker) for u in found] == [("x", ""), ("why", "s"), ("z" * 150, "")]
    assert [u.reference for u in found] == ["X", "D/Y", "Z" * 150]
    assert [load_audio(u.path).size for u in found] == [8_000, 16_000, 24_000]
    assert load_audio(found[2].path, 0.5, 0.25).size == 4_000
    assert probe(found[1].path).duration_seconds == 1.0
    check_positions(config)
    assert read_all(configured("webdataset", tmp_path / "a-*.tar")) == found


def test_text_may_lie_in_a_member_of_its_own(tmp_path: Path):
    path = write_tar(tmp_path / "a.tar", [("x.wav.flac", flac(0.1)), ("x.txt", b"hello\n")])
    (utterance,) = read_all(configured("webdataset", path))
    assert (utterance.id, utterance.reference) == ("x", "hello")


def test_shards_of_this_package_can_be_labelled_again(tmp_path: Path):
    columns = ColumnsConfig(text="reference", duration="duration_seconds")
    config = configured("webdataset", ROOT / "tests/golden/shard.tar", columns=columns)
    found = read_all(config)
    assert found
    for utterance in found:
        assert load_audio(utterance.path).size == round((utterance.duration_seconds or 0) * 16_000)


@pytest.mark.parametrize("name", ["../evil.flac", "/etc/evil.flac", "a/../../evil.flac"])
def test_member_that_points_outside_is_a_failure(tmp_path: Path, name: str):
    path = write_tar(tmp_path / "a.tar", [(name, flac(0.1)), *sample("x")])
    bad, good = check_positions(configured("webdataset", path))
    assert isinstance(bad, Failure)
    assert isinstance(good, Utterance)
    assert "points outside of the tar" in bad.message


@pytest.mark.parametrize("name", [b"caf\xe9.flac", b"caf\xe9/a.flac", b"a.caf\xe9.flac"])
def test_member_whose_name_is_not_utf8_is_a_failure(tmp_path: Path, name: bytes):
    text = (os.fsdecode(name).partition(".")[0] + ".txt", b"hello")
    members = [(os.fsdecode(name), flac(0.1)), text, *sample("x")]
    bad, good = check_positions(configured("webdataset", write_tar(tmp_path / "a.tar", members)))
    assert isinstance(bad, Failure)
    assert isinstance(good, Utterance)
    assert "is not UTF-8" in bad.message
    to_json(bad).encode()


def test_link_in_a_tar_is_a_failure(tmp_path: Path):
    members = [("x.flac", b""), ("x.txt", b"hello")]
    path = write_tar(tmp_path / "a.tar", members, **{"x.flac": tarfile.SYMTYPE})
    (bad,) = corpora.read(configured("webdataset", path))
    assert isinstance(bad, Failure)
    assert "is a link or a device" in bad.message


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([("x.json", b'{"text": "a"}')], "no audio in text"),
        ([("x.flac", b""), ("x.json", b"{oops")], "x.json"),
        ([("x.flac", b""), ("x.json", b"[1]")], "no JSON object"),
        ([("x.flac", b""), ("x.txt", b"\xff")], "x.txt"),
        ([("x.flac", b"")], "text is missing"),
    ],
)
def test_bad_sample_is_a_failure_and_the_next_is_read(tmp_path: Path, members, message: str):
    path = write_tar(tmp_path / "a.tar", [*members, *sample("y")])
    bad, good = check_positions(configured("webdataset", path))
    assert isinstance(bad, Failure)
    assert isinstance(good, Utterance)
    assert message in bad.message


def test_tar_that_was_cut_off_keeps_its_first_samples(tmp_path: Path):
    whole = write_tar(
        tmp_path / "a.tar", [m for n in "abcdef" for m in sample(n, 2.0)]
    ).read_bytes()
    for cut in (len(whole) // 2, len(whole) // 2 + 700, 3000):
        (tmp_path / "a.tar").write_bytes(whole[:cut])
        entries = list(corpora.read(configured("webdataset", tmp_path / "a.tar")))
        assert isinstance(entries[-1], Failure)
        assert any("damaged tar" in e.message for e in entries if isinstance(e, Failure))
    (tmp_path / "a.tar").write_bytes(b"not a tar" * 500)
    (bad,) = corpora.read(configured("webdataset", tmp_path / "a.tar"))
    assert isinstance(bad, Failure)


def test_compressed_tar_is_refused(tmp_path: Path):
    (tmp_path / "a.tar.gz").write_bytes(b"")
    with pytest.raises(ValueError, match="is compressed"):
        list(corpora.read(configured("webdataset", tmp_path / "a.tar.gz")))


def test_missing_tars_are_said_so(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="no file matches"):
        list(corpora.read(configured("webdataset", tmp_path / "*.tar")))


def test_folder_of_tars_is_read_whole(tmp_path: Path):
    write_tar(tmp_path / "b.tar", sample("y"))
    write_tar(tmp_path / "a.tar", sample("x"))
    config = configured("webdataset", tmp_path)
    assert [u.id for u in read_all(config)] == ["x", "y"]
    check_positions(config)


def test_tar_that_was_made_of_the_current_folder_has_the_same_ids(tmp_path: Path):
    members = [(f"./{name}", data) for name, data in sample("d/x")]
    path = write_tar(tmp_path / "a.tar", members)
    assert [u.id for u in read_all(configured("webdataset", path))] == ["d/x"]


def test_what_macos_leaves_in_a_tar_is_no_sample(tmp_path: Path):
    members = [("._x.flac", b"\0\5\x16\7Mac OS X"), ("d/._x.json", b"\0\5"), *sample("x")]
    path = write_tar(tmp_path / "a.tar", members)
    assert [u.id for u in read_all(configured("webdataset", path))] == ["x"]


def test_text_is_found_behind_a_name_with_two_dots(tmp_path: Path):
    path = write_tar(tmp_path / "a.tar", [("x.1.flac", flac(0.1)), ("x.1.txt", b"hello")])
    assert read_all(configured("webdataset", path))[0].reference == "hello"


def test_recordings_that_share_a_name_up_to_its_first_dot_are_not_lost_unseen(tmp_path: Path):
    names = ("talk.001.flac", "talk.002.flac")
    members = [(name, flac(0.1)) for name in names]
    path = write_tar(tmp_path / "a.tar", [*members, ("talk.001.txt", b"hello")])
    (bad,) = corpora.read(configured("webdataset", path))
    assert isinstance(bad, Failure)
    assert "several recordings: 001.flac, 002.flac" in bad.message
    chosen = configured("webdataset", path, columns=ColumnsConfig(audio="002.flac"))
    assert read_all(chosen)[0].recording == "a.tar/talk.002.flac"

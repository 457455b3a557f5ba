import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from webdataset.writer import TarWriter

from pipeline import shards
from pipeline.audio import decode_flac
from pipeline.schema import MAX_CLIP_SAMPLES, SAMPLE_RATE, Sample, sample_key
from pipeline.shards import (
    CommitRecord,
    file_sha256,
    read_record,
    read_shard,
    write_record,
    write_shard,
)

GOLDEN = Path(__file__).parents[1] / "golden" / "shard.tar"


@pytest.fixture(scope="module")
def sample() -> Sample:
    return next(read_shard(GOLDEN))[0]


def noise(seconds: float, seed: int = 0) -> np.ndarray:
    generator = np.random.default_rng(seed)
    return generator.normal(0, 0.1, round(seconds * SAMPLE_RATE)).astype(np.float32)


@pytest.fixture
def clips(sample: Sample) -> list[tuple[Sample, np.ndarray]]:
    return [
        (replace(sample, id=f"a/{n}.wav", duration_seconds=0.1 * n), noise(0.1 * n, seed=n))
        for n in range(1, 6)
    ]


def test_a_shard_gives_back_its_clips_in_the_order_of_their_keys(tmp_path, clips):
    write_shard(tmp_path / "a.tar", clips)
    found = list(read_shard(tmp_path / "a.tar"))
    expected = sorted(clips, key=lambda clip: sample_key(clip[0].id))
    assert [s for s, _ in found] == [s for s, _ in expected]
    for (_, flac), (_, audio) in zip(found, expected, strict=True):
        assert np.abs(decode_flac(flac) - audio).max() <= 1 / 32768


def test_the_entry_says_what_is_in_the_file(tmp_path, clips):
    entry = write_shard(tmp_path / "block-00000.tar", clips)
    content = (tmp_path / "block-00000.tar").read_bytes()
    assert (entry.name, entry.corpus, entry.split) == ("block-00000.tar", "golden", "train")
    assert (entry.num_samples, entry.duration_seconds) == (5, 1.5)
    assert entry.size_bytes == len(content)
    assert entry.sha256 == file_sha256(tmp_path / "block-00000.tar")


def test_what_the_disk_has_lost_is_no_shard(tmp_path, clips, monkeypatch):
    class Forgetful:
        """A disk that takes every write and keeps something else."""

        def __init__(self, file):
            self._file = file

        def write(self, data):
            return self._file.write(data.replace(b'"pseudo_label"', b'"pseudo_lapel"'))

    def write(file, **options):
        file._file = Forgetful(file._file)
        return TarWriter(file, **options)

    monkeypatch.setattr(shards, "TarWriter", write)
    with pytest.raises(OSError, match=r"a\.tar: what is read back is not what was written"):
        write_shard(tmp_path / "a.tar", clips)
    assert list(tmp_path.iterdir()) == []


def test_a_rebuild_is_the_same_file_whatever_the_order(tmp_path, clips):
    one = write_shard(tmp_path / "a.tar", clips)
    two = write_shard(tmp_path / "b.tar", reversed(clips))
    assert one.sha256 == two.sha256


def test_members_carry_no_clock_and_no_owner(tmp_path, clips):
    write_shard(tmp_path / "a.tar", clips)
    with tarfile.open(tmp_path / "a.tar") as tar:
        members = tar.getmembers()
    assert {(m.mtime, m.uid, m.gid, m.uname, m.gname) for m in members} == {(0, 0, 0, "", "")}
    assert [m.name for m in members] == sorted(m.name for m in members)


def test_the_longest_clip_fits_and_one_sample_more_does_not(tmp_path, sample):
    longest = replace(sample, duration_seconds=30.0)
    audio = np.zeros(MAX_CLIP_SAMPLES + 1, np.float32)
    assert write_shard(tmp_path / "a.tar", [(longest, audio[:-1])]).duration_seconds == 30.0
    with pytest.raises(ValueError, match="at most 480000"):
        write_shard(tmp_path / "b.tar", [(longest, audio)])


def test_a_clip_is_as_long_as_it_says(tmp_path, sample):
    with pytest.raises(ValueError, match=r"says 2\.0 s, but its audio is 1\.0000 s long"):
        write_shard(tmp_path / "a.tar", [(replace(sample, duration_seconds=2.0), noise(1.0))])


def test_two_clips_with_one_id_are_refused(tmp_path, clips):
    with pytest.raises(ValueError, match="two clips have the key"):
        write_shard(tmp_path / "a.tar", [clips[0], clips[0]])


def test_a_shard_without_clips_is_refused(tmp_path):
    with pytest.raises(ValueError, match="one corpus and split, got \\[\\]"):
        write_shard(tmp_path / "a.tar", [])


def test_a_shard_of_two_splits_is_refused(tmp_path, clips):
    (first, audio), second = clips[:2]
    with pytest.raises(ValueError, match="one corpus and split"):
        write_shard(tmp_path / "a.tar", [(replace(first, split="test"), audio), second])


def test_a_failed_write_leaves_nothing(tmp_path, clips):
    broken = replace(clips[0][0], id="nan", avg_logprob=float("nan"))
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_shard(tmp_path / "a.tar", [*clips, (broken, clips[0][1])])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.5, 0.9])
def test_a_shard_that_was_cut_off_is_refused(tmp_path, share):
    content = GOLDEN.read_bytes()
    (tmp_path / "a.tar").write_bytes(content[: int(len(content) * share)])
    with pytest.raises(ValueError, match=r"a\.tar is damaged"):
        list(read_shard(tmp_path / "a.tar"))


@pytest.mark.parametrize("lost", ["flac", "json"])
def test_a_clip_that_lost_a_member_is_named(tmp_path, lost):
    with tarfile.open(GOLDEN) as source, tarfile.open(tmp_path / "a.tar", "w") as target:
        for member in source.getmembers():
            if member.name != f"golden-002.{lost}":
                target.addfile(member, source.extractfile(member))
    with pytest.raises(ValueError, match=rf"clip golden-002 has no \.{lost} member"):
        list(read_shard(tmp_path / "a.tar"))


def test_a_missing_shard_is_missing(tmp_path):
    with pytest.raises(FileNotFoundError):
        next(read_shard(tmp_path / "a.tar"))


def make_record(**changes) -> CommitRecord:
    record = CommitRecord(
        block="b-00000",
        fingerprint="f",
        label_key="l",
        shard_key="s",
        shard=None,
        kept=0,
        rejected={"wer": 2, "no_speech": 1},
        failed={"read": 1},
        kept_seconds=0.0,
    )
    return replace(record, **changes)


def test_a_record_survives_the_disk_with_and_without_a_shard(tmp_path, clips):
    entry = write_shard(tmp_path / "b.tar", clips)
    for record in (make_record(), make_record(shard=entry, kept=5, kept_seconds=1.5)):
        write_record(tmp_path / "b.json", record)
        assert read_record(tmp_path / "b.json") == record


def test_a_record_accounts_for_every_utterance():
    assert make_record(kept=5).planned == 9


def test_a_block_without_a_record_is_not_committed(tmp_path):
    assert read_record(tmp_path / "b.json") is None


@pytest.mark.parametrize("text", ["", "{}", "{", '"x"'])
def test_a_damaged_record_is_refused_by_its_path(tmp_path, text):
    (tmp_path / "b.json").write_text(text)
    with pytest.raises(ValueError, match=r"b\.json is no commit record of this release"):
        read_record(tmp_path / "b.json")

"""Corpora behind URLs, read through real protocol servers on loopback."""

import json
from pathlib import Path

import fsspec
import pytest

from pipeline import corpora
from pipeline.audio import AudioError, load_audio, probe, stream_audio
from pipeline.config import BlocksConfig, PipelineConfig
from pipeline.corpora import CorpusError, Utterance
from pipeline.plan import CorpusChangedError, entries, make_plan
from tests.pipeline.conftest import write_tone
from tests.pipeline.corpora.material import check_positions, configured, read_all
from tests.pipeline.corpora.test_folder import librispeech
from tests.pipeline.corpora.test_kaldi import ami
from tests.pipeline.corpora.test_parquet import hub_rows, write
from tests.pipeline.corpora.test_webdataset import sample, write_tar


def upload(folder: Path, url: str) -> str:
    fsspec.filesystem("s3").put(f"{folder}/", url.removeprefix("s3://") + "/", recursive=True)
    return url


def manifest(folder: Path, count: int = 3) -> Path:
    folder.mkdir(exist_ok=True)
    lines = []
    for i in range(count):
        write_tone(folder / f"{i}.flac", 0.5 + i / 2)
        lines.append(json.dumps({"audio_filepath": f"{i}.flac", "text": f"text {i}"}))
    (folder / "train.jsonl").write_text("\n".join(lines))
    return folder


def planned(*corpora_: object, **fields) -> PipelineConfig:
    return PipelineConfig(output="x", corpora=list(corpora_), **fields)  # type: ignore[arg-type]


def test_manifest_in_a_bucket_is_planned_and_read(s3: str, tmp_path: Path):
    upload(manifest(tmp_path / "m"), f"{s3}/m")
    config = planned(configured("manifest", f"{s3}/m/train.jsonl"))
    plan = make_plan(config, "r")
    assert (plan.num_utterances, plan.duration_seconds) == (3, 3.0)
    found = [e for e in entries(plan.blocks[0], config) if isinstance(e, Utterance)]
    assert found[2].path == f"{s3}/m/2.flac"
    assert load_audio(found[2].path, 0.25, 0.5).size == 8_000
    check_positions(config.corpora[0])


def test_a_corpus_has_the_same_plan_on_disk_and_in_a_bucket(s3: str, tmp_path: Path):
    folder = manifest(tmp_path / "m")
    upload(folder, f"{s3}/m")
    here, there = (
        make_plan(planned(configured("manifest", f"{place}/train.jsonl")), "r").blocks
        for place in (folder, f"{s3}/m")
    )
    assert here == there


def test_folders_tars_kaldi_and_parquet_in_a_bucket(s3: str, tmp_path: Path):
    for name in ("ls", "kaldi", "tars"):
        (tmp_path / name).mkdir()
    upload(librispeech(tmp_path / "ls"), f"{s3}/ls")
    ami(tmp_path / "kaldi", wav_scp="m1 m1.wav\nm2 m2.wav\n")
    upload(tmp_path / "kaldi", f"{s3}/kaldi")
    write_tar(tmp_path / "tars/a-0.tar", sample("x") + sample("y"))
    write_tar(tmp_path / "tars/a-1.tar", sample("z"))
    upload(tmp_path / "tars", f"{s3}/tars")
    write(tmp_path / "pq/a.parquet", hub_rows(4))
    upload(tmp_path / "pq", f"{s3}/pq")
    for kind, path, count in (
        ("folder", f"{s3}/ls", 4),
        ("kaldi", f"{s3}/kaldi", 3),
        ("webdataset", f"{s3}/tars/a-*.tar", 3),
        ("webdataset", f"{s3}/tars/a-{{0..1}}.tar", 3),
        ("parquet", f"{s3}/pq", 4),
    ):
        config = configured(kind, path)
        found = read_all(config)
        assert len(found) == count
        assert all(load_audio(u.path, u.start_seconds, 0.1).size == 1600 for u in found), kind
        check_positions(config)


def test_remote_parquet_without_durations_is_planned_by_an_estimate(s3: str, tmp_path: Path):
    rows = [row | {"duration_ms": None} for row in hub_rows(6)]
    upload(write(tmp_path / "pq/a.parquet", rows).parent, f"{s3}/pq")
    found = read_all(configured("parquet", f"{s3}/pq"))
    assert all(u.duration_seconds is None and u.estimated_seconds for u in found)
    block = BlocksConfig(minutes=1)
    plan = make_plan(planned(configured("parquet", f"{s3}/pq"), blocks=block), "r")
    assert 0.3 < plan.duration_seconds < 30


def test_an_object_that_changed_after_planning_is_noticed(s3: str, tmp_path: Path):
    upload(manifest(tmp_path / "m"), f"{s3}/m")
    config = planned(configured("manifest", f"{s3}/m/train.jsonl"))
    (block,) = make_plan(config, "r").blocks
    write_tone(tmp_path / "m/1.flac", 3.0)
    upload(tmp_path / "m", f"{s3}/m")
    with pytest.raises(CorpusChangedError, match="Start the run again"):
        entries(block, config)


def test_missing_objects_and_buckets_are_named(s3: str):
    with pytest.raises(AudioError, match=f"{s3}/gone.flac: no such file"):
        load_audio(f"{s3}/gone.flac")
    with pytest.raises(FileNotFoundError, match="there is no file s3://corpora/gone.jsonl"):
        list(corpora.read(configured("manifest", f"{s3}/gone.jsonl")))
    with pytest.raises((FileNotFoundError, CorpusError), match="no-such-bucket"):
        list(corpora.read(configured("folder", "s3://no-such-bucket/x")))


def test_missing_credentials_say_where_they_are_looked_for(s3: str, monkeypatch, tmp_path: Path):
    import s3fs

    upload(manifest(tmp_path / "m"), f"{s3}/m")
    with monkeypatch.context() as without:
        without.delenv("AWS_ACCESS_KEY_ID")
        without.delenv("AWS_SECRET_ACCESS_KEY")
        without.setenv("AWS_EC2_METADATA_DISABLED", "true")
        without.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
        without.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
        s3fs.S3FileSystem.clear_instance_cache()
        with pytest.raises(AudioError, match="AWS_ACCESS_KEY_ID"):
            load_audio(f"{s3}/m/0.flac")
    s3fs.S3FileSystem.clear_instance_cache()


def test_unknown_protocol_is_an_error_that_names_the_file():
    with pytest.raises(AudioError, match=r"gopher://x/a\.wav"):
        load_audio("gopher://x/a.wav")


def test_corpus_behind_http(http_server: tuple[str, Path]):
    url, folder = http_server
    manifest(folder)
    config = planned(configured("manifest", f"{url}/train.jsonl"))
    plan = make_plan(config, "r")
    assert plan.duration_seconds == 3.0
    (first, *_) = entries(plan.blocks[0], config)
    assert isinstance(first, Utterance)
    assert probe(first.path).duration_seconds == 0.5
    assert sum(b.size for b in stream_audio(first.path, block_seconds=0.1)) == 8_000
    with pytest.raises(AudioError, match="no such file"):
        load_audio(f"{url}/gone.flac")


def test_parts_of_large_remote_files_are_read_without_the_rest(
    s3: str, tmp_path: Path, monkeypatch
):
    monkeypatch.setattr("pipeline.storage.files._WHOLE_BYTES", 1000)
    monkeypatch.setattr("pipeline.storage._SMALL_MEMBER_BYTES", 1000)
    (tmp_path / "t").mkdir()
    write_tone(tmp_path / "t/a.wav", 20.0)
    write_tar(tmp_path / "t/a.tar", sample("x", 5.0) + sample("y", 4.0))
    upload(tmp_path / "t", f"{s3}/t")
    assert load_audio(f"{s3}/t/a.wav", 15.0, 1.0).size == 16_000
    x, y = read_all(configured("webdataset", f"{s3}/t/a.tar"))
    assert load_audio(y.path, 3.0).size == 16_000
    assert load_audio(x.path, 1.0, 1.0).size == 16_000

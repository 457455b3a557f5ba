"""Corpora and datasets in Google Cloud Storage, through gcsfs and a server on loopback.

Neither is among what development installs; `pip install gcsfs gcp-storage-emulator` runs these.
"""

import dataclasses
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import fsspec
import pytest
from fsspec.config import conf

from pipeline.audio import AudioError, load_audio
from pipeline.config import PipelineConfig
from pipeline.files import path_of
from pipeline.report import write_report
from pipeline.run import run
from pipeline.schema import read_index
from tests.pipeline.corpora.material import check_positions, configured, read_all
from tests.pipeline.storage.test_remote import manifest

# Asks by gRPC what kind of bucket it is, which the server does not speak; read at import.
os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
gcsfs = pytest.importorskip("gcsfs", reason="needs gcsfs")
emulator = pytest.importorskip("gcp_storage_emulator.server", reason="needs gcp-storage-emulator")

BUCKET = "corpora"


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    """Start a server."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = emulator.create_server("127.0.0.1", port, in_memory=True, default_bucket=BUCKET)
    server.start()
    yield f"http://127.0.0.1:{port}"
    server.stop()


@pytest.fixture
def gs(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Yield the URL of a bucket; the environment leads there, without credentials."""
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", endpoint)
    monkeypatch.setitem(conf, "gs", {"token": "anon"})
    monkeypatch.setitem(conf, "gcs", {"token": "anon"})
    gcsfs.GCSFileSystem.clear_instance_cache()
    yield f"gs://{BUCKET}"
    gcsfs.GCSFileSystem.clear_instance_cache()


def test_corpora_in_a_bucket_are_listed_and_read(gs: str, tmp_path: Path):
    folder = manifest(tmp_path / "m")
    for path in folder.iterdir():
        fsspec.filesystem("gs").put_file(str(path), f"{BUCKET}/m/{path.name}")
    listed = configured("manifest", f"{gs}/m/train.jsonl")
    found = read_all(listed)
    assert [u.path for u in found] == [f"{gs}/m/{i}.flac" for i in range(3)]
    assert load_audio(found[2].path, 0.25, 0.5).size == 8_000
    check_positions(listed)
    assert len(read_all(configured("folder", f"{gs}/m", references=False))) == 3
    with pytest.raises(AudioError, match=f"{gs}/m/gone.flac: no such file"):
        load_audio(f"{gs}/m/gone.flac")


def test_a_dataset_in_a_bucket_is_that_on_a_disk(
    gs: str, configure: Callable[..., PipelineConfig], corpus: Callable, tones: Callable
):
    here = configure(corpus(*tones(3)))
    there = dataclasses.replace(here, output=f"{gs}/sets/mine")
    run(here)
    outcome = run(there)
    assert outcome.totals.kept > 0
    for entry in read_index(there.output).shards:
        name = f"shards/{entry.name}"
        there_path, here_path = path_of(there.output) / name, path_of(here.output) / name
        assert there_path.read_bytes() == here_path.read_bytes()
    assert run(there).nothing_to_do
    assert write_report(there.output).kept == outcome.totals.kept

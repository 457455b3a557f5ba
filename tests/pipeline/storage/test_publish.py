"""A dataset in a bucket is published as the one on a disk is."""

import dataclasses
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pipeline.__main__ import main
from pipeline.config import PipelineConfig
from pipeline.files import path_of
from pipeline.limits import FilterConfig
from pipeline.run import run
from tests.hub_server import HubServer, hub_in_process

REPO = "owner/speech"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    with hub_in_process(monkeypatch) as server:
        yield server


def test_what_lies_in_a_bucket_goes_up_as_from_a_disk(
    configure: Callable[..., PipelineConfig],
    corpus: Callable,
    tones: Callable,
    s3: str,
    hub: HubServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    config = configure(corpus(*tones(5), licence="cc0-1.0"), filter=FilterConfig(max_wer=100.0))
    there = dataclasses.replace(config, output=f"{s3}/sets/mine")
    for each in (config, there):
        run(each)
        add_labels(each.output)
    fetched = tmp_path / "fetched"
    fetched.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(fetched))

    def publish(output: str) -> dict[str, bytes]:
        assert main(["publish", output, REPO, "--commit_files", "2"]) == 0
        return dict(hub.repository(REPO).files)

    on_disk = publish(config.output)
    hub.repositories.clear()
    from_bucket = publish(there.output)
    assert from_bucket.keys() == on_disk.keys()
    assert any(name.startswith("labels@second/") for name in from_bucket)
    for name in on_disk.keys() - {"index.json", "README.md"}:  # these tell how long it took
        assert from_bucket[name] == on_disk[name], name
    assert not list(fetched.iterdir())

    uploads = len(hub.uploads)
    publish(there.output)
    assert len(hub.uploads) == uploads

    shard = next(p for p in (path_of(there.output) / "shards").iterdir() if p.suffix == ".tar")
    shard.write_bytes(b"\x01" + shard.read_bytes()[1:])
    assert main(["publish", there.output, REPO]) == 1
    assert "is not the file that the index lists" in capsys.readouterr().err


def add_labels(output: str) -> None:
    """Put a file of labels beside each shard."""
    for shard in (path_of(output) / "shards").iterdir():
        if shard.suffix == ".tar":
            beside = path_of(output) / "labels@second" / f"{shard.stem}.jsonl"
            beside.parent.mkdir(parents=True, exist_ok=True)
            beside.write_bytes(b"")


def test_an_output_that_is_not_there_is_named(s3: str, hub: HubServer, capsys):
    assert main(["publish", f"{s3}/nothing", REPO]) == 2
    assert f"{s3}/nothing is not a finished dataset" in capsys.readouterr().err

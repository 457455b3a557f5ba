"""Corpora on the Hub, read through its own client from a server on loopback.

In a process of its own, because clients read their environment when they are imported.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.storage import cell_address
from tests.hub_server import File, HubServer, hub_environment, serving
from tests.pipeline.conftest import write_tone
from tests.pipeline.corpora.test_hub import peoples_speech
from tests.pipeline.corpora.test_webdataset import sample, write_tar

HERE = "hf://datasets/owner/speech"

READ = """
import json
from pipeline import corpora
from pipeline.audio import AudioError, load_audio
from pipeline.config import BlocksConfig, ColumnsConfig, CorpusConfig, PipelineConfig
from pipeline.plan import entries, make_plan
from tests.pipeline.corpora.material import check_positions, read_all

HERE = "hf://datasets/owner/speech"
milliseconds = ColumnsConfig(duration="duration_ms")
asked = {
    "hub": dict(
        path="owner/speech", subset="clean", source_split="train.100", columns=milliseconds
    ),
    "parquet": dict(path=f"{HERE}/clean/train-*.parquet", columns=milliseconds),
    "webdataset": dict(path=f"{HERE}/tars/a-{{0..1}}.tar"),
    "manifest": dict(path=f"{HERE}/flat/train.jsonl"),
    "folder": dict(path=f"{HERE}/flat", references=False),
}
found = {}
for kind, fields in asked.items():
    corpus = CorpusConfig(kind=kind, name="c", licence="cc0-1.0", **fields)
    utterances = read_all(corpus)
    check_positions(corpus)
    config = PipelineConfig(output="x", corpora=[corpus])
    plan = make_plan(config, "r")
    assert plan.num_utterances == len(utterances)
    assert [e for block in plan.blocks for e in entries(block, config)] == utterances
    found[kind] = [[u.id, u.path, load_audio(u.path, u.start_seconds).size] for u in utterances]
try:
    load_audio(f"{HERE}/flat/gone.flac")
except AudioError as error:
    found["gone"] = str(error)
print(json.dumps(found))
"""


def fill(server: HubServer, folder: Path) -> None:
    """Put a corpus of each layout into one dataset repository."""
    peoples_speech(folder)
    write_tar(folder / "tars/a-0.tar", sample("x") + sample("y"))
    write_tar(folder / "tars/a-1.tar", sample("z"))
    lines = [{"audio_filepath": f"{i}.flac", "text": f"text {i}"} for i in range(2)]
    for i in range(2):
        write_tone(folder / f"flat/{i}.flac", 0.5 + i / 2)
    (folder / "flat/train.jsonl").write_text("\n".join(map(json.dumps, lines)))
    paths = [path for path in folder.rglob("*") if path.is_file()]
    files = {
        path.relative_to(folder).as_posix(): File(path.read_bytes(), path.suffix != ".md")
        for path in paths
    }
    server.create("owner/speech").commit(files, sorted(files))


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict:
    folder = tmp_path_factory.mktemp("hub")
    for name in ("tars", "flat"):
        (folder / name).mkdir()
    with serving() as server:
        fill(server, folder)
        done = subprocess.run(
            [sys.executable, "-c", READ],
            env=hub_environment(server, folder / "home", "hf_read"),
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_dataset_repository_is_read_by_name(found: dict):
    assert [id_ for id_, _, _ in found["hub"]] == [f"u{i}" for i in range(6)]
    assert [size for _, _, size in found["hub"]] == [1600 * (i + 1) for i in range(6)]
    assert all(f"::{HERE}@" in path for _, path, _ in found["hub"]), "pinned to a commit"


def test_paths_of_the_hub_are_read_as_any_other(found: dict):
    first = cell_address(f"{HERE}/clean/train-00000.parquet", 0, 0, "audio.bytes")
    assert found["parquet"][0] == ["u0", first, 1600]
    assert [id_ for id_, _, _ in found["parquet"]] == [f"u{i}" for i in range(6)]
    assert len(found["webdataset"]) == 3
    assert [path for _, path, _ in found["manifest"]] == [f"{HERE}/flat/{i}.flac" for i in range(2)]
    for kind in ("manifest", "folder"):
        assert [size for _, _, size in found[kind]] == [8_000, 16_000]


def test_a_file_that_is_not_there_is_named(found: dict):
    assert found["gone"] == f"{HERE}/flat/gone.flac: no such file"

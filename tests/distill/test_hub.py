"""A model that is nowhere is said to be so at once; one in the cache needs no Hub."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from distill.student import load_model
from tests.hub_server import File, hub_environment, no_hub, serving

CACHED = """
import time
from huggingface_hub import constants
from distill.hub import revision
from distill.student import load_model, load_processor

load_model("owner/teacher"), load_processor("owner/teacher")
known = revision("owner/teacher")
constants.ENDPOINT = "http://127.0.0.1:9"
constants.HUGGINGFACE_CO_URL_TEMPLATE = "http://127.0.0.1:9/{repo_id}/resolve/{revision}/{filename}"
time.sleep = None  # nothing may wait to ask again
load_model("owner/teacher"), load_processor("owner/teacher")
assert known and revision("owner/teacher") == known
assert revision("owner/nothing") is None and revision("no/such/folder") is None
print("loaded again")
"""


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("openai/whisper-nothing", "the Hub does not answer"),
        ("nothing", "the Hub does not answer"),
        ("no/such/folder", "Repo id must be"),
        ("/no/folder", "Repo id must be"),
    ],
)
def test_a_model_that_is_nowhere_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch, name: str, reason: str
):
    no_hub(monkeypatch)
    monkeypatch.setattr(time, "sleep", lambda _: pytest.fail("it waits to ask again"))
    with pytest.raises(ValueError, match=f"no Whisper model could be loaded from .*{reason}"):
        load_model(name)


def test_a_model_in_the_cache_is_loaded_while_the_hub_is_away(teacher_folder: Path, tmp_path: Path):
    files = {path.name: File(path.read_bytes(), False) for path in teacher_folder.iterdir()}
    with serving() as server:
        server.create("owner/teacher", "model").commit(files, sorted(files))
        done = subprocess.run(
            [sys.executable, "-c", CACHED],
            env=hub_environment(server, tmp_path / "home"),
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.stdout.strip() == "loaded again", done.stderr

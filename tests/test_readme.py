"""What the README tells a reader to type works: its marked Python snippets run on a real shard."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
SNIPPETS = dict(
    re.findall(r"<!-- tested: ([\w-]+) -->\n```python\n(.*?)```", README, flags=re.DOTALL)
)


@pytest.fixture
def finished_quickstart(tmp_path: Path) -> Path:
    """A folder in which `runs/quickstart` holds one real train shard, as after a run."""
    shards = tmp_path / "runs" / "quickstart" / "shards"
    shards.mkdir(parents=True)
    golden = ROOT / "tests" / "golden" / "shard.tar"
    shutil.copy(golden, shards / "embedded-train-00000.tar")
    return tmp_path


def test_both_ways_of_loading_shards_are_shown():
    assert SNIPPETS.keys() >= {"load-with-webdataset", "load-with-datasets"}


@pytest.mark.parametrize("snippet", sorted(SNIPPETS))
def test_snippet_runs_and_prints_labels(snippet: str, finished_quickstart: Path, tmp_path: Path):
    result = subprocess.run(
        [sys.executable, "-c", SNIPPETS[snippet]],
        cwd=finished_quickstart,
        env=os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hub")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert "16000" in result.stdout

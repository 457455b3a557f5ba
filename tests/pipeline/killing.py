"""Start the real command so that it kills itself at a chosen point, and look at what it left."""

import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
FAULTS = Path(__file__).parent / "faults"
WALL_CLOCK = re.compile(rb"Last run, wall clock</th><td>\d+ s<")


def environment(output: Path, **variables: str) -> dict[str, str]:
    """Return an environment in which `faults/sitecustomize.py` is loaded."""
    return {
        **os.environ,
        "PYTHONPATH": f"{FAULTS}{os.pathsep}{REPOSITORY}",
        "FAULT_ROOT": str(output),
        **variables,
    }


def start(config_file: Path, output: Path, *options: str, **variables: str) -> subprocess.Popen:
    """Start `python -m pipeline run` in a process of its own."""
    command = [sys.executable, "-m", "pipeline", "run", "--config", str(config_file), *options]
    return subprocess.Popen(
        command,
        cwd=REPOSITORY,
        env=environment(output, **variables),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def tree(output: Path) -> dict[str, str]:
    """Hash every file of an output; the wall time in index and report does not count."""
    hashes = {}
    for path in sorted(output.rglob("*")):
        if path.is_file():
            content = path.read_bytes()
            if path.name == "index.json":
                index = json.loads(content)
                index["totals"].pop("wall_seconds")
                content = json.dumps(index).encode()
            elif path.name == "report.json":
                report = json.loads(content)
                report.pop("wall_seconds")
                content = json.dumps(report).encode()
            elif path.name == "report.html":
                content, found = WALL_CLOCK.subn(b"", content)
                assert found == 1
            hashes[str(path.relative_to(output))] = hashlib.sha256(content).hexdigest()
    return hashes


def ledger(output: Path) -> dict[str, tuple[int, int]]:
    """Identify every committed ledger part: a part that is written again is another file."""
    return {
        path.name: (path.stat().st_ino, path.stat().st_mtime_ns)
        for path in sorted(output.glob("ledger/*/*.parquet"))
    }

"""Disks that are full or read-only: a clear end, nothing half-written taken for done."""

import dataclasses
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.__main__ import main
from pipeline.config_files import to_yaml
from pipeline.run import run
from pipeline.schema import read_index
from pipeline.workers import RunError
from tests.pipeline.killing import ledger


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB."""
    mount = tmp_path / "disk"
    mount.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(mount)],
        capture_output=True,
        text=True,
        check=False,
    )
    if made.returncode:
        pytest.skip(f"no file system of a given size can be mounted here: {made.stderr.strip()}")
    yield mount
    subprocess.run(["umount", "--lazy", str(mount)], check=False)


def remount(disk: Path, option: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{option}", str(disk)], check=True)


def test_full_disk_stops_the_run_and_more_room_finishes_it(corpus, configure, tones, disk):
    config = dataclasses.replace(configure(corpus(*tones(6))), output=str(disk / "out"))
    with pytest.raises((RunError, OSError), match="No space left on device"):
        run(config)
    output = Path(config.output)
    assert not (output / "index.json").exists()
    assert not list(output.rglob("*.tmp"))
    committed = ledger(output)
    remount(disk, "size=64m")
    totals = run(config).totals
    assert totals.kept == totals.planned == 6
    assert {name: ledger(output)[name] for name in committed} == committed


def test_disk_that_became_read_only_is_named_and_nothing_is_lost(
    corpus, configure, tones, disk, tmp_path, capsys
):
    remount(disk, "size=64m")
    lines = tones(3)
    config = dataclasses.replace(configure(corpus(*lines)), output=str(disk / "out"))
    run(config)
    corpus(*lines, dict(lines[0], id="new"))
    config_file = tmp_path / "config.yaml"
    config_file.write_text(to_yaml(config), encoding="utf-8")
    remount(disk, "ro")
    assert main(["run", "--config", str(config_file)]) == 1
    assert f"Read-only file system: '{disk / 'out'}" in capsys.readouterr().err
    totals = read_index(config.output).totals
    assert totals.kept == 3
    remount(disk, "rw")
    assert main(["run", "--config", str(config_file)]) == 0
    assert read_index(config.output).totals.kept == 4

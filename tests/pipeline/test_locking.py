import os
import signal
import socket
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from pipeline.locking import LockedError, locked
from pipeline.parts import Part

HOLDER = """
import sys, time
from pathlib import Path
from pipeline.locking import locked
with locked(Path(sys.argv[1])):
    print("locked", flush=True)
    time.sleep(600)
"""


def part(number: int, of: int = 4) -> Part:
    return Part(number=number, of=of)


def test_second_run_is_refused_and_told_who_is_at_work(tmp_path: Path):
    with (
        locked(tmp_path),
        pytest.raises(
            LockedError, match=rf"a run, process {os.getpid()} on {socket.gethostname()}"
        ),
        locked(tmp_path),
    ):
        pass


def test_the_lock_is_free_again_and_leaves_nothing(tmp_path: Path):
    for _ in range(2):
        with locked(tmp_path):
            pass
    assert list(tmp_path.iterdir()) == []


def test_different_parts_work_side_by_side_and_leave_nothing(tmp_path: Path):
    with ExitStack() as stack:
        for number in range(4):
            stack.enter_context(locked(tmp_path, part(number)))
        assert (tmp_path / ".lock").exists()
    assert list(tmp_path.iterdir()) == []


def test_the_same_part_is_refused_and_named(tmp_path: Path):
    with (
        locked(tmp_path, part(2)),
        pytest.raises(LockedError, match="the run of shard 2 of 4, process"),
        locked(tmp_path, part(2)),
    ):
        pass


def test_a_whole_run_and_parts_exclude_each_other(tmp_path: Path):
    with locked(tmp_path), pytest.raises(LockedError, match="a run, process"):
        locked(tmp_path, part(0)).__enter__()
    with (
        locked(tmp_path, part(0)),
        locked(tmp_path, part(3)),
        pytest.raises(LockedError, match="shard 0 of 4.*; the run of shard 3 of 4"),
        locked(tmp_path),
    ):
        pass


def test_the_lock_of_a_killed_process_is_free(tmp_path: Path):
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "locked\n"
    with pytest.raises(LockedError, match=f"process {holder.pid}"), locked(tmp_path):
        pass
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with locked(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []

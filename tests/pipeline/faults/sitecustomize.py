"""Kill this process at a chosen point of its work. Python loads this by itself, from PYTHONPATH.

FAULT_AT=KIND:N kills with SIGKILL at the N-th event of a kind, counted from 1 in each process. With
FAULT_SIGNAL the launcher gets that signal instead, and the work at that point takes ten minutes.
FAULT_TRACE=FILE writes down the kind of every event. Only what touches FAULT_ROOT counts. The
stopwatch stands still, so that two runs write the same bytes. FAULT_POISON=NAME crashes the process
that decodes the file of that name; FAULT_OFFLINE=NAME loses the connection to it.
FAULT_SLOW=SECONDS makes each event on the disk take so long. FAULT_CLOCK=SEED lets the clock jump
by up to a day, back and forth, whenever it is looked at, and gives every file that is renamed such
a time.
"""

import functools
import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

_ROOT = os.environ.get("FAULT_ROOT", "")
_KIND, _, _NUMBER = os.environ.get("FAULT_AT", "").partition(":")
_TRACE = os.environ.get("FAULT_TRACE")
_SIGNAL = os.environ.get("FAULT_SIGNAL")
_SLOW = float(os.environ.get("FAULT_SLOW", "0"))
_LAUNCHER = int(os.environ.setdefault("FAULT_LAUNCHER", str(os.getpid())))
_seen = Counter()
_lock = threading.Lock()


def event(kind):
    with _lock:
        _seen[kind] += 1
        if _TRACE:
            with Path(_TRACE).open("a") as trace:
                trace.write(f"{kind}\n")
        if kind != _KIND or _seen[kind] != int(_NUMBER):
            return
    if _SIGNAL:
        os.kill(_LAUNCHER, signal.Signals[_SIGNAL])
        time.sleep(600)
    else:
        os.kill(os.getpid(), signal.SIGKILL)


def around(function, kind, of_output=None):
    """Let a function be an event before and after it; of_output tells whether it counts."""

    @functools.wraps(function)
    def wrapped(*args, **kwargs):
        counts = of_output is None or of_output(*args, **kwargs)
        if counts:
            if of_output:
                time.sleep(_SLOW)
            event(f"before {kind}")
        result = function(*args, **kwargs)
        if counts:
            event(f"after {kind}")
        return result

    return wrapped


def first_path(path, *args, **kwargs):
    return str(path).startswith(_ROOT)


def handle(number):
    return first_path(Path(f"/proc/self/fd/{number}").readlink())


def watch_the_disk():
    os.replace = around(os.replace, "rename", first_path)
    os.unlink = around(os.unlink, "unlink", first_path)
    os.mkdir = around(os.mkdir, "mkdir", first_path)
    os.fsync = around(os.fsync, "flush", handle)
    tempfile.mkstemp = around(
        tempfile.mkstemp, "write", lambda *args, **kwargs: first_path(kwargs.get("dir", ""))
    )


def watch_the_work():
    from webdataset.writer import TarWriter

    import pipeline.clips
    import pipeline.ledger
    import pipeline.shards
    import pipeline.stopwatch
    import pipeline.teacher
    from pipeline.teacher.batches import BatchTeacher

    pipeline.stopwatch.time = SimpleNamespace(perf_counter=lambda: 0.0)
    pipeline.clips.read_clip = around(pipeline.clips.read_clip, "read")
    pipeline.clips.load_span = around(pipeline.clips.load_span, "decode")
    pipeline.teacher.load_teacher = around(pipeline.teacher.load_teacher, "load")
    BatchTeacher.label = around(BatchTeacher.label, "batch")
    TarWriter.write = around(TarWriter.write, "member")
    pipeline.ledger.write_ledger = around(pipeline.ledger.write_ledger, "labels")
    pipeline.ledger.write_failures = around(pipeline.ledger.write_failures, "failures")
    pipeline.shards.write_shard = around(pipeline.shards.write_shard, "shard")
    pipeline.shards.write_record = around(pipeline.shards.write_record, "record")


def let_the_clock_jump(seed):
    """Move the wall clock, which NTP or an operator may set; the monotonic one nobody can."""
    rng = random.Random(seed)
    true_time, replace = time.time, os.replace

    def jumping():
        return true_time() + rng.uniform(-86_400, 86_400)

    def renamed(source, target, **kwargs):
        replace(source, target, **kwargs)
        if first_path(target):
            os.utime(target, (jumping(), jumping()))

    time.time, time.time_ns = jumping, lambda: int(jumping() * 1e9)
    os.replace = renamed


def at_opening(name, happens):
    """Let something happen when a process decodes the file of that name."""
    import soundfile

    opened = soundfile.SoundFile.__init__

    def opening(self, file, *args, **kwargs):
        if isinstance(file, int) and Path(f"/proc/self/fd/{file}").readlink().name == name:
            happens()
        opened(self, file, *args, **kwargs)

    soundfile.SoundFile.__init__ = opening


def crash():
    """Die as a decoder in C does that reads where it must not."""
    os.kill(os.getpid(), signal.SIGSEGV)


def lose_the_connection():
    raise ConnectionResetError("reset by peer")


if "pipeline.decoder_process" in sys.orig_argv:
    if name := os.environ.get("FAULT_POISON"):
        at_opening(name, crash)
    if name := os.environ.get("FAULT_OFFLINE"):
        at_opening(name, lose_the_connection)
elif _ROOT:
    watch_the_work()
    watch_the_disk()
    if seed := os.environ.get("FAULT_CLOCK"):
        let_the_clock_jump(int(seed))

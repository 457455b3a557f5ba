"""Beam's runner: which one, how many worker processes, and a watch over them.

`FnApiRunner` is named explicitly, because `DirectRunner` silently becomes another runner when it
can download one. It has two habits that a long run cannot afford: a worker process that dies makes
it wait for ever, and when it is interrupted it leaves its workers running. So it works in a thread,
and the main thread watches. A job on a cluster that is not waited for any more is cancelled: its
workers would go on beside those of the next run.
"""

import logging
import math
import os
import re
import shlex
import socket
import sys
import threading
import time
from collections.abc import Callable

import grpc
import psutil
from apache_beam.options.pipeline_options import (
    DirectOptions,
    PipelineOptions,
    PortableOptions,
    StandardOptions,
)
from apache_beam.runners.portability.fn_api_runner.fn_runner import FnApiRunner
from apache_beam.transforms.environments import SubprocessSDKEnvironment

logger = logging.getLogger(__name__)

_POLL_SECONDS = 0.5
_CONNECT_SECONDS = 10.0
_STOP_SECONDS = 3.0
_WORKER_MODULE = "pipeline.worker_process"
_BLOCKS_PER_FILTERING_WORKER = 16
"""To start a process takes as long as to filter this many hours of labelled audio."""
_WORKER_THREAD = "run_worker"
"""Name of the thread in which Beam waits for a worker process; if that dies, it raises."""
_BEAM_THREADS = (_WORKER_THREAD, "beam_control_read", "read_grpc_client_inputs")
"""They end with an error when the workers are stopped."""
_RUNNERS = {
    name.lower(): name
    for name in (
        "FnApiRunner",
        "DirectRunner",
        "PortableRunner",
        "PrismRunner",
        "FlinkRunner",
        "SparkRunner",
        "DataflowRunner",
    )
}
"""Those that this graph is meant for; Beam's DaskRunner loses elements and says nothing."""
_BEAM_SUFFIX = re.compile(r" \[while running .*$")


class RunError(RuntimeError):
    """A run could not be finished; the message says why and what to do."""


def num_workers(num_to_build: int, num_to_label: int, *, accelerated: bool) -> int:
    """Return how many processes a run is given that does not say.

    One per core, at most one per block; one where the teacher runs on an accelerator, whose memory
    they would have to share; and few where no block needs the teacher.
    """
    if num_to_label and accelerated:
        return 1
    useful = num_to_label or math.ceil(num_to_build / _BLOCKS_PER_FILTERING_WORKER)
    return max(1, min(os.cpu_count() or 1, useful))


def pipeline_options(
    beam: dict[str, str | int | float | bool | list[str]], default_workers: int
) -> PipelineOptions:
    """Complete the user's Beam options with a runner and a number of workers.

    Raises:
        ValueError: Beam has no such option, or no runner of that name.
    """
    options = {"runner": "FnApiRunner", **beam}
    if options["runner"] == "FnApiRunner":
        options.setdefault("direct_num_workers", default_workers)
        one = options["direct_num_workers"] == 1
        options.setdefault("direct_running_mode", "in_memory" if one else "multi_processing")
    built = PipelineOptions.from_dictionary(options)
    unknown = sorted(beam.keys() - built.get_all_options().keys())
    if unknown:
        raise ValueError(
            f"beam: Apache Beam has no option {', '.join(unknown)}; "
            "see https://beam.apache.org/documentation/runners/ for those of each runner"
        )
    name = str(options["runner"])
    if "." not in name and name.lower() not in _RUNNERS:
        raise ValueError(
            f"beam.runner {name!r} is unknown; give one of {', '.join(sorted(_RUNNERS.values()))}, "
            "or the full name of a class"
        )
    return built


def resource_hints(options: PipelineOptions) -> dict[str, str]:
    """Take the resource hints out of the options, for the one stage that needs them.

    Left where they are, Beam would ask for a GPU for the stage that lists the blocks, too.
    """
    standard = options.view_as(StandardOptions)
    hints, standard.resource_hints = standard.resource_hints or [], []
    return dict(hint.split("=", 1) for hint in hints)


def check_job_server(options: PipelineOptions) -> None:
    """See that a job server answers where the options say; Beam would wait for a minute.

    Raises:
        RunError: it does not.
    """
    endpoint = options.view_as(PortableOptions).job_endpoint
    if not endpoint or endpoint == "embed":
        return
    host, _, port = endpoint.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=_CONNECT_SECONDS).close()
    except (OSError, ValueError) as error:
        raise RunError(
            f"beam.job_endpoint {endpoint}: no job server answers there ({error}). Start it, or "
            "correct the address (host:port)."
        ) from error


def runner(options: PipelineOptions) -> FnApiRunner | None:
    """Return the in-process runner with our own worker processes, or None for what Beam makes.

    Only the command that starts a worker differs from what Beam would do for these options.
    """
    direct = options.view_as(DirectOptions)
    if options.view_as(StandardOptions).runner != "FnApiRunner":
        return None
    if direct.direct_running_mode != "multi_processing":
        return None
    direct.direct_running_mode = "in_memory"  # else Beam puts its own command in place of ours
    command = f"exec {shlex.quote(sys.executable)} -m {_WORKER_MODULE}"
    return FnApiRunner(default_environment=SubprocessSDKEnvironment.from_command_string(command))


def watch(
    work: Callable[[], object],
    on_tick: Callable[[], None],
    cancel: Callable[[], object] = lambda: None,
) -> None:
    """Do the work in a thread and call `on_tick` about twice a second until it is done.

    Where that is interrupted, or `on_tick` raises, the work is told to `cancel`.

    Raises:
        RunError: the work failed, or a worker process died.
    """
    errors: list[Exception] = []
    # Events and not `thread.join`: in Python 3.11 an interrupted join takes the thread for ended.
    ended, died, stopping = threading.Event(), threading.Event(), threading.Event()

    def guarded() -> None:
        try:
            work()
        except Exception as error:  # handed to the main thread, which raises it
            errors.append(error)
        finally:
            ended.set()

    def on_thread_error(args: threading.ExceptHookArgs) -> None:
        if stopping.is_set():
            logger.debug("while stopping: %s", args.exc_value)
        elif args.thread and args.thread.name == _WORKER_THREAD:
            stopping.set()  # what Beam's other threads say now is noise
            logger.error("%s", args.exc_value)
            died.set()
            ended.set()
        else:
            threading.__excepthook__(args)

    hook, threading.excepthook = threading.excepthook, on_thread_error
    try:
        threading.Thread(target=guarded, name="beam", daemon=True).start()
        while not ended.wait(_POLL_SECONDS):
            on_tick()
    finally:
        if died.is_set() or not ended.is_set():
            stopping.set()
            _cancel(cancel)
            _stop_workers()
        threading.excepthook = hook
    if errors:
        raise RunError(_reason(errors[0])) from errors[0]
    if died.is_set():
        raise RunError(
            "a worker process died, most often because memory ran out. Finished blocks are kept: "
            "run again, with fewer workers (beam.direct_num_workers) or smaller batches "
            "(teacher.batch_size)."
        )


def _reason(error: Exception) -> str:
    """Return what went wrong in a worker, without the traceback that Beam makes its message of."""
    said = error.details() if isinstance(error, grpc.Call) else str(error)
    last_line = ((said or "").strip() or type(error).__name__).splitlines()[-1]
    return _BEAM_SUFFIX.sub("", last_line)


def _cancel(cancel: Callable[[], object]) -> None:
    try:
        cancel()
    except Exception as error:  # each service has its own, and another error is on its way out
        logger.error(
            "the job could not be cancelled and may still be at work (%s): cancel it where it "
            "runs, before you run again",
            _reason(error),
        )


def _stop_workers() -> None:
    """Kill the worker processes that this process has started, and let Beam notice."""
    for child in psutil.Process().children(recursive=True):
        try:
            if _WORKER_MODULE in " ".join(child.cmdline()):
                child.kill()
        except psutil.NoSuchProcess:
            continue
    ends = time.monotonic() + _STOP_SECONDS
    for thread in threading.enumerate():
        if thread.name in _BEAM_THREADS:
            thread.join(max(0.0, ends - time.monotonic()))

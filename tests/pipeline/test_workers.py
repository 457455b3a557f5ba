import logging
import threading
import time

import pytest

from pipeline.workers import RunError, num_workers, pipeline_options, runner, watch


def test_runner_is_named_so_that_beam_does_not_choose():
    options = pipeline_options({}, default_workers=1).get_all_options()
    assert options["runner"] == "FnApiRunner"
    assert options["direct_running_mode"] == "in_memory"


def test_more_workers_are_processes_of_our_own():
    options = pipeline_options({}, default_workers=3)
    assert options.get_all_options()["direct_num_workers"] == 3
    assert options.get_all_options()["direct_running_mode"] == "multi_processing"
    assert runner(options) is not None


def test_what_the_user_says_of_workers_counts():
    options = pipeline_options({"direct_num_workers": 1}, default_workers=3)
    assert options.get_all_options()["direct_running_mode"] == "in_memory"
    assert runner(options) is None


def test_other_runners_are_left_alone():
    options = pipeline_options({"runner": "PortableRunner", "job_endpoint": "h:1"}, 3)
    assert options.get_all_options()["direct_num_workers"] == 1
    assert runner(options) is None


def test_unknown_option_is_refused_by_name(caplog):
    caplog.set_level(logging.ERROR)
    with pytest.raises(ValueError, match="no option bogus"):
        pipeline_options({"bogus": 1}, default_workers=1)


@pytest.mark.parametrize(
    ("to_build", "to_label", "accelerated", "cores", "expected"),
    [
        (10, 10, False, 4, 4),
        (10, 2, False, 4, 2),
        (10, 10, True, 4, 1),
        (10, 0, False, 4, 1),
        (100, 0, True, 4, 4),
        (0, 0, False, 4, 1),
    ],
)
def test_number_of_workers(monkeypatch, to_build, to_label, accelerated, cores, expected):
    monkeypatch.setattr("os.cpu_count", lambda: cores)
    assert num_workers(to_build, to_label, accelerated=accelerated) == expected


def test_error_of_the_work_is_raised_without_beams_traceback():
    def work() -> None:
        raise RuntimeError("Traceback\n  File x\nValueError: no such thing [while running 'a-b']")

    with pytest.raises(RunError, match=r"^ValueError: no such thing$"):
        watch(work, on_tick=lambda: None)


def test_progress_is_looked_at_while_the_work_goes_on():
    ticks = []
    watch(lambda: time.sleep(1.2), on_tick=lambda: ticks.append(1))
    assert len(ticks) >= 2


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, OSError])
def test_work_that_is_not_waited_for_is_cancelled_whatever_becomes_of_that(interruption, caplog):
    ends = threading.Event()

    def interrupt() -> None:
        raise interruption

    def cancel() -> None:
        ends.set()
        raise RuntimeError("the service is gone")

    with pytest.raises(interruption):
        watch(lambda: ends.wait(60), interrupt, cancel)
    assert ends.is_set()
    assert "may still be at work (the service is gone): cancel it where it runs" in caplog.text


def test_work_that_is_done_is_not_cancelled():
    watch(lambda: None, lambda: None, cancel=lambda: pytest.fail("cancelled"))


def test_dead_worker_ends_the_wait():
    def work() -> None:
        def wait_for_process() -> None:
            raise RuntimeError("Worker subprocess exited with return code 137")

        threading.Thread(target=wait_for_process, name="run_worker").start()
        time.sleep(60)

    started = time.monotonic()
    with pytest.raises(RunError, match=r"a worker process died.*run again"):
        watch(work, on_tick=lambda: None)
    assert time.monotonic() - started < 30

"""The way to a cluster, on loopback: a job service, a pool of external workers, real labels."""

import dataclasses
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest
from apache_beam.portability.api import beam_job_api_pb2, beam_job_api_pb2_grpc

from pipeline.config_files import to_yaml
from pipeline.forecast import make_forecast
from pipeline.layout import Layout
from pipeline.ledger import read_ledger
from pipeline.run import run
from pipeline.schema import read_index
from pipeline.workers import RunError
from tests.pipeline.killing import REPOSITORY, tree

SEARCH_PATH = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
"""The pool starts its workers as `python`."""


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]


@contextmanager
def server(module: str, option: str, log: Path) -> Iterator[int]:
    """Run one of Beam's servers on a free port until the context ends."""
    port = free_port()
    with log.open("wb") as output:
        started = subprocess.Popen(
            [sys.executable, "-m", module, option, str(port)],
            env={**os.environ, "PYTHONPATH": str(REPOSITORY), "PATH": SEARCH_PATH},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        for _ in range(600):
            if started.poll() is not None:
                pytest.fail(f"{module} ended: {log.read_text()}")
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        yield port
    finally:
        started.terminate()
        started.wait()


def labels(output: Path) -> dict[str, list]:
    return {p.name: read_ledger(p)[0] for p in sorted(output.glob("ledger/*/*.parquet"))}


def dataset(output: Path) -> dict[str, str]:
    """Hash what does not depend on the time that was needed."""
    files = tree(output)
    return {name: digest for name, digest in files.items() if name.startswith(("shards", "fail"))}


@contextmanager
def portable(folder: Path) -> Iterator[dict[str, str]]:
    """Start a job service and a worker pool; the options lead a run there."""
    with (
        server(
            "apache_beam.runners.portability.local_job_service_main", "--port", folder / "job.log"
        ) as job,
        server(
            "apache_beam.runners.worker.worker_pool_main", "--service_port", folder / "pool.log"
        ) as pool,
    ):
        yield {
            "runner": "PortableRunner",
            "job_endpoint": f"localhost:{job}",
            "environment_type": "EXTERNAL",
            "environment_config": f"localhost:{pool}",
        }


@pytest.mark.slow
def test_two_external_workers_behind_a_job_service_write_the_bytes_of_a_local_run(
    corpus, configure, tones, tmp_path
):
    config = configure(corpus(*tones(5)))
    run(config)
    with portable(tmp_path) as options:
        remote = dataclasses.replace(
            config,
            output=f"{config.output}-remote",
            beam=options,
        )
        config_file = tmp_path / "config.yaml"
        config_file.write_text(to_yaml(remote), encoding="utf-8")
        command = [sys.executable, "-m", "pipeline", "run", "--config", str(config_file)]
        parts = [
            subprocess.Popen(
                [*command, "--num_shards", "2", "--shard", str(number)],
                cwd=REPOSITORY,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            for number in range(2)
        ]
        for number, part in enumerate(parts):
            printed, _ = part.communicate()
            assert part.returncode == 0, printed
            assert f"Done with shard {number} of 2" in printed
    output = Path(remote.output)
    assert not (output / "index.json").exists()
    outcome = run(remote)
    assert (outcome.labelled, outcome.rebuilt, outcome.indexed) == (0, 0, True)
    assert dataset(output) == dataset(Path(config.output))
    assert labels(output) == labels(Path(config.output))
    assert read_index(output).shards == read_index(config.output).shards


@pytest.mark.slow
def test_a_run_that_is_terminated_cancels_its_job(corpus, configure, tmp_path):
    pipe = tmp_path / "pipe.wav"
    os.mkfifo(pipe)  # whoever reads it waits
    with portable(tmp_path) as options:
        config = configure(
            corpus({"audio_filepath": "pipe.wav", "text": "x", "duration": 3}),
            beam=options,
        )
        (tmp_path / "config.yaml").write_text(to_yaml(config), encoding="utf-8")
        started = subprocess.Popen(
            [sys.executable, "-m", "pipeline", "run", "--config", str(tmp_path / "config.yaml")],
            cwd=REPOSITORY,
        )
        at_work = Layout(Path(config.output)).lock("mine-train-00000")
        while not at_work.exists():
            assert started.poll() is None
            time.sleep(0.1)
        assert states(options["job_endpoint"]) == ["RUNNING"]
        started.terminate()
        assert started.wait() == 143
        assert states(options["job_endpoint"]) == ["CANCELLED"]
        pipe.open("wb").close()  # the worker may end
        while at_work.exists():
            time.sleep(0.1)


def states(endpoint: str) -> list[str]:
    """Ask a job service what its jobs are at."""
    with grpc.insecure_channel(endpoint) as channel:
        found = beam_job_api_pb2_grpc.JobServiceStub(channel).GetJobs(
            beam_job_api_pb2.GetJobsRequest()
        )
    return [beam_job_api_pb2.JobState.Enum.Name(job.state) for job in found.job_info]


def test_missing_job_server_is_named_before_anything_is_done(corpus, configure, tones):
    endpoint = f"localhost:{free_port()}"
    config = configure(
        corpus(*tones(1)), beam={"runner": "PortableRunner", "job_endpoint": endpoint}
    )
    with pytest.raises(RunError, match=rf"{endpoint}: no job server answers there"):
        run(config)
    assert not list(Path(config.output).iterdir())


def test_the_number_format_is_that_of_the_workers_wherever_they_are(
    corpus, configure, tones, caplog
):
    elsewhere = {"runner": "PortableRunner", "job_endpoint": f"localhost:{free_port()}"}
    config = configure(corpus(*tones(1)))
    auto = dataclasses.replace(config, beam=elsewhere)
    with pytest.raises(RunError, match="no job server"):
        run(auto)
    assert "all workers will run ctranslate2 with int8_float32. Name" in caplog.text
    caplog.clear()
    teacher = dataclasses.replace(config.teacher, engine="ctranslate2", dtype="float16")
    with pytest.raises(RunError, match="no job server"):
        run(dataclasses.replace(auto, teacher=teacher))
    assert "all workers" not in caplog.text
    here = dataclasses.replace(config, teacher=teacher)
    assert make_forecast(here).blocks_to_label == 1
    with pytest.raises(ValueError, match="float16 does not run with ctranslate2 on cpu"):
        run(here)


def test_unknown_runner_is_refused_and_the_known_ones_are_named(corpus, configure, tones):
    config = configure(corpus(*tones(1)), beam={"runner": "FlinkyRunner"})
    with pytest.raises(ValueError, match="'FlinkyRunner' is unknown; give one of.*FlinkRunner"):
        run(config)

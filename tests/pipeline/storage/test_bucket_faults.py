"""A bucket that throttles, drops connections, refuses or is gone: a run waits, or ends and says."""

import dataclasses
import itertools
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Thread
from typing import Any

import fsspec
import pytest
import s3fs
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server
from werkzeug.wrappers import Response

from pipeline.__main__ import main
from pipeline.config import PipelineConfig
from pipeline.config_files import to_yaml
from pipeline.files import path_of
from pipeline.limits import FilterConfig
from pipeline.run import run
from pipeline.schema import read_index

Fault = Callable[[dict[str, Any]], int | None]
"""Told of a request, returns the status to answer with instead, or None; 0 ends the connection."""

_SAID = {403: "AccessDenied", 500: "InternalError", 503: "SlowDown"}


class Faulty:
    """An S3 server that does what it is told to, now and then."""

    def __init__(self) -> None:
        self._inner = DomainDispatcherApplication(create_backend_app)
        self.fault: Fault = lambda request: None
        self.refused: list[str] = []

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Any:
        status = self.fault(environ)
        if status is None:
            return self._inner(environ, start_response)
        self.refused.append(f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']}")
        environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        if status == 0:
            environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)  # or the client waits for more
            raise ConnectionResetError
        text = f"<Error><Code>{_SAID[status]}</Code><Message>injected</Message></Error>"
        return Response(text, status, content_type="text/xml")(environ, start_response)


@pytest.fixture
def faulty(monkeypatch: pytest.MonkeyPatch) -> Iterator[Faulty]:
    """Start the server and make a bucket; the environment leads there."""
    application = Faulty()
    server = make_server("127.0.0.1", 0, application, threaded=True)
    Thread(target=server.serve_forever, daemon=True).start()
    for name, value in {
        "ENDPOINT_URL": f"http://127.0.0.1:{server.port}",
        "ACCESS_KEY_ID": "testing",
        "SECRET_ACCESS_KEY": "testing",
        "DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    s3fs.S3FileSystem.clear_instance_cache()
    fsspec.filesystem("s3").mkdir("faulty")
    try:
        yield application
    finally:
        application.fault = lambda request: None
        fsspec.filesystem("s3").rm("faulty", recursive=True)
        s3fs.S3FileSystem.clear_instance_cache()
        server.shutdown()


@pytest.fixture
def here(configure: Callable, corpus: Callable, tones: Callable) -> PipelineConfig:
    return configure(corpus(*tones(4)), filter=FilterConfig(max_wer=100.0))


@pytest.fixture
def there(here: PipelineConfig) -> PipelineConfig:
    return dataclasses.replace(here, output="s3://faulty/mine")


def shards(config: PipelineConfig) -> dict[str, bytes]:
    folder = path_of(config.output) / "shards"
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def labelled(config: PipelineConfig) -> dict[str, float]:
    """When each ledger part was written."""
    parts = path_of(f"{config.output}/ledger").rglob("*.parquet")
    return {part.name: part.stat().st_mtime for part in parts}


@contextmanager
def command(config: PipelineConfig, tmp_path: Any) -> Iterator[list[str]]:
    path = tmp_path / "config.yaml"
    path.write_text(to_yaml(config), encoding="utf-8")
    yield ["run", "--config", str(path)]


def writes_of(*places: str) -> Callable[[dict[str, Any]], bool]:
    def matches(request: dict[str, Any]) -> bool:
        return request["REQUEST_METHOD"] in ("PUT", "POST") and any(
            place in request["PATH_INFO"] for place in places
        )

    return matches


def test_throttling_errors_and_lost_connections_are_waited_out(
    faulty: Faulty, here: PipelineConfig, there: PipelineConfig
):
    kinds, requests = itertools.cycle([503, 500, 0]), itertools.count(1)
    faulty.fault = lambda _: next(kinds) if next(requests) % 12 == 0 else None
    totals = run(there).totals
    faulty.fault = lambda _: None
    assert len(faulty.refused) > 3
    assert totals.kept == run(here).totals.kept == 4
    assert shards(there) == shards(here)


@pytest.mark.parametrize("place", ["/ledger/", "index.json"])
def test_a_bucket_that_refuses_ends_the_run_and_says_where_and_the_next_one_finishes(
    faulty: Faulty, here: PipelineConfig, there: PipelineConfig, tmp_path, capsys, place: str
):
    refused = writes_of(place)
    seen = []

    def after_the_first(request: dict[str, Any]) -> int | None:
        if not refused(request) or request["PATH_INFO"].endswith((".lock.tmp", ".writable")):
            return None
        seen.append(request)
        return 403 if len(seen) > 1 or place == "index.json" else None

    faulty.fault = after_the_first
    with command(there, tmp_path) as arguments:
        assert main(arguments) == 1
        said = capsys.readouterr().err
        assert "Traceback" not in said
        assert "s3://faulty/mine" in said
        assert "permission denied" in said
        assert not path_of(f"{there.output}/index.json").exists()
        committed = labelled(there)
        faulty.fault = lambda _: None
        assert main(arguments) == 0
    assert committed.items() <= labelled(there).items()
    run(here)
    assert shards(there) == shards(here)
    assert read_index(there.output).totals.kept == 4


def test_a_bucket_that_is_gone_in_the_middle_is_named(
    faulty: Faulty, there: PipelineConfig, tmp_path, capsys, monkeypatch
):
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")  # or it takes minutes until all give up
    monkeypatch.setattr(s3fs.S3FileSystem, "retries", 1)
    s3fs.S3FileSystem.clear_instance_cache()
    gone = []

    def after_the_labels(request: dict[str, Any]) -> int | None:
        if writes_of("/ledger/")(request):
            gone.append(request)
        return 0 if gone else None

    faulty.fault = after_the_labels
    with command(there, tmp_path) as arguments:
        assert main(arguments) == 1
        said = capsys.readouterr().err
        assert "Traceback" not in said
        assert "s3://faulty/mine" in said
        faulty.fault = lambda _: None
    assert not path_of(f"{there.output}/index.json").exists()

"""Asking the Hub again, and saying why it would not."""

import time

import httpx2
import pytest
from huggingface_hub.errors import HfHubHTTPError

from pipeline.upload.asking import PublishError, ask

REQUEST = httpx2.Request("GET", "http://127.0.0.1/")


def refusal(status: int, **headers: str) -> HfHubHTTPError:
    response = httpx2.Response(status, headers=headers, request=REQUEST)
    return HfHubHTTPError(f"status {status}", response=response)


class Hub:
    """Raises what it is given, one after the other, and then answers."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.asked = 0

    def __call__(self) -> str:
        self.asked += 1
        if self.errors:
            raise self.errors.pop(0)
        return "yes"


@pytest.fixture
def waited(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    seconds: list[float] = []
    monkeypatch.setattr(time, "sleep", seconds.append)
    return seconds


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_what_may_go_better_is_asked_again_with_longer_and_longer_waits(waited, status: int):
    hub = Hub(*[refusal(status)] * 3)
    assert ask("look", hub) == "yes"
    assert hub.asked == 4
    assert waited == [1.0, 2.0, 4.0]


def test_a_lost_connection_is_asked_again(waited):
    assert ask("look", Hub(httpx2.ConnectError("reset"), httpx2.ReadTimeout("slow"))) == "yes"
    assert waited == [1.0, 2.0]


def test_the_hub_decides_how_long_to_wait_if_that_is_longer(waited):
    assert ask("look", Hub(refusal(429, **{"Retry-After": "30"}))) == "yes"
    assert ask("look", Hub(refusal(429, **{"Retry-After": "Wed, 21 Oct"}))) == "yes"
    assert waited == [30.0, 1.0]


@pytest.mark.parametrize("error", [refusal(503), httpx2.ConnectError("away")])
def test_five_failures_are_the_end(waited, error: Exception):
    hub = Hub(*[error] * 9)
    with pytest.raises(PublishError, match="could not look"):
        ask("look", hub)
    assert hub.asked == 5
    assert len(waited) == 4


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (refusal(401), "does not accept the token.*hf auth login"),
        (refusal(403), "may not write there"),
        (refusal(400), "status 400"),
        (ConnectionError("offline mode"), "offline mode"),
        (RuntimeError("upload failed five times"), "upload failed five times"),
    ],
)
def test_what_will_not_go_better_is_asked_once(waited, error: Exception, reason: str):
    hub = Hub(error)
    with pytest.raises(PublishError, match=f"could not look: .*{reason}"):
        ask("look", hub)
    assert (hub.asked, waited) == (1, [])

"""Ask the Hub, again where it may go better, and in words of the user where it will not."""

import logging
import time
from collections.abc import Callable
from typing import TypeVar

import httpx2  # what huggingface_hub speaks HTTP with
from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError

logger = logging.getLogger(__name__)

_RETRIES = 4
_FIRST_WAIT_SECONDS = 1.0
_WORTH_ANOTHER_TRY = (408, 429, 500, 502, 503, 504)

T = TypeVar("T")


class PublishError(OSError):
    """What was to be published is damaged, or the Hub did not take it; the message says more."""


def ask(what: str, question: Callable[[], T]) -> T:
    """Ask the Hub something; again where it may go better, and in words where it will not.

    The client tries again by itself while bytes are uploaded, but not when it lists, creates or
    commits.
    """
    wait = _FIRST_WAIT_SECONDS
    for retries_left in reversed(range(_RETRIES + 1)):
        try:
            return question()
        except HfHubHTTPError as error:
            status = error.response.status_code
            if status not in _WORTH_ANOTHER_TRY or not retries_left:
                raise PublishError(f"could not {what}: {_reason(error, status)}") from error
            logger.warning("could not %s: status %d; trying again", what, status)
            time.sleep(max(wait, _retry_after(error)))
        except ConnectionError as error:  # offline by HF_HUB_OFFLINE
            raise PublishError(f"could not {what}: {error}") from error
        except RuntimeError as error:  # how the client wraps an upload that failed five times
            raise PublishError(f"could not {what}: {error.__cause__ or error}") from error
        except httpx2.TransportError as error:
            if not retries_left:
                raise PublishError(
                    f"could not {what}: the Hub does not answer ({error})"
                ) from error
            logger.warning("could not %s: %s; trying again", what, error)
            time.sleep(wait)
        wait *= 2
    raise AssertionError("unreachable")


def _retry_after(error: HfHubHTTPError) -> float:
    value = error.response.headers.get("Retry-After", "")
    return float(value) if value.isdigit() else 0.0


def _reason(error: HfHubHTTPError, status: int) -> str:
    """Say what a refusal means."""
    if status == 401 and not isinstance(error, RepositoryNotFoundError):
        return "the Hub does not accept the token; run `hf auth login`, or set another HF_TOKEN"
    if status == 403:
        return f"the token may not write there ({error.server_message or 'no reason given'})"
    return str(error.server_message or error).strip().splitlines()[0]

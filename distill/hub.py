"""Is a model on the Hub, and which revision of it? Each asked once.

The client asks for each of a dozen files by itself, and for each of them for half a minute if the
Hub is away, even for those that a cached model never had.
"""

import logging
from pathlib import Path

import httpx2  # what huggingface_hub speaks HTTP with
from huggingface_hub import HfApi, try_to_load_from_cache
from huggingface_hub.errors import RepositoryNotFoundError

from pipeline.schema import model_path

logger = logging.getLogger(__name__)

_TIMEOUT_SECONDS = 10


def only_here(name: str) -> bool:
    """Tell whether a model can only be had from this machine: the Hub does not answer.

    Raises:
        ValueError: it is no folder, and the Hub could have nothing of that name.
        OSError: the Hub has no such model, or does not answer and there is no copy of it.
    """
    if Path(model_path(name)).is_dir():
        return True
    try:
        HfApi().model_info(name, timeout=_TIMEOUT_SECONDS)
    except RepositoryNotFoundError:
        raise
    except (OSError, httpx2.TransportError) as error:
        if not isinstance(try_to_load_from_cache(name, "config.json"), str):
            raise OSError(
                "There is no such folder, no copy in the Hub's local cache, and the Hub does not "
                f"answer: {error}"
            ) from error
        logger.info("the Hub does not answer; %s is taken from its local cache", name)
        return True
    return False


def revision(name: str) -> str | None:
    """Return the commit that a model of the Hub is loaded from; None where that is not known."""
    try:
        return HfApi().model_info(name, timeout=_TIMEOUT_SECONDS).sha
    except (OSError, ValueError, httpx2.TransportError):
        pass
    try:
        cached = try_to_load_from_cache(name, "config.json")
    except ValueError:  # no name that the Hub could have
        return None
    return Path(cached).parent.name if isinstance(cached, str) else None

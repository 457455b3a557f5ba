"""The model that labels. An engine is a module with the functions and methods of `engine.Engine`.

Naming a teacher is kept apart from loading it: a run that only rebuilds shards needs the name, and
must not wait for torch or need the memory.
"""

import dataclasses
import functools
import hashlib
import importlib
import logging
import re
from pathlib import Path

import httpx2  # what huggingface_hub speaks HTTP with
from huggingface_hub import HfApi, try_to_load_from_cache
from huggingface_hub.errors import HfHubHTTPError, HFValidationError

from pipeline.config import DecodingConfig, TeacherConfig
from pipeline.schema import model_path
from pipeline.teacher.batches import BatchTeacher, ahead
from pipeline.teacher.canary import (
    CanaryError,
    CanaryResult,
    canary,
    check_canary,
    check_drift,
)
from pipeline.teacher.checks import check_teacher
from pipeline.teacher.conversion import SMALL_FILES, conversion_identity
from pipeline.teacher.engine import ENGINES
from pipeline.teacher.hardware import (
    check_dtype,
    choose_device,
    claim_device,
    settle,
    versions,
)
from pipeline.teacher.label import Label, Prepared, Teacher

logger = logging.getLogger(__name__)

__all__ = [
    "CanaryError",
    "CanaryResult",
    "Label",
    "Prepared",
    "Teacher",
    "ahead",
    "canary",
    "check_canary",
    "check_drift",
    "check_dtype",
    "check_teacher",
    "engine_identity",
    "load_teacher",
    "resolve_revision",
    "settle",
    "uses_accelerator",
]

_COMMIT = re.compile(r"[0-9a-f]{40}")
_WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin")


def load_teacher(config: TeacherConfig, decoding: DecodingConfig, revision: str) -> Teacher:
    """Load the weights at exactly this revision, on a device of this machine.

    Raises:
        ValueError: the teacher cannot be run as configured.
        MemoryError: it does not fit.
    """
    device = claim_device(config)
    config = settle(dataclasses.replace(config, device=device))
    check_dtype(config)
    # torch and transformers take seconds to import; `plan` and a rebuild of shards do without.
    engine = importlib.import_module(ENGINES[config.engine]).load(config, revision)
    return BatchTeacher(engine, decoding, window=config.window, batch_size=config.batch_size)


def resolve_revision(config: TeacherConfig) -> str:
    """Return which weights the name stands for today, without loading them.

    That is the commit for a model on the Hub, and a hash of weights and settings for a local
    folder, so that retrained weights or another tokenizer in it count as another teacher.

    Raises:
        FileNotFoundError: neither a folder with weights nor, as far as can be told, on the Hub.
    """
    folder = Path(model_path(config.model))
    if folder.is_dir():
        return _hash_model(folder)
    if config.model == "embedded":
        raise FileNotFoundError(f"the embedded teacher is missing: there is no folder {folder}")
    if config.revision and _COMMIT.fullmatch(config.revision):
        return config.revision
    try:
        commit = HfApi().model_info(config.model, revision=config.revision, timeout=10).sha
    except HFValidationError as error:
        raise FileNotFoundError(_not_found(config.model)) from error
    except (HfHubHTTPError, OSError, httpx2.TransportError) as error:
        cached = try_to_load_from_cache(config.model, "config.json", revision=config.revision)
        if not isinstance(cached, str):
            raise FileNotFoundError(f"{_not_found(config.model)} ({error})") from error
        logger.warning(
            "the Hub does not answer (%s); %s is taken from its local cache. HF_HUB_OFFLINE=1 "
            "saves asking for each file",
            error,
            config.model,
        )
        commit = Path(cached).parent.name
    assert commit, f"the Hub gave no commit for {config.model}"
    return commit


def uses_accelerator(config: TeacherConfig) -> bool:
    """Tell whether the teacher will run on a GPU."""
    return choose_device(config) != "cpu"


@functools.lru_cache(maxsize=1)
def engine_identity(config: TeacherConfig, revision: str) -> str:
    """Name what runs a loaded teacher in this process: libraries, and the weights they read."""
    converted = conversion_identity(config, revision) if config.engine == "ctranslate2" else ""
    return f"{versions(config.engine)} {converted}"


def _not_found(model: str) -> str:
    return (
        f"teacher.model {model!r} is no local folder, and the Hub (or its local cache) does not "
        "have it. Give `embedded`, a Hub id such as openai/whisper-large-v3, or a Whisper folder."
    )


def _hash_model(folder: Path) -> str:
    """Hash a local model: weights, of sharded ones the index and all parts, and settings."""
    index = next((folder / name for name in _WEIGHTS if (folder / name).is_file()), None)
    if index is None:
        raise FileNotFoundError(f"{folder} holds no weights: none of {', '.join(_WEIGHTS)}")
    files = (
        [index, *sorted(folder.glob("model-*.safetensors"))] if index.suffix == ".json" else [index]
    )
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    for name in SMALL_FILES:
        if (folder / name).is_file():
            content = hashlib.sha256((folder / name).read_bytes())
            digest.update(name.encode() + content.digest())
    return digest.hexdigest()[:40]

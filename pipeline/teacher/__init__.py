"""The model that labels. An engine is a module with one class that has the methods of `Teacher`.

Naming a teacher is kept apart from loading it: a run that only rebuilds shards needs the name, and
must not wait for torch or need the memory.
"""

import hashlib
import re
from pathlib import Path

from huggingface_hub import HfApi, try_to_load_from_cache
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled

from pipeline.config import DecodingConfig, TeacherConfig
from pipeline.schema import model_path
from pipeline.teacher.label import Label, Teacher

__all__ = ["Label", "Teacher", "load_teacher", "resolve_revision", "uses_accelerator"]

_COMMIT = re.compile(r"[0-9a-f]{40}")
_WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin")


def load_teacher(config: TeacherConfig, decoding: DecodingConfig, revision: str) -> Teacher:
    """Load the weights at exactly this revision."""
    # torch and transformers take seconds to import; `plan` and a rebuild of shards do without.
    from pipeline.teacher.transformers_engine import TransformersTeacher

    match config.engine:
        case "transformers":
            return TransformersTeacher(config, decoding, revision)


def resolve_revision(config: TeacherConfig) -> str:
    """Return which weights the name stands for today, without loading them.

    That is the commit for a model on the Hub, and the hash of the weights for a local folder, so
    that retrained weights in the same folder count as another teacher.

    Raises:
        FileNotFoundError: neither a folder with weights nor, as far as can be told, on the Hub.
    """
    folder = Path(model_path(config.model))
    if folder.is_dir():
        return _hash_weights(folder)
    if config.model == "embedded":
        raise FileNotFoundError(f"the embedded teacher is missing: there is no folder {folder}")
    if config.revision and _COMMIT.fullmatch(config.revision):
        return config.revision
    try:
        commit = HfApi().model_info(config.model, revision=config.revision).sha
    except HFValidationError as error:
        raise FileNotFoundError(_not_found(config.model)) from error
    except (HfHubHTTPError, OfflineModeIsEnabled, OSError) as error:
        cached = try_to_load_from_cache(config.model, "config.json", revision=config.revision)
        if not isinstance(cached, str):
            raise FileNotFoundError(f"{_not_found(config.model)} ({error})") from error
        commit = Path(cached).parent.name
    assert commit, f"the Hub gave no commit for {config.model}"
    return commit


def uses_accelerator(config: TeacherConfig) -> bool:
    """Tell whether the teacher will run on a GPU."""
    if config.device != "auto":
        return config.device != "cpu"
    import torch

    return torch.cuda.is_available()


def _not_found(model: str) -> str:
    return (
        f"teacher.model {model!r} is no local folder, and the Hub (or its local cache) does not "
        "have it. Give `embedded`, a Hub id such as openai/whisper-large-v3, or a Whisper folder."
    )


def _hash_weights(folder: Path) -> str:
    """Hash the weights of a local model; of a sharded one, its index and all parts."""
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
    return digest.hexdigest()[:40]

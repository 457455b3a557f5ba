"""A model's files of weights: where they are, and by what another training of it is noticed.

A training writes over the folder of the one before, so a name alone does not say which model it
was. Sizes and times of the files do, and cost nothing: whoever only wants to know whether anything
changed takes them. What is said of a model to others is tied to a hash, which a copy keeps.
"""

import hashlib
from pathlib import Path
from typing import Any

from distill.hub import revision
from distill.quantization.packed import FILE_NAME
from distill.shards import file_sha256
from pipeline.schema import model_path

_WEIGHTS = (FILE_NAME, "model*.safetensors", "model.bin", "pytorch_model*.bin")
"""Files of weights by kind; of a folder that has several kinds one is read, the first of these."""


def weight_files(name: str) -> list[Path]:
    """Return the weights in a model's folder, of one kind; none for a name that is no folder."""
    return next(filter(None, _by_kind(name)), [])


def weights_sha256(name: str) -> str | None:
    """Return a hash of the files of a model's weights; None for a name that is no folder."""
    digest = hashlib.sha256()
    for file in (files := weight_files(name)):
        digest.update(f"{file.name} {file_sha256(file)}\n".encode())
    return digest.hexdigest() if files else None


def weights_identity(name: str) -> dict[str, Any]:
    """Return what tells the weights of a model from others of that name.

    Size and modification time of each file of a folder; the revision of a model on the Hub, which
    is asked for it.
    """
    if not Path(model_path(name)).is_dir():
        return {"revision": revision(name)}
    return {file.name: file_identity(file) for files in _by_kind(name) for file in files}


def file_identity(path: Path) -> dict[str, int]:
    """Return what tells a file from another one at its path.

    Raises:
        OSError: it cannot be looked at.
    """
    found = path.stat()
    return {"size_bytes": found.st_size, "modified_ns": found.st_mtime_ns}


def _by_kind(name: str) -> list[list[Path]]:
    return [sorted(Path(model_path(name)).glob(pattern)) for pattern in _WEIGHTS]

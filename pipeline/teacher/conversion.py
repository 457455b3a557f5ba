"""Convert Hugging Face weights for CTranslate2, once, into a cache.

A conversion is found again by its content: the revision of the weights and what the model's small
files say. It is written beside its place and renamed into it, so a folder that is there is whole.
Only the conversion needs torch and transformers; whoever finds it done needs neither.
"""

import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.config import TeacherConfig
from pipeline.schema import model_path

CACHE_VARIABLE = "WHISPER_DISTILLERY_CACHE"
SETTINGS = "whisper.json"
TOKENIZER = "tokenizer.json"

_FORMAT = 1
"""Raised when what a conversion holds changes."""
SMALL_FILES = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
    "merges.txt",
    "added_tokens.json",
    "preprocessor_config.json",
    "processor_config.json",
)
"""What of a model decides its labels next to the weights; a model has some of them."""


def converted(config: TeacherConfig, revision: str) -> Path:
    """Return the folder of the converted teacher, converting it where that is not done yet.

    Workers that come at the same time wait for the one that converts.

    Raises:
        ValueError: the model cannot be converted.
    """
    folder = conversion_folder(config, revision)
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _locked(folder.with_name(f"{folder.name}.lock")):
        if not folder.is_dir():
            _convert(config, revision, folder)
    return folder


def conversion_folder(config: TeacherConfig, revision: str) -> Path:
    """Return where a conversion is, or would be; reads the model's small files at most."""
    digest = hashlib.sha256(f"{_FORMAT} {revision}".encode())
    source = Path(model_path(config.model))
    if source.is_dir():  # on the Hub, the commit stands for these as well
        for name in SMALL_FILES:
            if (source / name).is_file():
                digest.update(name.encode() + (source / name).read_bytes())
    return cache_folder() / "ctranslate2" / digest.hexdigest()[:32]


def conversion_identity(config: TeacherConfig, revision: str) -> str:
    """Tell this conversion from another one in its place; "" where there is none."""
    model = conversion_folder(config, revision) / "model.bin"
    if not model.is_file():
        return ""
    found = model.stat()
    return f"{model.parent.name} {found.st_size} {found.st_mtime_ns}"


def cache_folder() -> Path:
    """Return where conversions are kept: `$WHISPER_DISTILLERY_CACHE`, else the user's cache."""
    if given := os.environ.get(CACHE_VARIABLE):
        return Path(given)
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "whisper-distillery"


def _convert(config: TeacherConfig, revision: str, folder: Path) -> None:
    """Convert, and put the result in its place in one step."""
    # torch and transformers take seconds to import, and a worker whose teacher is converted may
    # not have them at all.
    try:
        import torch
        import transformers
        from ctranslate2.converters import TransformersConverter
    except ImportError as error:
        raise ValueError(
            f"the teacher is not converted yet, and to convert it needs {error.name}: install "
            "whisper-distillery[pipeline,fast], or convert where that is installed and share "
            f"the folder that {CACHE_VARIABLE} names"
        ) from error

    name = model_path(config.model)
    transformers.logging.disable_progress_bar()
    loaded = transformers.AutoConfig.from_pretrained(name, revision=revision)
    tokenizer = transformers.WhisperTokenizer.from_pretrained(name, revision=revision)
    generation = transformers.GenerationConfig.from_pretrained(name, revision=revision)
    # The weights stay as they are: the number format is chosen when they are loaded.
    half = loaded.dtype in (torch.float16, torch.bfloat16)
    temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        converter = TransformersConverter(name, revision=revision, load_as_float16=half)
        converter.convert(str(temporary), force=True)
        tokenizer.backend_tokenizer.save(str(temporary / TOKENIZER))
        settings = {"config": loaded.to_dict(), "generation": generation.to_dict()}
        text = json.dumps(settings, default=str, indent=1, sort_keys=True)
        (temporary / SETTINGS).write_text(text, encoding="utf-8")
        temporary.chmod(0o755)  # mkdtemp makes it readable for its owner only
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a lock that other processes wait for; it is freed however this one ends."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield

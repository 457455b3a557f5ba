"""Refuse a teacher that cannot work, before any block starts and any money is spent.

Everything here looks at small files and file sizes; no weights are loaded.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import tokenizers
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, LocalEntryNotFoundError

from pipeline.config import TeacherConfig
from pipeline.schema import model_path
from pipeline.teacher.vocabulary import Vocabulary, read_vocabulary

AUTO_LANGUAGE = "auto"


def check_teacher(config: TeacherConfig, revision: str, languages: Iterable[str]) -> None:
    """Check that the model is a whole Whisper that knows the languages.

    Raises:
        FileNotFoundError: a file is missing that every model has.
        ValueError: it is no Whisper, its parts do not belong together, its weights are damaged, or
            it does not know a language.
    """
    settings = _read_json(config, revision, "config.json")
    if settings is None:
        raise FileNotFoundError(
            f"teacher.model {config.model!r} has no config.json: a Whisper folder holds "
            "config.json, tokenizer.json and model.safetensors"
        )
    kind = settings.get("model_type")
    if kind != "whisper":
        raise ValueError(
            f"teacher.model {config.model!r} is a {kind} model; give a Whisper, "
            "such as openai/whisper-large-v3"
        )
    _check_mels(config, revision, settings)
    vocabulary = _vocabulary(config, revision, settings)
    if vocabulary is not None:
        for language in sorted(set(languages) - {AUTO_LANGUAGE}):
            vocabulary.check_language(language)
    folder = Path(model_path(config.model))
    if folder.is_dir():
        for weights in sorted(folder.glob("*.safetensors")):
            check_safetensors(weights)


def check_safetensors(path: Path) -> None:
    """Check that a file of weights is as long as its header says.

    Raises:
        ValueError: it is cut short or damaged.
    """
    damaged = f"{path} is damaged: {{}}. Fetch or write the model again."
    size_bytes = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 2 <= length <= size_bytes - 8:
            raise ValueError(damaged.format(f"{size_bytes} bytes, and no header of safetensors"))
        try:
            header = json.loads(file.read(length))
            ends = [v["data_offsets"][1] for k, v in header.items() if k != "__metadata__"]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(damaged.format(f"its header cannot be read ({error})")) from error
    expected = 8 + length + max(ends, default=0)
    if size_bytes != expected:
        raise ValueError(damaged.format(f"{size_bytes} bytes, where {expected} should be"))


def _check_mels(config: TeacherConfig, revision: str, settings: dict[str, Any]) -> None:
    """Check that the features the model came with are those it takes."""
    extractor = _read_json(config, revision, "preprocessor_config.json")
    if extractor is None:
        processor = _read_json(config, revision, "processor_config.json") or {}
        extractor = processor.get("feature_extractor") or {}
    size, expected = extractor.get("feature_size"), settings.get("num_mel_bins")
    if size is not None and size != expected:
        raise ValueError(
            f"teacher.model {config.model!r} takes {expected} mel bands, but its preprocessor "
            f"makes {size}: its files are of different models"
        )


def _vocabulary(
    config: TeacherConfig, revision: str, settings: dict[str, Any]
) -> Vocabulary | None:
    """Read the vocabulary, or None for a model with the older files only, which is checked later.

    Raises:
        ValueError: the tokenizer is not a Whisper's, or not this model's.
    """
    path = _file(config, revision, "tokenizer.json")
    if path is None:
        return None
    try:
        tokenizer = tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises nothing narrower
        raise ValueError(f"{path} is damaged: {error}") from error
    generation = _read_json(config, revision, "generation_config.json") or {}
    return read_vocabulary(tokenizer, settings, generation)


def _read_json(config: TeacherConfig, revision: str, name: str) -> dict[str, Any] | None:
    """Read one of a model's small files, or None where it has no such file."""
    path = _file(config, revision, name)
    if path is None:
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}") from error


def _file(config: TeacherConfig, revision: str, name: str) -> Path | None:
    """Find a file of a local folder, or of the Hub through its cache."""
    folder = Path(model_path(config.model))
    if folder.is_dir():
        return folder / name if (folder / name).is_file() else None
    try:
        return Path(hf_hub_download(config.model, name, revision=revision))
    except LocalEntryNotFoundError as error:
        raise FileNotFoundError(
            f"{name} of teacher.model {config.model!r} is neither in the Hub's local cache nor can "
            f"the Hub be reached ({error})"
        ) from error
    except EntryNotFoundError:
        return None
    except HfHubHTTPError as error:
        raise FileNotFoundError(
            f"the Hub does not give {name} of {config.model!r}: {error}"
        ) from error

"""Which files of a folder are a model, and in which format it is.

Named one by one: a folder may also hold checkpoints, logs and pickles, and none of these is
published.
"""

import fnmatch
import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from distill.export.config import NUMBERS
from distill.export.report import is_of, read_report
from distill.quantization.packed import FILE_NAME as PACKED
from distill.quantization.sizes import inspect, number_format
from distill.weight_files import weights_sha256

logger = logging.getLogger(__name__)

_TEXTS = (
    "config.json",
    "generation_config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocabulary.json",
    "vocabulary.txt",
    "merges.txt",
    "normalizer.json",
)
_WEIGHTS = {
    "transformers": ("model.safetensors", "model-*-of-*.safetensors"),
    "packed integers (whisper-distill)": (PACKED,),
    "CTranslate2 (faster-whisper)": ("model.bin",),
    "ONNX (onnxruntime)": ("*.onnx", "*.onnx_data"),
    "ggml (whisper.cpp)": ("ggml-*.bin", "*.gguf"),
}
_INDEX = "model.safetensors.index.json"


@dataclass(frozen=True, kw_only=True)
class Variant:
    """A folder with a model."""

    folder: Path
    format: str
    files: tuple[Path, ...]

    @property
    def weight_bytes(self) -> int:
        """How large its weights are."""
        return sum(path.stat().st_size for path in self.files if path.name not in _PLAIN)

    @property
    def numbers(self) -> str:
        """What its weights are stored in, such as float16; "" where neither format nor name say."""
        stored = [path for path in self.files if path.suffix == ".safetensors"]
        return number_format(stored[0]) if stored else NUMBERS.get(self.folder.name, "")


_PLAIN = {*_TEXTS, _INDEX}


def is_model_file(name: str) -> bool:
    """Tell whether a file of that name is published as a part of a model."""
    patterns = (pattern for patterns in _WEIGHTS.values() for pattern in patterns)
    return name in _PLAIN or any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def find_variant(folder: Path) -> Variant | None:
    """Return the model in a folder, or None where there is none."""
    if not folder.is_dir():
        return None
    paths = sorted(path for path in folder.iterdir() if path.is_file())
    for name, patterns in _WEIGHTS.items():
        weights = [p for p in paths if any(fnmatch.fnmatch(p.name, known) for known in patterns)]
        if weights:
            texts = [path for path in paths if path.name in _PLAIN]
            return Variant(folder=folder, format=name, files=tuple(sorted([*texts, *weights])))
    return None


def read_student(folder: Path) -> Variant:
    """Return the files of a student that is complete.

    Raises:
        FileNotFoundError: there is no model, or a part of it is missing.
        ValueError: it is no Whisper, or its weights are damaged.
    """
    found = find_variant(folder)
    if found is None or not any(path.suffix == ".safetensors" for path in found.files):
        raise FileNotFoundError(
            f"{folder} holds no student: there is no model.safetensors and no {PACKED} in it. "
            "Give the folder `student` of a training, or one of `whisper-distill quantize`"
        )
    names = {path.name for path in found.files}
    needed = ["config.json", "generation_config.json", "tokenizer_config.json"]
    missing = [name for name in needed if name not in names]
    if not names & {"preprocessor_config.json", "processor_config.json"}:
        missing.append("preprocessor_config.json")
    if missing:
        raise FileNotFoundError(f"{folder} lacks {', '.join(missing)}; a reader could not load it")
    kind = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("model_type")
    if kind != "whisper":
        raise ValueError(f"{folder} holds a model of type {kind!r}; this publishes Whisper models")
    inspect(folder)
    return found


def variants_beside(student: Path) -> list[Variant]:
    """Find the folders beside a student, or one level deeper, with another format of it.

    What lies there may be any model, so only what is known to be this one is taken: exports whose
    `export.json` names the student and says that they do as it does, and in the folder of a
    training what was quantised there. Plain models are never taken. The others are named in the
    log.
    """
    student = student.resolve()
    found = []
    for variant in _nearby(student):
        if variant.format == "transformers":
            continue
        if _belongs(variant, student):
            found.append(variant)
        else:
            logger.info(
                "%s, %s, is not published: nothing says that it is this model and does as it does; "
                "name it with --variants if it is",
                variant.folder, variant.format,
            )  # fmt: skip
    return found


def _belongs(variant: Variant, student: Path) -> bool:
    parent = variant.folder.parent
    try:
        report = read_report(parent)
    except ValueError as error:
        logger.warning("%s", error)
        report = None
    if report and is_of(report, student, weights_sha256(str(student))):
        compared = [each for each in report["formats"] if each.get("agreement")]
        if variant.folder.name in {each["format"] for each in compared if each["passed"]}:
            return True
    is_packed = any(path.name == PACKED for path in variant.files)
    return is_packed and parent == student.parent and (parent / "run.json").is_file()


def _nearby(student: Path) -> Iterator[Variant]:
    for folder in sorted(path for path in student.parent.iterdir() if path.is_dir()):
        if folder == student or folder.name == "checkpoints":
            continue
        if found := find_variant(folder):
            yield found
            continue
        for inner in sorted(path for path in folder.iterdir() if path.is_dir()):
            if found := find_variant(inner):
                yield found

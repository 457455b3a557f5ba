"""How many bytes a model takes: of a folder as it lies there, or of any size without weights.

Both count the same entries, (name, type, shape), and add the header that the safetensors format
puts before them, so a forecast is the size of the file to the byte.
"""

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import WhisperConfig, WhisperForConditionalGeneration

from distill.quantization.fake import plan
from distill.quantization.packed import ARCHITECTURE, FILE_NAME, metadata_of
from distill.quantization.presets import PRESETS, Grid, rules_of

BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I8": 1, "U8": 1, "I64": 8, "I32": 4}

Entry = tuple[str, str, tuple[int, ...]]
"""Name, type as safetensors calls it, shape."""

# width, encoder layers, decoder layers, heads, vocabulary, mels
SIZES: dict[str, tuple[int, int, int, int, int, int]] = {
    "tiny": (384, 4, 4, 6, 51865, 80),
    "base": (512, 6, 6, 8, 51865, 80),
    "small": (768, 12, 12, 12, 51865, 80),
    "medium": (1024, 24, 24, 16, 51865, 80),
    "large-v2": (1280, 32, 32, 20, 51865, 80),
    "large-v3": (1280, 32, 32, 20, 51866, 128),
    "large-v3-turbo": (1280, 32, 4, 20, 51866, 128),
}


@dataclass(frozen=True, kw_only=True)
class SizeReport:
    """Bytes of a model's weights by part."""

    parts: dict[str, int]
    """They add up to `file_bytes`; `header` is names, shapes and metadata."""
    file_bytes: int
    parameters: int
    """Weights that are stored, each counted once."""
    float16_bytes: int
    """The same weights in a plain float16 file."""

    @property
    def float16_ratio(self) -> float:
        """How many times smaller than the same model in float16."""
        return self.float16_bytes / self.file_bytes


def standard_config(size: str) -> WhisperConfig:
    """Return the dimensions of a published Whisper.

    Raises:
        ValueError: there is no such size.
    """
    if size not in SIZES:
        raise ValueError(f"no Whisper is called {size!r}; choose from {', '.join(SIZES)}")
    width, encoder_layers, decoder_layers, heads, vocabulary, mels = SIZES[size]
    return WhisperConfig(
        d_model=width,
        encoder_layers=encoder_layers,
        decoder_layers=decoder_layers,
        encoder_attention_heads=heads,
        decoder_attention_heads=heads,
        encoder_ffn_dim=4 * width,
        decoder_ffn_dim=4 * width,
        vocab_size=vocabulary,
        num_mel_bins=mels,
    )


def size_report(config: WhisperConfig | str, preset: str = "paper") -> SizeReport:
    """Compute the size of a model's file before there are weights.

    Args:
        config: a configuration, or the name of a published size (`tiny` to `large-v3-turbo`).
        preset: one of `presets.PRESETS`, or `float16` for a plain file.

    Raises:
        ValueError: no such size or preset, or its groups do not fit the model's width.
    """
    if preset not in PRESETS and preset != "float16":
        raise ValueError(
            f"no preset is called {preset!r}; choose from float16, {', '.join(PRESETS)}"
        )
    if isinstance(config, str):
        config = standard_config(config)
    with torch.device("meta"):
        model = WhisperForConditionalGeneration(config)
    shapes = {name: tuple(value.shape) for name, value in model.named_parameters()}
    plain: list[Entry] = [(name, "F16", shape) for name, shape in shapes.items()]
    float16_bytes = _report(plain, _header_bytes(plain, {"format": "pt"}), 0).file_bytes
    if preset == "float16":
        return _report(plain, _header_bytes(plain, {"format": "pt"}), float16_bytes)
    grids = plan(model, rules_of(preset))
    entries = [entry for name, shape in shapes.items() for entry in _entries(name, shape, grids)]
    architecture = {name: getattr(config, name) for name in ARCHITECTURE}
    metadata = metadata_of(grids, architecture) | {"sha256": "0" * 64}
    return _report(entries, _header_bytes(entries, metadata), float16_bytes)


def inspect(folder: str | Path) -> SizeReport:
    """Add up the weight files of a folder, quantised or plain, from their headers.

    Raises:
        FileNotFoundError: there is no safetensors file.
        ValueError: a file is not safetensors, or not as long as its header says.
    """
    folder = Path(folder)
    packed = folder / FILE_NAME
    paths = [packed] if packed.is_file() else sorted(folder.glob("*.safetensors"))
    if not paths:
        raise FileNotFoundError(f"{folder} holds no safetensors file with a model's weights")
    entries: list[Entry] = []
    header_bytes = 0
    for path in paths:
        header, length = read_header(path)
        found = [(n, e["dtype"], tuple(e["shape"])) for n, e in header.items() if n != METADATA]
        size_bytes = length + sum(_size(entry) for entry in found)
        if size_bytes != path.stat().st_size:
            raise ValueError(
                f"{path} has {path.stat().st_size} bytes, its header says {size_bytes}: it is "
                "damaged or cut off; copy it again"
            )
        entries += found
        header_bytes += length
    plain: list[Entry] = []
    for name, dtype, shape in entries:
        if name.endswith(".weight.q"):
            columns = shape[1] * 2 if dtype == "U8" else shape[1]
            plain.append((name.removesuffix(".q"), "F16", (shape[0], columns)))
        elif not name.endswith(".weight.s"):
            plain.append((name, "F16", shape))
    float16_bytes = _report(plain, _header_bytes(plain, {"format": "pt"}), 0).file_bytes
    return _report(entries, header_bytes, float16_bytes)


def number_format(path: str | Path) -> str:
    """Say in what numbers a safetensors file holds its weights, such as `int8, float16`.

    The scales of integers are not named.

    Raises:
        ValueError: it is no safetensors file.
    """
    header, _ = read_header(Path(path))
    kinds: set[str] = {
        e["dtype"] for n, e in header.items() if n != METADATA and not n.endswith(".weight.s")
    }
    ordered = sorted(kinds, key=lambda kind: (BYTES.get(kind, 0), kind))
    return ", ".join(_FORMATS.get(kind, kind) for kind in ordered)


METADATA = "__metadata__"
_FORMATS = {"U8": "int4", "I8": "int8", "F16": "float16", "BF16": "bfloat16", "F32": "float32"}
"""Whole bytes without a sign hold two integers of four bits."""


def read_header(path: Path) -> tuple[dict, int]:
    """Return the header of a safetensors file and the bytes before its first tensor.

    Raises:
        ValueError: it is not such a file.
    """
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > path.stat().st_size:
            raise ValueError(f"{path} is no safetensors file, or is cut off")
        try:
            return json.loads(file.read(length)), 8 + length
        except ValueError as error:
            raise ValueError(f"{path} is no safetensors file ({error})") from error


def authors_bytes(config: WhisperConfig | str, decoder_bits: int = 16) -> int:
    """Count as the authors of DQ-Whisper do: bits of every decoder weight, 16 of all else.

    Norms count as weights, scales do not count; 16 bits give the model in float16.
    """
    if isinstance(config, str):
        config = standard_config(config)
    with torch.device("meta"):
        model = WhisperForConditionalGeneration(config)
    bits = 0
    for name, value in model.named_parameters():
        is_weight = name.endswith(".weight") and "embed_positions" not in name
        in_decoder = not name.startswith("model.encoder.")
        bits += value.numel() * (decoder_bits if is_weight and in_decoder else 16)
    return bits // 8


def _entries(name: str, shape: tuple[int, ...], grids: Mapping[str, Grid]) -> list[Entry]:
    """Return what a weight is stored as."""
    grid = grids.get(name.removesuffix(".weight"))
    if grid is None:
        return [(name, "F16", shape)]
    scale = "F16" if grid.scale == "float16" else "F32"
    rows, columns = shape
    integers: Entry = (f"{name}.q", "I8", shape)
    if grid.bits <= 4:
        integers = (f"{name}.q", "U8", (rows, columns // 2))
    return [integers, (f"{name}.s", scale, grid.scale_shape(shape))]


def _report(entries: Iterable[Entry], header_bytes: int, float16_bytes: int) -> SizeReport:
    parts: dict[str, int] = {}
    parameters = 0
    for entry in entries:
        name, dtype, shape = entry
        part = _part(name)
        parts[part] = parts.get(part, 0) + _size(entry)
        if part != "scales":
            parameters += math.prod(shape) * (2 if dtype == "U8" else 1)
    parts = dict(sorted(parts.items())) | {"header": header_bytes}
    total = sum(parts.values())
    return SizeReport(
        parts=parts,
        file_bytes=total,
        parameters=parameters,
        float16_bytes=float16_bytes or total,
    )


def _part(name: str) -> str:
    if name.endswith(".weight.s"):
        return "scales"
    if "embed_positions" in name:
        return "positions"
    if "embed_tokens" in name or name.startswith("proj_out"):
        return "token embedding"
    if ".conv" in name:
        return "convolutions"
    if "layer_norm" in name or name.endswith(".bias"):
        return "norms and biases"
    return "encoder layers" if name.startswith("model.encoder.") else "decoder layers"


def _size(entry: Entry) -> int:
    _, dtype, shape = entry
    if dtype not in BYTES:
        raise ValueError(f"{entry[0]} has the type {dtype}, which no Whisper has")
    return math.prod(shape) * BYTES[dtype]


def _header_bytes(entries: Iterable[Entry], metadata: Mapping[str, str]) -> int:
    """Return the length of the header that the safetensors library writes, with its 8 bytes."""
    header: dict[str, object] = {METADATA: dict(metadata)}
    offset = 0
    for entry in sorted(entries, key=lambda e: (-BYTES[e[1]], e[0])):
        name, dtype, shape = entry
        end = offset + _size(entry)
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [offset, end]}
        offset = end
    length = len(json.dumps(header, separators=(",", ":")).encode())
    return 8 + (length + 7) // 8 * 8

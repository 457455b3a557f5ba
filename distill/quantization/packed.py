"""The small file: integers, scales and float16 in one safetensors file, with a checksum.

A folder holds `quantized.safetensors` beside the usual config, generation settings and tokenizer.
The weights have a name of their own, so that nothing that expects plain weights finds them. In it

    <layer>.weight.q    int8 (rows, columns), or uint8 (rows, columns / 2) up to 4 bits
    <layer>.weight.s    scales (rows or 1, groups)
    everything else     float16; a tied output head is not stored again

The metadata names the format, the grids, the architecture, and the SHA-256 of all of it: a file
that is damaged, or belongs to another model, raises an error and never gives wrong weights.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import WhisperConfig, WhisperForConditionalGeneration

from distill.quantization.fake import quantised_layers
from distill.quantization.grid import (
    SMALLEST_LEARNED,
    absmax_scale,
    dequantize,
    pack_nibbles,
    quantize,
    stored_scale,
    unpack_nibbles,
)
from distill.quantization.presets import Grid

FILE_NAME = "quantized.safetensors"
FORMAT = "dqw-1"
ARCHITECTURE = (
    "vocab_size",
    "num_mel_bins",
    "d_model",
    "encoder_layers",
    "decoder_layers",
    "encoder_attention_heads",
    "decoder_attention_heads",
    "encoder_ffn_dim",
    "decoder_ffn_dim",
    "max_source_positions",
    "max_target_positions",
)


@dataclass(frozen=True, kw_only=True)
class Packed:
    """What a file holds, as it is stored."""

    grids: dict[str, Grid]
    architecture: dict[str, int]
    tensors: dict[str, Tensor]

    def integers(self, layer: str) -> Tensor:
        """Return the int8 weights of a quantised layer, (rows, columns)."""
        stored = self.tensors[f"{layer}.weight.q"]
        return unpack_nibbles(stored) if self.grids[layer].bits <= 4 else stored

    def scale(self, layer: str) -> Tensor:
        """Return the scales of a quantised layer in float32, (rows or 1, groups)."""
        return self.tensors[f"{layer}.weight.s"].float()

    def weights(self) -> dict[str, Tensor]:
        """Return every weight in float32 under its name in the model."""
        plain = {
            name: value.float()
            for name, value in self.tensors.items()
            if name.removesuffix(".weight.q").removesuffix(".weight.s") not in self.grids
        }
        for layer, grid in self.grids.items():
            plain[f"{layer}.weight"] = dequantize(self.integers(layer), self.scale(layer), grid)
        return plain


def is_packed(folder: str | Path) -> bool:
    """Tell whether a folder holds a quantised model."""
    return (Path(folder) / FILE_NAME).is_file()


def save(
    model: WhisperForConditionalGeneration,
    grids: Mapping[str, Grid],
    folder: str | Path,
    steps: Mapping[str, nn.Parameter] | None = None,
) -> int:
    """Write a model with its config and generation settings; return the bytes of its weights.

    What is stored is what the model computes with, if it was prepared with these grids and its
    other weights were rounded (`fake.round_rest`); those are rounded here in any case.

    Raises:
        ValueError: a weight is not finite or too large for its type, or the model was prepared with
            other grids.
    """
    prepared = {name: layer.grid for name, layer in quantised_layers(model)}
    if prepared and prepared != dict(grids):
        raise ValueError("the model was quantised with other grids than it is saved with")
    architecture = {name: getattr(model.config, name) for name in ARCHITECTURE}
    tensors = _stored(model, grids, steps or {})
    metadata = metadata_of(grids, architecture)
    metadata["sha256"] = _digest(metadata, tensors)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f".{FILE_NAME}.tmp"
    save_file(tensors, temporary, metadata)
    model.config.save_pretrained(folder)
    model.generation_config.save_pretrained(folder)
    temporary.rename(folder / FILE_NAME)
    return (folder / FILE_NAME).stat().st_size


def metadata_of(grids: Mapping[str, Grid], architecture: Mapping[str, int]) -> dict[str, str]:
    """Return the metadata of a file, all but its checksum."""
    return {
        "format": FORMAT,
        "grids": json.dumps({n: dataclasses.asdict(g) for n, g in grids.items()}, sort_keys=True),
        "architecture": json.dumps(dict(architecture), sort_keys=True),
    }


def read(folder: str | Path) -> Packed:
    """Read the file of a folder and check it.

    Raises:
        FileNotFoundError: the folder holds no quantised model.
        ValueError: the file is damaged, cut off, or of a format that is not read here.
    """
    path = Path(folder) / FILE_NAME
    if not path.is_file():
        raise FileNotFoundError(
            f"{folder} holds no {FILE_NAME}; `whisper-distill quantize` writes one"
        )
    if (Path(folder) / "model.safetensors").exists():
        raise ValueError(
            f"{folder} holds both {FILE_NAME} and model.safetensors; delete the one that is stale"
        )
    try:
        with safe_open(path, framework="pt") as file:
            metadata: dict[str, str] = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise ValueError(
                    f"{path} has the format {metadata.get('format')!r}; {FORMAT} is read here. "
                    "Quantise the model again with this version"
                )
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        expected = metadata.pop("sha256", None)
        if _digest(metadata, tensors) != expected:
            raise _damaged(path, "the checksum does not match")
        grids = {n: Grid(**fields) for n, fields in json.loads(metadata["grids"]).items()}
        architecture = json.loads(metadata["architecture"])
    except (SafetensorError, KeyError, UnicodeDecodeError) as error:
        raise _damaged(path, error) from error
    return Packed(grids=grids, architecture=architecture, tensors=tensors)


def load(folder: str | Path) -> WhisperForConditionalGeneration:
    """Load a quantised model as a plain transformers model in float32, ready to transcribe.

    Raises:
        FileNotFoundError: the folder holds no quantised model.
        ValueError: the file is damaged, cut off, of another format or of another model.
    """
    return build(read(folder), folder)


def build(packed: Packed, folder: str | Path) -> WhisperForConditionalGeneration:
    """Put the weights of a file into the model that the folder's config describes.

    Raises:
        ValueError: the file belongs to another model.
    """
    config = WhisperConfig.from_pretrained(folder)
    for name, stored in packed.architecture.items():
        if getattr(config, name) != stored:
            raise ValueError(
                f"{Path(folder) / FILE_NAME} belongs to another model: its {name} is {stored}, "
                f"that of config.json is {getattr(config, name)}"
            )
    with torch.device("meta"):
        model = WhisperForConditionalGeneration(config)
    weights = packed.weights()
    owners = {id(value): name for name, value in model.named_parameters()}
    tied = {
        name: weights[owners[id(value)]]
        for name, value in model.named_parameters(remove_duplicate=False)
        if owners[id(value)] != name and owners[id(value)] in weights
    }
    try:
        model.load_state_dict(weights | tied, assign=True)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{folder} does not hold the weights of its model: {reason}") from error
    model.tie_weights()
    settings = Path(folder) / "generation_config.json"
    if settings.is_file():
        kind = type(model.generation_config)
        model.generation_config = kind.from_pretrained(folder)
    model.generation_config._from_model_config = False  # or a reload replaces it by defaults
    return model.eval()


def _stored(
    model: nn.Module, grids: Mapping[str, Grid], steps: Mapping[str, nn.Parameter]
) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for name, value in [*model.named_parameters(), *model.named_buffers()]:
        weight = value.detach().float().cpu()
        if not torch.isfinite(weight).all():
            raise ValueError(f"{name} has weights that are not finite; nothing was written")
        grid = grids.get(name.removesuffix(".weight"))
        if grid is None:
            tensors[name] = weight.half().contiguous()
            stored = tensors[name]
        else:
            step = steps.get(name.removesuffix(".weight"))
            scale = absmax_scale(weight, grid)
            if step is not None:
                scale = stored_scale(step.detach().cpu().clamp_min(SMALLEST_LEARNED), grid)
            integers = quantize(weight, grid, scale)
            tensors[f"{name}.q"] = pack_nibbles(integers) if grid.bits <= 4 else integers
            tensors[f"{name}.s"] = scale.half() if grid.scale == "float16" else scale
            stored = tensors[f"{name}.s"]
        if not torch.isfinite(stored).all():
            raise ValueError(f"{name} has weights that float16 cannot hold; nothing was written")
    return tensors


def _digest(metadata: Mapping[str, str], tensors: Mapping[str, Tensor]) -> str:
    """Hash all that a reader relies on, whatever the order in the file."""
    digest = hashlib.sha256(json.dumps(dict(metadata), sort_keys=True).encode())
    for name, value in sorted(tensors.items()):
        digest.update(json.dumps([name, str(value.dtype), list(value.shape)]).encode())
        digest.update(value.contiguous().numpy().tobytes())
    return digest.hexdigest()


def _damaged(path: Path, reason: Any) -> ValueError:
    return ValueError(
        f"{path} is damaged or cut off ({reason}); copy it again, or quantise the model again"
    )

"""A model for CTranslate2, a quantised student without loss.

Its int8 grid is ours, absmax / 127 for each row, so its conversion finds the very integers that our
file has, as long as it is given the weights on the grid and not those they were made from. Learned
steps and groups are not its grid. Layers that we left in float16, such as the encoder of the
`paper` preset, are quantised by CTranslate2 for the first time.
"""

import tempfile
from pathlib import Path

from transformers import WhisperForConditionalGeneration, WhisperProcessor

from distill.processor import save_processor
from distill.quantization.packed import build, read
from distill.quantization.presets import Grid

BESIDE = ("tokenizer.json", "preprocessor_config.json")
"""What faster-whisper needs beside the weights."""


def is_lossless(grids: dict[str, Grid]) -> bool:
    """Tell whether every quantised layer is on CTranslate2's grid: 8 bits, a scale for each row."""
    return all(g.bits == 8 and g.group is None and not g.per_tensor for g in grids.values())


def to_ctranslate2(folder: str | Path, output: str | Path, quantization: str = "int8") -> Path:
    """Convert a quantised student; faster-whisper and CTranslate2 read the result.

    Args:
        folder: what `whisper-distill quantize` or a quantised training wrote.
        output: a folder that does not exist yet.
        quantization: as CTranslate2 calls it; `int8` keeps our integers.

    Raises:
        FileNotFoundError: the folder holds no quantised model.
        ValueError: the file is damaged, its grids are not CTranslate2's, or the output exists.
        ImportError: ctranslate2 is not installed.
    """
    packed = read(folder)
    if not is_lossless(packed.grids):
        raise ValueError(
            f"{folder} has weights in groups or fewer than 8 bits, which CTranslate2 would round a "
            "second time; quantise the model with ct2_int8, w8 or paper instead"
        )
    processor = WhisperProcessor.from_pretrained(folder)
    return convert(build(packed, folder), processor, output, quantization)


def convert(
    model: WhisperForConditionalGeneration,
    processor: WhisperProcessor,
    output: str | Path,
    quantization: str,
) -> Path:
    """Convert a model that is loaded; faster-whisper and CTranslate2 read the result.

    Raises:
        ValueError: the output exists, or the processor lacks a file that readers need.
        ImportError: ctranslate2 is not installed.
    """
    from ctranslate2.converters import TransformersConverter

    output = Path(output)
    if output.exists():
        raise ValueError(f"{output} exists; name a folder that does not")
    with tempfile.TemporaryDirectory() as plain:
        model.save_pretrained(plain)
        save_processor(processor, plain)
        missing = [name for name in BESIDE if not (Path(plain) / name).is_file()]
        if missing:
            raise ValueError(
                f"the model's processor wrote no {', '.join(missing)}, without which "
                "faster-whisper misreads the model; its tokenizer must be a fast one"
            )
        TransformersConverter(plain, copy_files=list(BESIDE)).convert(
            str(output), quantization=quantization
        )
    return output

"""`whisper-distill quantize` and `inspect`: a trained model into a small file, and its sizes."""

import dataclasses
import json
import logging
from pathlib import Path

from rich.console import Console
from rich.table import Table

from distill.processor import save_processor
from distill.quantization.config import InspectConfig, QuantizeConfig
from distill.quantization.fake import quantise
from distill.quantization.packed import FILE_NAME, is_packed, save
from distill.quantization.sizes import SizeReport, inspect
from distill.student import PLAIN_KINDS, load_model, load_processor
from pipeline import table_width

logger = logging.getLogger(__name__)


def quantize(config: QuantizeConfig) -> Path:
    """Quantise a model as it is, without training; return the folder.

    Raises:
        ValueError: there is no such model, it is quantised already, or it does not fit the rules.
    """
    if is_packed(config.model):
        raise ValueError(
            f"{config.model} is quantised already; quantise the model that it was made from, "
            "because rounding twice loses more"
        )
    output = Path(config.output)
    if (output / "model.safetensors").exists():
        raise ValueError(f"{output} holds a model that is not quantised; name another folder")
    model, processor = load_model(config.model, PLAIN_KINDS), load_processor(config.model)
    grids = quantise(model, config.chosen_rules)
    size_bytes = save(model, grids, output)
    save_processor(processor, output)
    report = inspect(output)
    logger.info(
        "%s: %.2f MB, %.2f times smaller than in float16",
        output / FILE_NAME,
        size_bytes / 1e6,
        report.float16_ratio,
    )
    return output


def print_sizes(config: InspectConfig) -> SizeReport:
    """Print the bytes of a model by part.

    Raises:
        FileNotFoundError: the folder holds no model.
        ValueError: a file is damaged.
    """
    report = inspect(config.folder)
    if config.json:
        values = dataclasses.asdict(report) | {"float16_ratio": round(report.float16_ratio, 4)}
        print(json.dumps(values, indent=2))
        return report
    table = Table("part", "bytes", "share")
    table.columns[1].justify = table.columns[2].justify = "right"
    for part, size_bytes in report.parts.items():
        table.add_row(part, f"{size_bytes:,}", f"{size_bytes / report.file_bytes:.1%}")
    table.add_section()
    table.add_row("file", f"{report.file_bytes:,}", "")
    table.add_row("in float16", f"{report.float16_bytes:,}", f"{report.float16_ratio:.2f} ×")
    Console(width=table_width()).print(table)
    return report

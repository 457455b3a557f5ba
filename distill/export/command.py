"""`whisper-distill export`: write each format, listen to it, say its size and what it loses."""

import dataclasses
import importlib.util
import json
import logging
import os
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from rich.console import Console
from rich.table import Table

from distill.export import ct2, ggml, hf, onnx, torchao
from distill.export.config import NUMBERS, ExportConfig
from distill.export.report import REPORT, is_of, read_report
from distill.export.source import Source, load_source
from distill.export.verification import (
    Agreement,
    Heard,
    calibration_of,
    clips_of,
    compare,
    listen,
)
from distill.weight_files import weights_sha256

logger = logging.getLogger(__name__)

_LOG_COLUMNS = 120

_FORMATS: dict[str, tuple[ModuleType, Callable[[Source, Path], None]]] = {
    "hf": (hf, hf.write),
    "ct2-float16": (ct2, ct2.write_float16),
    "ct2-int8": (ct2, ct2.write_int8),
    "onnx": (onnx, onnx.write),
    "ggml": (ggml, ggml.write),
    "torchao": (torchao, torchao.write),
}


@dataclass(frozen=True, kw_only=True)
class Exported:
    """One format in `export.json`."""

    format: str
    path: str
    size_bytes: int
    numbers: str
    """What the large matrices are stored in."""
    runtime: str
    """What it was listened to with, or would have been."""
    agreement: Agreement | None
    """None where it was not compared."""
    compared_on: str | None
    """What the clips were of, as it was given."""
    smallest_share: float
    """Of clips with the source's text, for it to pass."""

    @property
    def passed(self) -> bool:
        """It was not compared, or did as well as it must."""
        return self.agreement is None or self.agreement.identical >= self.smallest_share


def export(config: ExportConfig) -> list[Exported]:
    """Write the formats and compare each with its source.

    Raises:
        FileNotFoundError: the clips are not a finished dataset.
        ValueError: no such model, a library is missing, a folder exists or is of another model, a
            format cannot hold the model, or an export writes other texts than its source.
    """
    output = Path(config.output)
    for name in config.chosen:
        _check_installed(name)
        if (output / name).exists():
            raise ValueError(f"{output / name} exists; delete it, or name another output")
    earlier = read_report(output)
    if earlier and not is_of(earlier, config.model):
        raise ValueError(
            f"{output} holds exports of {earlier['model']}, not of {config.model} with the weights "
            "that it has now; name another output, or delete this one"
        )
    clips = clips_of(config) if config.clips else []
    source = load_source(config.model)
    if "ct2-int8" in config.chosen:
        source = dataclasses.replace(source, calibration=calibration_of(config))
    output.mkdir(parents=True, exist_ok=True)
    for name in config.chosen:
        _write(source, output, name)
        logger.info("%s is written", output / name)
    heard = listen(source, clips, config.batch_size) if clips else None
    found = [_verify(source, output, name, heard, config) for name in config.chosen]
    _report(config, output, found)
    failed = [each for each in found if not each.passed]
    if failed:
        reasons = "; ".join(
            f"{each.format} writes the source's text in {_share(each)} of clips, "
            f"{each.smallest_share:.0%} is asked for"
            for each in failed
        )
        raise ValueError(
            f"{reasons}. The files are written, {output / REPORT} lists the clips; a lower "
            "--min_identical accepts them"
        )
    return found


def _check_installed(name: str) -> None:
    """Say what to install before any work is done.

    Raises:
        ValueError: a library is missing.
    """
    for library in _FORMATS[name][0].NEEDS:
        if importlib.util.find_spec(library) is None:
            extra = "torchao" if library == "torchao" else "export"
            raise ValueError(
                f"format {name} needs {library}: pip install 'whisper-distillery[{extra}]'"
            )


def _write(source: Source, output: Path, name: str) -> None:
    """Write a format; its folder appears whole or not at all."""
    with tempfile.TemporaryDirectory(dir=output, prefix=f".{name}.") as temporary:
        folder = Path(temporary) / name
        _FORMATS[name][1](source, folder)
        for file in folder.iterdir():
            file.chmod(0o644)  # safetensors writes for its owner only
        os.replace(folder, output / name)  # noqa: PTH105


def _verify(
    source: Source, output: Path, name: str, heard: Heard | None, config: ExportConfig
) -> Exported:
    """Listen to a format where its runtime is installed."""
    module, folder = _FORMATS[name][0], output / name
    agreement = None
    if heard is not None:
        try:
            hear = module.transcriber(folder, source)
        except ImportError:
            logger.warning(
                "%s is not compared: %s is not installed; pip install %s",
                folder, module.RUNTIME, module.RUNTIME,
            )  # fmt: skip
        else:
            agreement = compare(heard, hear, config.batch_size)
    return Exported(
        format=name,
        path=str(folder),
        size_bytes=sum(file.stat().st_size for file in folder.rglob("*")),
        numbers=NUMBERS[name],
        runtime=module.RUNTIME,
        agreement=agreement,
        compared_on=config.clips if agreement else None,
        smallest_share=config.smallest_share(name),
    )


def _report(config: ExportConfig, output: Path, found: list[Exported]) -> None:
    """Print a table, and write it for programs together with what earlier exports wrote."""
    path = output / REPORT
    before = (read_report(output) or {"formats": []})["formats"]
    names = {each.format for each in found}
    formats = [each for each in before if each["format"] not in names]
    formats += [dataclasses.asdict(each) | {"passed": each.passed} for each in found]
    values = {
        "model": config.model,
        "weights_sha256": weights_sha256(config.model),
        "formats": formats,
    }
    path.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    table = Table(
        "format", "size", "numbers", "runtime", "clips", "identical text", "WER difference"
    )
    for column in (1, 4, 5, 6):
        table.columns[column].justify = "right"
    for each in found:
        same = each.agreement
        told = ("", "not compared", "") if same is None else (
            str(same.clips), _share(each), f"{same.wer_difference:+.4f}"
        )  # fmt: skip
        size = f"{each.size_bytes / 1e6:.2f} MB"
        table.add_row(each.format, size, each.numbers, each.runtime, *told)
    # a log has no width that words would have to be cut for
    Console(width=None if sys.stdout.isatty() else _LOG_COLUMNS).print(table)


def _share(each: Exported) -> str:
    return f"{each.agreement.identical:.1%}" if each.agreement else ""

"""`whisper-distill export`: write each format, listen to it, say its size and what it loses."""

import dataclasses
import importlib.util
import json
import logging
import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

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
from distill.quantization.packed import is_packed
from distill.weight_files import weights_sha256
from pipeline import table_width

logger = logging.getLogger(__name__)

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
    made_with: dict[str, Any]
    """The settings that another call must have for this to stay."""
    smallest_share: float
    """Of clips with the source's text, for it to pass."""

    @property
    def passed(self) -> bool:
        """It was not compared, or did as well as it must."""
        return self.agreement is None or self.agreement.identical >= self.smallest_share


def export(config: ExportConfig) -> list[Exported]:
    """Write the formats and compare each with its source; those that an earlier call made stay.

    Raises:
        FileNotFoundError: the clips are not a finished dataset.
        ValueError: no such model, a library is missing, a folder exists or is of another model, a
            format cannot hold the model, or an export writes other texts than its source.
    """
    output = Path(config.output)
    found = _made_before(config, output)
    for name in found:
        logger.info("%s is there, and is not written again", output / name)
    missing = [name for name in config.chosen if name not in found]
    for name in missing:
        _check_installed(name)
    _note(config, output, found)  # as passed, where less is asked for now
    for each in _make(config, output, missing):
        found[each.format] = each
        _note(config, output, found)
    formats = [found[name] for name in config.chosen]
    _show(formats)
    failed = [each for each in formats if not each.passed]
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
    return formats


def _made_before(config: ExportConfig, output: Path) -> dict[str, Exported]:
    """Return the formats that an earlier call wrote of this model with these settings.

    Raises:
        ValueError: a folder was written otherwise, or the output is of another model.
    """
    earlier = read_report(output)
    known = {each["format"]: each for each in (earlier or {"formats": []})["formats"]}
    found: dict[str, Exported] = {}
    if earlier and not is_of(earlier, config.model):
        raise ValueError(
            f"{output} holds exports of {earlier['model']}, not of {config.model} with the weights "
            "that it has now; name another output, or delete this one"
        )
    for name in config.chosen:
        if not (output / name).exists():
            continue
        line = known.get(name, {})
        if not line or line.get("made_with") != _made_with(config, name):
            raise ValueError(f"{output / name} exists; delete it, or name another output")
        agreement = Agreement(**line["agreement"]) if line["agreement"] else None
        fields = {field.name: line[field.name] for field in dataclasses.fields(Exported)}
        fields |= {"agreement": agreement, "smallest_share": config.smallest_share(name)}
        found[name] = Exported(**fields)
    return found


def _made_with(config: ExportConfig, name: str) -> dict[str, Any]:
    """Return the settings that decide what a format holds, and what is known of it."""
    settings = ("clips", "split", "max_clips", "language")
    made_with = {setting: getattr(config, setting) for setting in settings if config.clips}
    return made_with | ({"calibration": config.calibration} if name == "ct2-int8" else {})


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


def _make(config: ExportConfig, output: Path, names: list[str]) -> Iterator[Exported]:
    """Write and compare formats one by one; the folder of each appears whole or not at all."""
    if not names:
        return
    clips = clips_of(config) if config.clips else []
    source = load_source(config.model)
    if "ct2-int8" in names and not is_packed(config.model):
        source = dataclasses.replace(source, calibration=calibration_of(config))
    output.mkdir(parents=True, exist_ok=True)
    heard = listen(source, clips, config.batch_size) if clips else None
    for name in names:
        with tempfile.TemporaryDirectory(dir=output, prefix=f".{name}.") as temporary:
            folder = Path(temporary) / name
            _FORMATS[name][1](source, folder)
            for file in folder.iterdir():
                file.chmod(0o644)  # safetensors writes for its owner only
            agreement = _verify(source, folder, name, heard, config)
            os.replace(folder, output / name)  # noqa: PTH105
        logger.info("%s is written", output / name)
        yield Exported(
            format=name,
            path=str(output / name),
            size_bytes=sum(file.stat().st_size for file in (output / name).rglob("*")),
            numbers=NUMBERS[name],
            runtime=_FORMATS[name][0].RUNTIME,
            agreement=agreement,
            compared_on=config.clips if agreement else None,
            made_with=_made_with(config, name),
            smallest_share=config.smallest_share(name),
        )


def _verify(
    source: Source, folder: Path, name: str, heard: Heard | None, config: ExportConfig
) -> Agreement | None:
    """Listen to a format where its runtime is installed."""
    module = _FORMATS[name][0]
    if heard is None:
        return None
    try:
        hear = module.transcriber(folder, source)
    except ImportError:
        logger.warning(
            "%s is not compared: %s is not installed; pip install %s",
            name, module.RUNTIME, module.RUNTIME,
        )  # fmt: skip
        return None
    return compare(heard, hear, config.batch_size)


def _note(config: ExportConfig, output: Path, found: dict[str, Exported]) -> None:
    """Write down for programs what formats are, beside those that were not asked for."""
    if not found:
        return
    before = (read_report(output) or {"formats": []})["formats"]
    formats = [each for each in before if each["format"] not in found]
    formats += [dataclasses.asdict(each) | {"passed": each.passed} for each in found.values()]
    values = {
        "model": config.model,
        "weights_sha256": weights_sha256(config.model),
        "formats": formats,
    }
    text = json.dumps(values, indent=2, ensure_ascii=False) + "\n"
    (output / REPORT).write_text(text, encoding="utf-8")


def _show(formats: list[Exported]) -> None:
    """Print a table."""
    table = Table(
        "format", "size", "numbers", "runtime", "clips", "identical text", "WER difference"
    )
    for column in (1, 4, 5, 6):
        table.columns[column].justify = "right"
    for each in formats:
        same = each.agreement
        told = ("", "not compared", "") if same is None else (
            str(same.clips), _share(each), f"{same.wer_difference:+.4f}"
        )  # fmt: skip
        size = f"{each.size_bytes / 1e6:.2f} MB"
        table.add_row(each.format, size, each.numbers, each.runtime, *told)
    Console(width=table_width()).print(table)


def _share(each: Exported) -> str:
    return f"{each.agreement.identical:.1%}" if each.agreement else ""

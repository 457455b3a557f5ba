"""`whisper-distill export`: write each format, listen to it, say its size and what it loses."""

import dataclasses
import importlib.util
import json
import logging
import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
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
from pipeline import __version__, table_width

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
    agreement: Agreement | None = None
    """None where it was not compared."""
    compared_with: dict[str, Any] = field(default_factory=dict)
    """Which clips were heard; others are listened to where another call names them."""
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
    weights = weights_sha256(config.model)
    found = _made_before(config, output, weights)
    for name in found:
        logger.info("%s is there, and is not written again", output / name)
    missing = [name for name in config.chosen if name not in found]
    for name in missing:
        _check_installed(name)
    _note(config, output, weights, found)  # as passed, where less is asked for now
    for each in _make(config, output, found, missing):
        found[each.format] = each
        _note(config, output, weights, found)
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


def _made_before(config: ExportConfig, output: Path, weights: str | None) -> dict[str, Exported]:
    """Return the formats that an earlier call wrote of these weights with these settings.

    Raises:
        ValueError: a folder was written otherwise, or the output is of another model.
    """
    earlier = read_report(output)
    known = {each["format"]: each for each in (earlier or {"formats": []})["formats"]}
    found: dict[str, Exported] = {}
    if earlier and not is_of(earlier, config.model, weights):
        raise ValueError(
            f"{output} holds exports of {earlier['model']}, not of {config.model} with the weights "
            "that it has now; name another output, or delete this one"
        )
    for name in config.chosen:
        if not (output / name).exists():
            continue
        line = known.get(name, {})
        # a name on the Hub may stand for other weights by now
        if weights is None or line.get("made_with") != _made_with(config, name):
            raise ValueError(f"{output / name} exists; delete it, or name another output")
        values = {each.name: line[each.name] for each in dataclasses.fields(Exported)}
        values["smallest_share"] = config.smallest_share(name)
        values["agreement"] = Agreement(**line["agreement"]) if line["agreement"] else None
        found[name] = made = Exported(**values)
        if config.clips and made.compared_with != _clip_settings(config):
            found[name] = dataclasses.replace(made, agreement=None, compared_with={})
    return found


def _made_with(config: ExportConfig, name: str) -> dict[str, Any]:
    """Return what decides, beside the weights, what a format holds."""
    calibration = {"calibration": config.calibration} if name == "ct2-int8" else {}
    return {"version": __version__} | calibration


def _clip_settings(config: ExportConfig) -> dict[str, Any]:
    return {name: getattr(config, name) for name in ("clips", "split", "max_clips", "language")}


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


def _make(
    config: ExportConfig, output: Path, found: dict[str, Exported], missing: list[str]
) -> Iterator[Exported]:
    """Write what is missing, then compare what was not compared; yields what is new of a format."""
    unheard = [name for name, each in found.items() if config.clips and each.agreement is None]
    if not missing and not unheard:
        return
    clips = clips_of(config) if config.clips else []
    source = load_source(config.model)
    if "ct2-int8" in missing and not is_packed(config.model):
        source = dataclasses.replace(source, calibration=calibration_of(config))
    output.mkdir(parents=True, exist_ok=True)
    written = {name: found[name] for name in unheard}
    for name in missing:
        written[name] = _write(source, output, name, config)
        yield written[name]
    if clips:
        heard = listen(source, clips, config.batch_size)
        for each in written.values():
            yield _compared(each, source, heard, config)


def _write(source: Source, output: Path, name: str, config: ExportConfig) -> Exported:
    """Write a format; its folder appears whole or not at all."""
    with tempfile.TemporaryDirectory(dir=output, prefix=f".{name}.") as temporary:
        folder = Path(temporary) / name
        _FORMATS[name][1](source, folder)
        for file in folder.iterdir():
            file.chmod(0o644)  # safetensors writes for its owner only
        os.replace(folder, output / name)  # noqa: PTH105
    logger.info("%s is written", output / name)
    return Exported(
        format=name,
        path=str(output / name),
        size_bytes=sum(file.stat().st_size for file in (output / name).rglob("*")),
        numbers=NUMBERS[name],
        runtime=_FORMATS[name][0].RUNTIME,
        made_with=_made_with(config, name),
        smallest_share=config.smallest_share(name),
    )


def _compared(made: Exported, source: Source, heard: Heard, config: ExportConfig) -> Exported:
    """Listen to a format where its runtime is installed."""
    module = _FORMATS[made.format][0]
    try:
        hear = module.transcriber(Path(made.path), source)
    except ImportError:
        logger.warning(
            "%s is not compared: %s is not installed; pip install %s",
            made.path, module.RUNTIME, module.RUNTIME,
        )  # fmt: skip
        return made
    return dataclasses.replace(
        made,
        agreement=compare(heard, hear, config.batch_size),
        compared_with=_clip_settings(config),
    )


def _note(
    config: ExportConfig, output: Path, weights: str | None, found: dict[str, Exported]
) -> None:
    """Write down for programs what formats are, beside those that were not asked for."""
    if not found:
        return
    before = (read_report(output) or {"formats": []})["formats"]
    formats = [each for each in before if each["format"] not in found]
    formats += [dataclasses.asdict(each) | {"passed": each.passed} for each in found.values()]
    values = {"model": config.model, "weights_sha256": weights, "formats": formats}
    temporary = output / f"{REPORT}.tmp"
    temporary.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    temporary.replace(output / REPORT)


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

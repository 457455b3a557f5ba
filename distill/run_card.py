"""The card of a training: what was trained on what, where, for how long, and how well it did."""

import dataclasses
import importlib.metadata
import json
import os
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from distill.config import TrainConfig
from pipeline.schema import read_index


@dataclass(frozen=True, kw_only=True)
class RunCard:
    """`run.json`; `run.md` is the same for people."""

    ended: str
    """`finished`, `patience` or `stopped`."""
    steps: int
    tokens: int
    """Labels learnt from, over all processes."""
    seconds: float
    """Of the last start; a resumed run does not know how long the earlier ones took."""
    student_parameters: int
    trained_parameters: int
    best_step: int | None
    best_wer: float | None
    """Macro average over the validation corpora; a fraction."""
    last: dict[str, float]
    """The last line of the log: loss, its parts, gradient norm, learning rate."""
    validations: list[dict[str, float]]
    data: list[dict[str, Any]]
    hardware: dict[str, Any]
    versions: dict[str, str]
    config: dict[str, Any]


def describe_data(config: TrainConfig) -> list[dict[str, Any]]:
    """Say what each folder of shards holds, by which keys it can be made again, and which labels.

    `max_wer` is the highest error rate of its own labels, or None where the split is not filtered.
    """
    found = []
    for folder in config.data.shards:
        index = read_index(folder)
        shards = [shard for shard in index.shards if shard.split == config.data.split]
        was_filtered = config.data.split in index.filter.get("splits", ())
        found.append(
            {
                "folder": folder,
                "label_key": index.label_key,
                "shard_key": index.shard_key,
                "max_wer": index.filter.get("max_wer") if was_filtered else None,
                "corpora": sorted({shard.corpus for shard in shards}),
                "clips": sum(shard.num_samples for shard in shards),
                "hours": round(sum(shard.duration_seconds for shard in shards) / 3600, 4),
            }
        )
    return found


def describe_hardware(num_processes: int = 1) -> dict[str, Any]:
    """Say what the numbers were made on."""
    gpus = [torch.cuda.get_device_name(n) for n in range(torch.cuda.device_count())]
    return {
        "processor": processor_name(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpus": gpus,
        "processes": num_processes,
    }


def processor_name() -> str:
    """Return the name of the CPU as the system knows it."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def library_versions() -> dict[str, str]:
    """Return the versions of what computes."""
    names = ("torch", "transformers", "accelerate", "numpy")
    return {"python": platform.python_version()} | {
        name: importlib.metadata.version(name) for name in names
    }


def last_figures(history: list[dict[str, Any]]) -> dict[str, float]:
    """Return the last line of a log that has a loss."""
    lines = [line for line in history if "loss" in line]
    return lines[-1] if lines else {}


def write_run_card(card: RunCard, output: Path) -> None:
    """Write `run.json` and `run.md`."""
    (output / "run.json").write_text(json.dumps(dataclasses.asdict(card), indent=2) + "\n")
    (output / "run.md").write_text(to_markdown(card))


def to_markdown(card: RunCard) -> str:
    """Write the card for people."""
    config, hardware = card.config, card.hardware
    devices = ", ".join(hardware["gpus"]) or f"{hardware['threads']} thread(s) of the processor"
    rows = [
        ("student started as", config["student"]),
        ("teacher", config["teacher"] or "none"),
        ("ended", f"{card.ended}, after {card.steps} steps and {card.tokens} label tokens"),
        ("trained weights", f"{card.trained_parameters} of {card.student_parameters}"),
        ("time of the last start", f"{card.seconds:.0f} s"),
        ("hardware", f"{hardware['processor']}, {devices}, {hardware['processes']} process(es)"),
        *((f"last {name}", f"{value:.6g}") for name, value in card.last.items()),
    ]
    if card.best_wer is not None:
        rows.append(("best validation", f"{card.best_wer:.2%} WER at step {card.best_step}"))
    lines = ["# Training", "", "| | |", "|---|---|", *(f"| {k} | {v} |" for k, v in rows)]
    lines += ["", "| data | corpora | clips | hours |", "|---|---|---|---|"]
    lines += [
        f"| {d['folder']} | {', '.join(d['corpora'])} | {d['clips']} | {d['hours']:.2f} |"
        for d in card.data
    ]
    if card.validations:
        lines += ["", "| step | WER |", "|---|---|"]
        lines += [f"| {v['step']:.0f} | {v['eval_wer']:.2%} |" for v in card.validations]
    return "\n".join(lines) + "\n"

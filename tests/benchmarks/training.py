"""A training step of ours against a plain one, for time, tokens a second and peak memory.

    python -m tests.benchmarks.training --output runs/benchmark-training.json
    python -m tests.benchmarks.training --tiny          (a smoke test in seconds)

The plain step is faithful to the reference script (distil-whisper, `run_distillation.py`): targets
padded to 448, the student's own forward pass with its cross-entropy over all of them, teacher
logits over all of them, KL over the whole vocabulary of all positions and masked afterwards, the
frozen encoder run once and shared, AdamW and gradient clipping. Both get the same model, the same
clips (packs of 30 s) and the same labels; the plain one is given what the reference script gives,
so its teacher sees `labels` and not the student's inputs. Every measurement is a process of its
own, ours and the plain one in turn, so that the peak of resident memory belongs to one of them.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional
from transformers import WhisperConfig, WhisperForConditionalGeneration

from distill import projection
from distill.distillation import Distillation
from distill.loss_config import LossConfig
from distill.losses import IGNORED
from distill.run_card import describe_hardware, library_versions
from distill.student import make_student

WHISPER_TINY: dict[str, int] = {
    "vocab_size": 51865,
    "d_model": 384,
    "encoder_layers": 4,
    "decoder_layers": 4,
    "encoder_attention_heads": 6,
    "decoder_attention_heads": 6,
    "encoder_ffn_dim": 1536,
    "decoder_ffn_dim": 1536,
}
SMOKE = WHISPER_TINY | {
    "vocab_size": 2000,
    "d_model": 32,
    "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
}
REFERENCE_LENGTH = 448
TOKENS_OF_A_PACK = (95, 145)
"""Shortest and longest target of a pack of 30 s; about 3 to 5 tokens a second of speech."""


class PlainStep:
    """The reference script's training step."""

    def __init__(self, student: Any, teacher: Any) -> None:
        self.student, self.teacher = student, teacher
        student.model.encoder.requires_grad_(False)

    def __call__(self, features: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Return 0.8 CE + 1.0 KL T²; labels are padded to 448."""
        self.student.train()
        self.teacher.eval()
        with torch.no_grad():
            encoder_outputs = self.student.get_encoder()(features)
        student = self.student(encoder_outputs=encoder_outputs, labels=labels)
        with torch.no_grad():
            teacher = self.teacher(encoder_outputs=encoder_outputs, labels=labels)
        temperature = 2.0
        target = functional.softmax(teacher.logits / temperature, dim=-1)
        predicted = functional.log_softmax(student.logits / temperature, dim=-1)
        divergence = functional.kl_div(predicted, target, reduction="none").sum(-1)
        mask = labels >= 0
        kl = (divergence * mask).sum() / mask.sum()
        return 0.8 * student.loss + temperature**2 * kl


class OurStep:
    """The step of `whisper-distill train` with the loss of the released code."""

    def __init__(self, student: Any, teacher: Any) -> None:
        self.step = Distillation(
            student, teacher, LossConfig(preset="released-code"), True, False
        ).train()

    def __call__(self, features: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Return the same loss; labels are as long as the longest of the batch."""
        return self.step(features, decoder_inputs(labels), labels)["loss"]


def decoder_inputs(labels: torch.Tensor) -> torch.Tensor:
    """Shift labels to the right as the library does."""
    inputs = torch.zeros_like(labels)
    inputs[:, 1:] = labels[:, :-1].clamp(min=0)
    return inputs


def make_whisper(sizes: dict[str, int]) -> WhisperForConditionalGeneration:
    """Return an untrained Whisper."""
    settings: dict[str, Any] = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 1}
    settings |= {"decoder_start_token_id": 0, "suppress_tokens": [], "begin_suppress_tokens": []}
    return WhisperForConditionalGeneration(WhisperConfig.from_dict(sizes | settings))


def measure(kind: str, sizes: dict[str, int], clips: int, steps: int, dtype: str) -> dict[str, Any]:
    """Train a few steps in this process."""
    torch.manual_seed(0)
    teacher = make_whisper(sizes)
    student = make_student(teacher, 2)
    step = (PlainStep if kind == "plain" else OurStep)(student, teacher)
    trained = [p for p in student.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4)
    lengths = torch.linspace(*TOKENS_OF_A_PACK, clips).long()
    longest = REFERENCE_LENGTH if kind == "plain" else int(lengths.max())
    labels = torch.full((clips, longest), IGNORED)
    for row, length in enumerate(lengths):
        labels[row, :length] = torch.randint(sizes["vocab_size"], (int(length),))
    features = torch.randn(clips, 80, 3000)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds, losses = [], []
    for _ in range(steps + 1):  # the first one pays for set-up
        started = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bfloat16"):
            loss = step(features, labels)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        seconds.append(time.perf_counter() - started)
        losses.append(loss.item())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "step_seconds": seconds[1:],
        "losses": losses,
        "tokens": int(lengths.sum()),
        "peak_bytes": peak * 1024,
        "before_bytes": before * 1024,
    }


def compare(arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure both in turn, each time in a new process."""
    runs: dict[str, list[dict[str, Any]]] = {"plain": [], "ours": []}
    for _ in range(arguments.rounds):
        for kind, found in runs.items():
            command = [sys.executable, "-m", "tests.benchmarks.training", f"--measure={kind}"]
            command += [f"--clips={arguments.clips}", f"--steps={arguments.steps}"]
            command += [f"--dtype={arguments.dtype}", f"--threads={arguments.threads}"]
            command += [f"--chunk_elements={arguments.chunk_elements}"]
            command += ["--tiny"] if arguments.tiny else []
            printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            found.append(json.loads(printed.splitlines()[-1]))
    summary = {kind: summarise(found) for kind, found in runs.items()}
    plain, ours = summary["plain"], summary["ours"]
    return {
        "benchmark": "training step",
        "model": "smoke" if arguments.tiny else "whisper-tiny dimensions, 4 to 2 decoder layers",
        "clips": arguments.clips,
        "dtype": arguments.dtype,
        "chunk_elements": arguments.chunk_elements,
        "summary": summary,
        "speed_ratio": plain["step_seconds"] / ours["step_seconds"],
        "peak_ratio": ours["peak_bytes"] / plain["peak_bytes"],
        "added_peak_ratio": ours["added_peak_bytes"] / plain["added_peak_bytes"],
        "hardware": describe_hardware() | {"threads": arguments.threads},
        "versions": library_versions(),
        "runs": runs,
    }


def summarise(runs: list[dict[str, Any]]) -> dict[str, float]:
    """Take the median step and the highest peak."""
    step = statistics.median(s for run in runs for s in run["step_seconds"])
    return {
        "step_seconds": step,
        "tokens_per_second": runs[0]["tokens"] / step,
        "peak_bytes": max(run["peak_bytes"] for run in runs),
        "added_peak_bytes": max(run["peak_bytes"] - run["before_bytes"] for run in runs),
    }


def main() -> None:
    """Parse and print or write JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--clips", type=int, default=8, help="packs of 30 s in a batch")
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--chunk_elements", type=int, default=projection.CHUNK_ELEMENTS)
    parser.add_argument("--tiny", action="store_true", help="a model of no size, to try the script")
    parser.add_argument("--measure", choices=["plain", "ours"], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    projection.CHUNK_ELEMENTS = arguments.chunk_elements
    if arguments.measure:
        sizes = SMOKE if arguments.tiny else WHISPER_TINY
        given = (arguments.clips, arguments.steps, arguments.dtype)
        print(json.dumps(measure(arguments.measure, sizes, *given)))
        return
    found = json.dumps(compare(arguments), indent=2)
    print(found)
    if arguments.output is not None:
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        arguments.output.write_text(found + "\n")


if __name__ == "__main__":
    main()

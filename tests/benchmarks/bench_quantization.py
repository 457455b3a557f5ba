"""A student in float32, 8 and 4 bits: bytes, error rates, and the time of a batch in one process;
and the parts of a Whisper-base by themselves, in float32 and with integers.

By default the student of `make quickstart`, rounded without training, on the embedded test part.
`QUANTIZATION_STUDENT` names another one, `QUANTIZATION_TRAINED` (with commas) folders of quantised
trainings to be shown beside it, `QUANTIZATION_DATA` shards or a manifest, `QUANTIZATION_CLIPS` how
many clips, `QUANTIZATION_BATCH` their batch, `QUANTIZATION_ROUNDS` how often a batch is timed.
The parts have random weights, which take as long as any; `QUANTIZATION_SIZE` names another Whisper,
`QUANTIZATION_THREADS` how many threads it may use.
"""

import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import WhisperForConditionalGeneration

from distill.decoder import Decoder
from distill.evaluate_config import EvaluateConfig
from distill.evaluate_data import EvaluationClip, read_clips
from distill.evaluate_hearing import hear_clips
from distill.evaluate_scores import rates, score_all
from distill.quantization import inspect, load, load_with_integers, save
from distill.quantization.config import QuantizeConfig
from distill.quantization.fake import quantise
from distill.quantization.presets import rules_of
from distill.quantization.sizes import standard_config
from distill.quantize import quantize
from distill.recognizers import load_recognizer
from distill.student import load_processor
from distill.whisper_recognizer import WhisperRecognizer
from distill.windows import Window
from pipeline.schema import EMBEDDED_FOLDER, model_path

STUDENT = os.environ.get("QUANTIZATION_STUDENT", "runs/quickstart/student")
TRAINED = [name for name in os.environ.get("QUANTIZATION_TRAINED", "").split(",") if name]
DATA = os.environ.get("QUANTIZATION_DATA", str(EMBEDDED_FOLDER / "test.jsonl"))
CLIPS = int(os.environ.get("QUANTIZATION_CLIPS", "200"))
BATCH = int(os.environ.get("QUANTIZATION_BATCH", "16"))
SIZE = os.environ.get("QUANTIZATION_SIZE", "base")
THREADS = int(os.environ.get("QUANTIZATION_THREADS", str(os.cpu_count() or 1)))
ROUNDS = int(os.environ.get("QUANTIZATION_ROUNDS", "5"))


def with_integers(folder: Path) -> WhisperRecognizer:
    """A quantised model whose 8-bit layers multiply integers."""
    model = load_with_integers(folder)
    return WhisperRecognizer(model, load_processor(str(folder)), f"{folder.name}, integers")


def batch_seconds(models: dict[str, Any], clips: list[EvaluationClip]) -> dict[str, float]:
    """Time a batch, the models taking turns; the median of the rounds after the first."""
    windows = [Window(samples=c.audio(), language=c.language) for c in clips]
    features = next(iter(models.values())).extract([window.samples for window in windows])
    taken: dict[str, list[float]] = {name: [] for name in models}
    for _ in range(ROUNDS + 1):
        for name, model in models.items():
            started = time.perf_counter()
            model.hear_features(features, windows)
            taken[name].append(time.perf_counter() - started)
    return {name: statistics.median(seconds[1:]) for name, seconds in taken.items()}


def test_bytes_error_rates_and_speed_of_a_student_in_fewer_bits(tmp_path: Path) -> None:
    if not Path(model_path(STUDENT)).is_dir():
        pytest.skip(f"there is no student in {STUDENT}; run `make quickstart`")
    folders = {"float32": Path(model_path(STUDENT))}
    for preset in ("w8", "w4"):
        output = str(tmp_path / preset)
        folders[f"{preset}, rounded"] = quantize(
            QuantizeConfig(model=STUDENT, output=output, preset=preset)
        )
    folders |= {f"{name}, trained": Path(name) for name in TRAINED}
    models: dict[str, Any] = {
        name: load_recognizer(str(folder), device="cpu", dtype="float32")
        for name, folder in folders.items()
    }
    if torch.backends.quantized.engine != "none":
        folders["w8, integers"] = folders["w8, rounded"]
        models["w8, integers"] = with_integers(folders["w8, rounded"])
    clips = read_clips(
        EvaluateConfig(models=[STUDENT], data=[DATA], output="unused", max_clips=CLIPS)
    )
    seconds = batch_seconds(models, clips[:BATCH])
    float32 = inspect(folders["float32"])
    rows = []
    for name, model in models.items():
        texts, _ = hear_clips(model, clips, BATCH)
        found = rates(clips, texts, score_all(clips, texts), 0, 1000)
        size = inspect(folders[name])
        rows.append(
            {
                "model": name,
                "bytes": size.file_bytes,
                "times_smaller_than_float16": round(size.float16_bytes / size.file_bytes, 3),
                "wer": round(found.wer, 4),
                "interval": [round(found.wer_low, 4), round(found.wer_high, 4)],
                "cer": round(found.cer, 4),
                "batch_seconds": round(seconds[name], 4),
                "speed_over_float32": round(seconds["float32"] / seconds[name], 3),
            }
        )
    assert [row["bytes"] for row in rows[:3]] == sorted(
        (r["bytes"] for r in rows[:3]), reverse=True
    )
    found = {
        "student": STUDENT, "parameters": float32.parameters, "clips": len(clips),
        "batch": min(BATCH, len(clips)), "threads": torch.get_num_threads(), "models": rows,
    }  # fmt: skip
    print("\n" + json.dumps(found, indent=2))


def parts_of(model: Any, sound: torch.Tensor) -> dict[str, Callable[[], Any]]:
    """Return what is timed of a model: a window of 30 s, one step of one clip, and its head."""
    decoder = Decoder(model.model.decoder, model.proj_out)
    encoded = model.model.encoder(sound).last_hidden_state
    cache = decoder.begin(encoded)
    token = torch.zeros(1, 1, dtype=torch.long)
    hidden = decoder.step(torch.zeros(1, 32, dtype=torch.long), cache)[:, -1:]

    def step() -> torch.Tensor:
        cache.lengths = [32]  # always the 33rd token
        return decoder.logits(decoder.step(token, cache))

    return {
        "encoder": lambda: model.model.encoder(sound).last_hidden_state,
        "decode step": step,
        "head": lambda: decoder.logits(hidden),
    }


def where_the_time_goes(call: Callable[[], Any]) -> dict[str, float]:
    """Return the five operators that take most of a call, as shares of it."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        call()
    events = sorted(profile.key_averages(), key=lambda event: -event.self_cpu_time_total)
    total = sum(event.self_cpu_time_total for event in events)
    return {event.key: round(event.self_cpu_time_total / total, 3) for event in events[:5]}


@torch.inference_mode()
def test_encoder_and_decode_step_with_integers_against_float32(tmp_path: Path) -> None:
    """The two take turns; the fastest call of each counts."""
    if torch.backends.quantized.engine == "none":
        pytest.skip("this build of torch has no integer kernels")
    before = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    model = WhisperForConditionalGeneration(standard_config(SIZE))
    save(model, quantise(model, rules_of("w8")), tmp_path)
    models = {"float32": load(tmp_path).eval(), "integers": load_with_integers(tmp_path).eval()}
    sound = torch.randn(1, model.config.num_mel_bins, 3000)
    parts = {name: parts_of(one, sound) for name, one in models.items()}
    found: dict[str, Any] = {}
    for part, calls in (("encoder", 2), ("decode step", 20), ("head", 20)):
        taken: dict[str, list[float]] = {name: [] for name in models}
        for _ in range(calls * ROUNDS + 1):
            for name in models:
                started = time.perf_counter()
                parts[name][part]()
                taken[name].append(time.perf_counter() - started)
        least = {name: min(seconds[1:]) for name, seconds in taken.items()}
        found[part] = {
            "milliseconds": {name: round(1000 * seconds, 3) for name, seconds in least.items()},
            "times_as_fast": round(least["float32"] / least["integers"], 2),
            "profile": {name: where_the_time_goes(parts[name][part]) for name in models},
        }
    torch.set_num_threads(before)
    vnni = torch.cpu._is_vnni_supported()
    print("\n" + json.dumps({"whisper": SIZE, "threads": THREADS, "vnni": vnni, **found}, indent=2))

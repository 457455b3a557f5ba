"""Chunked against sequential on long recordings, and both against openai-whisper's `transcribe`.

Recordings are joined from clips of one speaker. By default the embedded teacher and the embedded
test speakers; `LONGFORM_MODEL`, `LONGFORM_MANIFEST`, `LONGFORM_SECONDS`, `LONGFORM_RECORDINGS`,
`LONGFORM_BATCH`, `LONGFORM_CHUNKS`, `LONGFORM_TEMPERATURES`, `LONGFORM_TIMESTAMPS` (0 for a teacher
without) and `LONGFORM_ROUNDS` choose others; the ways of reading take turns. Above temperature 0 a
window is sampled, and no two programs draw the same: with a teacher that fails its checks often,
parity asks for `LONGFORM_TEMPERATURES=0`. `test_parity` needs openai-whisper, which is no
dependency, and a model with OpenAI's vocabulary.

    pytest -qs tests/benchmarks/bench_longform.py
"""

import functools
import json
import os
import time
from typing import Any

import numpy as np
import pytest
import torch

from distill.evaluate_config import EvaluateConfig
from distill.evaluate_data import EvaluationClip, long_recordings, read_clips
from distill.evaluate_hearing import hear_long
from distill.evaluate_scores import score_all
from distill.longform import Options
from distill.recognizers import WhisperRecognizer, load_recognizer
from distill.transcribe_config import LongformConfig
from pipeline.schema import EMBEDDED_FOLDER, model_path
from pipeline.scoring import corpus_rate, normalize
from pipeline.teacher.openai_reference import load_openai
from tests.benchmarks.tables import markdown

MODEL = os.environ.get("LONGFORM_MODEL", "embedded")
MANIFEST = os.environ.get("LONGFORM_MANIFEST", str(EMBEDDED_FOLDER / "test.jsonl"))
SECONDS = float(os.environ.get("LONGFORM_SECONDS", "300"))
RECORDINGS = int(os.environ.get("LONGFORM_RECORDINGS", "4"))
BATCH = int(os.environ.get("LONGFORM_BATCH", "16"))
ROUNDS = int(os.environ.get("LONGFORM_ROUNDS", "2"))
TEMPERATURES = [
    float(t) for t in os.environ.get("LONGFORM_TEMPERATURES", "0,0.2,0.4,0.6,0.8,1").split(",")
]
CHUNKS = [float(s) for s in os.environ.get("LONGFORM_CHUNKS", "15,25,30").split(",")]
TIMESTAMPS = os.environ.get("LONGFORM_TIMESTAMPS", "1") == "1"
OPTIONS = Options(longform=LongformConfig(temperatures=TEMPERATURES, timestamps=TIMESTAMPS))


@pytest.fixture(scope="module")
def recordings() -> list[EvaluationClip]:
    config = EvaluateConfig(models=[MODEL], data=[MANIFEST], output="unused")
    return long_recordings(read_clips(config), SECONDS)[:RECORDINGS]


@pytest.fixture(scope="module")
def recognizer() -> Any:
    return load_recognizer(MODEL, dtype="float32")


def show(
    kind: str, recordings: list[EvaluationClip], texts: list[str], seconds: float
) -> dict[str, Any]:
    wer = corpus_rate(score_all(recordings, texts))
    audio = sum(recording.duration_seconds for recording in recordings)
    found = {
        "kind": kind, "model": MODEL, "recordings": len(recordings), "audio_seconds": round(audio),
        "wer": round(wer, 5), "model_seconds": round(seconds, 2),
        "rtfx": round(audio / seconds, 1), "threads": torch.get_num_threads(),
    }  # fmt: skip
    print("\n" + json.dumps(found))
    return found


def test_chunked_against_sequential(recordings: list[EvaluationClip], recognizer: Any) -> None:
    def one_at_a_time() -> tuple[list[str], float]:  # as a user's single long files
        found = [hear_long(recognizer, [r], 1, OPTIONS, None) for r in recordings]
        return [text for texts, _ in found for text in texts], sum(taken for _, taken in found)

    def together(chunk: float | None) -> tuple[list[str], float]:
        return hear_long(recognizer, recordings, BATCH, OPTIONS, chunk)

    ways = {"sequential, one at a time": one_at_a_time}
    ways["sequential, side by side"] = functools.partial(together, None)
    ways |= {f"chunked {chunk:g} s": functools.partial(together, chunk) for chunk in CHUNKS}
    rounds: dict[str, list[float]] = {kind: [] for kind in ways}
    texts: dict[str, list[str]] = {}
    for _ in range(ROUNDS):
        for kind, hear in ways.items():
            texts[kind], seconds = hear()
            rounds[kind].append(seconds)
    best = {kind: min(seconds) for kind, seconds in rounds.items()}
    slowest = best["sequential, one at a time"]
    rows = []
    for kind, seconds in best.items():
        found = show(kind, recordings, texts[kind], seconds)
        rows.append(
            {
                "long recordings": kind,
                "audio": f"{len(recordings)} of {found['audio_seconds'] / len(recordings):.0f} s",
                "WER": f"{found['wer']:.2%}",
                "real time": f"{found['rtfx']} ×",
                "speed over one at a time": f"{slowest / seconds:.2f} ×",
            }
        )
    print("\n" + json.dumps({"rounds": rounds}))
    print("\n" + markdown(rows))


def test_parity(recordings: list[EvaluationClip], recognizer: Any) -> None:
    pytest.importorskip("whisper")
    if not isinstance(recognizer, WhisperRecognizer):
        pytest.skip("only for a plain Whisper")
    try:
        other = load_openai(model_path(MODEL), "main")
    except ValueError as error:
        pytest.skip(str(error))
    started = time.perf_counter()
    theirs = [
        other.transcribe(
            np.asarray(recording.audio()), language=recording.language, fp16=False,
            condition_on_previous_text=False, temperature=tuple(TEMPERATURES),
            without_timestamps=not TIMESTAMPS,
        )["text"]
        for recording in recordings
    ]  # fmt: skip
    reference = show("openai-whisper", recordings, theirs, time.perf_counter() - started)
    texts, taken = hear_long(recognizer, recordings, 1, OPTIONS, None)
    mine = show("sequential", recordings, texts, taken)
    same = sum(normalize(a, "en") == normalize(b, "en") for a, b in zip(texts, theirs, strict=True))
    rows = [
        {
            "long recordings": found["kind"],
            "WER": f"{found['wer']:.2%}",
            "real time": f"{found['rtfx']} ×",
        }
        for found in (reference, mine)
    ]
    print("\n" + markdown(rows))
    difference = mine["wer"] - reference["wer"]
    print(f"\ndifference {100 * difference:+.2f} points, {same} of {len(texts)} texts the same")
    assert abs(difference) <= 0.003

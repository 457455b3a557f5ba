"""Chunked against sequential on long recordings, and both against openai-whisper's `transcribe`.

Recordings are joined from clips of one speaker. By default the embedded teacher and the embedded
test speakers; `LONGFORM_MODEL`, `LONGFORM_MANIFEST`, `LONGFORM_SECONDS`, `LONGFORM_RECORDINGS`,
`LONGFORM_BATCH`, `LONGFORM_CHUNKS` and `LONGFORM_ROUNDS` choose others; the ways of
reading take turns. `test_parity` needs openai-whisper and multilingual weights.
"""

import functools
import json
import os
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
from distill.student import load_model
from pipeline.schema import EMBEDDED_FOLDER, model_path
from pipeline.scoring import corpus_rate

MODEL = os.environ.get("LONGFORM_MODEL", "embedded")
MANIFEST = os.environ.get("LONGFORM_MANIFEST", str(EMBEDDED_FOLDER / "test.jsonl"))
SECONDS = float(os.environ.get("LONGFORM_SECONDS", "300"))
RECORDINGS = int(os.environ.get("LONGFORM_RECORDINGS", "4"))
BATCH = int(os.environ.get("LONGFORM_BATCH", "16"))
ROUNDS = int(os.environ.get("LONGFORM_ROUNDS", "2"))
CHUNKS = [float(s) for s in os.environ.get("LONGFORM_CHUNKS", "15,25,30").split(",")]


@pytest.fixture(scope="module")
def recordings() -> list[EvaluationClip]:
    config = EvaluateConfig(models=[MODEL], data=[MANIFEST], output="unused")
    return long_recordings(read_clips(config), SECONDS)[:RECORDINGS]


@pytest.fixture(scope="module")
def recognizer() -> Any:
    return load_recognizer(MODEL, dtype="float32")


def show(kind: str, recordings: list[EvaluationClip], texts: list[str], seconds: float) -> float:
    wer = corpus_rate(score_all(recordings, texts))
    audio = sum(recording.duration_seconds for recording in recordings)
    found = {
        "kind": kind, "model": MODEL, "recordings": len(recordings), "audio_seconds": round(audio),
        "wer": round(wer, 4), "model_seconds": round(seconds, 2), "rtfx": round(audio / seconds, 1),
        "threads": torch.get_num_threads(),
    }  # fmt: skip
    print("\n" + json.dumps(found))
    return wer


def test_chunked_against_sequential(recordings: list[EvaluationClip], recognizer: Any) -> None:
    def one_at_a_time() -> tuple[list[str], float]:  # as a user's single long files
        found = [hear_long(recognizer, [r], 1, Options(), None) for r in recordings]
        return [text for texts, _ in found for text in texts], sum(taken for _, taken in found)

    def together(chunk: float | None) -> tuple[list[str], float]:
        return hear_long(recognizer, recordings, BATCH, Options(), chunk)

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
    for kind, seconds in best.items():
        show(kind, recordings, texts[kind], seconds)
    slowest = best["sequential, one at a time"]
    ratios = {kind: round(slowest / seconds, 2) for kind, seconds in best.items()}
    print("\n" + json.dumps({"speed_over_one_at_a_time": ratios, "rounds": rounds}))


def test_parity(recordings: list[EvaluationClip], recognizer: Any) -> None:
    whisper = pytest.importorskip("whisper")
    if not isinstance(recognizer, WhisperRecognizer):
        pytest.skip("only for a plain Whisper")
    other = openai_model(whisper)
    texts, taken = hear_long(recognizer, recordings, 1, Options(), None)
    mine = show("sequential", recordings, texts, taken)
    theirs = [
        whisper.transcribe(
            other, np.asarray(recording.audio()), language=recording.language, fp16=False,
            condition_on_previous_text=False, temperature=(0.0, 0.2, 0.4, 0.6, 0.8, 1.0),
        )["text"]
        for recording in recordings
    ]  # fmt: skip
    reference = show("openai-whisper", recordings, theirs, float("inf"))
    print(f"\ndifference {100 * (mine - reference):+.2f} points")


def openai_model(whisper: Any) -> Any:
    """Put the weights into openai-whisper's model; its tokenizer must be the model's."""
    model: Any = load_model(model_path(MODEL))
    config = model.config
    if config.vocab_size < 51864:
        pytest.skip("openai-whisper has its own tokenizer; this model's vocabulary is another")
    dims = whisper.model.ModelDimensions(
        n_mels=config.num_mel_bins, n_audio_ctx=config.max_source_positions,
        n_audio_state=config.d_model, n_audio_head=config.encoder_attention_heads,
        n_audio_layer=config.encoder_layers, n_vocab=config.vocab_size,
        n_text_ctx=config.max_target_positions, n_text_state=config.d_model,
        n_text_head=config.decoder_attention_heads, n_text_layer=config.decoder_layers,
    )  # fmt: skip
    names = {
        "model.": "", "layers.": "blocks.", "self_attn_layer_norm": "attn_ln",
        "encoder_attn_layer_norm": "cross_attn_ln", "self_attn": "attn",
        "encoder_attn": "cross_attn", "q_proj": "query", "k_proj": "key", "v_proj": "value",
        "out_proj": "out", "fc1": "mlp.0", "fc2": "mlp.2", "final_layer_norm": "mlp_ln",
        "encoder.layer_norm": "encoder.ln_post", "decoder.layer_norm": "decoder.ln",
        "embed_tokens": "token_embedding", "decoder.embed_positions.weight":
        "decoder.positional_embedding", "encoder.embed_positions.weight":
        "encoder.positional_embedding",
    }  # fmt: skip
    state = {}
    for name, value in model.state_dict().items():
        if name.startswith("proj_out"):
            continue
        for old, new in names.items():
            name = name.replace(old, new)
        state[name] = value
    found = whisper.model.Whisper(dims)
    found.load_state_dict(state)
    return found.eval()

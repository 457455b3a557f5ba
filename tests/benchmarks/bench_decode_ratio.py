"""A student's speed relative to its teacher's at large-v2's dimensions, with random weights.

32 + 32 against 32 + 2 layers, 100 forced tokens, encoder included: what the paper's 5.8 x is.
Without an accelerator the encoder, which both share, decides; so the time of encoder and decoder is
shown by itself, with the roofline: the least time that reading the weights and the audio's keys and
values once for each token takes at the memory's measured speed. Teacher and student take turns.
`RATIO_LAYERS` scales the depth to the memory at hand (32 need 6 GB); `RATIO_WIDTH`, `RATIO_TOKENS`
and `RATIO_ROUNDS` are the other sizes.

    pytest -qs tests/benchmarks/bench_decode_ratio.py
"""

import json
import os
import time
from typing import Any

import torch
from transformers import WhisperConfig
from transformers.models.whisper.modeling_whisper import WhisperDecoder, WhisperEncoder

from distill.decoder import Decoder
from distill.decoding import Limits, Prompt, decode
from distill.rules import Rules
from tests.benchmarks.tables import markdown

LAYERS = int(os.environ.get("RATIO_LAYERS", "32"))
TOKENS = int(os.environ.get("RATIO_TOKENS", "100"))
WIDTH = int(os.environ.get("RATIO_WIDTH", "1280"))
ROUNDS = int(os.environ.get("RATIO_ROUNDS", "2"))
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
DTYPE = torch.float16 if DEVICE.type == "cuda" else torch.float32
VOCABULARY = 51865


def make_decoder(layers: int) -> tuple[Decoder, int]:
    config = WhisperConfig(
        vocab_size=VOCABULARY, d_model=WIDTH, encoder_layers=LAYERS, decoder_layers=layers,
        encoder_attention_heads=WIDTH // 64, decoder_attention_heads=WIDTH // 64,
        encoder_ffn_dim=4 * WIDTH, decoder_ffn_dim=4 * WIDTH,
    )  # fmt: skip
    decoder: Any = WhisperDecoder(config)
    decoder.to(DEVICE, DTYPE).eval()
    output = torch.nn.Linear(1, 1, bias=False, device="meta")
    output.weight = decoder.embed_tokens.weight
    # the audio is turned into keys and values once, a position is looked up
    once = ("encoder_attn.k_proj", "encoder_attn.v_proj", "embed_positions")
    size = sum(
        p.numel() * p.element_size()
        for name, p in decoder.named_parameters()
        if not any(part in name for part in once)
    )
    return Decoder(decoder, output), size


def wait() -> float:
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def memory_bytes_per_second() -> float:
    block = torch.ones(128 * 2**20, device=DEVICE)
    best = float("inf")
    for _ in range(5):
        started = wait()
        block.sum()
        best = min(best, wait() - started)
    return block.numel() * 4 / best


@torch.inference_mode()
def test_a_student_of_two_layers_against_its_teacher() -> None:
    torch.manual_seed(0)
    config = WhisperConfig(
        d_model=WIDTH, encoder_layers=LAYERS, encoder_attention_heads=WIDTH // 64,
        encoder_ffn_dim=4 * WIDTH,
    )  # fmt: skip
    encoder: Any = WhisperEncoder(config)
    encoder.to(DEVICE, DTYPE).eval()
    features = torch.randn(1, 80, 3000, device=DEVICE, dtype=DTYPE)
    encoded = encoder(features).last_hidden_state
    times = []
    for _ in range(ROUNDS):
        started = wait()
        encoder(features)
        times.append(wait() - started)
    encoder_seconds = min(times)
    del encoder
    rules = Rules(end=50257, first_timestamp=50364, suppressed=frozenset({50257}))
    prompts = [Prompt(tokens=(50258, 50259, 50359, 50363))]
    bounds, speed = {}, memory_bytes_per_second()
    decoders = {"teacher": make_decoder(LAYERS), "student": make_decoder(2)}
    for role, (decoder, size) in decoders.items():
        decode(decoder, encoded, prompts, rules, Limits(max_new_tokens=4))
        cross = 2 * decoder.num_layers * 1500 * WIDTH * encoded.element_size()
        bounds[role] = TOKENS * (size + cross) / speed
    rounds: dict[str, list[float]] = {role: [] for role in decoders}
    for _ in range(ROUNDS):
        for role, (decoder, _size) in decoders.items():
            started = wait()
            decode(decoder, encoded, prompts, rules, Limits(max_new_tokens=TOKENS))
            rounds[role].append(wait() - started)
    taken = {role: min(times) for role, times in rounds.items()}
    found = {
        "layers": f"{LAYERS}+{LAYERS} against {LAYERS}+2", "width": WIDTH, "tokens": TOKENS,
        "device": str(DEVICE), "dtype": str(DTYPE), "threads": torch.get_num_threads(),
        "encoder_seconds": round(encoder_seconds, 4),
        "decoder_seconds": {k: round(v, 4) for k, v in taken.items()},
        "roofline_decoder_seconds": {k: round(v, 4) for k, v in bounds.items()},
        "decoder_ratio": round(taken["teacher"] / taken["student"], 2),
        "end_to_end_ratio": round(
            (encoder_seconds + taken["teacher"]) / (encoder_seconds + taken["student"]), 2
        ),
        "roofline_ratio": round(
            (encoder_seconds + bounds["teacher"]) / (encoder_seconds + bounds["student"]), 2
        ),
    }  # fmt: skip
    print("\n" + json.dumps(found))
    seconds, ratio = found["decoder_seconds"], found["end_to_end_ratio"]
    row = {
        "student against teacher": f"{found['layers']} of {WIDTH}, {TOKENS} tokens, batch 1",
        "encoder": f"{encoder_seconds:.2f} s",
        "decoder, teacher": f"{seconds['teacher']:.2f} s",
        "decoder, student": f"{seconds['student']:.2f} s",
        "decoder alone": f"{found['decoder_ratio']} ×",
        "end to end (at the roofline)": f"{ratio} × ({found['roofline_ratio']} ×)",
        "device": f"{DEVICE}, {torch.get_num_threads()} threads",
    }
    print("\n" + markdown([row]))

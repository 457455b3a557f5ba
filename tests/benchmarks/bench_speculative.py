"""Speculative decoding against the teacher alone, taking turns in one run.

Speed: a teacher of random weights whose decoder dominates and whose upper layers change nothing, so
that its student, which has the first layers only, always agrees. Acceptance: a real pair, where
tests/shared_data.py finds one, or the one that `SPECULATIVE_TEACHER` and `SPECULATIVE_STUDENT`
name, on the clips of `SPECULATIVE_MANIFEST`. `SPECULATIVE_LAYERS`, `SPECULATIVE_WIDTH`,
`SPECULATIVE_TOKENS` and `SPECULATIVE_REPEATS` size the first one.

    pytest -qs tests/benchmarks/bench_speculative.py
"""

import json
import os
import statistics
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import WhisperConfig, WhisperForConditionalGeneration

from distill.decoder import Decoder
from distill.decoding import Answer, Limits, Prompt, decode
from distill.evaluate_config import EvaluateConfig
from distill.evaluate_data import read_clips
from distill.evaluate_speed import speculative_row
from distill.recognizers import load_recognizer
from distill.rules import Rules
from distill.speculative import Assistant, make_assistant
from distill.student import load_model, make_student
from pipeline.schema import model_path
from tests.benchmarks.tables import markdown
from tests.shared_data import ABSENT, SPEECH, TEACHER

LAYERS = int(os.environ.get("SPECULATIVE_LAYERS", "24"))
WIDTH = int(os.environ.get("SPECULATIVE_WIDTH", "512"))
TOKENS = int(os.environ.get("SPECULATIVE_TOKENS", "96"))
REPEATS = int(os.environ.get("SPECULATIVE_REPEATS", "2"))
CLIPS = int(os.environ.get("SPECULATIVE_CLIPS", "32"))
VOCABULARY, END = 8000, 7000
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def agreeing_pair() -> tuple[Any, Any]:
    torch.manual_seed(0)
    config = WhisperConfig(
        vocab_size=VOCABULARY, d_model=WIDTH, encoder_layers=1, decoder_layers=LAYERS,
        encoder_attention_heads=WIDTH // 64, decoder_attention_heads=WIDTH // 64,
        encoder_ffn_dim=4 * WIDTH, decoder_ffn_dim=4 * WIDTH, num_mel_bins=80, init_std=0.05,
        eos_token_id=END, pad_token_id=END, bos_token_id=END, decoder_start_token_id=END + 1,
        suppress_tokens=None, begin_suppress_tokens=None,
    )  # fmt: skip
    teacher: Any = WhisperForConditionalGeneration(config)
    teacher.eval().to(DEVICE)
    for layer in teacher.model.decoder.layers[1:]:
        for module in (layer.self_attn.out_proj, layer.encoder_attn.out_proj, layer.fc2):
            module.weight.data.zero_()
            module.bias.data.zero_()
    student: Any = make_student(teacher, decoder_layers=2)
    student.eval().to(DEVICE)
    student.model.decoder.layers[0] = teacher.model.decoder.layers[0]
    return teacher, student


def hear(
    teacher: Any,
    encoded: torch.Tensor,
    assistant: Assistant | None,
    rules: Rules,
    tokens: int = TOKENS,
) -> tuple[list[Answer], float]:
    prompts = [Prompt(tokens=(END + 1,))] * len(encoded)
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()
    started = time.perf_counter()
    decoder = Decoder(teacher.model.decoder, teacher.proj_out)
    limits = Limits(max_new_tokens=tokens)
    answers = decode(decoder, encoded, prompts, rules, limits, assistant=assistant)
    return answers, time.perf_counter() - started


def test_speed_with_an_agreeing_assistant() -> None:
    teacher, student = agreeing_pair()
    assistant = make_assistant(student, teacher)
    rules = Rules(end=END, first_timestamp=VOCABULARY, suppressed=frozenset({END}))
    rows = []
    for batch_size in (1, 4, 16):
        encoded = torch.randn(batch_size, 1500, WIDTH, device=DEVICE)
        hear(teacher, encoded, assistant, rules, tokens=8)
        hear(teacher, encoded, None, rules, tokens=8)
        taken: dict[bool, list[float]] = {False: [], True: []}
        for repeat in range(REPEATS):
            texts = []
            for assisted in (False, True) if repeat % 2 else (True, False):
                answers, seconds = hear(teacher, encoded, assistant if assisted else None, rules)
                taken[assisted].append(seconds)
                texts.append([answer.tokens for answer in answers])
            assert texts[0] == texts[1]
        alone, drafted = (statistics.median(taken[assisted]) for assisted in (False, True))
        found = {
            "layers": f"{LAYERS} and 2", "width": WIDTH, "batch_size": batch_size,
            "tokens": TOKENS, "device": str(DEVICE), "threads": torch.get_num_threads(),
            "alone_seconds": round(alone, 3), "assisted_seconds": round(drafted, 3),
            "speed": round(alone / drafted, 2),
            "all_seconds": {
                name: [round(s, 3) for s in taken[assisted]]
                for name, assisted in (("alone", False), ("assisted", True))
            },
        }  # fmt: skip
        print("\n" + json.dumps(found))
        rows.append(
            {
                "speculative, agreeing assistant": f"{LAYERS} and 2 layers of {WIDTH}",
                "batch": batch_size,
                "teacher alone": f"{alone:.2f} s",
                "assisted": f"{drafted:.2f} s",
                "speed": f"{alone / drafted:.2f} ×",
                "same tokens": "100 %",
            }
        )
    print("\n" + markdown(rows))


def test_acceptance_of_a_real_pair() -> None:
    """Without `SPECULATIVE_STUDENT`, two of the teacher's layers are one."""
    folder = os.environ.get("SPECULATIVE_TEACHER", str(TEACHER))
    manifest = os.environ.get(
        "SPECULATIVE_MANIFEST", str(SPEECH / "en_kathleen" / "manifest.jsonl")
    )
    if not (Path(manifest).is_file() and Path(model_path(folder)).is_dir()):
        pytest.skip(ABSENT)
    teacher: Any = load_recognizer(folder, dtype="float32")
    name = os.environ.get("SPECULATIVE_STUDENT")
    student: Any = load_model(name) if name else make_student(teacher.model, 2)
    assistant = make_assistant(student.eval(), teacher.model)
    config = EvaluateConfig(models=[folder], data=[manifest], output="unused", max_clips=CLIPS)
    clips = read_clips(config)
    rows = []
    for size in (1, 16):
        row = speculative_row(teacher, assistant, name or "2 untrained layers", clips, size)
        print("\n" + json.dumps(row | {"teacher": folder, "clips": len(clips)}))
        assert row["identical"] == 1.0
        rows.append(
            {
                "speculative, real pair": f"{Path(folder).name}, {row['model']}",
                "batch": size,
                "tokens a step": row["tokens_per_step"],
                "accepted": f"{row['acceptance']:.0%}",
                "speed": f"{row['relative_speed']:.2f} ×",
                "same tokens": f"{row['identical']:.0%}",
            }
        )
    print("\n" + markdown(rows))

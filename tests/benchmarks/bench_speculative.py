"""Speculative decoding against the teacher alone, taking turns in one run.

Speed: a teacher of random weights whose decoder dominates and whose upper layers change nothing, so
that its student, which has the first layers only, always agrees. Acceptance: a real pair, where
tests/shared_data.py finds one. `SPECULATIVE_LAYERS` and `SPECULATIVE_WIDTH` size the teacher.
"""

import json
import os
import statistics
import time
from typing import Any

import pytest
import soundfile
import torch
from transformers import WhisperConfig, WhisperForConditionalGeneration

from distill.decoder import Decoder
from distill.decoding import Answer, Limits, Prompt, decode
from distill.rules import Rules
from distill.speculative import Assistant, make_assistant
from distill.student import load_model, load_processor, make_student
from tests.shared_data import ABSENT, SPEECH, TEACHER

LAYERS = int(os.environ.get("SPECULATIVE_LAYERS", "24"))
WIDTH = int(os.environ.get("SPECULATIVE_WIDTH", "512"))
TOKENS = int(os.environ.get("SPECULATIVE_TOKENS", "96"))
REPEATS = int(os.environ.get("SPECULATIVE_REPEATS", "3"))
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
    teacher: Any, encoded: torch.Tensor, assistant: Assistant | None, rules: Rules
) -> tuple[list[Answer], float]:
    prompts = [Prompt(tokens=(END + 1,))] * len(encoded)
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()
    started = time.perf_counter()
    decoder = Decoder(teacher.model.decoder, teacher.proj_out)
    limits = Limits(max_new_tokens=TOKENS)
    answers = decode(decoder, encoded, prompts, rules, limits, assistant=assistant)
    return answers, time.perf_counter() - started


@pytest.mark.parametrize("batch_size", [1, 4, 16])
def test_speed_with_an_agreeing_assistant(batch_size: int) -> None:
    teacher, student = agreeing_pair()
    assistant = make_assistant(student, teacher)
    rules = Rules(end=END, first_timestamp=VOCABULARY, suppressed=frozenset({END}))
    encoded = torch.randn(batch_size, 1500, WIDTH, device=DEVICE)
    hear(teacher, encoded, assistant, rules)
    taken: dict[bool, list[float]] = {False: [], True: []}
    for _ in range(REPEATS):
        texts = []
        for assisted in (False, True):
            answers, seconds = hear(teacher, encoded, assistant if assisted else None, rules)
            taken[assisted].append(seconds)
            texts.append([answer.tokens for answer in answers])
        assert texts[0] == texts[1]
    alone, drafted = (statistics.median(taken[assisted]) for assisted in (False, True))
    found = {
        "layers": f"{LAYERS} and 2", "width": WIDTH, "batch_size": batch_size, "tokens": TOKENS,
        "device": str(DEVICE), "threads": torch.get_num_threads(),
        "alone_seconds": round(alone, 3), "assisted_seconds": round(drafted, 3),
        "speed": round(alone / drafted, 2), "spread": [round(s, 3) for s in taken[True]],
    }  # fmt: skip
    print("\n" + json.dumps(found))


def test_acceptance_of_a_real_pair() -> None:
    """`SPECULATIVE_STUDENT` names a trained student; without it, the teacher's layers are one."""
    folder, manifest = TEACHER, SPEECH / "en_kathleen" / "manifest.jsonl"
    if not folder.is_dir():
        pytest.skip(ABSENT)
    teacher: Any = load_model(str(folder)).eval()
    name = os.environ.get("SPECULATIVE_STUDENT")
    student: Any = load_model(name).eval() if name else make_student(teacher, 2).eval()
    processor, settings = load_processor(str(folder)), teacher.generation_config
    lines = [json.loads(line) for line in manifest.read_text().splitlines()[:16]]
    audio = [soundfile.read(manifest.parent / line["audio_filepath"])[0] for line in lines]
    features = processor.feature_extractor(
        audio, sampling_rate=16_000, return_tensors="pt"
    ).input_features
    with torch.inference_mode():
        encoded = teacher.model.encoder(features).last_hidden_state
    rules = Rules(
        end=settings.eos_token_id,
        first_timestamp=settings.no_timestamps_token_id + 1,
        suppressed=frozenset(settings.suppress_tokens),
        suppressed_first=frozenset(settings.begin_suppress_tokens),
    )
    start = (settings.decoder_start_token_id, settings.no_timestamps_token_id)
    assistant = make_assistant(student, teacher)
    for size in (1, 16):
        taken, drafted, accepted, same = {False: 0.0, True: 0.0}, 0, 0, 0
        for first in range(0, len(audio), size):
            texts = []
            for assisted in (False, True):
                part = encoded[first : first + size]
                started = time.perf_counter()
                answers = decode(
                    Decoder(teacher.model.decoder, teacher.proj_out), part,
                    [Prompt(tokens=start)] * len(part), rules, Limits(max_new_tokens=200),
                    assistant=assistant if assisted else None,
                )  # fmt: skip
                taken[assisted] += time.perf_counter() - started
                texts.append([answer.tokens for answer in answers])
                drafted += sum(answer.num_drafted for answer in answers)
                accepted += sum(answer.num_accepted for answer in answers)
            same += sum(a == b for a, b in zip(*texts, strict=True))
        found = {
            "student": name or "2 untrained layers", "batch_size": size, "clips": len(audio),
            "identical": same, "drafted": drafted, "accepted": accepted,
            "speed": round(taken[False] / taken[True], 2),
        }  # fmt: skip
        print("\n" + json.dumps(found))
        assert same == len(audio)

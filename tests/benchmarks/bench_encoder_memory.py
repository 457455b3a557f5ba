"""A training step at Whisper-tiny's size with and without the encoder's memory, in turn."""

import json
import time

import torch
from torch import Tensor

from distill.distillation import Distillation
from distill.encoder_memory import EncoderMemory
from distill.loss_config import LossConfig
from distill.student import encode, make_student
from tests.benchmarks.training import WHISPER_TINY, make_whisper

CLIPS, TOKENS, ROUNDS = 4, 60, 5


def test_a_step_over_clips_that_were_heard_before() -> None:
    teacher = make_whisper(WHISPER_TINY)
    memory = EncoderMemory()
    steps = {
        name: Distillation(
            make_student(teacher), teacher, LossConfig(), True, True, encode=how
        ).train()
        for name, how in (("anew", encode), ("remembered", memory))
    }
    features = torch.randn(CLIPS, 80, 3000)
    tokens = torch.randint(1000, (CLIPS, TOKENS))
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(ROUNDS):
        for name, step in steps.items():
            seconds[name].append(step_seconds(step, features, tokens))
    found = {name: min(taken) for name, taken in seconds.items()}
    print("\n" + json.dumps(found | {"anew_over_remembered": found["anew"] / found["remembered"]}))
    assert memory.misses == CLIPS


def step_seconds(step: Distillation, features: Tensor, tokens: Tensor) -> float:
    step.zero_grad()
    started = time.perf_counter()
    with torch.autocast("cpu", torch.bfloat16):
        loss = step(features, tokens, tokens)["loss"]
    loss.backward()
    return time.perf_counter() - started

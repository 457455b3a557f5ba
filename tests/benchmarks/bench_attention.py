"""A training step in bfloat16 on a CPU with fused and with plain attention, side by side."""

import json
import time

import pytest
import torch

from distill.distillation import Distillation
from distill.loss_config import LossConfig
from pipeline.embedded.architecture import make_model, make_tokenizer


def step_seconds(attention: str, clips: int, seconds: float) -> float:
    model = make_model(make_tokenizer())
    step = Distillation(model, None, LossConfig(preset="labels-only"), False, False)
    features = torch.randn(clips, 80, round(seconds * 100))
    tokens = torch.randint(600, (clips, round(seconds * 6)))
    taken = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("distill.distillation.choose_attention", lambda *_: None)
        model.set_attn_implementation(attention)
        for _ in range(4):
            started = time.perf_counter()
            with torch.autocast("cpu", torch.bfloat16):
                loss = step(features, tokens, tokens)["loss"]
            loss.backward()
            taken.append(time.perf_counter() - started)
    return min(taken)


@pytest.mark.parametrize(("clips", "seconds"), [(96, 2.5), (24, 10.0), (8, 30.0)])
def test_plain_attention_against_the_fused_one(clips: int, seconds: float) -> None:
    fused, plain = (step_seconds(a, clips, seconds) for a in ("sdpa", "eager"))
    found = {"clips": clips, "window_seconds": seconds, "fused": fused, "plain": plain}
    print("\n" + json.dumps(found | {"fused_over_plain": fused / plain}))

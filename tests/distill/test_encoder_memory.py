import copy
from typing import Any

import pytest
import torch
from transformers import WhisperForConditionalGeneration

from distill.encoder_memory import EncoderMemory, _weights_digest
from distill.student import encode

Whisper = WhisperForConditionalGeneration


@pytest.fixture
def features() -> torch.Tensor:
    return torch.randn(3, 80, 200, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def test_a_clip_is_encoded_once_whatever_shares_its_batch(teacher: Whisper, features: torch.Tensor):
    memory, encoder = EncoderMemory(), teacher.model.encoder
    first = memory(encoder, features[:2])
    again = memory(encoder, features[[2, 1]])
    assert (memory.hits, memory.misses) == (1, 3)
    assert torch.equal(again[1], first[1])
    torch.testing.assert_close(again, encode(encoder, features[[2, 1]]))


@torch.no_grad()
def test_under_autocast_half_the_room_keeps_what_the_decoder_reads(
    teacher: Whisper, features: torch.Tensor
):
    memory, model = EncoderMemory(), teacher.model
    words = torch.tensor([[1, 2, 3]] * len(features))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        sound = torch.cat([encode(model.encoder, row) for row in features.split(1)])
        kept = memory(model.encoder, features)
        read = [
            model.decoder(words, encoder_hidden_states=each, use_cache=False).last_hidden_state
            for each in (sound, kept, memory(model.encoder, features))
        ]
    assert sound.dtype == torch.float32
    assert memory.num_bytes == kept.nbytes == sound.nbytes // 2
    assert torch.equal(read[0], read[1])
    assert torch.equal(read[1], read[2])


@torch.no_grad()
def test_a_clip_in_a_longer_window_is_another(teacher: Whisper, features: torch.Tensor):
    memory = EncoderMemory()
    memory(teacher.model.encoder, features[:1, :, :100])
    longer = torch.nn.functional.pad(features[:1, :, :100], (0, 100))
    heard = memory(teacher.model.encoder, longer)
    assert (memory.hits, memory.misses) == (0, 2)
    torch.testing.assert_close(heard, encode(teacher.model.encoder, longer))


@torch.no_grad()
@pytest.mark.parametrize("how", ["in place", "another tensor", "loaded"])
def test_another_encoder_is_never_taken_for_the_one_before(
    teacher: Whisper, features: torch.Tensor, how: str
):
    memory, encoder = EncoderMemory(), teacher.model.encoder
    memory(encoder, features)
    if how == "in place":
        encoder.layer_norm.weight.mul_(2)
    elif how == "another tensor":
        encoder.layer_norm.weight = torch.nn.Parameter(2 * encoder.layer_norm.weight)
    else:
        state = encoder.state_dict()
        encoder.load_state_dict(state | {"layer_norm.weight": 2 * state["layer_norm.weight"]})
    torch.testing.assert_close(memory(encoder, features), encode(encoder, features))
    assert memory.hits == 0


@torch.no_grad()
def test_what_finds_no_room_is_computed_each_time(
    teacher: Whisper, features: torch.Tensor, caplog: pytest.LogCaptureFixture
):
    caplog.set_level("INFO", logger="distill.encoder_memory")
    one = encode(teacher.model.encoder, features[:1]).nbytes
    memory = EncoderMemory(kept_bytes=2 * one + 1)
    for _ in range(2):
        heard = memory(teacher.model.encoder, features)
    assert (memory.num_bytes, memory.hits, memory.misses) == (2 * one, 2, 4)
    (said,) = caplog.messages
    assert "full with 2 clips" in said
    torch.testing.assert_close(heard, encode(teacher.model.encoder, features))


def test_an_encoder_that_learns_or_draws_dropout_is_not_remembered(
    teacher: Whisper, features: torch.Tensor
):
    memory, encoder = EncoderMemory(), teacher.model.encoder
    assert memory(encoder, features).requires_grad
    with torch.no_grad():
        memory(encoder.train(), features)
    assert (memory.hits, memory.misses, memory.num_bytes) == (0, 0, 0)


@torch.no_grad()
def test_two_encoders_in_turn_are_both_known(
    teacher: Whisper, features: torch.Tensor, monkeypatch: pytest.MonkeyPatch
):
    """A teacher and a student with encoders of their own: each is hashed once, not every step."""
    other = copy.deepcopy(teacher).model.encoder
    other.layer_norm.weight.mul_(2)
    hashed = []

    def digest(encoder: Any) -> bytes:
        hashed.append(encoder)
        return _weights_digest(encoder)

    monkeypatch.setattr("distill.encoder_memory._weights_digest", digest)
    memory = EncoderMemory()
    for _ in range(3):
        for encoder in (teacher.model.encoder, other):
            torch.testing.assert_close(memory(encoder, features), encode(encoder, features))
    assert (memory.misses, len(hashed)) == (6, 2)

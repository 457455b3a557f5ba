from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import WhisperForConditionalGeneration

from distill.distillation import Distillation
from distill.hidden import HiddenStates, capturing
from distill.loss_config import LossConfig
from distill.student import make_student
from tests.distill.material import make_training_batch

Whisper = WhisperForConditionalGeneration


class Compared(nn.Module):
    """Compares the last layers through a projection that is learnt along."""

    def __init__(self) -> None:
        super().__init__()
        self.adapter = nn.Linear(64, 64)
        self.seen: list[tuple[HiddenStates, HiddenStates]] = []

    def forward(self, student: HiddenStates, teacher: HiddenStates) -> dict[str, Tensor]:
        self.seen.append((student, teacher))
        difference = self.adapter(student.intermediates[-1]) - teacher.intermediates[-1]
        return {"hidden": 0.5 * difference.square().sum()}


def distillation(student: Whisper, teacher: Whisper | None, **fields: Any) -> Distillation:
    return Distillation(student, teacher, LossConfig(), True, True, **fields)


def test_a_hidden_loss_sees_every_layer_of_both_at_the_labelled_positions(
    teacher: Whisper,
):
    compared, batch = Compared(), make_training_batch()
    distillation(make_student(teacher), teacher, hidden_loss=compared)(**batch)
    ((ours, theirs),) = compared.seen
    tokens = int((batch["labels"] >= 0).sum())
    for states, layers in ((ours, 2), (theirs, 4)):
        assert [s.shape for s in states.outputs] == [(tokens, 32)] * layers
        assert [s.shape for s in states.intermediates] == [(tokens, 64)] * layers
    assert ours.outputs[0].requires_grad
    assert not theirs.outputs[0].requires_grad


def test_a_hidden_loss_adds_to_the_loss_by_the_token_and_trains_its_own_weights(teacher: Whisper):
    student, compared, batch = make_student(teacher), Compared(), make_training_batch()
    plain = distillation(student, teacher)(**batch)
    step = distillation(student, teacher, hidden_loss=compared)
    whole = step(**batch)
    expected = plain["loss"] + whole["hidden"]
    torch.testing.assert_close(whole["loss"], expected)
    halved = step(**batch, num_items_in_batch=2 * (batch["labels"] >= 0).sum())
    torch.testing.assert_close(halved["hidden"] * 2, whole["hidden"])
    whole["loss"].backward()
    assert compared.adapter.weight.grad is not None
    assert {"hidden_loss.adapter.weight", "hidden_loss.adapter.bias"} <= step.state_dict().keys()


def test_capturing_changes_no_state_and_leaves_no_hook_behind(teacher: Whisper):
    batch = make_training_batch()
    kept = batch["labels"] >= 0
    inputs = {
        "input_ids": batch["decoder_input_ids"],
        "encoder_hidden_states": torch.randn(3, 50, 32),
    }
    with torch.no_grad():
        plain = teacher.model.decoder(**inputs).last_hidden_state
        with capturing(teacher, kept, True) as states:
            watched = teacher.model.decoder(**inputs).last_hidden_state
        again = teacher.model.decoder(**inputs).last_hidden_state
    assert torch.equal(plain, watched)
    assert torch.equal(plain, again)
    assert len(states.outputs) == 4
    normed = teacher.model.decoder.layer_norm(states.outputs[-1])
    torch.testing.assert_close(normed, plain[kept])


def test_captured_states_do_not_see_later_tokens(teacher: Whisper):
    batch = make_training_batch()
    kept = torch.ones_like(batch["labels"], dtype=torch.bool)
    found = []
    for last in (1, 2):
        inputs = batch["decoder_input_ids"].clone()
        inputs[:, -1] = last
        with torch.no_grad(), capturing(teacher, kept, True) as states:
            teacher.model.decoder(input_ids=inputs, encoder_hidden_states=torch.ones(3, 50, 32))
        found.append(torch.stack(states.intermediates).unflatten(1, (3, 9)))
    assert torch.equal(found[0][:, :, :-1], found[1][:, :, :-1])
    assert not torch.equal(found[0][:, :, -1], found[1][:, :, -1])


def test_a_hidden_loss_without_a_teacher_is_refused(teacher: Whisper):
    with pytest.raises(ValueError, match="needs a teacher"):
        distillation(make_student(teacher), None, hidden_loss=Compared())

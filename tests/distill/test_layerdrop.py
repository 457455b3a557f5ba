from typing import Any

import pytest
import torch
from torch import Tensor, nn

from distill.layerdrop import drop_inner_layers


class AddOne(nn.Module):
    def forward(self, hidden: Tensor, _mask: Any = None) -> Tensor:
        return hidden + 1


class Layers(nn.Module):
    """As many layers as asked for; the output counts those that were passed."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(AddOne() for _ in range(number))

    def forward(self, hidden: Tensor) -> Tensor:
        for layer in self.layers:
            hidden = layer(hidden, None)
        return hidden


def depths(number: int, share: float, clips: int = 4000) -> Tensor:
    torch.manual_seed(0)
    decoder = Layers(number)
    drop_inner_layers(decoder, share)
    output = decoder(torch.zeros(clips, 3, 2))
    assert (output == output[:, :1, :1]).all(), "a clip skips a layer with all its tokens"
    return output[:, 0, 0]


def test_the_first_and_the_last_layer_are_never_skipped():
    assert depths(6, 0.9).min() == 2
    assert depths(3, 0.99).min() == 2


def test_every_clip_of_a_batch_draws_for_itself_with_the_share_that_was_asked_for():
    found = depths(4, 0.25)
    assert set(found.tolist()) == {2.0, 3.0, 4.0}
    assert found.mean().item() == pytest.approx(2 + 2 * 0.75, abs=0.05)


def test_a_model_that_is_used_and_not_trained_skips_nothing():
    decoder = Layers(5)
    drop_inner_layers(decoder, 0.9)
    assert decoder.eval()(torch.zeros(100, 1, 1)).unique().tolist() == [5.0]


def test_a_skipped_layer_gets_its_gradient_from_the_clips_that_pass_it():
    torch.manual_seed(1)
    inner = nn.Linear(2, 2)
    decoder = Layers(3)
    decoder.layers[1] = inner
    inner.register_forward_pre_hook(lambda _, given: given[0])
    drop_inner_layers(decoder, 0.5)
    decoder(torch.ones(64, 1, 2)).sum().backward()
    assert inner.bias.grad is not None
    assert 10 < inner.bias.grad[0].item() < 54  # one for each clip that passed


def test_a_decoder_without_inner_layers_is_refused():
    with pytest.raises(ValueError, match="2 layers has none between"):
        drop_inner_layers(Layers(2), 0.1)

"""What the decoders hold inside, captured for losses that compare it layer by layer.

A hidden-state loss is anything that takes the states of student and teacher and returns named sums
over tokens; an `nn.Module` may bring weights of its own, which are trained with the student. The
states are read by hooks in the one pass that both models make anyway, so they are causal, and the
logits are the same with and without them.
"""

# N label tokens of a batch, D width, F width of the feed-forward part

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from transformers import WhisperForConditionalGeneration


@dataclass(kw_only=True)
class HiddenStates:
    """The states of one decoder at the positions that have a label, a tensor for each layer."""

    outputs: list[Tensor] = field(default_factory=list)
    """What each layer hands on, (N, D)."""
    intermediates: list[Tensor] = field(default_factory=list)
    """What enters the second feed-forward projection of each layer, (N, F)."""
    cross_attentions: list[Tensor] = field(default_factory=list)
    """What each layer's attention to the sound gives, (N, D)."""


HiddenLoss = Callable[[HiddenStates, HiddenStates], dict[str, Tensor]]
"""Takes the states of student and teacher; returns weighted sums over the N tokens, by name. Each
is added to the loss, divided by the tokens of the optimiser step, and logged under its name."""


@contextlib.contextmanager
def capturing(
    model: WhisperForConditionalGeneration, kept_BT: Tensor, wanted: bool
) -> Iterator[HiddenStates]:
    """Yield what the decoder's layers hold while the context lasts; nothing unless `wanted`."""
    states, handles = HiddenStates(), []

    def keep_output(_module: Any, _inputs: Any, output: Any) -> None:
        states.outputs.append((output[0] if isinstance(output, tuple) else output)[kept_BT])

    def keep_attention(_module: Any, _inputs: Any, output: Any) -> None:
        states.cross_attentions.append(output[0][kept_BT])

    def keep_input(_module: Any, inputs: Any) -> None:
        states.intermediates.append(inputs[0][kept_BT])

    for layer in model.model.decoder.layers if wanted else ():
        handles.append(layer.register_forward_hook(keep_output))
        handles.append(layer.get_submodule("encoder_attn").register_forward_hook(keep_attention))
        handles.append(layer.get_submodule("fc2").register_forward_pre_hook(keep_input))
    try:
        yield states
    finally:
        for handle in handles:
            handle.remove()


def gradient_share(term: Tensor, others: Tensor, model: nn.Module) -> float:
    """Return how much of the gradient of a model's weights a term of the loss has, from 0 to 1.

    That is its norm over the sum of its norm and that of all other terms together. A share near 0
    says that the term is there and does nothing. Costs two backward passes.
    """
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    norms = []
    for value in (term, others):
        found = torch.autograd.grad(value, weights, retain_graph=True, allow_unused=True)
        norms.append(sum(float(g.double().square().sum()) for g in found if g is not None) ** 0.5)
    return norms[0] / sum(norms) if sum(norms) else 0.0

"""Weights that FSDP has spread over processes, put together where they are needed whole.

A training under FSDP 2 (`accelerate launch --use_fsdp --fsdp_version 2`) holds a part of each
weight in each process. A step gathers what it needs by itself; checkpoints and validation do not.
"""

import contextlib
from collections.abc import Iterator

from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    set_model_state_dict,
)
from torch.distributed.fsdp import FSDPModule

from distill.config import TrainConfig


def is_sharded(module: nn.Module) -> bool:
    """Tell whether a module's weights are spread over processes."""
    return isinstance(module, FSDPModule)


def check_sharding(config: TrainConfig) -> None:
    """Refuse what reads or writes weights between steps as if they were whole.

    Raises:
        ValueError: the configuration has such a thing.
    """
    for name in ("average_decay", "hidden", "quantization", "encoder_memory_gib"):
        if getattr(config, name):
            raise ValueError(
                f"{name} needs the whole student in every process, which FSDP takes apart; train "
                "with DDP (torchrun, without FSDP), or leave it out"
            )


def whole_state(module: nn.Module) -> dict[str, Tensor]:
    """Return all weights on the CPU; every process must ask, the first one gets them."""
    return get_model_state_dict(  # pyright: ignore[reportReturnType]
        module, options=StateDictOptions(full_state_dict=True, cpu_offload=True)
    )


def load_whole_state(module: nn.Module, state: dict[str, Tensor]) -> None:
    """Give each process its part of weights that all of them have read."""
    set_model_state_dict(module, dict(state), options=StateDictOptions(full_state_dict=True))


@contextlib.contextmanager
def whole(module: nn.Module) -> Iterator[None]:
    """Hold all weights in each process while the context lasts, so that any method can be called.

    Every process must enter; nothing happens where the weights are whole anyway.
    """
    parts = [part for part in module.modules() if isinstance(part, FSDPModule)]
    for part in parts:
        part.unshard()
    try:
        yield
    finally:
        for part in parts:
            part.reshard()

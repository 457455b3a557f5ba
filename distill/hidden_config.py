"""Configuration of the loss on hidden states."""

from dataclasses import dataclass
from typing import Literal

from distill.matching import Mode


@dataclass(frozen=True, kw_only=True)
class HiddenConfig:
    """Let the student's decoder layers learn from layers of the teacher's decoder."""

    weight: float = 1.0
    """Of this term in the loss. The papers weigh it as the KL term."""
    matching: Mode = "dynamic_greedy"
    """Which teacher layer each layer learns from. `dynamic_greedy` is the papers', `uniform` their
    static one, `dynamic_dp` the optimum; `reverse` and `random` are controls."""
    strict: bool = False
    """`dynamic_dp` uses no teacher layer twice."""
    feature: Literal["ffn", "block", "cross_attention"] = "ffn"
    """What is compared: the feed-forward layer inside (the papers), a layer's output, or what its
    attention to the sound gives."""
    distance: Literal["ln_mse", "cosine", "cka", "softmax_mse", "weight_l1"] = "ln_mse"
    """`softmax_mse` is DQ-Whisper's and hardly has a gradient; `weight_l1` is Whisper-KDQ's, which
    compares the weights of the first feed-forward layers."""
    projection: Literal["student-to-teacher", "teacher-to-student"] = "student-to-teacher"
    """Which side is mapped to the other's width. The papers map the teacher's, which lets the loss
    fall without the student learning anything."""
    shared_projection: bool = True
    """One projection for all student layers. One each makes an early choice reinforce itself."""
    smoothing: float = 0.9
    """Decay of the average of distances that a dynamic map is made from; 0 takes each batch's."""
    seed: int = 0
    """Of the `random` map."""

    def __post_init__(self) -> None:
        if self.weight <= 0:
            raise ValueError(f"hidden.weight is {self.weight}; it must be above 0, or hidden null")
        if not 0 <= self.smoothing < 1:
            raise ValueError(f"hidden.smoothing is {self.smoothing}; it must be from 0 to below 1")
        if self.distance == "weight_l1" and self.feature != "ffn":
            raise ValueError("hidden.distance weight_l1 compares feed-forward weights: feature ffn")
        if self.projection == "teacher-to-student" and not self.shared_projection:
            raise ValueError("a projection of the teacher is shared: set hidden.shared_projection")

"""Configuration of the loss on labels and on the teacher's predictions."""

from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """Weights of the two losses; a preset fills what is not given."""

    preset: Literal["paper", "released-code", "labels-only"] = "paper"
    """`paper`: KL 0.8, labels 1.0 (Eq. 6); `released-code`: labels 0.8, KL 1.0 × T²;
    `labels-only`: cross-entropy alone, no teacher needed."""
    ce_weight: float | None = None
    """Weight of the cross-entropy with the labels."""
    kl_weight: float | None = None
    """Weight of the divergence from the teacher's distribution; 0 needs no teacher."""
    ctc_weight: float = 0.0
    """Weight of spelling the text from the encoder (CTC). For training a model from nothing; Latin
    letters only."""
    temperature: float = 2.0
    """Softmax temperature on both sides of the KL term (appendix B.1)."""
    times_temperature_squared: bool | None = None
    """Multiply KL by T², so that its gradient keeps its scale when T changes."""
    divergence: Literal["forward-kl", "reverse-kl", "jensen-shannon"] = "forward-kl"
    """How the difference from the teacher's distribution is measured (paper: forward)."""
    label_smoothing: float = 0.0
    """Share of each label that is spread evenly over the vocabulary in the cross-entropy."""

    def __post_init__(self) -> None:
        if self.temperature <= 0:
            raise ValueError(f"loss.temperature is {self.temperature}; it must be above 0")
        if self.ctc_weight < 0:
            raise ValueError(f"loss.ctc_weight is {self.ctc_weight}; it must be 0 or more")
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(
                f"loss.label_smoothing is {self.label_smoothing}; it must be from 0 to below 1"
            )
        ce, kl, _ = self.weights
        if min(ce, kl) < 0 or ce == kl == 0:
            raise ValueError(
                f"the loss weights are {ce} (ce) and {kl} (kl); neither may be negative, "
                "and one must be above 0"
            )

    @property
    def weights(self) -> tuple[float, float, bool]:
        """The weight of CE, the weight of KL, and whether KL is multiplied by T²."""
        ce, kl, squared = LOSS_PRESETS[self.preset]
        return (
            ce if self.ce_weight is None else self.ce_weight,
            kl if self.kl_weight is None else self.kl_weight,
            squared if self.times_temperature_squared is None else self.times_temperature_squared,
        )

    @property
    def options(self) -> dict[str, Any]:
        """The keyword arguments of `distill.losses.distillation_loss`."""
        ce, kl, squared = self.weights
        return {
            "ce_weight": ce,
            "kl_weight": kl,
            "temperature": self.temperature,
            "times_temperature_squared": squared,
            "divergence": self.divergence,
            "label_smoothing": self.label_smoothing,
        }


LOSS_PRESETS: dict[str, tuple[float, float, bool]] = {
    "paper": (1.0, 0.8, False),
    "released-code": (0.8, 1.0, True),
    "labels-only": (1.0, 0.0, False),
}

"""Configuration of `whisper-distill quantize` and `inspect`, and of training on a grid."""

from dataclasses import dataclass
from typing import Literal

from distill.quantization.presets import PresetName, Rule, rules_of


@dataclass(frozen=True, kw_only=True)
class QuantizeConfig:
    """Write a model again with its weights on a grid, in a small file."""

    model: str
    """`embedded`, a Hub id, or a local Whisper folder that is not quantised yet."""
    output: str
    """The folder to write; `transcribe` and `evaluate` read it."""
    preset: PresetName = "paper"
    """`paper`: decoder and embedding 8 bit, encoder float16; `paper_strict`: decoder layers only,
    one scale each; `w8`: all 8 bit; `w4`: all 4 bit, embedding 8; `ct2_int8`, `ggml_q8_0`: the
    grids of CTranslate2 and whisper.cpp."""
    rules: list[Rule] | None = None
    """Grids by layer name, instead of the preset's."""

    @property
    def chosen_rules(self) -> tuple[Rule, ...]:
        """The rules, or the preset's where none are given."""
        return rules_of(self.preset) if self.rules is None else tuple(self.rules)


@dataclass(frozen=True, kw_only=True)
class InspectConfig:
    """Say how many bytes each part of a model takes."""

    folder: str
    """A folder with a model, quantised or plain."""
    json: bool = False
    """Print JSON instead of a table."""


@dataclass(frozen=True, kw_only=True)
class QuantizationConfig:
    """Train with weights as they will be stored: float first, then on the grid."""

    preset: PresetName = "paper"
    """As `whisper-distill quantize` has it."""
    rules: list[Rule] | None = None
    """Grids by layer name, instead of the preset's."""
    start_step: int = 0
    """Steps in float before."""
    ramp_steps: int = 0
    """Steps in which one decoder block after the other is quantised; 0 is all at once."""
    blocks: Literal["all", "even", "first"] = "all"
    """Which decoder blocks are ever quantised; the others stay float16 in the file."""
    guided: bool = False
    """Whisper-KDQ's guided selection, as far as it can be inferred: blocks are quantised in the
    order of how well distillation has aligned them. Needs `hidden` and `ramp_steps`."""
    distilled_blocks: int | None = None
    """The other half: only so many blocks, those that quantisation hurts most, learn from the
    teacher's layers. Null for all."""
    guide_every: int = 100
    """Steps between two such choices of blocks to be distilled."""
    learn_scale: bool = False
    """Learn the grids' steps (LSQ) instead of taking the largest weight's."""

    def __post_init__(self) -> None:
        for name in ("start_step", "ramp_steps"):
            if getattr(self, name) < 0:
                raise ValueError(f"quantization.{name} is {getattr(self, name)}; 0 is the least")
        if self.guide_every < 1 or (self.distilled_blocks or 1) < 1:
            raise ValueError("quantization.guide_every and distilled_blocks must be at least 1")
        if self.guided and not self.ramp_steps:
            raise ValueError("quantization.guided chooses an order: set quantization.ramp_steps")

    @property
    def chosen_rules(self) -> tuple[Rule, ...]:
        """The rules, or the preset's where none are given."""
        return rules_of(self.preset) if self.rules is None else tuple(self.rules)

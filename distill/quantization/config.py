"""Configuration of `whisper-distill quantize` and `inspect`."""

from dataclasses import dataclass

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

"""Which weights are stored in how many bits: grids, rules over layer names, and the presets.

Free of torch, because the command line reads it. A weight matrix is the only thing that is ever
quantised: positions, norms, biases and the two convolutions are under 2 % of a small model, and
stay float16 in the file.
"""

from dataclasses import dataclass
from typing import Literal, get_args

ScaleDtype = Literal["float16", "float32"]


@dataclass(frozen=True, kw_only=True)
class Grid:
    """A symmetric grid of 2·largest + 1 steps around zero: weight = integer · scale."""

    bits: int = 8
    """2 to 8. Up to 4 bits, two weights share a byte."""
    group: int | None = None
    """So many neighbours in a row share a scale; null is the whole row."""
    per_tensor: bool = False
    """One scale for the whole matrix, as the released code of DQ-Whisper has it."""
    scale: ScaleDtype = "float16"
    """How scales are stored; they are rounded to it before they are used."""

    def __post_init__(self) -> None:
        if not 2 <= self.bits <= 8:
            raise ValueError(f"bits is {self.bits}; a grid has 2 to 8")
        if self.group is not None and (self.group < 2 or self.group % 2):
            raise ValueError(
                f"group is {self.group}; it must be an even number, because two 4-bit weights "
                "share a byte (32 is usual), or null for the whole row"
            )
        if self.group is not None and self.per_tensor:
            raise ValueError("give either group or per_tensor, not both")
        if self.scale not in get_args(ScaleDtype):
            raise ValueError(f"scale is {self.scale!r}; it must be float16 or float32")

    @property
    def largest(self) -> int:
        """The largest integer; its negative is the smallest."""
        return 2 ** (self.bits - 1) - 1

    def check(self, layer: str, shape: tuple[int, ...]) -> None:
        """Refuse a weight that does not fit.

        Raises:
            ValueError: not a matrix, or the columns cannot be grouped or packed.
        """
        if len(shape) != 2:
            raise ValueError(f"{layer} has a weight of shape {list(shape)}; only matrices fit")
        if self.group is not None and shape[1] % self.group:
            raise ValueError(
                f"{layer} has {shape[1]} columns, which groups of {self.group} do not fill; "
                "choose a divisor"
            )
        if self.bits <= 4 and shape[1] % 2:
            raise ValueError(f"{layer} has {shape[1]} columns; two 4-bit weights share a byte")

    def scale_shape(self, shape: tuple[int, ...]) -> tuple[int, int]:
        """Return (rows, groups) of the scales of a weight (rows, columns)."""
        if self.per_tensor:
            return 1, 1
        return shape[0], 1 if self.group is None else shape[1] // self.group


@dataclass(frozen=True, kw_only=True)
class Rule:
    """The grid of all linear layers and embeddings whose name matches."""

    layers: str
    """A pattern of the shell's kind over module names, such as `model.decoder.layers.*`."""
    grid: Grid


PresetName = Literal["paper", "paper_strict", "w8", "w4", "ct2_int8", "ggml_q8_0"]

ENCODER, DECODER = "model.encoder.layers.*", "model.decoder.layers.*"
EMBEDDING = "model.decoder.embed_tokens"
_ROWS = Grid(bits=8)
_W4 = Grid(bits=4, group=32)
_CT2 = Grid(bits=8, scale="float32")
_GGML = Grid(bits=8, group=32)

PRESETS: dict[PresetName, tuple[Rule, ...]] = {
    # What the papers count: decoder and embedding in 8 bits, encoder in 16.
    "paper": (Rule(layers=DECODER, grid=_ROWS), Rule(layers=EMBEDDING, grid=_ROWS)),
    # What the released code trains: decoder layers only, one scale for each matrix.
    "paper_strict": (Rule(layers=DECODER, grid=Grid(bits=8, per_tensor=True)),),
    "w8": tuple(Rule(layers=part, grid=_ROWS) for part in (ENCODER, DECODER, EMBEDDING)),
    "w4": (
        Rule(layers=ENCODER, grid=_W4),
        Rule(layers=DECODER, grid=_W4),
        Rule(layers=EMBEDDING, grid=_ROWS),
    ),
    # The grids of other runtimes, so that their own conversion loses nothing more.
    "ct2_int8": tuple(Rule(layers=part, grid=_CT2) for part in (ENCODER, DECODER, EMBEDDING)),
    "ggml_q8_0": tuple(Rule(layers=part, grid=_GGML) for part in (ENCODER, DECODER, EMBEDDING)),
}


def rules_of(preset: str) -> tuple[Rule, ...]:
    """Return the rules of a preset.

    Raises:
        ValueError: there is none of that name.
    """
    if preset not in PRESETS:
        raise ValueError(f"no preset is called {preset!r}; choose from {', '.join(PRESETS)}")
    return PRESETS[preset]

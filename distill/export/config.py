"""Configuration of `whisper-distill export`; imports nothing heavy, so that --help is quick."""

from dataclasses import dataclass

FORMATS = ("hf", "ct2-float16", "ct2-int8", "onnx", "ggml", "torchao")
NUMBERS = {
    "hf": "float16",
    "ct2-float16": "float16",
    "ct2-int8": "int8",
    "onnx": "float32",
    "ggml": "float16",
    "torchao": "int8",
}
"""What each format stores its large matrices in."""
_USUAL = FORMATS[:-1]
_SMALLEST_SHARE = 0.99
_SMALLEST_SHARES = {"ct2-int8": 0.97, "torchao": 0.97}
"""Of clips in which an export must write its source's text: the rule, and the exceptions."""


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """Write a model in the formats of other runtimes, and compare what each of them hears."""

    model: str
    """`embedded`, a Hub id, a local Whisper folder, or a quantised student."""
    output: str
    """Folder to write to; each format gets a folder in it."""
    formats: str = ",".join(_USUAL)
    """With commas: hf (safetensors in float16), ct2-float16 and ct2-int8 (CTranslate2,
    faster-whisper), onnx (encoder, and decoder with a cache), ggml (whisper.cpp), torchao (int8
    weights for transformers, on torchao's own grid)."""
    clips: str | None = "embedded"
    """What is transcribed to compare: `embedded` is the test part of the embedded corpus; else a
    folder that `whisper-pipeline run` finished, the config of one, or a NeMo manifest. Null writes
    without comparing."""
    split: str = "test"
    """Which split of the shards."""
    calibration: str | None = "embedded"
    """What the model listens to before `ct2-int8` is written, which rounds the sound on its way
    through the layers, too: `embedded` is of the training part of the embedded corpus; else as for
    `clips`, but of split train. Null rounds the weights as they are."""
    language: str = "en"
    """Of the lines of a manifest that name none."""
    max_clips: int | None = 200
    """Only the first so many clips; null for all."""
    batch_size: int = 16
    """Clips that are decoded at once."""
    min_identical: float | None = None
    """Share of clips whose text must be the source's, or the command fails, with the files
    written. Null stands for 0.99, and 0.97 for int8."""

    def __post_init__(self) -> None:
        unknown = [name for name in self.chosen if name not in FORMATS]
        if unknown or not self.chosen:
            given = repr(unknown[0]) if unknown else "empty"
            raise ValueError(f"formats has {given}; it may be {', '.join(FORMATS)}, with commas")
        for name in ("max_clips", "batch_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} is {value}; it must be at least 1")
        if self.min_identical is not None and not 0 <= self.min_identical <= 1:
            raise ValueError(f"min_identical is {self.min_identical}; it must be from 0 to 1")

    @property
    def chosen(self) -> list[str]:
        """The formats that are asked for, each once."""
        names = (name.strip() for name in self.formats.split(","))
        return list(dict.fromkeys(name for name in names if name))

    def smallest_share(self, name: str) -> float:
        """Return the share of clips in which a format must write what the source writes."""
        if self.min_identical is not None:
            return self.min_identical
        return _SMALLEST_SHARES.get(name, _SMALLEST_SHARE)

"""Configuration of `whisper-distill evaluate`; imports nothing heavy, so that --help is quick."""

from dataclasses import dataclass, field
from typing import Literal

from distill.transcribe_config import LongformConfig

EDGE_SECONDS = (0.1, 15.0, 29.98, 30.0, 30.02)
LONG_MODES = {"sequential", "chunked"}


@dataclass(frozen=True, kw_only=True)
class RobustnessConfig:
    """Word error rate in noise."""

    noises: list[str] = field(default_factory=list)
    """white, pub, or a folder of recordings of noise; none leaves this part out."""
    snrs: list[float] = field(
        default_factory=lambda: [40.0, 30.0, 20.0, 15.0, 10.0, 5.0, 0.0, -5.0, -10.0]
    )
    """Signal-to-noise ratios in dB."""
    max_clips: int = 50
    """So many of the clips, spread evenly over languages and lengths."""

    def __post_init__(self) -> None:
        if self.max_clips < 1:
            raise ValueError(f"robustness.max_clips is {self.max_clips}; it must be at least 1")


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """Compare models on the same clips, the first one being the teacher."""

    models: list[str]
    """The teacher, then its students: `embedded`, Hub ids, or folders of any kind of Whisper."""
    data: list[str]
    """Folders that `whisper-pipeline run` finished, configs of such runs, or NeMo manifests."""
    output: str
    """Folder for results.json, report.html and what each model heard."""
    overwrite: bool = False
    """Replace results that other settings made. The same evaluation may be made again without."""
    split: str = "test"
    """Which split of the shards."""
    language: str = "en"
    """Of the lines of a manifest that name none."""
    modes: list[str] = field(default_factory=lambda: ["short"])
    """short, sequential, chunked, speculative (each model as the assistant of the first one).
    Without short and speculative, recordings alone are heard and judged."""
    batch_size: int = 16
    """Clips that are decoded at once."""
    latency_batches: list[int] = field(default_factory=list)
    """Batch sizes for which the time of a batch is measured, of clips of middling length."""
    max_clips: int | None = None
    """Only so many clips, the first of each corpus in turn; null for all."""
    long_seconds: float = 300.0
    """Clips of one recording are joined up to this length for sequential and chunked."""
    longform: LongformConfig = field(default_factory=LongformConfig)
    """How long recordings are read."""
    robustness: RobustnessConfig = field(default_factory=RobustnessConfig)
    """Noise that is mixed into the clips."""
    non_speech: bool = False
    """What the models say to silence, noise and tones."""
    chunk_lengths: list[float] = field(default_factory=list)
    """Seconds of a chunk for which chunked is measured."""
    prompt_lengths: list[int] = field(default_factory=list)
    """Tokens of previous text, 0 to 223, with which short-form is measured."""
    timestamps: bool = False
    """How far the times of segments are from those of the utterances."""
    edges: bool = False
    """What becomes of audio of 0.1, 15, 29.98, 30.0 and 30.02 s."""
    bootstrap_samples: int = 1000
    """Resamplings that intervals and significance are made from."""
    max_new_tokens: int = 224
    """In a window."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """`auto` takes an accelerator where there is one."""
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = "float32"
    """Of the weights and the computation."""
    seed: int = 0
    """Of the bootstrap and of the noise."""

    def __post_init__(self) -> None:
        for name in ("models", "data", "modes"):
            if not getattr(self, name):
                raise ValueError(f"{name} is empty: name at least one")
        if len(set(self.models)) < len(self.models):
            raise ValueError(f"models names a model twice: {', '.join(self.models)}")
        known = ("short", "sequential", "chunked", "speculative")
        for mode in self.modes:
            if mode not in known:
                raise ValueError(f"modes has {mode!r}; it may be {', '.join(known)}")
        for name in ("batch_size", "max_clips", "bootstrap_samples"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} is {value}; it must be at least 1")
        if any(size < 1 for size in self.latency_batches):
            raise ValueError(f"latency_batches is {self.latency_batches}; they must be at least 1")
        if any(not 0 <= length <= 223 for length in self.prompt_lengths):
            raise ValueError(f"prompt_lengths is {self.prompt_lengths}; they must be 0 to 223")
        if any(not 1 <= length <= 30 for length in self.chunk_lengths):
            raise ValueError(f"chunk_lengths is {self.chunk_lengths}; they must be 1 to 30 s")
        stride = self.longform.stride_seconds
        if stride is not None and any(stride >= length / 2 for length in self.chunk_lengths):
            raise ValueError(
                f"longform.stride_seconds is {stride}, chunk_lengths is {self.chunk_lengths}; the "
                "stride must be below half of each length, or null for a sixth of it"
            )
        short_only = {
            "latency_batches": self.latency_batches,
            "robustness.noises": self.robustness.noises,
            "prompt_lengths": self.prompt_lengths,
            "timestamps": self.timestamps,
            "edges": self.edges,
        }
        wanted = [name for name, value in short_only.items() if value]
        if judged(self) != "short" and wanted:
            raise ValueError(
                f"modes is {self.modes}, but {', '.join(wanted)} needs clips of 30 s or less; add "
                "short to modes"
            )


def judged(config: EvaluateConfig) -> str:
    """Return what the rates of the models are of: short-form, or the first of the long modes."""
    long = [mode for mode in config.modes if mode in LONG_MODES]
    return long[0] if len(long) == len(config.modes) else "short"

"""Configuration of `whisper-distill study`."""

from dataclasses import dataclass, field
from typing import Literal

from distill.config import ValidationConfig
from distill.data_config import DataConfig


@dataclass(frozen=True, kw_only=True)
class StudyConfig:
    """Train students that differ in one thing, with several seeds, and put them in one table."""

    output: str
    """Folder for the students, `study.json` and `study.md`; what it has is not trained again."""
    data: DataConfig
    """What the students learn from."""
    test: ValidationConfig
    """What they are judged on; clips of speakers that training has are left out."""
    teacher: str = "embedded"
    """Whom they are made of and learn from."""
    layers: int = 2
    """Decoder layers of the student that the others are compared with."""
    decoder_layers: list[int] = field(default_factory=lambda: [1, 2, 4])
    """Depths to try; those that the teacher does not have are passed over."""
    thresholds: list[float] = field(default_factory=lambda: [0.05, 0.1, 0.2, 1.0])
    """Highest WER of a label to try on `corrupted`; 1 and above keeps every label."""
    corrupted: list[str] = field(default_factory=list)
    """Shards with doubtful labels or references, built with a filter that keeps them all; none
    leaves the thresholds out."""
    shares: list[float] = field(default_factory=lambda: [0.25, 0.5, 1.0])
    """Shares of the data to try."""
    seeds: list[int] = field(default_factory=lambda: [0, 1, 2])
    """Each student is trained once with each."""
    max_steps: int = 1000
    learning_rate: float = 1e-4
    warmup_steps: int = 50
    bootstrap_samples: int = 2000
    """Resamplings, of seeds and of speakers, that the intervals are made from."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    device: Literal["auto", "cpu"] = "auto"

    def __post_init__(self) -> None:
        for name in ("decoder_layers", "shares", "seeds"):
            if not getattr(self, name):
                raise ValueError(f"{name} is empty; name at least one")

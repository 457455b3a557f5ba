"""Configuration of `whisper-distill study`."""

from dataclasses import dataclass, field
from typing import Literal

from distill.config import ValidationConfig
from distill.data_config import DataConfig
from distill.matching import Mode
from distill.quantization.presets import PresetName

QuantisedKind = Literal["rounded", "trained", "labels-only", "matched"]


@dataclass(frozen=True, kw_only=True)
class StudyConfig:
    """Train students that differ in one thing, with several seeds, and put them in one table."""

    output: str
    """Folder for the students, `study.json` and `study.md`; what it has is not trained again."""
    data: DataConfig
    """What the students learn from."""
    test: ValidationConfig
    """What they are judged on; clips of speakers that training has are left out."""
    unknown_speakers: bool = False
    """Clips that name no speaker, in training or in the test, count as of unseen ones. Say so only
    of splits that are known to share nobody."""
    teacher: str = "embedded"
    """Whom they are made of and learn from."""
    student: str | None = None
    """Where they start, such as a smaller Whisper of another width; null makes them of the
    teacher's layers. Goes with one depth, its own."""
    layers: int = 2
    """Decoder layers of the student that the others are compared with."""
    decoder_layers: list[int] = field(default_factory=lambda: [1, 2, 4])
    """Depths to try; those that the teacher does not have are passed over."""
    labels_only: bool = True
    """Try the labels without the teacher's distribution."""
    zero_shot: bool = False
    """Try the student as it starts, without training."""
    matchings: list[Mode] = field(default_factory=list)
    """Maps from student to teacher layers to try, for a loss on hidden states beside labels and KL.
    `reverse` and `random` are the controls; `random` is drawn anew with each seed."""
    quantised: list[PresetName] = field(default_factory=list)
    """Grids to try, as `whisper-distill quantize` has them."""
    quantised_kinds: list[QuantisedKind] = field(default_factory=lambda: ["rounded", "trained"])
    """`rounded`: the compared student put on the grid afterwards; `trained`: on the grid while it
    learns; `labels-only` and `matched`: the same without the teacher, and with a loss on hidden
    states by `quantised_matching`."""
    quantised_matching: Mode = "dynamic_greedy"
    """The map of `matched`; the default is DQ-Whisper's."""
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
    """Resamplings that the intervals are made from."""
    resample: Literal["speakers", "clips"] = "speakers"
    """What is drawn beside the seeds. `speakers` answers for other people and needs a good handful
    of them; `clips` is narrower and answers for other clips of the same people, as `evaluate`."""
    speed_rounds: int = 5
    """How often each kind of model hears a batch for its speed; the fastest counts. 0 leaves speed
    out."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    device: Literal["auto", "cpu"] = "auto"

    def __post_init__(self) -> None:
        if not self.seeds:
            raise ValueError("seeds is empty; name at least one")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds is {self.seeds}; the same seed twice is the same student")
        if self.student and self.decoder_layers not in ([], [self.layers]):
            raise ValueError(
                f"decoder_layers is {self.decoder_layers}, but a given student has its own depth: "
                "set decoder_layers to []"
            )
        if self.speed_rounds < 0 or self.bootstrap_samples < 1:
            raise ValueError("speed_rounds must be 0 or more, bootstrap_samples at least 1")
        if self.max_steps < 3 and self.quantised:
            raise ValueError(
                f"max_steps is {self.max_steps}; training on a grid takes 3 or more: float, one "
                "block after the other, all"
            )

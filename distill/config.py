"""Configuration of the commands: one frozen dataclass each, from YAML and dotted overrides."""

from dataclasses import dataclass, field
from typing import Any, Literal

from distill.hidden_config import HiddenConfig
from distill.quantization.config import QuantizationConfig


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A part of the training in which the same clips take part."""

    from_batch: int = 0
    """Begins at the first pool of clips (about 24 batches) that is read after so many batches."""
    max_seconds: float = 30.0
    """Longer clips sit this stage out."""
    full_windows: float = 1.0
    """Share of clips whose features are padded to 30 s, as at inference. The others stand in a
    window as long as the batch's longest clip, which is much faster on short clips."""

    def __post_init__(self) -> None:
        if self.from_batch < 0:
            raise ValueError(f"curriculum.from_batch is {self.from_batch}; the first batch is 0")
        if not 0 <= self.full_windows <= 1:
            raise ValueError(
                f"curriculum.full_windows is {self.full_windows}; it must be from 0 to 1"
            )


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Which clips are trained on and how they are grouped."""

    shards: list[str]
    """Folders that `whisper-pipeline run` finished."""
    split: str = "train"
    """Which split of them."""
    target: Literal["pseudo_label", "reference"] = "pseudo_label"
    """What to learn: the teacher's text, or the corpus' (training a teacher from references)."""
    batch_seconds: float = 480.0
    """Audio in a batch, silence included that fills clips up to the window."""
    timestamp_probability: float = 0.5
    """Share of clips trained with timestamps (paper: 0.5)."""
    prompt_probability: float = 0.0
    """Share of clips trained with the previous clip's label as a prompt."""
    wrong_token_probability: float = 0.0
    """Share of the text tokens given to the decoder that are replaced by any others; the labels
    stay. A decoder that cannot trust what it wrote listens, and finds its way after an error."""
    curriculum: list[Stage] = field(default_factory=lambda: [Stage()])
    """What clips take part when; by default all of them from the start, at 30 s as the paper."""
    num_workers: int = 1
    """Processes that decode audio and compute features; 0 does it in the trainer."""

    def __post_init__(self) -> None:
        if not self.shards:
            raise ValueError("data.shards is empty: name at least one folder with an index.json")
        for name in ("timestamp_probability", "prompt_probability", "wrong_token_probability"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"data.{name} is {getattr(self, name)}; it must be from 0 to 1")
        if not any(stage.from_batch == 0 for stage in self.curriculum):
            raise ValueError("data.curriculum has no stage with from_batch 0 to begin with")
        if self.num_workers < 0:
            raise ValueError(f"data.num_workers is {self.num_workers}; it must be 0 or more")
        if self.batch_seconds < 30:
            raise ValueError(
                f"data.batch_seconds is {self.batch_seconds}; at least 30 holds the longest clip"
            )


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


@dataclass(frozen=True, kw_only=True)
class InitConfig:
    """Make a student out of a teacher's layers."""

    teacher: str = "embedded"
    """`embedded`, a Hub id, or a local Whisper folder."""
    output: str = "runs/student-init"
    """The folder to write."""
    decoder_layers: int = 2
    """How many of the teacher's decoder layers the student keeps, as far apart as they go."""
    encoder_layers: int | None = None
    """None keeps the whole encoder, which the paper advises."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Train a student on shards; it is written to `OUTPUT/student`."""

    output: str
    """Folder for the student, its checkpoints, and the configuration as it was resolved."""
    data: DataConfig
    student: str
    """Where the student starts: a folder of `whisper-distill init`, or any Whisper model."""
    teacher: str | None = "embedded"
    """Needed for the KL term; null with the `labels-only` loss."""
    loss: LossConfig = field(default_factory=LossConfig)
    hidden: HiddenConfig | None = None
    """Learn from the teacher's decoder layers, too (DQ-Whisper)."""
    quantization: QuantizationConfig | None = None
    """Train with weights in 8 or 4 bits; the student is then written quantised."""
    max_steps: int = 1000
    """Optimiser steps."""
    learning_rate: float = 1e-4
    """Peak (paper: 1e-4)."""
    warmup_steps: int = 50
    """Steps in which the learning rate rises to its peak."""
    schedule: Literal["linear", "cosine", "constant_with_warmup"] = "linear"
    """How the learning rate goes on from its peak."""
    weight_decay: float = 0.0
    """Of AdamW; not for biases and layer norms."""
    max_grad_norm: float = 1.0
    """Longer gradients are cut to this length."""
    gradient_accumulation_steps: int = 1
    """Batches in an optimiser step; every token of them weighs the same."""
    freeze_encoder: bool = True
    """Share the teacher's encoder pass and train the decoder only, as the paper does."""
    freeze_positions: bool = True
    """Keep the decoder's positional embeddings as they are (distil-large-v3's recipe)."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Compute type (autocast); weights stay float32."""
    device: Literal["auto", "cpu"] = "auto"
    """`auto` takes an accelerator where there is one."""
    save_steps: int = 500
    """Steps between checkpoints."""
    logging_steps: int = 25
    """Steps between lines of the log, which TensorBoard shows too."""
    resume: bool = True
    """Go on from the last checkpoint in `output`, if there is one."""
    seed: int = 0
    """Of everything random: the order of the clips, their windows, timestamps and prompts."""

    def __post_init__(self) -> None:
        for name in ("max_steps", "save_steps", "logging_steps", "gradient_accumulation_steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if self.teacher is None and self.loss.weights[1] > 0:
            raise ValueError(
                "the KL term needs a teacher: set `teacher`, or `loss.preset: labels-only`"
            )
        if self.hidden and self.teacher is None:
            raise ValueError("hidden needs a teacher whose layers can be learned from")
        guided = self.quantization and (
            self.quantization.guided or self.quantization.distilled_blocks
        )
        if guided and not self.hidden:
            raise ValueError("guided quantisation needs the distances that hidden measures")


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """Compare a student with its teacher on shards."""

    shards: list[str]
    """Folders that `whisper-pipeline run` finished."""
    student: str
    """`embedded`, a Hub id, or a local Whisper folder."""
    output: str
    """The file to write, such as `runs/mine/results.json`."""
    teacher: str | None = "embedded"
    """What to compare with; null judges the student alone."""
    split: str = "test"
    """Which split of the shards."""
    batch_size: int = 16
    """Clips that are decoded at once."""
    max_clips: int | None = None
    """Only the first so many clips; null for all."""
    bootstrap_samples: int = 1000
    """Resamplings that the confidence interval is made from."""
    device: Literal["auto", "cpu"] = "auto"
    """`auto` takes an accelerator where there is one."""
    seed: int = 0
    """Of the bootstrap."""

    def __post_init__(self) -> None:
        if not self.shards:
            raise ValueError("shards is empty: name at least one folder with an index.json")
        for name in ("batch_size", "max_clips", "bootstrap_samples"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} is {value}; it must be at least 1")

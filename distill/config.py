"""Configuration of `whisper-distill init` and `train`, from YAML and dotted overrides."""

from dataclasses import dataclass, field
from typing import Literal

from distill.data_config import DataConfig
from distill.hidden_config import HiddenConfig
from distill.loss_config import LossConfig
from distill.quantization.config import QuantizationConfig


@dataclass(frozen=True, kw_only=True)
class InitConfig:
    """Make a student out of a teacher's layers."""

    teacher: str = "embedded"
    """`embedded`, a Hub id, or a local Whisper folder."""
    output: str = "runs/student-init"
    """The folder to write."""
    decoder_layers: int | None = None
    """How many of the teacher's decoder layers the student keeps, as far apart as they go; 2 where
    neither this nor `layers` is given."""
    encoder_layers: int | None = None
    """Null keeps the whole encoder, which the paper advises."""
    layers: list[int] | None = None
    """The decoder layers themselves, from 0, such as `0 3`; -1 is the last."""
    encoder_layer_list: list[int] | None = None
    """The encoder layers themselves."""

    def __post_init__(self) -> None:
        for count, chosen in (
            ("decoder_layers", "layers"),
            ("encoder_layers", "encoder_layer_list"),
        ):
            number, listed = getattr(self, count), getattr(self, chosen)
            if number is not None and listed is not None and number != len(listed):
                raise ValueError(
                    f"{count} is {number}, but {chosen} names {len(listed)} layers; give only one"
                )


@dataclass(frozen=True, kw_only=True)
class ValidationConfig:
    """Word error rates while training; the student with the best macro average is kept."""

    shards: list[str]
    """Folders that `whisper-pipeline run` finished; best with speakers that training lacks."""
    split: str = "dev"
    """Which split of them."""
    every_steps: int = 500
    """Optimiser steps from one validation to the next; the last step is followed by one too."""
    max_clips: int | None = 512
    """Only so many clips, the first of each corpus in turn; null for all."""
    batch_size: int = 16
    """Clips that are decoded at once."""
    patience: int | None = None
    """Stop after so many validations without a better one; null goes on to `max_steps`."""
    num_shown: int = 4
    """Clips whose text and sound TensorBoard shows."""

    def __post_init__(self) -> None:
        if not self.shards:
            raise ValueError("validation.shards is empty: name a folder, or set validation: null")
        for name in ("every_steps", "max_clips", "batch_size", "patience"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"validation.{name} is {value}; it must be at least 1")


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
    encoder_memory_gib: float = 0.0
    """Memory (GiB) for what a frozen encoder has heard: a clip that comes again, unaugmented and in
    as long a window, is not encoded again. In bfloat16 30 s take 1.2 MB with Whisper tiny, 3.8 MB
    with large, in float32 twice that; worth it where the clips fit and the encoder is most of a
    step, as on a CPU. It is memory of the device that is trained on."""
    freeze_positions: bool = True
    """Keep the decoder's positional embeddings as they are (distil-large-v3's recipe)."""
    frozen: list[str] = field(default_factory=list)
    """Weights that stay as they are, by name; `*` stands for anything, as in
    `model.decoder.layers.0.*`."""
    decoder_layerdrop: float = 0.0
    """Share of the clips that go past a decoder layer, drawn anew for each layer but the first and
    the last (LayerDrop, arXiv 1909.11556). Students of such a teacher start from less error."""
    average_decay: float | None = None
    """Keep a moving average of the weights with this decay (such as 0.999), which becomes the
    student; null takes the weights themselves."""
    average_last: int | None = None
    """The student is the mean of so many last checkpoints; null takes the last one alone."""
    gradient_checkpointing: bool = False
    """Compute the layers' inner values again in the backward pass instead of keeping them."""
    compile: bool = False
    """Compile the decoders with torch.compile: minutes at the start, faster steps on a GPU."""
    validation: ValidationConfig | None = None
    alignment_clips: int = 12
    """Clips by which the attention heads for word times are chosen after the training; 0 keeps
    those that the layers had in the teacher. More than a dozen hardly change the choice."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Compute type (autocast); weights stay float32."""
    device: Literal["auto", "cpu"] = "auto"
    """`auto` takes an accelerator where there is one."""
    save_steps: int = 500
    """Steps between checkpoints."""
    keep_checkpoints: int = 2
    """How many of the newest stay."""
    logging_steps: int = 25
    """Steps between lines of the log, which TensorBoard shows too."""
    resume: bool = True
    """Go on from the last checkpoint in `output`, if there is one; false removes it and begins
    anew."""
    seed: int = 0
    """Of everything random: the order of the clips, their windows, timestamps and prompts."""

    def __post_init__(self) -> None:
        for name in (
            "max_steps",
            "save_steps",
            "keep_checkpoints",
            "logging_steps",
            "gradient_accumulation_steps",
        ):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if self.alignment_clips < 0:
            raise ValueError(f"alignment_clips is {self.alignment_clips}; it must be 0 or more")
        if self.average_decay is not None and not 0 < self.average_decay < 1:
            raise ValueError(
                f"average_decay is {self.average_decay}; it must lie between 0 and 1, or be null"
            )
        if self.average_last is not None:
            self._check_average_last(self.average_last)
        if not 0 <= self.decoder_layerdrop < 1:
            raise ValueError(
                f"decoder_layerdrop is {self.decoder_layerdrop}; it must be from 0 to below 1"
            )
        if self.decoder_layerdrop and self.hidden:
            raise ValueError("hidden compares every layer; set decoder_layerdrop to 0")
        if self.teacher is None and self.loss.weights[1] > 0:
            raise ValueError(
                "the KL term needs a teacher: set `teacher`, or `loss.preset: labels-only`"
            )
        self._check_encoder_memory()
        if self.gradient_checkpointing and self.hidden:
            raise ValueError(
                "hidden reads what the layers hold, and gradient_checkpointing does not keep it; "
                "set gradient_checkpointing to false"
            )
        if self.hidden and self.teacher is None:
            raise ValueError("hidden needs a teacher whose layers can be learned from")
        guided = self.quantization and (
            self.quantization.guided or self.quantization.distilled_blocks
        )
        if guided and not self.hidden:
            raise ValueError("guided quantisation needs the distances that hidden measures")

    def _check_encoder_memory(self) -> None:
        if self.encoder_memory_gib < 0:
            raise ValueError(
                f"encoder_memory_gib is {self.encoder_memory_gib}; it must be 0 or more"
            )
        if self.encoder_memory_gib and not self.freeze_encoder:
            raise ValueError(
                "encoder_memory_gib keeps what a frozen encoder has heard, and freeze_encoder is "
                "false: set encoder_memory_gib to 0"
            )

    def _check_average_last(self, number: int) -> None:
        if not 2 <= number <= self.keep_checkpoints:
            raise ValueError(
                f"average_last is {number}, keep_checkpoints {self.keep_checkpoints}; the mean is "
                "of 2 checkpoints or more, and of no more than are kept"
            )
        for name in ("average_decay", "validation"):
            if getattr(self, name) is not None:
                raise ValueError(
                    f"average_last and {name} both say which weights become the student; give one"
                )
        if self.quantization and self.quantization.learn_scale:
            raise ValueError("steps that quantization.learn_scale learns have no mean: give one")

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
class ReadFilterConfig:
    """Which clips of the shards take part; the shards stay as they are."""

    max_wer: float | None = None
    """Leave out clips whose label differs more from the reference (0.1 is 10 %), and those that
    have no reference to differ from. A clip that was judged by characters is held to its CER."""
    corpora: list[str] = field(default_factory=list)
    """Only these; none named takes all."""
    licences: list[str] = field(default_factory=list)
    """Only clips under these licences; none named takes all."""
    languages: list[str] = field(default_factory=list)
    """Only clips in these languages; none named takes all."""
    share: float = 1.0
    """Share of the clips, the same ones in every epoch; a larger share holds a smaller one."""

    def __post_init__(self) -> None:
        if self.max_wer is not None and self.max_wer < 0:
            raise ValueError(f"data.filter.max_wer is {self.max_wer}; it must be 0 or more")
        if not 0 < self.share <= 1:
            raise ValueError(f"data.filter.share is {self.share}; it must be above 0, at most 1")


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """What is changed in the sound of the clips, drawn anew in every epoch; by default nothing."""

    time_masks: int = 0
    """Stripes over the time axis of a clip's spectrogram (SpecAugment: 2)."""
    max_time_mask_seconds: float = 1.0
    """The widest of them."""
    max_time_mask_share: float = 0.2
    """The widest of them, as a share of the clip."""
    mel_masks: int = 0
    """Stripes over the frequency axis (SpecAugment: 2)."""
    max_mel_mask: int = 27
    """The widest of them, in mel bands."""
    noise: str | None = None
    """Folder of noises, laid out in any way, as MUSAN's."""
    noise_probability: float = 0.05
    """Share of clips that are mixed with one, where there is such a folder."""
    min_snr_db: float = 3.0
    """Loudest noise, relative to the clip."""
    max_snr_db: float = 30.0
    """Softest noise."""
    speed_probability: float = 0.0
    """Share of clips that are played faster or slower."""
    min_speed: float = 0.9
    """1 is as recorded."""
    max_speed: float = 1.1

    def __post_init__(self) -> None:
        for name in ("noise_probability", "speed_probability", "max_time_mask_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(
                    f"data.augment.{name} is {getattr(self, name)}; it must be from 0 to 1"
                )
        for name in ("time_masks", "mel_masks", "max_mel_mask", "max_time_mask_seconds"):
            if getattr(self, name) < 0:
                raise ValueError(
                    f"data.augment.{name} is {getattr(self, name)}; it must be 0 or more"
                )
        if not 0 < self.min_speed <= self.max_speed:
            raise ValueError(
                f"data.augment.min_speed is {self.min_speed} and max_speed {self.max_speed}; "
                "they must be above 0 and in this order"
            )
        if self.min_snr_db > self.max_snr_db:
            raise ValueError(
                f"data.augment.min_snr_db is {self.min_snr_db}, above max_snr_db {self.max_snr_db}"
            )


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Which clips are trained on and how they are grouped."""

    shards: list[str]
    """Folders that `whisper-pipeline run` finished."""
    weights: list[float] = field(default_factory=list)
    """How often a clip of each folder comes in an epoch: 2 is twice, 0.5 every second epoch or so;
    none given is once each. An epoch ends when every folder has given its share."""
    split: str = "train"
    """Which split of them."""
    filter: ReadFilterConfig = field(default_factory=ReadFilterConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    verify_checksums: bool = False
    """Compare every shard with its hash in the index before the first step."""
    labels: str = ""
    """Learn from `labels@NAME` beside the shards, as `whisper-pipeline relabel` writes them,
    instead of the samples' own labels; clips that are not in it are left out."""
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
        if self.weights and (len(self.weights) != len(self.shards) or min(self.weights) <= 0):
            raise ValueError(
                f"data.weights is {self.weights} for {len(self.shards)} folders in data.shards; "
                "give one number above 0 for each, or none"
            )
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
    decoder_layers: int | None = None
    """How many of the teacher's decoder layers the student keeps, as far apart as they go; 2 where
    neither this nor `layers` is given."""
    encoder_layers: int | None = None
    """None keeps the whole encoder, which the paper advises."""
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
    """Only the first so many clips; null for all."""
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
    freeze_positions: bool = True
    """Keep the decoder's positional embeddings as they are (distil-large-v3's recipe)."""
    frozen: list[str] = field(default_factory=list)
    """Weights that stay as they are, by name; `*` stands for anything, as in
    `model.decoder.layers.0.*`."""
    decoder_layerdrop: float = 0.0
    """Share of decoder layers that a step skips, drawn anew each time (LayerDrop, arXiv
    1909.11556). A teacher trained so can lose layers: its students start from less of an error."""
    average_decay: float | None = None
    """Keep a moving average of the weights with this decay (such as 0.999), which becomes the
    student; null takes the weights themselves."""
    gradient_checkpointing: bool = False
    """Compute the layers' inner values again in the backward pass instead of keeping them."""
    compile: bool = False
    """Compile the decoders with torch.compile: minutes at the start, faster steps on a GPU."""
    validation: ValidationConfig | None = None
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
        if self.average_decay is not None and not 0 < self.average_decay < 1:
            raise ValueError(
                f"average_decay is {self.average_decay}; it must lie between 0 and 1, or be null"
            )
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
        if self.hidden and self.teacher is None:
            raise ValueError("hidden needs a teacher whose layers can be learned from")
        guided = self.quantization and (
            self.quantization.guided or self.quantization.distilled_blocks
        )
        if guided and not self.hidden:
            raise ValueError("guided quantisation needs the distances that hidden measures")


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

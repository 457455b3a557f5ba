"""Configuration of what a training reads: which clips, when, how changed, in what batches."""

from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A part of the training in which the same clips take part."""

    from_batch: int = 0
    """Begins at the first pool of clips (about 24 batches) that is read after so many batches."""
    max_seconds: float = 30.0
    """Longer clips sit this stage out."""
    full_windows: float = 1.0
    """Share of clips whose features are padded to 30 s, as at inference. The others stand in a
    window as long as the batch's longest clip, which is much faster on short clips, and right where
    the encoder hears the same in both: one that knows windows of 30 s alone may not."""

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
    """1.1 is a tenth faster."""
    speeds: list[float] = field(default_factory=list)
    """Only these, such as 0.9 and 1.1, instead of any between the two; a clip that has had all of
    them is known to `encoder_memory_gib`."""

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
        if self.speeds and min(self.speeds) <= 0:
            raise ValueError(f"data.augment.speeds is {self.speeds}; all must be above 0")
        if self.min_snr_db > self.max_snr_db:
            raise ValueError(
                f"data.augment.min_snr_db is {self.min_snr_db}, above max_snr_db {self.max_snr_db}"
            )


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Which clips are trained on and how they are grouped."""

    shards: list[str]
    """Folders that `whisper-pipeline run` finished. They may be in a store or on the Hub (s3://,
    gs://, https://, hf://datasets/OWNER/NAME): then each shard is fetched when it is first read,
    and kept in $WHISPER_DISTILLERY_CACHE."""
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

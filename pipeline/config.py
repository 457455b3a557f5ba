"""What a pipeline run is told: YAML into frozen dataclasses.

Every group is handed alone to the module that it configures; only the upper floors see the whole.
What decides a label (teacher, decoding, clips) is kept apart from what decides a shard
(filter), because the first is paid for with compute and the second is free.
"""

import math
import re
from dataclasses import dataclass, field
from typing import Literal

from pipeline.limits import FilterConfig
from pipeline.schema import MAX_CLIP_SECONDS, SAMPLE_RATE
from pipeline.scoring import language_code

CorpusKind = Literal[
    "manifest",
    "lhotse",
    "table",
    "folder",
    "kaldi",
    "stm",
    "webdataset",
    "parquet",
    "hub",
    "embedded",
]

_NAME = re.compile(r"[A-Za-z0-9_-]+")
_DEVICE = re.compile(r"auto|cpu|cuda(:\d+)?")


@dataclass(frozen=True, kw_only=True)
class ColumnsConfig:
    """What a corpus calls its columns or fields; "" is the usual name for its kind.

    A name given here must exist in the corpus. In Parquet `a.b` is field b of column a. A time in
    a column whose name ends in `ms` is in milliseconds, in any other in seconds.
    """

    audio: str = ""
    """The recording: a path, a URL, or in Parquet a file's bytes."""
    text: str = ""
    """The reference."""
    id: str = ""
    """Unique name of the utterance; made of the recording's name where there is none."""
    start: str = ""
    """Where the utterance begins in its recording."""
    end: str = ""
    """Where it ends; used where there is no duration."""
    duration: str = ""
    """How long it is."""
    speaker: str = ""
    """Who speaks."""
    language: str = ""
    """Its language, where that differs from the corpus's."""
    licence: str = ""
    """Its licence, where that differs from the corpus's."""
    channel: str = ""
    """Which channel it is on, counted from 0."""


@dataclass(frozen=True, kw_only=True)
class CorpusConfig:
    """One split of one dataset."""

    name: str
    """Name of the corpus; letters, digits, "-" and "_", because shards are named after it."""
    kind: CorpusKind
    """How it is stored: manifest (NeMo's JSONL), lhotse, table (TSV or CSV with a header), folder
    (LibriSpeech, LJSpeech, text beside audio, audio alone), kaldi, stm, webdataset, parquet, hub
    (a dataset of the Hugging Face Hub), or embedded (the corpus of this package)."""
    path: str = ""
    """File, folder, URL or, of a Hub dataset, its id; relative to the folder the command runs in.
    Several tars or Parquet files are named with `*` or `{000..127}`."""
    audio: str = ""
    """Where the audio is if not beside the listing: a folder; for lhotse the recordings' file."""
    language: str = "en"
    """Language of the utterances that do not name their own."""
    licence: str
    """SPDX name of the corpus's licence; it travels with every sample that has none of its own."""
    split: str = "train"
    """Which split this is."""
    references: bool = True
    """Whether the corpus has transcripts; without them labels are judged by other evidence."""
    channel: int | None = None
    """Channel to take, counted from 0, where the corpus does not say; by default all are mixed."""
    columns: ColumnsConfig = field(default_factory=ColumnsConfig)
    """What the corpus calls its columns, where that is not as usual."""
    subset: str = ""
    """Of a Hub dataset: its configuration, for example clean."""
    revision: str | None = None
    """Of a Hub dataset: branch, tag or commit."""
    source_split: str = ""
    """Of a Hub dataset: what it calls the split, if not as above; for example train.clean.100."""

    def __post_init__(self) -> None:
        """Check what can be checked without reading the corpus."""
        for what, value in (("name", self.name), ("split", self.split)):
            if not _NAME.fullmatch(value):
                raise ValueError(
                    f"corpora.{what} is {value!r}; use letters, digits, '-' and '_' only, "
                    "because blocks and shards are named after it"
                )
        if self.kind != "embedded" and not self.path:
            what = {"manifest": "its file", "hub": "the dataset's id"}.get(self.kind, "where it is")
            raise ValueError(f"corpus {self.name!r} is of kind {self.kind}: give {what} as `path`")
        if self.channel is not None and self.channel < 0:
            raise ValueError(f"corpus {self.name!r}: channels count from 0, got {self.channel}")
        if self.kind != "hub" and (self.subset or self.revision or self.source_split):
            raise ValueError(
                f"corpus {self.name!r}: subset, revision and source_split are of Hub datasets "
                f"(kind: hub); kind {self.kind} has none"
            )
        language_code(self.language)
        if not self.licence:
            raise ValueError(
                f"corpus {self.name!r} has no licence: name it (for example cc-by-4.0), "
                "it is written into every sample"
            )


@dataclass(frozen=True, kw_only=True)
class TeacherConfig:
    """The model that labels."""

    model: str = "embedded"
    """`embedded`, a Hub id such as openai/whisper-large-v3, or a local Whisper folder."""
    revision: str | None = None
    """Branch, tag or commit on the Hub; the newest when not given."""
    engine: Literal["auto", "transformers", "ctranslate2"] = "auto"
    """What runs the model: transformers is the reference, ctranslate2 the fast one; `auto` takes
    the fast one where it is installed and the model can be converted."""
    device: str = "auto"
    """`cpu`, `cuda`, `cuda:0`; `auto` takes the accelerator if there is one."""
    dtype: Literal[
        "auto",
        "float32",
        "float16",
        "bfloat16",
        "int8",
        "int8_float32",
        "int8_float16",
        "int8_bfloat16",
    ] = "auto"
    """Number format of weights and activations; int8 with ctranslate2 only. `auto` takes what the
    hardware is fastest with: int8 for ctranslate2 on a CPU, 16 bits on a GPU, else float32."""
    window: Literal["full", "clip"] = "full"
    """What the encoder sees: always 30 s, as Whisper is trained, or, for a teacher that was trained
    on short windows too, only as much as the clip needs."""
    batch_size: int = 16
    """Clips per batch; halved by itself where memory is short."""
    num_threads: int = 1
    """CPU threads per worker; the last bits of a result depend on it, so it is fixed."""
    canary: bool = True
    """Label a few clips of known content when a worker has loaded the teacher, and stop before
    anything is labelled where they come out wrong."""
    canary_max_wer: float = 0.75
    """Highest error rate on the canary's English, which is synthetic speech; used where a corpus is
    English. What is above hears no words at all."""
    canary_max_words: int = 20
    """Most words that the canary's silence, noise or tune may give: more than can be said in their
    5 s."""

    def __post_init__(self) -> None:
        """Refuse sizes that cannot work."""
        if self.batch_size < 1 or self.num_threads < 1:
            raise ValueError(
                f"teacher.batch_size and teacher.num_threads must be at least 1, "
                f"got {self.batch_size} and {self.num_threads}"
            )
        if self.canary_max_wer < 0 or self.canary_max_words < 0:
            raise ValueError(
                f"teacher.canary_max_wer and teacher.canary_max_words must be at least 0, "
                f"got {self.canary_max_wer} and {self.canary_max_words}"
            )
        if not _DEVICE.fullmatch(self.device):
            raise ValueError(
                f"teacher.device is {self.device!r}; give auto, cpu, cuda or, for one of several, "
                "cuda:0"
            )
        if self.engine == "transformers" and self.dtype.startswith("int8"):
            raise ValueError(
                f"teacher.dtype {self.dtype} needs teacher.engine ctranslate2; transformers runs "
                "float32, float16 and bfloat16"
            )


@dataclass(frozen=True, kw_only=True)
class DecodingConfig:
    """How the teacher decodes; the limits are those of OpenAI's Whisper."""

    timestamps: bool = True
    """Let the teacher predict timestamps."""
    max_new_tokens: int = 224
    """Longest label, in tokens; half of Whisper's context, as OpenAI decodes."""
    num_beams: int = 1
    """1 is greedy; more are used at temperature 0 only."""
    temperatures: tuple[float, ...] = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
    """Tried in this order until a label is good enough; one alone means no second try."""
    compression_ratio_threshold: float | None = 2.4
    """A label that repeats itself more is decoded again."""
    logprob_threshold: float | None = -1.0
    """A label with a lower average log-probability is decoded again."""
    no_speech_threshold: float | None = 0.6
    """A clip that is more likely than this no speech, and whose label is improbable too, is silence
    and has an empty label."""
    seed: int = 0
    """Of what is drawn above temperature 0; a clip's draws do not depend on its batch."""
    language_probability: bool = True
    """Say how probable the language is that the corpus gives; it costs one more decoder step with
    ctranslate2. Without, it is 1 wherever the language was given."""
    token_logprobs: bool = False
    """Keep the log-probability of every token in ledger and shards; labels take longer with
    ctranslate2."""

    def __post_init__(self) -> None:
        """Refuse sizes that cannot work."""
        if self.max_new_tokens < 1 or self.num_beams < 1:
            raise ValueError(
                f"decoding.max_new_tokens and decoding.num_beams must be at least 1, "
                f"got {self.max_new_tokens} and {self.num_beams}"
            )
        if not self.temperatures or any(t < 0 for t in self.temperatures):
            raise ValueError(
                f"decoding.temperatures must be at least one number from 0 on, "
                f"got {list(self.temperatures)}"
            )


@dataclass(frozen=True, kw_only=True)
class ClipConfig:
    """How utterances become clips of at most 30 s."""

    min_seconds: float = 0.1
    """Shorter utterances are rejected as too_short."""
    max_seconds: float = MAX_CLIP_SECONDS
    """Longest clip; Whisper's window is the most."""
    long: Literal["reject", "vad", "sequential"] = "reject"
    """Utterances and recordings above max_seconds: `reject` them as too_long; `vad` cuts them at
    pauses (needs the extra `vad`); `sequential` lets the teacher read on from its own timestamps,
    as Whisper transcribes long audio."""
    pack: Literal["no", "before_label", "after_filter"] = "no"
    """Put several utterances into one clip. `before_label` labels them together, which is several
    times faster, and judges each by itself, or the clip as one where there are no references;
    `after_filter` labels each alone, for short utterances that have nothing to do with each
    other."""
    pack_by: Literal["speaker", "recording", "any"] = "speaker"
    """Which utterances may share a clip. An unknown speaker is alone with its recording."""
    pack_gap_seconds: float = 0.0
    """Silence between packed utterances."""
    pack_seconds: float = MAX_CLIP_SECONDS
    """Longest pack, for a teacher that hears short windows (`teacher.window: clip`) and was not
    trained on 30 s; a longer utterance has a clip of its own."""

    def __post_init__(self) -> None:
        """Keep the limits inside Whisper's window."""
        if not 0 <= self.min_seconds < self.max_seconds <= MAX_CLIP_SECONDS:
            raise ValueError(
                f"clips.min_seconds {self.min_seconds} and clips.max_seconds {self.max_seconds} "
                f"must satisfy 0 <= min < max <= {MAX_CLIP_SECONDS}"
            )
        if not 0 <= self.pack_gap_seconds <= 10:
            raise ValueError(
                f"clips.pack_gap_seconds is {self.pack_gap_seconds}; it must be from 0 to 10"
            )
        if not 0 < self.pack_seconds <= MAX_CLIP_SECONDS:
            raise ValueError(
                f"clips.pack_seconds is {self.pack_seconds}; it must be above 0 and at most "
                f"{MAX_CLIP_SECONDS:g}"
            )

    def for_labels(self) -> "ClipConfig":
        """Leave out what does not decide labels: packing that comes after the filter."""
        if self.pack == "before_label":
            return self
        return ClipConfig(
            min_seconds=self.min_seconds, max_seconds=self.max_seconds, long=self.long
        )

    @property
    def pack_gap_samples(self) -> int:
        """The gap at 16 kHz."""
        return round(self.pack_gap_seconds * SAMPLE_RATE)


@dataclass(frozen=True, kw_only=True)
class BlocksConfig:
    """How the corpora are cut into units of work."""

    minutes: float = 60.0
    """Audio per block; a killed run loses at most one block per worker."""

    def __post_init__(self) -> None:
        """Refuse empty blocks."""
        if not self.minutes > 0:
            raise ValueError(f"blocks.minutes must be above 0, got {self.minutes}")


@dataclass(frozen=True, kw_only=True)
class PipelineConfig:
    """From corpora to shards of pseudo-labels."""

    output: str
    """Folder of the dataset; run again on the same folder to finish or to update it."""
    corpora: list[CorpusConfig]
    """What to label."""
    teacher: TeacherConfig = field(default_factory=TeacherConfig)
    """The model that labels."""
    decoding: DecodingConfig = field(default_factory=DecodingConfig)
    """How it decodes."""
    clips: ClipConfig = field(default_factory=ClipConfig)
    """Which utterances it sees."""
    filter: FilterConfig = field(default_factory=FilterConfig)
    """Which labels are good enough for training; changing this never needs the teacher again."""
    blocks: BlocksConfig = field(default_factory=BlocksConfig)
    """The unit of work."""
    licences: list[str] | None = None
    """The only licences that may be used, for example [cc0-1.0, cc-by-4.0]; utterances with others
    are rejected and counted. Null allows all."""
    max_failed_fraction: float = 0.05
    """Poison budget: a run stops once more of the planned utterances than this have failed."""
    price_per_hour: float | None = None
    """What an hour of one worker costs, in any currency; estimate, report and index then say what
    the labels cost. Nothing is labelled or filtered again because of it."""
    beam: dict[str, str | int | float | bool | list[str]] = field(default_factory=dict)
    """Apache Beam pipeline options, for example {runner: FnApiRunner, direct_num_workers: 4}; a
    list for those that may be given several times. configs/beam has some for each engine."""

    def __post_init__(self) -> None:
        """Check the rules between fields."""
        if not self.corpora:
            raise ValueError("corpora is empty: name at least one corpus to label")
        seen: dict[str, CorpusConfig] = {}
        for corpus in self.corpora:
            files = f"{corpus.name}-{corpus.split}"  # what its blocks are called
            if files in seen:
                raise ValueError(
                    f"corpora lists {seen[files].name!r} with split {seen[files].split!r} and "
                    f"{corpus.name!r} with split {corpus.split!r}, which would both write files "
                    f"{files}-…; give one of them another name or split"
                )
            seen[files] = corpus
        if self.licences is not None and not self.licences:
            raise ValueError("licences is an empty list, which allows nothing; leave it out")
        if self.price_per_hour is not None and not 0 <= self.price_per_hour < math.inf:
            raise ValueError(
                f"price_per_hour is {self.price_per_hour}; give what an hour of one worker costs, "
                "0 or more, or leave it out"
            )
        if not 0 <= self.max_failed_fraction <= 1:
            raise ValueError(
                f"max_failed_fraction is a fraction from 0 to 1, got {self.max_failed_fraction}"
            )

    @property
    def workers_elsewhere(self) -> bool:
        """Whether Beam has the work done by machines that may not be like this one."""
        runner = str(self.beam.get("runner", "FnApiRunner")).lower()
        here = runner in ("fnapirunner", "directrunner", "prismrunner")
        return not here and self.beam.get("environment_type") != "LOOPBACK"

    def corpus(self, name: str, split: str) -> CorpusConfig:
        """Return the corpus that a block was cut from."""
        return next(c for c in self.corpora if (c.name, c.split) == (name, split))

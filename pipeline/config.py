"""What a pipeline run is told: YAML into frozen dataclasses.

Every group is handed alone to the module that it configures; only the upper floors see the whole.
What decides a label (teacher, decoding, clips) is kept apart from what decides a shard
(filter), because the first is paid for with compute and the second is free.
"""

import dataclasses
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml
from jsonargparse import ArgumentError, ArgumentParser, Namespace, set_parsing_settings

from pipeline.limits import FilterConfig
from pipeline.schema import MAX_CLIP_SECONDS
from pipeline.scoring import language_code

set_parsing_settings(docstring_parse_attribute_docstrings=True)

CorpusKind = Literal["manifest", "embedded"]

_NAME = re.compile(r"[A-Za-z0-9_-]+")


@dataclass(frozen=True, kw_only=True)
class CorpusConfig:
    """One split of one dataset."""

    name: str
    """Name of the corpus; letters, digits, "-" and "_", because shards are named after it."""
    kind: CorpusKind
    """How it is stored: a JSONL manifest with NeMo's field names, or the corpus of this package."""
    path: str = ""
    """The manifest, relative to the folder the command runs in; not used by kind embedded."""
    language: str = "en"
    """Language of the utterances whose manifest line has no `lang`."""
    licence: str
    """SPDX name of the corpus's licence; it travels with every sample."""
    split: str = "train"
    """Which split this is."""

    def __post_init__(self) -> None:
        """Check what can be checked without reading the corpus."""
        for what, value in (("name", self.name), ("split", self.split)):
            if not _NAME.fullmatch(value):
                raise ValueError(
                    f"corpora.{what} is {value!r}; use letters, digits, '-' and '_' only, "
                    "because blocks and shards are named after it"
                )
        if self.kind == "manifest" and not self.path:
            raise ValueError(f"corpus {self.name!r} is a manifest: give its file as `path`")
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
    engine: Literal["transformers"] = "transformers"
    """What runs the model."""
    device: str = "auto"
    """`cpu`, `cuda`, `cuda:0`; `auto` takes the accelerator if there is one."""
    dtype: Literal["float32", "float16", "bfloat16"] = "float32"
    """Number format of weights and activations."""
    batch_size: int = 16
    """Clips per batch."""
    num_threads: int = 1
    """CPU threads per worker; the last bits of a result depend on it, so it is fixed."""

    def __post_init__(self) -> None:
        """Refuse sizes that cannot work."""
        if self.batch_size < 1 or self.num_threads < 1:
            raise ValueError(
                f"teacher.batch_size and teacher.num_threads must be at least 1, "
                f"got {self.batch_size} and {self.num_threads}"
            )


@dataclass(frozen=True, kw_only=True)
class DecodingConfig:
    """How the teacher decodes."""

    timestamps: bool = True
    """Let the teacher predict timestamps."""
    max_new_tokens: int = 224
    """Longest label, in tokens; half of Whisper's context, as OpenAI decodes."""
    num_beams: int = 1
    """1 is greedy."""

    def __post_init__(self) -> None:
        """Refuse sizes that cannot work."""
        if self.max_new_tokens < 1 or self.num_beams < 1:
            raise ValueError(
                f"decoding.max_new_tokens and decoding.num_beams must be at least 1, "
                f"got {self.max_new_tokens} and {self.num_beams}"
            )


@dataclass(frozen=True, kw_only=True)
class ClipConfig:
    """Which utterances can be clips."""

    min_seconds: float = 0.1
    """Shorter ones are rejected as too_short."""
    max_seconds: float = MAX_CLIP_SECONDS
    """Longer ones are rejected as too_long; Whisper's window is the most."""

    def __post_init__(self) -> None:
        """Keep the limits inside Whisper's window."""
        if not 0 <= self.min_seconds < self.max_seconds <= MAX_CLIP_SECONDS:
            raise ValueError(
                f"clips.min_seconds {self.min_seconds} and clips.max_seconds {self.max_seconds} "
                f"must satisfy 0 <= min < max <= {MAX_CLIP_SECONDS}"
            )


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
    max_failed_fraction: float = 0.05
    """Poison budget: a run stops once more of the planned utterances than this have failed."""
    beam: dict[str, str | int | float | bool] = field(default_factory=dict)
    """Apache Beam pipeline options, for example {runner: FnApiRunner, direct_num_workers: 4}."""

    def __post_init__(self) -> None:
        """Check the rules between fields."""
        if not self.corpora:
            raise ValueError("corpora is empty: name at least one corpus to label")
        seen: set[tuple[str, str]] = set()
        for corpus in self.corpora:
            if (corpus.name, corpus.split) in seen:
                raise ValueError(
                    f"corpora lists {corpus.name!r} with split {corpus.split!r} twice; "
                    "give one of them another name or split"
                )
            seen.add((corpus.name, corpus.split))
        if not 0 <= self.max_failed_fraction <= 1:
            raise ValueError(
                f"max_failed_fraction is a fraction from 0 to 1, got {self.max_failed_fraction}"
            )

    def corpus(self, name: str, split: str) -> CorpusConfig:
        """Return the corpus that a block was cut from."""
        return next(c for c in self.corpora if (c.name, c.split) == (name, split))


def to_yaml(config: PipelineConfig) -> str:
    """Write the resolved configuration as `run --config` reads it."""
    plain = dataclasses.asdict(config)
    plain["filter"] = {
        k: list(v) if isinstance(v, tuple) else v for k, v in plain["filter"].items()
    }
    return yaml.safe_dump(plain, sort_keys=False, allow_unicode=True)


def config_parser(**options: Any) -> ArgumentParser:
    """Return a parser that reads a configuration: `--config FILE` and one option for each field."""
    parser = ArgumentParser(**options)
    parser.add_argument("--config", action="config", help="YAML file with any of the keys below")
    parser.add_class_arguments(PipelineConfig)
    return parser


def load_config(path: str | Path) -> PipelineConfig:
    """Read a configuration file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a key is unknown, missing or of the wrong type; the message names it.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path} does not exist")
    parser = config_parser(exit_on_error=False)
    try:
        values = parser.parse_args([f"--config={path}"])
    except (ArgumentError, TypeError) as error:
        raise ValueError(f"{path}: {error}") from error
    return from_values(parser, values)


def from_values(parser: ArgumentParser, values: Namespace) -> PipelineConfig:
    """Build the configuration from what a `config_parser` has read.

    Raises:
        ValueError: a value is out of its range, or two of them do not fit together.
    """
    built = parser.instantiate(values)
    return PipelineConfig(**{f.name: built[f.name] for f in dataclasses.fields(PipelineConfig)})

"""The contract between `pipeline` and `distill`: what stands in a shard and in `index.json`.

It lives with the producer, needs neither Beam nor torch, and is the only description of the format:
writers build these dataclasses, readers get them back. A reader ignores fields it does not know and
refuses a file that lacks one it needs; a field with a default came later and may be missing. A
removed or re-typed field raises `SCHEMA_VERSION`.
"""

import dataclasses
import functools
import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from pipeline.files import AnyPath, path_of

SCHEMA_VERSION = 1
READABLE_VERSIONS = (1,)

SAMPLE_RATE = 16_000
MAX_CLIP_SECONDS = 30.0
MAX_CLIP_SAMPLES = int(MAX_CLIP_SECONDS * SAMPLE_RATE)

EMBEDDED_FOLDER = Path(__file__).parent / "embedded"
"""The corpus and the teacher that ship with the package."""


@dataclass(frozen=True, kw_only=True)
class Segment:
    """A timestamped piece inside a clip; seconds from its start, on Whisper's 0.02 s grid."""

    start: float
    end: float
    text: str


@dataclass(frozen=True, kw_only=True)
class ClipUtterance:
    """One utterance of the corpus, or a part of a long one, inside a clip.

    `pseudo_label` is the piece of the clip's label that the alignment attributes to the utterance;
    the scores are of that piece, so a bad utterance cannot hide in a good clip. In a pack without
    references nothing can be attributed, and it is "".
    """

    id: str
    start: float
    """In seconds from the clip's start."""
    duration: float
    reference: str
    recording: str = ""
    """The source file as the corpus names it; "" where all of the clip is from one."""
    recording_start_seconds: float = 0.0
    """Where the utterance, or this part of it, starts in its recording."""
    pseudo_label: str = ""
    wer: float | None = None
    cer: float | None = None
    substitutions: int | None = None
    deletions: int | None = None
    insertions: int | None = None
    audio_sha256: str = ""
    """Of the 16-bit samples; equal where two utterances are the same sound."""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """The `<key>.json` member beside `<key>.flac`: one clip with its reference, label and evidence.

    `wer`, `cer`, `orthographic_wer` and the error counts are None where the corpus has no
    reference; every other field is always set ("" for an unknown speaker), because the Hub's viewer
    infers types from the first samples of a shard.
    """

    id: str
    corpus: str
    split: str
    language: str
    """ISO 639-1, detected or forced."""
    language_probability: float
    speaker: str
    licence: str
    recording: str
    """The source file as the corpus names it."""
    start_seconds: float
    """Where the clip starts in its recording."""
    duration_seconds: float
    utterances: tuple[ClipUtterance, ...]
    reference: str
    """The corpus text, untouched; "" where there is none."""
    pseudo_label: str
    """The teacher's text, untouched; "" where it heard nothing."""
    tokens: tuple[int, ...]
    """The teacher's token ids with timestamps, without task prefix and end of text; () in a clip
    that was put together from parts of labels."""
    segments: tuple[Segment, ...]
    previous_pseudo_label: str | None
    """Label of the clip that ends where this one begins in the same recording; None where there is
    none, or where the filter dropped it."""
    wer: float | None
    """A fraction: 0.1 is 10 %."""
    cer: float | None
    metric: str
    """Which of the two judges this clip: "wer" or "cer"; "" without a reference."""
    substitutions: int | None
    deletions: int | None
    insertions: int | None
    avg_logprob: float
    no_speech_prob: float
    compression_ratio: float
    temperature: float
    truncated: bool
    teacher: str
    teacher_revision: str
    token_logprobs: tuple[float, ...] = ()
    """Of each of `tokens`, where `decoding.token_logprobs` asked for them; else ()."""
    normalizer: str = ""
    """Which rules both texts went through before they were compared, "english" or "basic"; ""
    without a reference."""
    orthographic_wer: float | None = None
    """The rate of `metric` with casing, punctuation and spelling as they are."""


@dataclass(frozen=True, kw_only=True)
class SidecarLabel:
    """A line of `labels@NAME/<shard>.jsonl`: what another teacher hears in a clip of that shard.

    Every field but `id` takes the place of the sample's own, so a dataset can be learned from with
    other labels and its audio stays where it is.
    """

    id: str
    """Of the clip."""
    pseudo_label: str
    tokens: tuple[int, ...]
    segments: tuple[Segment, ...]
    wer: float | None
    cer: float | None
    metric: str
    substitutions: int | None
    deletions: int | None
    insertions: int | None
    avg_logprob: float
    no_speech_prob: float
    compression_ratio: float
    temperature: float
    truncated: bool
    teacher: str
    teacher_revision: str


@dataclass(frozen=True, kw_only=True)
class ShardEntry:
    """What the index says of one shard."""

    name: str
    corpus: str
    split: str
    num_samples: int
    duration_seconds: float
    size_bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Totals:
    """Counts of utterances; planned = kept + rejected + failed, always."""

    planned: int
    kept: int
    rejected: dict[str, int]
    """By reason."""
    failed: dict[str, int]
    """By stage."""
    hours_planned: float
    hours_kept: float
    teacher_seconds: float
    """Compute time inside the teacher, summed over workers and runs."""
    wall_seconds: float
    rtfx: float
    """Seconds of audio per second of teacher compute."""
    stage_seconds: dict[str, float] = field(default_factory=dict)
    """Work by stage (read, features, teacher, score, write), summed over workers and runs."""
    padding_fraction: float = 0.0
    """Share of the teacher's windows that was silence behind the clips."""
    cost: float | None = None
    """Of all work, at the configuration's `price_per_hour`; None where none was given."""
    cost_per_kept_hour: float | None = None
    """None also where nothing was kept."""
    ledger_bytes: int = 0
    shard_bytes: int = 0


@dataclass(frozen=True, kw_only=True)
class Index:
    """`index.json`: written last; a folder without it is not a finished dataset."""

    schema_version: int
    created_with: str
    teacher: dict[str, Any]
    decoding: dict[str, Any]
    clips: dict[str, Any]
    filter: dict[str, Any]
    label_key: str
    shard_key: str
    shards: tuple[ShardEntry, ...]
    totals: Totals
    canary: dict[str, Any] | None = None
    """What the teacher made of clips with known content; None where it was not asked."""
    estimate: dict[str, Any] | None = None
    """What `plan --measure` expected of all this, by the names of `totals`; None where it was not
    asked, or of another teacher."""


T = TypeVar("T")


def to_json(value: Any) -> str:
    """Write a contract dataclass as JSON that is the same byte for byte each time.

    Raises:
        ValueError: a number is not finite; JSON has no such numbers, and readers would refuse them.
    """
    return json.dumps(
        value,
        default=vars,  # of each dataclass inside, where `asdict` would copy everything first
        ensure_ascii=False,
        allow_nan=False,
        sort_keys=True,
        separators=(",", ":"),
    )


def from_json(kind: type[T], text: str | bytes) -> T:
    """Read a contract dataclass; unknown fields are ignored, missing or mistyped ones refused."""
    return from_dict(kind, json.loads(text))


def from_dict(kind: type[T], value: Any) -> T:
    """Build a contract dataclass from plain dicts and lists, by the rules of `from_json`."""
    return _builder(kind)(value, kind.__name__)


Builder = Callable[[Any, str], Any]


@functools.cache
def _builder(kind: Any) -> Builder:
    """Return what makes a `kind` out of parsed JSON, or says at which field it does not fit.

    A ledger has millions of values, so what a type asks for is found out once.
    """
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        return _dataclass_builder(kind)
    origin, args = get_origin(kind), get_args(kind)
    if origin is UnionType:
        return _optional_builder(next(a for a in args if a is not NoneType))
    if origin is tuple:
        return _tuple_builder(args[0])
    if origin is dict:
        return _dict_builder(args[1])
    return _plain_builder(kind)


def _dataclass_builder(kind: Any) -> Builder:
    fields = {name: (_builder(hint), hint) for name, hint in get_type_hints(kind).items()}
    missing = dataclasses.MISSING
    needed = frozenset(
        f.name
        for f in dataclasses.fields(kind)
        if f.default is missing and f.default_factory is missing
    )

    def build(value: Any, where: str) -> Any:
        if not isinstance(value, dict):
            raise ValueError(f"{where}: expected an object, got {value!r}")
        if lacking := sorted(needed - value.keys()):
            raise ValueError(f"{where} lacks the field(s) {', '.join(lacking)}")
        return kind(
            **{
                name: value[name]
                if type(value[name]) is hint
                else make(value[name], f"{where}.{name}")
                for name, (make, hint) in fields.items()
                if name in value
            }
        )

    return build


def _optional_builder(kind: Any) -> Builder:
    make = _builder(kind)
    return lambda value, where: None if value is None else make(value, where)


def _tuple_builder(kind: Any) -> Builder:
    make = _builder(kind)

    def build(value: Any, where: str) -> Any:
        if not isinstance(value, list):
            raise ValueError(f"{where}: expected tuple, got {value!r}")
        return tuple(
            v if type(v) is kind else make(v, f"{where}[{i}]") for i, v in enumerate(value)
        )

    return build


def _dict_builder(kind: Any) -> Builder:
    make = None if kind is Any else _builder(kind)

    def build(value: Any, where: str) -> Any:
        if not isinstance(value, dict):
            raise ValueError(f"{where}: expected dict, got {value!r}")
        return {k: make(v, f"{where}.{k}") if make else v for k, v in value.items()}

    return build


def _plain_builder(kind: Any) -> Builder:
    def build(value: Any, where: str) -> Any:
        if kind is float and type(value) is int:
            return float(value)
        if type(value) is kind:
            return value
        raise ValueError(f"{where}: expected {getattr(kind, '__name__', kind)}, got {value!r}")

    return build


_NOT_IN_KEYS = re.compile(r"[^A-Za-z0-9_-]")
_MAX_KEY_LENGTH = 80  # a tar header has room for names of 100 bytes


def sample_key(clip_id: str) -> str:
    """Return the name of a clip's members in its shard.

    WebDataset splits member names at the first dot, so anything outside `[A-Za-z0-9_-]` is
    replaced, and a long id is cut to fit into a tar header. An id that had to be changed gets a
    hash of itself, so that two ids do not share a key.
    """
    key = _NOT_IN_KEYS.sub("_", clip_id)
    if key == clip_id and 0 < len(key) <= _MAX_KEY_LENGTH:
        return key
    digest = hashlib.sha256(clip_id.encode()).hexdigest()[:16]
    return f"{key[: _MAX_KEY_LENGTH - len(digest) - 1]}-{digest}"


def read_index(folder: str | AnyPath) -> Index:
    """Read `index.json` of a finished dataset.

    Raises:
        FileNotFoundError: the folder has no index, so the run that fills it has not finished.
        ValueError: the index is of a schema version this reader does not know, or lacks a field.
    """
    path = path_of(folder) / "index.json"
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} does not exist: {folder} is not a finished dataset. "
            "Run `whisper-pipeline run` on its config until it says that it is done."
        )
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
        version = fields.get("schema_version")
    except (ValueError, AttributeError) as error:
        raise ValueError(f"{path} is damaged ({error}); run the pipeline again") from error
    if version not in READABLE_VERSIONS:
        raise ValueError(
            f"{path} has schema_version {version}; this release reads {READABLE_VERSIONS}. "
            "Use the release that wrote it, or run the pipeline again."
        )
    return from_dict(Index, fields)


def sidecar_path(folder: str | Path, name: str, shard: str) -> Path:
    """Return where the labels called `name` of a shard lie, by the shard's name in the index.

    Raises:
        ValueError: the name is not of letters, digits, "-" and "_".
    """
    if not name or _NOT_IN_KEYS.search(name):
        raise ValueError(f"labels {name!r}: a name has letters, digits, '-' and '_' only")
    return Path(folder) / f"labels@{name}" / f"{shard.removesuffix('.tar')}.jsonl"


def with_label(sample: Sample, label: SidecarLabel) -> Sample:
    """Return a sample with another teacher's label; what came before it was heard by the first."""
    fields = {f.name: getattr(label, f.name) for f in dataclasses.fields(label) if f.name != "id"}
    unknown = {"previous_pseudo_label": None, "token_logprobs": (), "orthographic_wer": None}
    return dataclasses.replace(sample, **unknown, **fields)


def model_path(name: str) -> str:
    """Turn a model name of a config into what `from_pretrained` takes; `embedded` ships with us."""
    return str(EMBEDDED_FOLDER / "teacher") if name == "embedded" else name

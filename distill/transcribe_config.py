"""Configuration of `whisper-distill transcribe`; imports nothing heavy, so that --help is quick."""

from dataclasses import dataclass, field
from typing import Literal

FORMATS = ("txt", "json", "srt", "vtt", "tsv")
MODES = ("auto", "short", "sequential", "chunked")


@dataclass(frozen=True, kw_only=True)
class LongformConfig:
    """How recordings longer than a window are read."""

    chunk_seconds: float | None = None
    """Chunked: seconds in a chunk. Null takes 30 for a teacher and 15 for a student, which has
    learned from shorter audio (arXiv 2311.00430, table 23); 25 suits one that was trained on clips
    packed to 30 s."""
    stride_seconds: float | None = None
    """Chunked: overlap at each side of a chunk; null takes a sixth of it."""
    timestamps: bool = True
    """Sequential: a window ends where the model says that a sentence does. false, for a model that
    was trained without timestamps, reads one whole window after the other. In every mode: false
    never asks the model for timestamps, so a segment of json and subtitles is a whole window."""
    condition_on_previous: bool = False
    """Sequential: give each window what was heard before. It keeps spelling and style, and one
    window that goes wrong can spoil all that follow."""
    initial_prompt: str = ""
    """Sequential: text given to the first window, such as names to expect."""
    temperatures: list[float] = field(default_factory=lambda: [0.0, 0.2, 0.4, 0.6, 0.8, 1.0])
    """Sequential: tried in order while a window's text looks wrong."""
    max_compression_ratio: float = 2.4
    """Sequential: text that compresses better repeats itself, and is tried again."""
    min_avg_logprob: float = -1.0
    """Sequential: text that the model believes in less is tried again. In every mode: it is none
    at all where the model hears no speech, either."""
    no_speech_threshold: float = 0.6
    """Above it, a window that the model does not believe in is silence."""

    def __post_init__(self) -> None:
        chunk, stride = self.chunk_seconds, self.stride_seconds
        if chunk is not None and not 1 <= chunk <= 30:
            raise ValueError(f"longform.chunk_seconds is {chunk}; it must be from 1 to 30")
        # the longest chunk there is, where the model will decide; it is looked at again then
        if stride is not None and not 0 <= stride < (chunk or 30.0) / 2:
            raise ValueError(
                f"longform.stride_seconds is {stride}; it must be 0 or more and below half a chunk"
            )
        if not self.temperatures or min(self.temperatures) < 0:
            raise ValueError(
                f"longform.temperatures is {self.temperatures}; give at least one, none below 0"
            )


@dataclass(frozen=True, kw_only=True)
class TranscribeConfig:
    """Write down what is said in recordings."""

    files: list[str]
    """Files, folders, globs, URLs, or - for standard input."""
    model: str
    """`embedded`, a Hub id, a Whisper folder, a quantised student, or a CTranslate2 folder."""
    assistant: str | None = None
    """A student that drafts for the model: the same text, faster where the decoder is large."""
    mode: Literal["auto", "short", "sequential", "chunked"] = "auto"
    """auto: one window for recordings of up to 30 s, sequential for longer ones."""
    batch_size: int = 16
    """Windows that are decoded at once, of one recording or of several."""
    language: str | None = None
    """Such as en; null detects it in the first window of each recording."""
    format: str = "txt"
    """txt, json, srt, vtt or tsv; several with commas. Any but txt, and words, have recordings of
    up to 30 s and chunks decoded with timestamps, which may change the wording: that of a txt
    written beside them, too."""
    output: str | None = None
    """Folder to write to; null prints the text, one line for each recording, in order, and an empty
    one for a recording that cannot be read."""
    overwrite: bool = False
    """Replace what stands in the output folder. Without it, a folder that the same settings and
    weights were writing of the same recordings is gone on with, and any other existing output is
    refused; so is that of standard input."""
    words: bool = False
    """Times of words (json), and subtitles cut at words."""
    vad: bool = False
    """Pass over what is not speech (needs the `vad` extra); not in mode short."""
    max_new_tokens: int = 224
    """In a window; a text that goes on has lost its way."""
    longform: LongformConfig = field(default_factory=LongformConfig)
    """Of recordings longer than a window."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """`auto` takes an accelerator where there is one."""
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = "auto"
    """auto: float32 on a CPU, float16 on an accelerator."""
    seed: int = 0
    """Of the sampling at temperatures above 0."""

    def __post_init__(self) -> None:
        if not self.files:
            raise ValueError("no recording is named: give files, folders, globs, URLs, or -")
        for name in ("batch_size", "max_new_tokens"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if self.vad and self.mode == "short":
            raise ValueError(
                "vad does nothing in mode short, which hears its one window whole; "
                "take mode auto, sequential or chunked, or leave vad off"
            )
        if not self.formats or not set(self.formats) <= set(FORMATS):
            raise ValueError(f"format is {self.format!r}; it may be {', '.join(FORMATS)}")

    @property
    def formats(self) -> list[str]:
        """The formats that are asked for."""
        return [name.strip() for name in self.format.split(",") if name.strip()]

    @property
    def needs_timestamps(self) -> bool:
        """Segments or words are asked for, not only text."""
        return self.words or set(self.formats) != {"txt"}

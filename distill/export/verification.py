"""Does an export hear what its source hears? The same clips through both, text by text."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

from distill.evaluate_config import EvaluateConfig
from distill.evaluate_data import EvaluationClip, read_clips
from distill.evaluate_scores import score_all
from distill.export.config import ExportConfig
from distill.export.source import Source, Transcriber
from distill.longform import WINDOW_SAMPLES, Window
from distill.recognizers import WhisperRecognizer
from pipeline.schema import EMBEDDED_FOLDER
from pipeline.scoring import corpus_rate

CALIBRATION_CLIPS = 64
"""Enough for the loudest value of each column to be found."""


@dataclass(frozen=True, kw_only=True)
class Heard:
    """What the source hears in the clips, which is what exports are compared with."""

    clips: list[EvaluationClip]
    languages: list[str]
    texts: list[str]
    wer: float


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """How far an export writes what its source writes."""

    clips: int
    identical: float
    """Share of clips with the same text, to the letter."""
    wer: float
    source_wer: float
    wer_difference: float
    """Above 0 where the export does worse than its source."""
    different: list[dict[str, str]]
    """The clips with another text: id, source, export."""


def clips_of(config: ExportConfig) -> list[EvaluationClip]:
    """Read the clips to compare on.

    Raises:
        FileNotFoundError: a shard folder is not a finished dataset.
        ValueError: no clip has a reference.
    """
    return _read(config, config.clips or "embedded", config.split, config.max_clips, "test")


def calibration_of(config: ExportConfig) -> tuple[Window, ...]:
    """Read what the model listens to before the sound is rounded; nothing if none is wanted.

    Raises:
        FileNotFoundError: a shard folder is not a finished dataset.
        ValueError: no clip has a reference.
    """
    if config.calibration is None:
        return ()
    clips = _read(config, config.calibration, "train", CALIBRATION_CLIPS, "train")
    return tuple(_window(clip, clip.language or None) for clip in clips)


def _read(
    config: ExportConfig, data: str, split: str, max_clips: int | None, part: str
) -> list[EvaluationClip]:
    """Read clips of a dataset's split, or of a part of the embedded corpus."""
    if data == "embedded":
        data = str(EMBEDDED_FOLDER / f"{part}.jsonl")
    return read_clips(
        EvaluateConfig(
            models=[config.model],
            data=[data],
            output=config.output,
            split=split,
            language=config.language,
            max_clips=max_clips,
        )
    )


def listen(source: Source, clips: list[EvaluationClip], batch_size: int) -> Heard:
    """Transcribe the clips with the source, in float32."""
    recognizer = WhisperRecognizer(source.model, source.processor, source.name)
    heard = [
        each
        for batch in _batches(clips, batch_size)
        for each in recognizer.hear([_window(clip, clip.language or None) for clip in batch])
    ]
    texts = [each.text for each in heard]
    return Heard(
        clips=clips,
        languages=[each.language for each in heard],
        texts=texts,
        wer=corpus_rate(score_all(clips, texts)),
    )


def compare(expected: Heard, hear: Transcriber, batch_size: int) -> Agreement:
    """Transcribe the clips with an export, in the languages that the source heard."""
    texts = []
    languages = iter(expected.languages)
    for batch in _batches(expected.clips, batch_size):
        texts += hear([_window(clip, next(languages)) for clip in batch])
    different = [
        {"id": clip.id, "source": ours, "export": theirs}
        for clip, ours, theirs in zip(expected.clips, expected.texts, texts, strict=True)
        if ours != theirs
    ]
    wer = corpus_rate(score_all(expected.clips, texts))
    return Agreement(
        clips=len(texts),
        identical=round(1 - len(different) / len(texts), 5),
        wer=round(wer, 5),
        source_wer=round(expected.wer, 5),
        wer_difference=round(wer - expected.wer, 5),
        different=different,
    )


def _batches(clips: list[EvaluationClip], size: int) -> Iterator[tuple[EvaluationClip, ...]]:
    rest = iter(clips)
    while batch := tuple(itertools.islice(rest, size)):
        yield batch


def _window(clip: EvaluationClip, language: str | None) -> Window:
    """Return a clip, or the first 30 s of it."""
    return Window(samples=clip.audio()[:WINDOW_SAMPLES], language=language)

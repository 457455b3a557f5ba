"""Parts of an evaluation that hear long recordings: one window after another, or in chunks."""

import time
from pathlib import Path
from typing import Any

from distill.evaluate_config import EvaluateConfig, judged
from distill.evaluate_data import EvaluationClip, long_recordings
from distill.evaluate_files import write_hypotheses
from distill.evaluate_hearing import AnyRecognizer, Hearing, hear_long, read
from distill.evaluate_scores import compare, rates, score_all
from distill.longform import Options
from distill.transcribe import chunk_seconds
from pipeline.scoring import Score

Row = dict[str, Any]


def long_form(
    config: EvaluateConfig,
    recognizers: list[AnyRecognizer],
    long: list[EvaluationClip],
    in_chunks: bool,
) -> list[Row]:
    """Measure long recordings, sequentially or in chunks; write what each model heard."""
    rows, first_scores, first_seconds = [], [], 0.0
    for number, recognizer in enumerate(recognizers):
        chunk = chunk_seconds(recognizer, config.longform)
        row, texts, scores = _long_row(config, recognizer, long, chunk if in_chunks else None)
        name = f"heard-{number}-{'chunked' if in_chunks else 'sequential'}.jsonl"
        write_hypotheses(Path(config.output) / name, long, texts, scores)
        seconds = row["decode_seconds"]
        if not first_scores:
            first_scores, first_seconds = scores, seconds
        else:
            found = compare(first_scores, scores, config.seed, config.bootstrap_samples)
            row["p_value"] = round(found.p_value, 4) if found else None
        row["relative_speed"] = round(first_seconds / seconds, 3)
        rows.append(row)
    return rows


def hear_recordings(
    config: EvaluateConfig, recognizers: list[AnyRecognizer], clips: list[EvaluationClip]
) -> Hearing:
    """Hear recordings, and clips joined to such, where there is nothing else to judge by.

    What cannot be read is left out for all models.
    """
    unreadable: dict[str, str] = {}
    started = time.perf_counter()
    readable = [clip for clip in clips if read(clip, unreadable) is not None]
    long = long_recordings(readable, config.long_seconds)
    found = Hearing(clips=long, texts=[], seconds=[], unreadable=unreadable)
    found.reading_seconds = time.perf_counter() - started
    options = Options(longform=config.longform)
    for recognizer in recognizers:
        chunk = chunk_seconds(recognizer, config.longform) if judged(config) == "chunked" else None
        texts, seconds = hear_long(recognizer, long, config.batch_size, options, chunk)
        found.texts.append(texts)
        found.seconds.append(seconds)
    return found


def chunk_lengths(
    config: EvaluateConfig, recognizers: list[AnyRecognizer], long: list[EvaluationClip]
) -> list[Row]:
    """Measure chunked with chunks of different lengths."""
    return [
        _long_row(config, recognizer, long, seconds)[0]
        for recognizer in recognizers
        for seconds in config.chunk_lengths
    ]


def _long_row(
    config: EvaluateConfig,
    recognizer: AnyRecognizer,
    long: list[EvaluationClip],
    chunk: float | None,
) -> tuple[Row, list[str], list[Score]]:
    options = Options(longform=config.longform)
    texts, seconds = hear_long(recognizer, long, config.batch_size, options, chunk)
    scores = score_all(long, texts)
    found = rates(long, texts, scores, config.seed, config.bootstrap_samples)
    row = {
        "model": recognizer.name,
        "chunk_seconds": chunk,
        "recordings": len(long),
        "wer": round(found.wer, 5),
        "wer_low": round(found.wer_low, 5),
        "wer_high": round(found.wer_high, 5),
        "insertion_rate": round(found.insertion_rate, 5),
        "repeated_five_grams": found.loops.repeated_five_grams,
        "longest_loop": found.loops.longest_loop,
        "decode_seconds": round(seconds, 3),
        "rtfx": round(sum(clip.duration_seconds for clip in long) / seconds, 2),
    }
    return row, texts, scores

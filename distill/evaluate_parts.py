"""The parts of an evaluation that are done only where they are asked for; each gives rows.

A row is a flat dictionary with the model it is about, so that a part is a table of the report as it
is, and a column of a data frame.
"""

import dataclasses
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from distill.evaluate_config import EDGE_SECONDS, EvaluateConfig
from distill.evaluate_data import EvaluationClip
from distill.evaluate_hearing import (
    AnyRecognizer,
    Loaded,
    batches,
    hear_batches,
    hear_clips,
    hear_long,
)
from distill.evaluate_scores import compare, rates, score_all
from distill.hallucination import longest_loop, non_speech
from distill.longform import Options, sequential, short
from distill.robustness import Noise, add_noise
from distill.speculative import Assistant, check_match, make_assistant
from distill.transcribe import STUDENT_CHUNK_SECONDS, TEACHER_CHUNK_SECONDS
from distill.transcribe import run as run_jobs
from distill.whisper_recognizer import WhisperRecognizer
from distill.windows import Heard, Window
from pipeline.schema import SAMPLE_RATE
from pipeline.scoring import Score, corpus_rate, normalize

Row = dict[str, Any]
_LATENCY_REPEATS = 5
_SPECULATIVE_BATCHES = (1, 4, 16)


def run(
    config: EvaluateConfig,
    recognizers: list[AnyRecognizer],
    clips: list[EvaluationClip],
    long: list[EvaluationClip],
) -> dict[str, list[Row]]:
    """Do what is asked for; return the rows of each part by its name."""
    parts: dict[str, list[Row]] = {}
    if config.latency_batches:
        parts["latency"] = latency(config, recognizers, clips)
    for mode in ("sequential", "chunked"):
        if mode in config.modes:
            parts[mode] = long_form(config, recognizers, long, mode == "chunked")
    if "speculative" in config.modes:
        parts["speculative"] = speculative(config, recognizers, clips)
    if config.robustness.noises:
        parts["robustness"] = robustness(config, recognizers, clips)
    if config.non_speech:
        parts["non_speech"] = answers_to_no_speech(config, recognizers)
    if config.chunk_lengths:
        parts["chunk_lengths"] = chunk_lengths(config, recognizers, long)
    if config.prompt_lengths:
        parts["prompt_lengths"] = prompt_lengths(config, recognizers, clips)
    if config.timestamps:
        parts["timestamps"] = timestamps(config, recognizers, clips)
    if config.edges:
        parts["edges"] = edges(recognizers, clips)
    return parts


def check(config: EvaluateConfig, recognizers: list[AnyRecognizer]) -> None:
    """Refuse parts that these models or settings do not allow, before hours of decoding.

    Raises:
        ValueError: the first model cannot be assisted, a model does not match it, or there is no
            such noise.
    """
    if "speculative" in config.modes:
        assistants(recognizers)
    for kind in config.robustness.noises:
        Noise(kind)


def latency(
    config: EvaluateConfig, recognizers: list[AnyRecognizer], clips: list[EvaluationClip]
) -> list[Row]:
    """Time a batch of each size, the models taking turns; the median of a few."""
    rows = []
    for size in config.latency_batches:
        batch = [clips[number % len(clips)] for number in range(size)]
        windows = [Window(samples=clip.audio(), language=clip.language) for clip in batch]
        taken: list[list[float]] = [[] for _ in recognizers]
        for repeat in range(_LATENCY_REPEATS + 1):
            for number, recognizer in enumerate(recognizers):
                features = recognizer.extract([window.samples for window in windows])
                started = time.perf_counter()
                recognizer.hear_features(features, windows)
                if repeat:
                    taken[number].append(time.perf_counter() - started)
        audio_seconds = sum(clip.duration_seconds for clip in batch)
        for number, recognizer in enumerate(recognizers):
            seconds = statistics.median(taken[number])
            rows.append(
                {
                    "model": recognizer.name,
                    "batch_size": size,
                    "batch_seconds": round(seconds, 4),
                    "rtfx": round(audio_seconds / seconds, 2),
                    "relative_speed": round(statistics.median(taken[0]) / seconds, 3),
                }
            )
    return rows


def long_form(
    config: EvaluateConfig,
    recognizers: list[AnyRecognizer],
    long: list[EvaluationClip],
    in_chunks: bool,
) -> list[Row]:
    """Measure long recordings, sequentially or in chunks."""
    rows, first_scores, first_seconds = [], [], 0.0
    for recognizer in recognizers:
        chunk = config.longform.chunk_seconds or (
            STUDENT_CHUNK_SECONDS if recognizer.is_student else TEACHER_CHUNK_SECONDS
        )
        row, scores, seconds = _long_row(config, recognizer, long, chunk if in_chunks else None)
        if not first_scores:
            first_scores, first_seconds = scores, seconds
        else:
            found = compare(first_scores, scores, config.seed, config.bootstrap_samples)
            row["p_value"] = round(found.p_value, 4) if found else None
        row["relative_speed"] = round(first_seconds / seconds, 3)
        rows.append(row)
    return rows


def chunk_lengths(
    config: EvaluateConfig, recognizers: list[AnyRecognizer], long: list[EvaluationClip]
) -> list[Row]:
    """Measure chunked with chunks of different lengths."""
    return [
        _long_row(config, recognizer, long, seconds)[0]
        for recognizer in recognizers
        for seconds in config.chunk_lengths
    ]


def speculative(
    config: EvaluateConfig, recognizers: list[AnyRecognizer], clips: list[EvaluationClip]
) -> list[Row]:
    """Let each model draft for the first one; both ways of decoding take turns on each batch."""
    teacher, students = assistants(recognizers)
    rows = []
    for student in students:
        assistant = make_assistant(student.model, teacher.model)
        for size in _SPECULATIVE_BATCHES:
            rows.append(_assisted(teacher, assistant, student.name, clips, size))
    return rows


def assistants(
    recognizers: list[AnyRecognizer],
) -> tuple[WhisperRecognizer, list[WhisperRecognizer]]:
    """Return the first model and those that may draft for it; CTranslate2's can do neither.

    Raises:
        ValueError: the first model cannot be assisted, or another one does not match it.
    """
    teacher = recognizers[0]
    if not isinstance(teacher, WhisperRecognizer):
        raise ValueError(f"{teacher.name} cannot be assisted; speculative needs a plain Whisper")
    students = [other for other in recognizers[1:] if isinstance(other, WhisperRecognizer)]
    for student in students:
        check_match(student.name, student.model.config, teacher.model.config)
    return teacher, students


def _assisted(
    teacher: WhisperRecognizer,
    assistant: Assistant,
    name: str,
    clips: list[EvaluationClip],
    size: int,
) -> Row:
    taken = {False: 0.0, True: 0.0}
    heard: dict[bool, list[Heard]] = {False: [], True: []}
    for number, batch in enumerate(batches(clips, size)):
        windows = [Window(samples=c.audio(), language=c.language) for c in batch]
        features = teacher.extract([window.samples for window in windows])
        order = (False, True) if number % 2 else (True, False)
        for assisted in order:
            teacher.assistant = assistant if assisted else None
            if number == 0:
                teacher.hear_features(features, windows)
            started = time.perf_counter()
            heard[assisted] += teacher.hear_features(features, windows)
            taken[assisted] += time.perf_counter() - started
    teacher.assistant = None
    same = sum(a.tokens == b.tokens for a, b in zip(heard[False], heard[True], strict=True))
    drafted = sum(one.num_drafted for one in heard[True])
    steps = sum(one.num_steps for one in heard[True])
    return {
        "model": name,
        "batch_size": size,
        "relative_speed": round(taken[False] / taken[True], 3),
        "identical": round(same / len(clips), 5),
        "acceptance": round(sum(one.num_accepted for one in heard[True]) / max(drafted, 1), 4),
        "tokens_per_step": round(sum(len(one.tokens) + 1 for one in heard[True]) / steps, 3),
        "shared_encoder": assistant.encoder is None,
    }


def robustness(
    config: EvaluateConfig, recognizers: list[AnyRecognizer], clips: list[EvaluationClip]
) -> list[Row]:
    """Measure the error rate in noise; every model hears the same mixtures."""
    chosen, rows = clips[: config.robustness.max_clips], []
    for kind in config.robustness.noises:
        noise = Noise(kind)
        for snr in config.robustness.snrs:
            mixed = [
                dataclasses.replace(
                    clip, samples=add_noise(clip.audio(), noise, snr, clip.id, config.seed)
                )
                for clip in chosen
            ]
            for recognizer in recognizers:
                texts, _ = hear_clips(recognizer, mixed, config.batch_size)
                rows.append(
                    {
                        "model": recognizer.name,
                        "noise": kind,
                        "snr_db": snr,
                        "wer": _rate(score_all(chosen, texts)),
                    }
                )
    return rows


def answers_to_no_speech(config: EvaluateConfig, recognizers: list[AnyRecognizer]) -> list[Row]:
    """Play sounds without speech; every word is one too many."""
    rows = []
    for recognizer in recognizers:
        for kind, samples in non_speech(config.seed).items():
            (heard,) = recognizer.hear([Window(samples=samples, language=config.language)])
            words = normalize(heard.text, config.language).split()
            rows.append(
                {
                    "model": recognizer.name,
                    "sound": kind,
                    "words": len(words),
                    "longest_loop": longest_loop(words),
                    "no_speech_prob": round(heard.no_speech_prob, 4),
                    "avg_logprob": round(heard.avg_logprob, 4),
                    "text": heard.text[:200],
                }
            )
    return rows


def prompt_lengths(
    config: EvaluateConfig, recognizers: list[AnyRecognizer], clips: list[EvaluationClip]
) -> list[Row]:
    """Measure short-form behind prompts of other clips' text, cut to each length.

    One half of the clips is heard behind the text of the other half: a prompt in which a clip's own
    text stands would help it.
    """
    halves = [clips[::2], clips[1::2]]
    rows = []
    for recognizer in recognizers:
        prompts = [
            recognizer.vocabulary.encode(" ".join(clip.reference for clip in half))
            for half in halves
        ]
        for length in config.prompt_lengths:
            heard, seconds = [], 0.0
            for half, before in zip(halves, reversed(prompts), strict=True):
                previous = tuple(np.resize(before, length).tolist()) if before else ()
                found, taken = hear_batches(recognizer, half, config.batch_size, previous=previous)
                heard, seconds = heard + found, seconds + taken
            texts = [one.text for one in heard]
            rows.append(
                {
                    "model": recognizer.name,
                    "prompt_tokens": length,
                    "wer": _rate(score_all([*halves[0], *halves[1]], texts)),
                    "avg_logprob": round(statistics.mean(h.avg_logprob for h in heard), 4),
                    "decode_seconds": round(seconds, 3),
                }
            )
    return rows


def timestamps(
    config: EvaluateConfig, recognizers: list[AnyRecognizer], clips: list[EvaluationClip]
) -> list[Row]:
    """Compare where speech begins and ends with where the utterances do, in seconds."""
    timed = [clip for clip in clips if clip.utterances]
    rows = []
    for recognizer in recognizers:
        options = Options(timestamps=True)
        starts, ends, matched = [], [], 0
        jobs = (
            short(
                Loaded(clip.audio()),
                recognizer.vocabulary,
                Options(**{**vars(options), "language": clip.language}),
            )
            for clip in timed
        )
        for number, result in run_jobs(jobs, recognizer, config.batch_size):
            utterances = timed[number].utterances
            if isinstance(result, Exception) or not result.segments:
                continue
            segments = result.segments
            first, last = utterances[0], utterances[-1]
            starts.append(abs(segments[0].start - first.start))
            ends.append(abs(segments[-1].end - (last.start + last.duration)))
            matched += len(segments) == len(utterances)
        rows.append(
            {
                "model": recognizer.name,
                "clips": len(starts),
                "start_error": round(statistics.mean(starts), 3) if starts else None,
                "end_error": round(statistics.mean(ends), 3) if ends else None,
                "as_many_segments": round(matched / len(timed), 4) if timed else None,
            }
        )
    return rows


def edges(recognizers: list[AnyRecognizer], clips: list[EvaluationClip]) -> list[Row]:
    """Cut one recording to the lengths at which things break."""
    pieces = [clip.audio() for clip in clips[:40] if clip.language == clips[0].language]
    samples = np.concatenate(pieces)
    samples = np.resize(samples, max(len(samples), 31 * SAMPLE_RATE))
    rows = []
    for recognizer in recognizers:
        for seconds in EDGE_SECONDS:
            audio = Loaded(samples[: round(seconds * SAMPLE_RATE)])
            algorithm: Callable[..., Any] = short if seconds <= 30 else sequential
            options = Options(language=clips[0].language)
            job = algorithm(audio, recognizer.vocabulary, options)
            ((_, result),) = run_jobs([job], recognizer, 1)
            failed = isinstance(result, Exception)
            rows.append(
                {
                    "model": recognizer.name,
                    "seconds": seconds,
                    "words": None if failed else len(result.text.split()),
                    "text": str(result)[:200] if failed else result.text[:200],
                }
            )
    return rows


def _long_row(
    config: EvaluateConfig,
    recognizer: AnyRecognizer,
    long: list[EvaluationClip],
    chunk: float | None,
) -> tuple[Row, list[Score], float]:
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
    return row, scores, seconds


def _rate(scores: list[Score]) -> float:
    metric = scores[0].metric
    return round(corpus_rate([s for s in scores if s.metric == metric]), 5)

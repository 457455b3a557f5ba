"""The parts of an evaluation that are done only where they are asked for; each gives rows.

A row is a flat dictionary with the model it is about, so that a part is a table of the report as it
is, and a column of a data frame.
"""

import dataclasses
import itertools
import statistics
from collections.abc import Callable
from typing import Any

import numpy as np

from distill.evaluate_config import EDGE_SECONDS, EvaluateConfig, judged
from distill.evaluate_data import EvaluationClip, spread
from distill.evaluate_hearing import (
    AnyRecognizer,
    Loaded,
    hear_batches,
    hear_clips,
)
from distill.evaluate_long import chunk_lengths, long_form
from distill.evaluate_scores import of_commoner_metric, score_all, units
from distill.evaluate_speed import assistants, latency, speculative
from distill.hallucination import longest_loop, non_speech
from distill.longform import Options, sequential, short
from distill.robustness import Noise, add_noise
from distill.transcribe import run as run_jobs
from distill.windows import Window
from pipeline.schema import SAMPLE_RATE
from pipeline.scoring import Score, corpus_rate, metric_of, normalize

Row = dict[str, Any]


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
        if mode in config.modes and mode != judged(config):
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


def check(
    config: EvaluateConfig, recognizers: list[AnyRecognizer], clips: list[EvaluationClip]
) -> None:
    """Refuse what these models, settings or clips do not allow, before hours of decoding.

    Raises:
        ValueError: the first model cannot be assisted, a model does not match it, there is no
            such noise, or a model does not know the language of a clip.
    """
    first_of = {clip.language: clip for clip in reversed(clips)}
    for recognizer, (language, clip) in itertools.product(recognizers, first_of.items()):
        try:
            recognizer.vocabulary.check_language(language or None)
        except ValueError as error:
            raise ValueError(f"{recognizer.name} cannot hear clip {clip.id}: {error}") from error
    if "speculative" in config.modes:
        assistants(recognizers)
    for kind in config.robustness.noises:
        Noise(kind)


def robustness(
    config: EvaluateConfig, recognizers: list[AnyRecognizer], clips: list[EvaluationClip]
) -> list[Row]:
    """Measure the error rate in noise; every model hears the same mixtures."""
    chosen, rows = spread(clips, config.robustness.max_clips), []
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
            metric = metric_of(heard.text, config.language)
            words = units(normalize(heard.text, config.language), metric)
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
    same = [clip for clip in clips if clip.language == clips[0].language]
    samples = np.concatenate([clip.audio() for clip in spread(same, 40)])
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


def _rate(scores: list[Score]) -> float:
    return round(corpus_rate(of_commoner_metric(scores)), 5)

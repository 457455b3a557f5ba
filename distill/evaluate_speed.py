"""Parts of an evaluation that take time: batches of several sizes, and drafting by a student.

Models take turns, so that what else the machine does falls on all of them.
"""

import statistics
import time
from typing import Any

from distill.evaluate_config import EvaluateConfig
from distill.evaluate_data import EvaluationClip
from distill.evaluate_hearing import AnyRecognizer, batches
from distill.speculative import Assistant, check_match, make_assistant
from distill.whisper_recognizer import WhisperRecognizer
from distill.windows import Heard, Window

Row = dict[str, Any]
_LATENCY_REPEATS = 5
_SPECULATIVE_BATCHES = (1, 4, 16)


def latency(
    config: EvaluateConfig, recognizers: list[AnyRecognizer], clips: list[EvaluationClip]
) -> list[Row]:
    """Time a batch of clips of middling length for each size, the models taking turns.

    The median of a few repetitions counts.
    """
    by_length = sorted(clips, key=lambda clip: clip.duration_seconds)
    rows = []
    for size in config.latency_batches:
        first = max(0, (len(clips) - size) // 2)
        batch = [by_length[number % len(clips)] for number in range(first, first + size)]
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


def speculative(
    config: EvaluateConfig, recognizers: list[AnyRecognizer], clips: list[EvaluationClip]
) -> list[Row]:
    """Let each model draft for the first one; both ways of decoding take turns on each batch."""
    teacher, students = assistants(recognizers)
    rows = []
    for student in students:
        assistant = make_assistant(student.model, teacher.model)
        for size in _SPECULATIVE_BATCHES:
            rows.append(speculative_row(teacher, assistant, student.name, clips, size))
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


def speculative_row(
    teacher: WhisperRecognizer,
    assistant: Assistant,
    name: str,
    clips: list[EvaluationClip],
    size: int,
) -> Row:
    """Decode clips with and without an assistant, in turns, and compare time and tokens."""
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

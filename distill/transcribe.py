"""`whisper-distill transcribe`: recordings in, text out; each model, each length, one flow.

An algorithm of `longform` works on each recording and asks for windows; this page fills batches
with the windows of as many recordings as it takes, hands out what was heard, and writes what is
finished. A recording that cannot be read is listed at the end and stops no other.
"""

import contextlib
import dataclasses
import json
import logging
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from rich.console import Console
from rich.progress import Progress

from distill.hearing import Recognizer
from distill.longform import Options, sequential, short
from distill.longform_chunked import chunked, stride_samples
from distill.recognizers import load_recognizer
from distill.recordings import AudioStream, Recording, find_recordings
from distill.subtitles import render
from distill.transcribe_config import LongformConfig, TranscribeConfig
from distill.transcribe_output import claim_output, prepare_output, write, writer_of
from distill.transcript import Job, Transcript
from distill.windows import WINDOW_SAMPLES, Heard, Window

logger = logging.getLogger(__name__)

TEACHER_CHUNK_SECONDS = 30.0
STUDENT_CHUNK_SECONDS = 15.0


@dataclass(kw_only=True)
class Meter:
    """How far a transcription has come, shown where someone is watching."""

    num_recordings: int
    bar: Progress | None = None
    num_done: int = 0
    seconds: float = 0.0
    """Of audio that has been passed by."""

    def listened(self, seconds: float) -> None:
        """Count audio."""
        self.seconds += seconds
        self._show()

    def finished(self) -> None:
        """Count a recording."""
        self.num_done += 1
        self._show()

    def _show(self) -> None:
        if self.bar is not None:
            hours = f"{self.seconds / 3600:.2f} h of audio"
            text = f"{self.num_done} of {self.num_recordings} recordings, {hours}"
            self.bar.update(self.bar.task_ids[0], description=text, completed=self.num_done)


def transcribe(config: TranscribeConfig) -> None:
    """Transcribe recordings; write files, or print texts in the order of the recordings.

    Raises:
        ValueError: no such model, nothing to transcribe, output that may not be replaced, or
            recordings that failed (after all others are done).
    """
    recordings = find_recordings(config.files)
    if config.output is None and not set(config.formats) <= {"txt", "json"} and len(recordings) > 1:
        raise ValueError(
            f"format {config.format} of several recordings needs a folder: give --output"
        )
    waiting, writer = recordings, None
    if config.output is not None:
        writer = writer_of(config)
        waiting = prepare_output(config, recordings, writer)
        if len(waiting) < len(recordings):
            done = len(recordings) - len(waiting)
            logger.info("%d of %d recordings are done already", done, len(recordings))
    if not waiting:
        return
    recognizer = load_recognizer(
        config.model,
        device=config.device,
        dtype=config.dtype,
        assistant=config.assistant,
        max_new_tokens=config.max_new_tokens,
        seed=config.seed,
    )
    language = recognizer.vocabulary.check_language(config.language)
    if config.mode == "chunked":
        stride_samples(chunk_seconds(recognizer, config.longform), config.longform.stride_seconds)
    if writer is not None:
        claim_output(config, waiting, writer)
    config = dataclasses.replace(config, language=language)
    failed: list[str] = []
    held: dict[int, str] = {}
    seconds, started, printed = 0.0, time.perf_counter(), 0
    num_drafted = num_accepted = 0
    with progress(len(waiting)) as meter:
        jobs = (make_job(recording, recognizer, config, meter) for recording in waiting)
        for number, result in run(jobs, recognizer, config.batch_size):
            recording = waiting[number]
            meter.finished()
            if isinstance(result, Exception):
                failed.append(f"{recording.name}: {_reason(result, recording)}")
            else:
                seconds += result.duration_seconds
                num_drafted += result.num_drafted
                num_accepted += result.num_accepted
                if config.output is not None:
                    write(result, recording, config)
            if config.output is None:
                texts = [_for_screen(result, name, recording) for name in config.formats]
                held[number] = "".join(texts)
            while printed in held:  # in order, as soon as it is known
                sys.stdout.write(held.pop(printed))
                sys.stdout.flush()
                printed += 1
    taken = time.perf_counter() - started
    logger.info("%.1f s of audio in %.1f s (RTFx %.1f)", seconds, taken, seconds / taken)
    if config.assistant is not None:
        logger.info("%d of %d drafted tokens were kept", num_accepted, num_drafted)
    if failed:
        names = "\n  ".join(failed)
        raise ValueError(f"{len(failed)} of {len(waiting)} recordings failed:\n  {names}")


def make_job(
    recording: Recording, recognizer: Recognizer, config: TranscribeConfig, meter: Meter
) -> Job:
    """Open a recording when its turn comes, and work on it by the algorithm that suits it."""
    with AudioStream(recording.source) as stream:
        regions = num_samples = None
        if config.vad:
            from distill.vad import speech_regions

            regions = speech_regions(stream)
            num_samples = stream.num_samples
            stream.rewind()
        stream.on_progress = meter.listened
        longer = stream.read(0, WINDOW_SAMPLES + 1).size > WINDOW_SAMPLES
        mode = config.mode
        if mode == "auto":
            mode = "sequential" if longer or regions is not None else "short"
        if mode == "short" and longer:
            logger.warning(
                "%s is longer than 30 s; mode short hears its beginning only", recording.name
            )
        options = Options(
            longform=config.longform,
            language=config.language,
            timestamps=config.needs_timestamps and config.longform.timestamps,
            words=config.words,
            regions=regions,
            num_samples=num_samples,
        )
        vocabulary = recognizer.vocabulary
        if mode == "short":
            transcript = yield from short(stream, vocabulary, options)
        elif mode == "sequential":
            transcript = yield from sequential(stream, vocabulary, options)
        else:
            seconds = chunk_seconds(recognizer, config.longform)
            transcript = yield from chunked(stream, vocabulary, options, seconds, config.batch_size)
        return transcript


def chunk_seconds(recognizer: Recognizer, config: LongformConfig) -> float:
    """Return the length of a chunk, by the model where it is not configured."""
    if config.chunk_seconds is not None:
        return config.chunk_seconds
    return STUDENT_CHUNK_SECONDS if recognizer.is_student else TEACHER_CHUNK_SECONDS


@dataclass(kw_only=True)
class _Active:
    """A job whose windows are being heard."""

    job: Job
    windows: list[Window]
    heard: list[Heard] = field(default_factory=list)
    num_asked: int = 0


def run(
    jobs: Iterable[Job], recognizer: Recognizer, batch_size: int
) -> Iterator[tuple[int, Transcript | Exception]]:
    """Drive jobs side by side in full batches; yield each one's number and result as it ends.

    A job is begun only when the others leave room in a batch, so few recordings are open at a time.
    What a job raises of files and values is its result; the others go on.
    """
    waiting = enumerate(jobs)
    active: dict[int, _Active] = {}
    exhausted = False
    while True:
        while not exhausted and _num_open(active) < batch_size:
            number, job = next(waiting, (None, None))
            if number is None or job is None:
                exhausted = True
                break
            result = _advance(active, number, _Active(job=job, windows=[]), job.__next__)
            if result is not None:
                yield number, result
        if not active:
            if exhausted:
                return
            continue
        batch: list[tuple[int, Window]] = []
        for number, state in active.items():
            room = batch_size - len(batch)
            asked = state.windows[state.num_asked : state.num_asked + room]
            state.num_asked += len(asked)
            batch += [(number, window) for window in asked]
        for (number, _), heard in zip(
            batch, recognizer.hear([window for _, window in batch]), strict=True
        ):
            active[number].heard.append(heard)
        for number, state in list(active.items()):
            if len(state.heard) == len(state.windows):
                heard = state.heard
                result = _advance(active, number, state, lambda s=state, h=heard: s.job.send(h))
                if result is not None:
                    yield number, result


def _num_open(active: dict[int, _Active]) -> int:
    return sum(len(state.windows) - state.num_asked for state in active.values())


def _advance(
    active: dict[int, _Active], number: int, state: _Active, step: Callable[[], list[Window]]
) -> Transcript | Exception | None:
    """Let a job go on to its next windows; return its result where it has ended."""
    try:
        state.windows, state.heard, state.num_asked = step(), [], 0
    except StopIteration as stop:
        active.pop(number, None)
        return stop.value
    except (OSError, ValueError) as error:
        active.pop(number, None)
        return error
    active[number] = state
    return None


@contextlib.contextmanager
def progress(num_recordings: int) -> Iterator[Meter]:
    """Show a bar on a terminal's standard error; elsewhere only count."""
    console = Console(stderr=True)
    meter = Meter(num_recordings=num_recordings)
    if not console.is_terminal:
        yield meter
        return
    with Progress(console=console, transient=True) as meter.bar:
        meter.bar.add_task("loading", total=num_recordings)
        yield meter


def _for_screen(result: Transcript | Exception, kind: str, recording: Recording) -> str:
    """Return what is printed of a recording: one line of text or of JSON, or its subtitles.

    A recording that failed has its line, too, or the lines would not be those of the files.
    """
    failed = isinstance(result, Exception)
    if kind == "txt":
        return "\n" if failed else " ".join(result.text.split()) + "\n"
    if kind == "json":
        found = {"error": _reason(result, recording)} if failed else dataclasses.asdict(result)
        return json.dumps({"file": recording.name} | found, ensure_ascii=False) + "\n"
    return "" if failed else render(result, kind)


def _reason(error: Exception, recording: Recording) -> str:
    """Say what is wrong without naming the recording twice."""
    return str(error).removeprefix(f"{recording.source}: ")

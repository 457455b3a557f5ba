"""How fast teachers label, side by side: this package and its peers, same weights, same audio.

    python -m tests.benchmarks.labelling --teacher embedded --minutes 10 --output out.json

Each system lives in its own process, so its peak memory is its own; they take turns on the same
corpus, and the median of several runs counts. `--teacher shared` takes the teacher and the speech
of `tests/shared_data.py`. Run it on a machine that has nothing else to do.
"""

import argparse
import json
import math
import multiprocessing
import resource
import statistics
import sys
import time
import traceback
import types
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.audio import load_audio
from pipeline.config import DecodingConfig, TeacherConfig
from pipeline.schema import EMBEDDED_FOLDER, SAMPLE_RATE, model_path
from pipeline.scoring import corpus_rate, score
from tests.shared_data import ABSENT, SPEECH, TEACHER

LANGUAGE = "en"
PAUSE_SECONDS = 0.3
WINDOW_SECONDS = 30.0

Label = Callable[[Sequence[np.ndarray]], list[str]]


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What all systems are given."""

    model: str
    timestamps: bool
    threads: int
    batch_size: int
    fallback: bool = True

    @property
    def temperatures(self) -> tuple[float, ...]:
        """Those that a clip is decoded at until its label passes, by the systems that do so."""
        return (0.0, 0.2, 0.4, 0.6, 0.8, 1.0) if self.fallback else (0.0,)


@dataclass(frozen=True, kw_only=True)
class Item:
    """One recording with what is said in it."""

    audio: np.ndarray
    reference: str
    speaker: str


def ours(setting: Setting, engine: Any, dtype: Any, window: Any = "full") -> Label:
    """This package: any length, cut into windows at quiet places, in batches by length.

    With CTranslate2 there is one teacher of one thread for each core, as `run` starts one worker
    for each; torch has its threads in common for the whole process.
    """
    from pipeline.teacher import Teacher, ahead, load_teacher, resolve_revision

    num_workers = setting.threads if engine == "ctranslate2" else 1
    config = TeacherConfig(
        model=setting.model,
        engine=engine,
        dtype=dtype,
        device="cpu",
        window=window,
        num_threads=setting.threads // num_workers,
        batch_size=setting.batch_size,
    )
    decoding = DecodingConfig(timestamps=setting.timestamps, temperatures=setting.temperatures)
    revision = resolve_revision(config)
    teachers = [load_teacher(config, decoding, revision) for _ in range(num_workers)]

    def label(clips: Sequence[np.ndarray]) -> list[str]:
        pieces = [(i, piece) for i, clip in enumerate(clips) for piece in cut(clip)]
        order = sorted(range(len(pieces)), key=lambda k: -len(pieces[k][1]))
        size = min(setting.batch_size, math.ceil(len(order) / num_workers))
        batches = [order[k : k + size] for k in range(0, len(order), size)]

        def work(teacher: Teacher, mine: list[list[int]]) -> dict[int, str]:
            texts: dict[int, str] = {}
            for batch, ready in ahead(mine, lambda b: teacher.prepare([pieces[k][1] for k in b])):
                labels = teacher.label(ready, LANGUAGE)
                texts |= {k: found.text for k, found in zip(batch, labels, strict=True)}
            return texts

        shares = [batches[n::num_workers] for n in range(num_workers)]
        with ThreadPoolExecutor(num_workers) as pool:
            texts = {k: t for part in pool.map(work, teachers, shares) for k, t in part.items()}
        said: list[list[str]] = [[] for _ in clips]
        for k, (i, _) in enumerate(pieces):
            said[i].append(texts[k])
        return [" ".join(parts) for parts in said]

    return label


def faster_whisper(setting: Setting, dtype: str, *, batched: bool) -> Label:
    """faster-whisper, sequential or batched, greedy, from the same converted weights."""
    import faster_whisper as library

    from pipeline.teacher import resolve_revision
    from pipeline.teacher.conversion import converted

    config = TeacherConfig(model=setting.model, engine="ctranslate2")
    folder = converted(config, resolve_revision(config))
    model = library.WhisperModel(
        str(folder), device="cpu", compute_type=dtype, cpu_threads=setting.threads
    )
    settings = json.loads((folder / "whisper.json").read_text())
    if settings["generation"].get("is_multilingual"):
        model.model = Multilingual(model.model)  # it goes by the size of the vocabulary
    pipeline = library.BatchedInferencePipeline(model) if batched else model

    def label(clips: Sequence[np.ndarray]) -> list[str]:
        texts = []
        for clip in clips:
            options: dict[str, Any] = {
                "language": LANGUAGE,
                "beam_size": 1,
                "temperature": list(setting.temperatures),
                "condition_on_previous_text": False,
                "without_timestamps": not setting.timestamps,
                "vad_filter": batched and len(clip) > WINDOW_SECONDS * SAMPLE_RATE,
            }
            if batched:
                options["batch_size"] = setting.batch_size
            segments, _ = pipeline.transcribe(clip, **options)
            texts.append(" ".join(segment.text.strip() for segment in segments))
        return texts

    return label


class Multilingual:
    """A converted model that says it knows several languages."""

    is_multilingual = True

    def __init__(self, model: Any) -> None:
        """Keep the model."""
        self._model = model

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)


def transformers_pipeline(setting: Setting) -> Label:
    """The ASR pipeline of transformers in float32."""
    import torch
    import transformers

    torch.set_num_threads(setting.threads)
    name = model_path(setting.model)
    processor = transformers.WhisperProcessor.from_pretrained(name)
    model: Any = transformers.WhisperForConditionalGeneration.from_pretrained(
        name, dtype=torch.float32
    )
    processor.tokenizer.pad_token = "<|endoftext|>"
    recognise = transformers.pipeline(
        "automatic-speech-recognition",
        model=model,
        tokenizer=processor.tokenizer,
        feature_extractor=processor.feature_extractor,
        batch_size=setting.batch_size,
    )
    task: dict[str, Any] = {"max_new_tokens": 224}
    if model.generation_config.is_multilingual:
        task |= {"language": LANGUAGE, "task": "transcribe"}

    def label(clips: Sequence[np.ndarray]) -> list[str]:
        long = any(len(clip) > WINDOW_SECONDS * SAMPLE_RATE for clip in clips)
        options: dict[str, Any] = {"generate_kwargs": task}
        if long:
            options["chunk_length_s"] = WINDOW_SECONDS
        if setting.timestamps:
            options["return_timestamps"] = True
        inputs = [{"raw": clip.copy(), "sampling_rate": SAMPLE_RATE} for clip in clips]
        return [found["text"].strip() for found in recognise(inputs, **options)]  # pyright: ignore[reportArgumentType]

    return label


def openai_whisper(setting: Setting) -> Label:
    """openai-whisper's own `transcribe` in float32, one recording after the other."""
    numba: Any = types.ModuleType("numba")  # only its word timestamps need the real one
    numba.jit = lambda *_, **__: lambda function: function
    sys.modules.setdefault("numba", numba)
    import torch

    from pipeline.teacher.openai_reference import load_openai

    torch.set_num_threads(setting.threads)
    model = load_openai(model_path(setting.model), "main")

    def label(clips: Sequence[np.ndarray]) -> list[str]:
        return [
            model.transcribe(
                clip,
                language=LANGUAGE,
                condition_on_previous_text=False,
                without_timestamps=not setting.timestamps,
                temperature=setting.temperatures,
                fp16=False,
            )["text"].strip()
            for clip in clips
        ]

    return label


SYSTEMS: dict[str, Callable[[Setting], Label]] = {
    "ours ctranslate2 int8": lambda s: ours(s, "ctranslate2", "int8_float32"),
    "ours ctranslate2 float32": lambda s: ours(s, "ctranslate2", "float32"),
    "ours ctranslate2 int8, short windows": lambda s: ours(
        s, "ctranslate2", "int8_float32", "clip"
    ),
    "ours transformers float32": lambda s: ours(s, "transformers", "float32"),
    "faster-whisper int8 sequential": lambda s: faster_whisper(s, "int8", batched=False),
    "faster-whisper int8 batched": lambda s: faster_whisper(s, "int8", batched=True),
    "faster-whisper float32 sequential": lambda s: faster_whisper(s, "float32", batched=False),
    "faster-whisper float32 batched": lambda s: faster_whisper(s, "float32", batched=True),
    "transformers pipeline float32": transformers_pipeline,
    "openai-whisper float32": openai_whisper,
}
CORPORA = ("short", "short, packed", "short, in smaller packs", "long")
PACKING = ("ours",)
"""Systems that are also given short utterances joined to windows."""


def cut(clip: np.ndarray) -> list[np.ndarray]:
    """Cut a recording into windows, each at the quietest place of its last third."""
    longest = round(WINDOW_SECONDS * SAMPLE_RATE)
    pieces = []
    while len(clip) > longest:
        part = clip[longest * 2 // 3 : longest]
        step = SAMPLE_RATE // 5
        energy = np.add.reduceat(part**2, np.arange(0, len(part), step))
        place = longest * 2 // 3 + int(energy.argmin()) * step + step // 2
        place = min(place, longest)
        pieces.append(clip[:place])
        clip = clip[place:]
    return [*pieces, clip]


def pack(items: Sequence[Item], seconds: float = WINDOW_SECONDS) -> list[Item]:
    """Join utterances of a speaker to windows of so many seconds, with a pause between them."""
    pause = np.zeros(round(PAUSE_SECONDS * SAMPLE_RATE), np.float32)
    packs: list[list[Item]] = []
    room = 0.0
    for item in items:
        needed = (len(item.audio) + len(pause)) / SAMPLE_RATE
        if not packs or packs[-1][0].speaker != item.speaker or needed > room:
            packs.append([])
            room = seconds
        packs[-1].append(item)
        room -= needed
    return [_joined(members, pause) for members in packs]


def long_recordings(items: Sequence[Item], seconds: float = 300.0) -> list[Item]:
    """Join utterances of a speaker to recordings of about so many seconds."""
    pause = np.zeros(round(2 * PAUSE_SECONDS * SAMPLE_RATE), np.float32)
    held: list[list[Item]] = [[]]
    for item in items:
        length = sum(len(i.audio) + len(pause) for i in held[-1]) / SAMPLE_RATE
        if held[-1] and (held[-1][0].speaker != item.speaker or length > seconds):
            held.append([])
        held[-1].append(item)
    return [_joined(members, pause) for members in held]


def _joined(members: Sequence[Item], pause: np.ndarray) -> Item:
    audio = np.concatenate([part for item in members for part in (item.audio, pause)][:-1])
    reference = " ".join(item.reference for item in members)
    return Item(audio=audio, reference=reference, speaker=members[0].speaker)


def utterances(manifest: Path, minutes: float, max_seconds: float) -> list[Item]:
    """Read the utterances of a manifest that are not too long, up to so many minutes.

    Of a reader's takes of a sentence only the first: one after the other, in a pack, they are no
    speech that anybody would label, and a decoder says a repeated sentence once.
    """
    items: list[Item] = []
    said: set[str] = set()
    total = 0.0
    with manifest.open(encoding="utf-8") as lines:
        for line in lines:
            fields = json.loads(line)
            text = fields["text"].strip()
            if not text or text in said or fields.get("duration", 0) > max_seconds:
                continue
            path = manifest.parent / fields["audio_filepath"]
            if not path.is_file():
                continue
            audio = load_audio(path, fields.get("offset", 0.0), fields.get("duration"))
            items.append(Item(audio=audio, reference=text, speaker=fields.get("speaker", "")))
            said.add(text)
            total += len(audio) / SAMPLE_RATE
            if total >= minutes * 60:
                break
    return items


def serve(name: str, setting: Setting, connection: Connection) -> None:
    """Run one system in its own process: corpora come in, texts and seconds go out."""
    try:
        label = SYSTEMS[name](setting)
        connection.send("ready")
    except Exception:  # a peer that is not installed is left out, with its reason
        connection.send(traceback.format_exc(limit=1))
        return
    while (clips := connection.recv()) is not None:
        started = time.perf_counter()
        try:
            texts: Any = label(clips)
        except Exception:
            texts = traceback.format_exc(limit=3)
        peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        connection.send((texts, time.perf_counter() - started, peak_mib))


def measure(
    corpora: dict[str, list[Item]], names: Sequence[str], setting: Setting, repeats: int
) -> list[dict[str, Any]]:
    """Let the systems take turns on each corpus and return a row for each system and corpus."""
    context = multiprocessing.get_context("spawn")
    workers: dict[str, tuple[Any, Connection]] = {}
    for name in names:
        here, there = context.Pipe()
        process = context.Process(target=serve, args=(name, setting, there), daemon=True)
        process.start()
        answer = here.recv()
        if answer == "ready":
            workers[name] = (process, here)
        else:
            print(f"{name} is left out:\n{answer}", file=sys.stderr)
    rows = []
    for corpus, items in corpora.items():
        seconds: dict[str, list[float]] = {name: [] for name in workers}
        last: dict[str, tuple[Any, float]] = {}
        takes_part = [name for name in workers if "pack" not in corpus or name.startswith(PACKING)]
        for repeat in range(repeats + 1):
            for name in takes_part:
                connection = workers[name][1]
                connection.send([i.audio for i in (items if repeat else items[:2])])
                texts, elapsed, peak = connection.recv()
                if repeat:  # the first is a warm-up
                    seconds[name].append(elapsed)
                    last[name] = (texts, peak)
        audio_seconds = sum(len(item.audio) for item in items) / SAMPLE_RATE
        for name in takes_part:
            texts, peak = last[name]
            if isinstance(texts, str):
                print(f"{name} failed on {corpus}:\n{texts}", file=sys.stderr)
                continue
            scores = [score(i.reference, t, LANGUAGE) for i, t in zip(items, texts, strict=True)]
            median = statistics.median(seconds[name])
            rows.append(
                {
                    "corpus": corpus,
                    "system": name,
                    "rtfx": round(audio_seconds / median, 2),
                    "rtfx_runs": [round(audio_seconds / s, 2) for s in seconds[name]],
                    "wer": round(corpus_rate(scores), 4),
                    "peak_mib": round(peak),
                    "recordings": len(items),
                    "audio_seconds": round(audio_seconds, 1),
                }
            )
    for process, connection in workers.values():
        connection.send(None)
        process.join()
    return rows


def main() -> None:
    """Measure, write JSON and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--teacher", choices=["embedded", "shared"], default="embedded")
    parser.add_argument("--minutes", type=float, default=10.0, help="audio of each corpus")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument(
        "--no-fallback",
        action="store_true",
        help="decode once: two of the peers never decode a poor label again, so with a teacher "
        "that often fails its own checks only this compares like with like",
    )
    parser.add_argument("--systems", nargs="*", default=list(SYSTEMS), help="beginnings of names")
    parser.add_argument("--corpora", nargs="*", default=CORPORA)
    parser.add_argument(
        "--pack-seconds", type=float, default=10.0, help="the smaller packs: what a teacher knows"
    )
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    if options.teacher == "embedded":
        model, manifest = "embedded", EMBEDDED_FOLDER / "test.jsonl"
    else:
        model, manifest = str(TEACHER), SPEECH / "en_kathleen" / "manifest.jsonl"
        if not manifest.is_file():
            parser.error(f"--teacher shared {ABSENT}")
    setting = Setting(
        model=model,
        timestamps=options.teacher == "embedded",
        threads=options.threads,
        batch_size=options.batch_size,
        fallback=not options.no_fallback,
    )
    short = utterances(manifest, options.minutes, max_seconds=8.0)
    made = (short, pack(short), pack(short, options.pack_seconds), long_recordings(short))
    corpora = {
        name: items for name, items in zip(CORPORA, made, strict=True) if name in options.corpora
    }
    names = [name for name in SYSTEMS if name.startswith(tuple(options.systems))]
    rows = measure(corpora, names, setting, options.repeats)
    if options.output:
        options.output.write_text(json.dumps(rows, indent=1) + "\n")
    mean = math.fsum(len(i.audio) for i in short) / len(short) / SAMPLE_RATE
    print(f"\n{options.teacher} teacher, {len(short)} utterances of {mean:.1f} s on average\n")
    print(f"{'corpus':22} {'system':38} {'RTFx':>7} {'WER':>7} {'MiB':>6}")
    for row in rows:
        print(
            f"{row['corpus']:22} {row['system']:38} {row['rtfx']:7.1f} {row['wer']:7.4f} "
            f"{row['peak_mib']:6d}"
        )


if __name__ == "__main__":
    main()

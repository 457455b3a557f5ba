"""Speech to train the embedded teacher on: many voices, every length, its references as labels.

    python -m pipeline.embedded.teacher_data FOLDER --hours 20 [--coded | --packed_from CODED]

Writes a finished dataset (shards and index) without any teacher: the sentences are known. Half of
the audio is single utterances, half is several of them on one 30 s clip, because packed clips are
what a pipeline for long training makes, and one clip in forty is only noise or a tune. With
`--coded` the sound went through the codec of the embedded corpus, which makes noise harder to hear
through than noise alone, and more of it is noisy. With `--packed_from` single utterances of such a
dataset are put together as the pipeline packs, any with any, up to 30 s, some behind a long
silence. Voices and sentences of the embedded validation and test parts are left out.
"""

import argparse
import dataclasses
import itertools
import json
import os
import random
import re
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np

from pipeline import __version__
from pipeline.audio import decode_flac
from pipeline.embedded import text
from pipeline.embedded.corpus import HELD_OUT_VARIANTS, VOICES
from pipeline.embedded.speech import (
    VARIANTS,
    Condition,
    decode_opus,
    degrade,
    encode_opus,
    random_condition,
    random_voice,
    scale,
    silence,
    speak,
)
from pipeline.packing import next_start
from pipeline.schema import (
    EMBEDDED_FOLDER,
    MAX_CLIP_SAMPLES,
    MAX_CLIP_SECONDS,
    SAMPLE_RATE,
    SCHEMA_VERSION,
    ClipUtterance,
    Index,
    Sample,
    Segment,
    ShardEntry,
    Totals,
    to_json,
)
from pipeline.shards import read_shard, write_shard

SHARD_HOURS = 0.5
SNR_DB = (5.0, 10.0, 15.0, 20.0, 25.0)


def known_sentences() -> set[str]:
    """Return the sentences of the embedded corpus, which the teacher must not be trained on."""
    parts = [EMBEDDED_FOLDER / f"{part}.jsonl" for part in VOICES]
    lines = itertools.chain.from_iterable(path.open(encoding="utf-8") for path in parts)
    return {s for line in lines for s in re.split(r"(?<=[.?]) ", json.loads(line)["text"])}


def clips(seed: int, hours: float, coded: bool) -> Iterator[tuple[Sample, np.ndarray]]:
    """Draw clips worth `hours` of audio."""
    rng, noise_rng = random.Random(seed), np.random.default_rng(seed)
    variants = tuple(v for v in VARIANTS if v not in HELD_OUT_VARIANTS)
    held_out = known_sentences()
    seconds = 0.0
    for number in itertools.count():
        if seconds >= hours * 3600:
            return
        condition = random_condition(rng, SNR_DB, noisy_share=0.6 if coded else 0.4)
        limit = rng.uniform(8.0, 29.5) if rng.random() < 0.14 else 0.0
        if rng.random() < 0.025:
            utterances, audio = [], wordless(rng)
            condition = Condition(
                noise=rng.choice(("white", "pink", "hum")), snr_db=rng.uniform(5, 40)
            )
        else:
            utterances, audio = speak_until(limit, rng, variants, held_out)
        audio = np.clip(degrade(audio, condition, noise_rng) * rng.uniform(0.3, 1.2), -1, 1)
        if coded:
            audio = decode_opus(encode_opus(audio))
        seconds += audio.size / SAMPLE_RATE
        yield sample(f"synthetic-{seed}-{number}", utterances, audio), audio


def packs(
    seed: int, hours: float, singles: list[tuple[Sample, bytes]]
) -> Iterator[tuple[Sample, np.ndarray]]:
    """Draw packs worth `hours` of audio from single utterances with their FLAC."""
    rng = random.Random(seed)
    seconds = 0.0
    for number in itertools.count():
        if seconds >= hours * 3600:
            return
        limit = round(rng.choice((rng.uniform(8, 30), 30.0, 30.0)) * SAMPLE_RATE)
        audio = silence(rng.uniform(1, 20) if rng.random() < 0.15 else rng.choice((0.0, 0.0, 0.5)))
        utterances: list[ClipUtterance] = []
        while True:
            single, flac = rng.choice(singles)
            spoken = decode_flac(flac)
            gap = rng.choice((0.0, rng.uniform(0, 0.5), rng.uniform(0, 0.5), rng.uniform(0, 2)))
            begin = next_start(audio.size, round(gap * SAMPLE_RATE))
            if utterances and begin + spoken.size > limit:
                break
            if begin + spoken.size > MAX_CLIP_SAMPLES:
                continue
            audio = np.concatenate([audio, silence((begin - audio.size) / SAMPLE_RATE), spoken])
            said = single.utterances[0]
            start = round(begin / SAMPLE_RATE + said.start, 4)
            utterances.append(dataclasses.replace(said, id=str(len(utterances)), start=start))
        seconds += audio.size / SAMPLE_RATE
        yield sample(f"synthetic-{seed}-{number}", utterances, audio), audio


def read_singles(folder: Path) -> list[tuple[Sample, bytes]]:
    """Read the clips of a dataset that hold one utterance, none of them longer than half a pack."""
    shards = sorted((folder / "shards").glob("*.tar"))
    clips = itertools.chain.from_iterable(map(read_shard, shards))
    return [
        (clip, flac)
        for clip, flac in clips
        if len(clip.utterances) == 1 and clip.duration_seconds <= MAX_CLIP_SECONDS / 2
    ]


def wordless(rng: random.Random) -> np.ndarray:
    """Return silence or a tune of plucked notes, 2 to 28 s."""
    audio = silence(rng.uniform(2.0, 28.0))
    if rng.random() < 0.5:
        return audio
    beat = round(rng.uniform(0.12, 0.6) * SAMPLE_RATE)
    hertz = np.array([rng.uniform(110, 880) for _ in range(audio.size // beat + 1)])
    phase = 2 * np.pi * np.cumsum(hertz.repeat(beat)[: audio.size] / SAMPLE_RATE)
    fading = np.exp(-rng.uniform(0.5, 2.5) * (np.arange(audio.size) % beat) / beat)
    overtones = sum(np.sin(n * phase) / n for n in range(1, rng.randint(2, 6)))
    return scale(fading * overtones, -23.0)


def speak_until(
    limit: float, rng: random.Random, variants: tuple[str, ...], held_out: set[str]
) -> tuple[list[ClipUtterance], np.ndarray]:
    """Speak one utterance, or with a limit as many of one voice as fit into that many seconds."""
    voice = random_voice(rng, variants)
    parts = [silence(rng.choice((0.0, 0.1, 0.5, 1.0)))]
    utterances: list[ClipUtterance] = []
    while True:
        drawn = [text.sentence(rng) for _ in range(rng.choice((1, 1, 2)))]
        if held_out.intersection(drawn):
            continue
        sentence = " ".join(drawn)
        spoken = speak(sentence, voice)
        start = sum(p.size for p in parts) / SAMPLE_RATE
        if utterances and start + spoken.size / SAMPLE_RATE > limit:
            break
        duration = spoken.size / SAMPLE_RATE
        utterances.append(
            ClipUtterance(
                id=str(len(utterances)),
                start=round(start, 4),
                duration=round(duration, 4),
                reference=sentence,
            )
        )
        parts += [spoken, silence(rng.uniform(0.05, 1.0))]
        if not limit:
            break
    return utterances, np.concatenate(parts)[: 30 * SAMPLE_RATE]


def sample(clip_id: str, utterances: list[ClipUtterance], audio: np.ndarray) -> Sample:
    """Describe a clip whose labels are its references."""
    reference = " ".join(u.reference for u in utterances)
    return Sample(
        id=clip_id,
        corpus="synthetic",
        split="train",
        language="en",
        language_probability=1.0,
        speaker="",
        licence="cc0-1.0",
        recording=clip_id,
        start_seconds=0.0,
        duration_seconds=audio.size / SAMPLE_RATE,
        utterances=tuple(utterances),
        reference=reference,
        pseudo_label=reference,
        tokens=(),
        segments=tuple(
            Segment(start=u.start, end=round(u.start + u.duration, 4), text=u.reference)
            for u in utterances
        ),
        previous_pseudo_label="",
        wer=0.0,
        cer=0.0,
        metric="wer",
        substitutions=0,
        deletions=0,
        insertions=0,
        avg_logprob=0.0,
        no_speech_prob=0.0,
        compression_ratio=1.0,
        temperature=0.0,
        truncated=False,
        teacher="reference",
        teacher_revision="",
    )


def make_shards(numbers: range, folder: Path, arguments: argparse.Namespace) -> list[ShardEntry]:
    """Write the shards of these numbers, the same bytes each time."""
    singles = read_singles(arguments.packed_from) if arguments.packed_from else []
    entries = []
    for number in numbers:
        path = folder / "shards" / f"synthetic-train-{number:05d}.tar"
        seed = number + 100_000 * arguments.coded  # other sentences than without the codec
        if singles:
            made = packs(seed + 200_000, SHARD_HOURS, singles)
        else:
            made = clips(seed, SHARD_HOURS, arguments.coded)
        entries.append(write_shard(path, made))
    return entries


def main() -> None:
    """Write the dataset."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--hours", type=float, default=20.0)
    parser.add_argument(
        "--first_shard", type=int, default=0, help="shards are drawn by number: another draw"
    )
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--coded", action="store_true")
    kind.add_argument("--packed_from", type=Path)
    arguments = parser.parse_args()
    (arguments.folder / "shards").mkdir(parents=True, exist_ok=True)
    processes = os.cpu_count() or 1
    first, end = arguments.first_shard, arguments.first_shard + round(arguments.hours / SHARD_HOURS)
    parts = [range(first + n, end, processes) for n in range(processes)]
    with ProcessPoolExecutor(processes) as pool:
        make = partial(make_shards, folder=arguments.folder, arguments=arguments)
        made = itertools.chain.from_iterable(pool.map(make, parts))
        shards = tuple(sorted(made, key=lambda entry: entry.name))
    planned = sum(s.num_samples for s in shards)
    hours = sum(s.duration_seconds for s in shards) / 3600
    totals = Totals(
        planned=planned,
        kept=planned,
        rejected={},
        failed={},
        hours_planned=hours,
        hours_kept=hours,
        teacher_seconds=0.0,
        wall_seconds=0.0,
        rtfx=0.0,
    )
    index = Index(
        schema_version=SCHEMA_VERSION,
        created_with=f"whisper-distillery {__version__}",
        teacher={"model": "reference"},
        decoding={},
        clips={},
        filter={},
        label_key="reference",
        shard_key="reference",
        shards=shards,
        totals=totals,
    )
    (arguments.folder / "index.json").write_text(to_json(index), encoding="utf-8")


if __name__ == "__main__":
    main()

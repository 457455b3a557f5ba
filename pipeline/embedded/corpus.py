"""Make the embedded corpus again from nothing; needs espeak-ng, takes about four minutes.

    python -m pipeline.embedded.corpus [FOLDER]

Twenty-four synthetic speakers read sentences of the embedded grammar into recordings of about a
minute, some through a telephone, some in noise at a stated SNR. Speakers and sentences of the
validation and test parts occur nowhere else. Into the train part defects are planted, and listed in
`planted.jsonl`: what a filter should catch is known exactly.
"""

import json
import random
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.embedded.speech import (
    Condition,
    Voice,
    degrade,
    encode_opus,
    noise,
    random_condition,
    scale,
    silence,
    speak,
)
from pipeline.embedded.text import sentences
from pipeline.schema import EMBEDDED_FOLDER, SAMPLE_RATE

SEED = 20261120
SNR_DB = (10.0, 15.0, 20.0)
RECORDING_SECONDS = 60.0

MINUTES = {"train": 69.5, "validation": 11.6, "test": 17.2}
VOICES: dict[str, list[tuple[str, str, int, int]]] = {
    # accent, timbre, pitch, words per minute
    "train": [
        ("en-us", "m1", 45, 150),
        ("en-gb", "f1", 60, 160),
        ("en-us", "m7", 35, 140),
        ("en-gb-x-rp", "f3", 65, 170),
        ("en-gb-scotland", "Annie", 55, 150),
        ("en-us", "Michael", 40, 165),
        ("en-029", "grandpa", 30, 135),
        ("en-gb", "adam", 50, 180),
        ("en-us-nyc", "Andrea", 60, 145),
        ("en-gb-x-gbclan", "klatt", 45, 155),
        ("en-us", "victor", 50, 175),
        ("en-gb-x-gbcwmd", "Lee", 55, 160),
    ],
    "validation": [
        ("en-us", "f5", 60, 155),
        ("en-gb", "Andy", 45, 165),
        ("en-gb-scotland", "belinda", 65, 150),
        ("en-gb-x-rp", "max", 40, 160),
    ],
    "test": [
        ("en-us", "f2", 60, 150),
        ("en-gb", "m3", 40, 165),
        ("en-gb-x-rp", "linda", 65, 155),
        ("en-us", "paul", 40, 145),
        ("en-029", "edward", 45, 160),
        ("en-gb-scotland", "m6", 35, 150),
        ("en-us-nyc", "f4", 70, 175),
        ("en-gb-x-gbclan", "steph", 55, 150),
    ],
}
HELD_OUT_VARIANTS = frozenset(v[1] for part in ("validation", "test") for v in VOICES[part])

DEFECT_SHARES = {"wrong_reference": 0.08, "truncated_audio": 0.02, "no_speech": 0.02}
"""Of the utterances of the train part."""
CORRUPT_UTTERANCES = 4
"""Utterances in the one recording whose file is unreadable."""


@dataclass(kw_only=True)
class Spoken:
    """An utterance on its way into a recording."""

    text: str
    audio: np.ndarray
    defect: str | None = None
    spoken_text: str = ""


def make(folder: Path) -> None:
    """Write manifests, recordings and the list of planted defects."""
    (folder / "audio").mkdir(parents=True, exist_ok=True)
    pool = sentences(4000, SEED, 4, 24)
    random.Random(SEED).shuffle(pool)
    planted: list[dict] = []
    for part in ("test", "validation", "train"):
        lines = make_part(part, pool, planted, folder)
        write_lines(folder / f"{part}.jsonl", lines)
    write_lines(folder / "planted.jsonl", planted)


def make_part(part: str, pool: list[str], planted: list[dict], folder: Path) -> list[dict]:
    """Record one part; takes its sentences out of the pool."""
    rng, noise_rng = random.Random(f"{SEED}-{part}"), np.random.default_rng([SEED, len(part)])
    lines: list[dict] = []
    seconds, number = 0.0, 0
    while seconds < MINUTES[part] * 60:
        accent, variant, pitch, speed = VOICES[part][number % len(VOICES[part])]
        voice = Voice(accent=accent, variant=variant, pitch=pitch, words_per_minute=speed)
        condition = random_condition(rng, SNR_DB)
        utterances = session(voice, pool, rng)
        if part == "train":
            plant(utterances, pool, rng, noise_rng)
        name = f"{part}-{number:03d}-{voice.name}"
        seconds += record(name, utterances, voice, condition, (rng, noise_rng), folder, lines)
        planted += defects(lines[-len(utterances) :], utterances)
        number += 1
    if part == "train":
        planted += corrupt_recording(pool, rng, folder, lines)
    return lines


def session(voice: Voice, pool: list[str], rng: random.Random) -> list[Spoken]:
    """Speak utterances of one or two sentences until a recording is full."""
    utterances: list[Spoken] = []
    while sum(u.audio.size for u in utterances) < RECORDING_SECONDS * SAMPLE_RATE:
        text = " ".join(pool.pop() for _ in range(rng.choice((1, 1, 2))))
        utterances.append(Spoken(text=text, spoken_text=text, audio=speak(text, voice)))
    return utterances


def plant(
    utterances: list[Spoken], pool: list[str], rng: random.Random, noise_rng: np.random.Generator
) -> None:
    """Spoil some utterances in place."""
    for utterance in utterances:
        draw = rng.random()
        for defect, share in DEFECT_SHARES.items():
            if draw < share:
                utterance.defect = defect
                break
            draw -= share
        size = utterance.audio.size
        match utterance.defect:
            case "wrong_reference":
                utterance.text = " ".join(pool.pop() for _ in range(utterance.text.count(". ") + 1))
            case "truncated_audio":
                utterance.audio = utterance.audio[: round(size * rng.uniform(0.35, 0.65))]
            case "no_speech" if rng.random() < 0.5:
                utterance.audio = silence(size / SAMPLE_RATE)
            case "no_speech":
                utterance.audio = scale(noise("pink", size, noise_rng), -35.0)


def record(
    name: str,
    utterances: list[Spoken],
    voice: Voice,
    condition: Condition,
    generators: tuple[random.Random, np.random.Generator],
    folder: Path,
    lines: list[dict],
) -> float:
    """Write one recording with pauses between utterances and append its manifest lines."""
    rng, noise_rng = generators
    parts: list[np.ndarray] = []
    for number, utterance in enumerate(utterances):
        parts.append(silence(rng.uniform(0.3, 1.0)))
        offset = sum(p.size for p in parts) / SAMPLE_RATE
        parts.append(utterance.audio)
        lines.append(
            {
                "id": f"{name}-{number:02d}",
                "audio_filepath": f"audio/{name}.opus",
                "offset": round(offset, 4),
                "duration": round(utterance.audio.size / SAMPLE_RATE, 4),
                "text": utterance.text,
                "speaker": voice.name,
                "lang": "en",
                "condition": str(condition),
            }
        )
    audio = degrade(np.concatenate([*parts, silence(0.5)]), condition, noise_rng)
    (folder / "audio" / f"{name}.opus").write_bytes(encode_opus(np.clip(audio, -1.0, 1.0)))
    return audio.size / SAMPLE_RATE


def defects(lines: list[dict], utterances: list[Spoken]) -> list[dict]:
    """List what was planted, with the words that were really said."""
    return [
        {"id": line["id"], "defect": u.defect, "spoken": u.spoken_text}
        for line, u in zip(lines, utterances, strict=True)
        if u.defect
    ]


def corrupt_recording(
    pool: list[str], rng: random.Random, folder: Path, lines: list[dict]
) -> list[dict]:
    """Append a recording whose file holds random bytes."""
    name = "train-corrupt"
    (folder / "audio" / f"{name}.opus").write_bytes(rng.randbytes(4096))
    planted = []
    for number in range(CORRUPT_UTTERANCES):
        line = {
            "id": f"{name}-{number:02d}",
            "audio_filepath": f"audio/{name}.opus",
            "offset": number * 5.0,
            "duration": 4.0,
            "text": pool.pop(),
            "speaker": "unknown",
            "lang": "en",
            "condition": "corrupt file",
        }
        lines.append(line)
        planted.append({"id": line["id"], "defect": "corrupt_file", "spoken": ""})
    return planted


def write_lines(path: Path, lines: list[dict]) -> None:
    """Write a JSONL file."""
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    make(Path(sys.argv[1]) if len(sys.argv) > 1 else EMBEDDED_FOLDER)

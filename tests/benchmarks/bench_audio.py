"""Reading audio: real-time factor from 44.1 kHz mp3, and memory of a ten-hour recording.

    python -m tests.benchmarks.bench_audio [--clips 60] [--rounds 5] [--hours 10] [--output FILE]

Speed is in seconds of audio per second of processor time on one core, against a plain loop over
soundfile and soxr on the same files. Both take turns, and a ratio is the median over the rounds:

- `packs`: utterances of 7 s, each in a file of its own, read into packs of up to 30 s. The
  pipeline also plans the packs and hashes every utterance (wanted: 150 x real time, ratio 1).
- `short_files`: the same files one by one, without packing.
- `long_file`: clips from all over one long recording, which the plain loop opens for each.

Memory is the peak of fresh processes that stream, and take clips from, a long and a ten-minute
recording (wanted: within 300 MB of each other).
"""

import argparse
import json
import resource
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import soundfile
import soxr

from pipeline.audio import load_audio, probe, stream_audio
from pipeline.clips import make_clips, read_clip
from pipeline.config import ClipConfig
from pipeline.corpora.utterance import Utterance

SECONDS = 7.0
PACK_SECONDS = 30.0
RATE = 44_100

Place = tuple[Path, float]
"""A recording, and where in it a clip starts."""


def noise(seconds: float, channels: int) -> np.ndarray:
    """Something that is as hard to code as speech at its loudest."""
    generator = np.random.default_rng(0)
    return generator.normal(0, 0.1, (round(seconds * RATE), channels)).astype(np.float32)


def write_long_mp3(path: Path, hours: float, channels: int) -> None:
    """Write one coded minute over and over: to code ten hours takes a quarter of an hour."""
    soundfile.write(path, noise(60, channels), RATE, format="MP3", compression_level=0.5)
    minute, repeats = path.read_bytes(), round(hours * 60)
    mark = minute.find(b"Xing", 0, 200)
    mark = minute.find(b"Info", 0, 200) if mark < 0 else mark
    frames, size = struct.unpack(">II", minute[mark + 8 : mark + 16])
    header = minute[: _frame_bytes(minute[:4])]
    audio = minute[len(header) : size]
    counts = struct.pack(">II", frames * repeats, len(header) + len(audio) * repeats)
    with path.open("wb") as file:
        file.write(header[: mark + 8] + counts + header[mark + 16 :])
        for _ in range(repeats):
            file.write(audio)


def _frame_bytes(head: bytes) -> int:
    """Return the size of a frame of MPEG 1, layer 3 at 44.1 kHz, its header's four bytes given."""
    kilobits = (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)[head[2] >> 4]
    return 144_000 * kilobits // RATE + (head[2] >> 1 & 1)


def write_long_flac(path: Path, hours: float) -> None:
    """Write a long recording a minute at a time; soft, so that the disk holds it."""
    minute = noise(60, 1) * 0.01
    with soundfile.SoundFile(path, "w", RATE, 1, compression_level=0) as file:
        for _ in range(round(hours * 60)):
            file.write(minute)


def plain(place: Place) -> np.ndarray:
    """Read a clip as a short script would."""
    path, start = place
    with soundfile.SoundFile(path) as file:
        file.seek(round(start * file.samplerate))
        samples = file.read(round(SECONDS * file.samplerate), dtype="float32", always_2d=True)
        return soxr.resample(samples.mean(axis=1), file.samplerate, 16_000)


def plain_loop(places: Sequence[Place]) -> float:
    """Read clips; return their seconds."""
    return sum(plain(place).size for place in places) / 16_000


def plain_packs(places: Sequence[Place]) -> float:
    """Read clips and join neighbours to packs; return their seconds."""
    packs: list[np.ndarray] = []
    held: list[np.ndarray] = []
    for place in places:
        samples = plain(place)
        if sum(map(len, held)) + samples.size > PACK_SECONDS * 16_000:
            packs.append(np.concatenate(held))
            held = []
        held.append(samples)
    packs.append(np.concatenate(held))
    return sum(pack.size for pack in packs) / 16_000


def our_loop(places: Sequence[Place]) -> float:
    """Read clips as the pipeline does; return their seconds."""
    return sum(load_audio(path, start, SECONDS).size for path, start in places) / 16_000


def our_packs(places: Sequence[Place]) -> float:
    """Plan and read packs as a block does; return their seconds of utterances."""
    utterances = [
        Utterance(
            id=str(number),
            corpus="c",
            split="train",
            recording=path.name,
            path=str(path),
            start_seconds=start,
            duration_seconds=SECONDS,
            reference="",
            language="en",
            speaker="s",
            licence="cc0-1.0",
        )
        for number, (path, start) in enumerate(places)
    ]
    config = ClipConfig(pack="before_label", pack_by="speaker")
    seconds = 0.0
    for clip in make_clips(utterances, config, lambda *_: []).clips:
        read, failures = read_clip(clip)
        assert not failures, failures
        assert read
        seconds += sum(read[0].lengths) / 16_000
    return seconds


def compare(
    places: Sequence[Place], theirs: Callable[[Sequence[Place]], float], rounds: int
) -> dict[str, float]:
    """Let both read the same clips in turns."""
    ours = our_packs if theirs is plain_packs else our_loop
    rates: dict[str, list[float]] = {"ours": [], "plain": []}
    for number in range(rounds):
        turns = [("ours", ours), ("plain", theirs)]
        for name, read in turns if number % 2 else reversed(turns):
            started = time.process_time()
            seconds = read(places)
            rates[name].append(seconds / (time.process_time() - started))
    ratios = [a / b for a, b in zip(rates["ours"], rates["plain"], strict=True)]
    return {
        "rtfx": round(statistics.median(rates["ours"]), 1),
        "plain_rtfx": round(statistics.median(rates["plain"]), 1),
        "ratio": round(statistics.median(ratios), 3),
        "lowest_ratio": round(min(ratios), 3),
    }


def speed(folder: Path, num_clips: int, rounds: int) -> dict[str, dict[str, float]]:
    """Compare both on many short files and on one long one."""
    short: list[Place] = []
    sound = noise(SECONDS, 2)
    for number in range(num_clips):
        path = folder / f"{number}.mp3"
        if number:
            path.write_bytes(short[0][0].read_bytes())
        else:
            soundfile.write(path, sound, RATE, format="MP3")
        short.append((path, 0.0))
    write_long_mp3(folder / "hour.mp3", 1.0, 2)
    starts = np.random.default_rng(1).uniform(0, 3600 - SECONDS, num_clips)
    spread = [(folder / "hour.mp3", float(start)) for start in starts]
    return {
        "packs": compare(short, plain_packs, rounds),
        "short_files": compare(short, plain_loop, rounds),
        "long_file": compare(spread, plain_loop, rounds),
    }


def memory(folder: Path, hours: float) -> dict[str, dict[str, float]]:
    """Read a short and a long recording of each kind, each in a fresh process."""
    result: dict[str, dict[str, float]] = {}
    for kind in ("mp3", "flac"):
        peaks: list[float] = []
        for length in (1 / 6, hours):
            path = folder / f"long.{kind}"
            if kind == "mp3":
                write_long_mp3(path, length, 1)
            else:
                write_long_flac(path, length)
            command = [sys.executable, "-m", "tests.benchmarks.bench_audio", "--read", str(path)]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            peaks.append(float(done.stdout))
            path.unlink()
        result[kind] = {
            "ten_minutes_megabytes": round(peaks[0], 1),
            "long_megabytes": round(peaks[1], 1),
            "difference_megabytes": round(peaks[1] - peaks[0], 1),
        }
    return result


def read_all(path: Path) -> None:
    """Stream a recording, take clips from it, and print the peak memory of that."""
    duration = probe(path).duration_seconds
    for start in (0.0, duration / 2, duration - 30):
        load_audio(path, start, 30.0)
    total = sum(block.size for block in stream_audio(path))
    assert abs(total / 16_000 - duration) < 1, (total / 16_000, duration)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def main() -> None:
    """Measure speed and memory, print JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--hours", type=float, default=10.0)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--read", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.read:
        read_all(options.read)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        result = {
            "speed": speed(folder, options.clips, options.rounds),
            "memory": memory(folder, options.hours),
            "hours": options.hours,
        }
    text = json.dumps(result, indent=2)
    print(text)
    if options.output:
        options.output.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

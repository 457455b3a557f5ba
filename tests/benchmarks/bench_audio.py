"""Reading audio: real-time factor from 44.1 kHz mp3, and memory of a ten-hour recording.

    python -m tests.benchmarks.bench_audio [--clips 100] [--hours 10] [--output result.json]

Speed is decode, downmix and resample of clips of 10 s, on one core, against a plain loop over
soundfile and soxr on the same files in the same run (wanted: at least 150 x real time, and a ratio
of at least 1). Then clips from all over one long mp3, against a plain loop that opens it each time.
Memory is the peak of fresh processes that stream, and take clips from, a long and a ten-minute
recording (wanted: within 300 MB of each other).
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile
import soxr

CLIP_SECONDS = 10.0
RATE = 44_100


def noise(seconds: float, channels: int = 2) -> np.ndarray:
    """Something that is as hard to code as speech at its loudest."""
    generator = np.random.default_rng(0)
    return generator.normal(0, 0.1, (round(seconds * RATE), channels)).astype(np.float32)


def write_long(path: Path, hours: float) -> None:
    """Write a long recording a minute at a time."""
    minute = noise(60)
    with soundfile.SoundFile(path, "w", RATE, 2) as file:
        for _ in range(round(hours * 60)):
            file.write(minute)


def plain(path: Path, start: float = 0.0) -> np.ndarray:
    """Read a clip as a short script would."""
    with soundfile.SoundFile(path) as file:
        file.seek(round(start * file.samplerate))
        samples = file.read(round(CLIP_SECONDS * file.samplerate), dtype="float32", always_2d=True)
        return soxr.resample(samples.mean(axis=1), file.samplerate, 16_000)


def ours(path: Path, start: float = 0.0) -> np.ndarray:
    """Read a clip as the pipeline does."""
    from pipeline.audio import load_audio

    return load_audio(path, start, CLIP_SECONDS)


def rtfx(read: Callable[[Path, float], np.ndarray], clips: list[tuple[Path, float]]) -> float:
    """Return seconds of audio per second of processor time."""
    read(*clips[0])
    started = time.process_time()
    for path, start in clips:
        read(path, start)
    return len(clips) * CLIP_SECONDS / (time.process_time() - started)


def speed(folder: Path, num_clips: int, hours: float) -> dict[str, float]:
    """Compare both on many short files and on one long one; each twice, and the better counts."""
    minute, short = noise(CLIP_SECONDS), []
    for i in range(num_clips):
        path = folder / f"{i}.mp3"
        soundfile.write(path, minute, RATE, format="MP3")
        short.append((path, 0.0))
    long = folder / "hour.mp3"
    write_long(long, hours)
    starts = np.random.default_rng(1).uniform(0, 3600 * hours - CLIP_SECONDS, num_clips)
    spread = [(long, float(start)) for start in starts]
    result: dict[str, float] = {}
    for name, clips in (("short_files", short), ("long_file", spread)):
        rates = {"ours": 0.0, "plain": 0.0}
        for _ in range(2):
            for who, read in (("plain", plain), ("ours", ours)):
                rates[who] = max(rates[who], rtfx(read, clips))
        result[f"{name}_rtfx"] = round(rates["ours"], 1)
        result[f"{name}_plain_rtfx"] = round(rates["plain"], 1)
        result[f"{name}_ratio"] = round(rates["ours"] / rates["plain"], 3)
    return result


def peak_megabytes(path: Path) -> float:
    """Stream a recording and take clips from it, in a fresh process; return its peak memory."""
    command = [sys.executable, "-m", "tests.benchmarks.bench_audio", "--read", str(path)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(done.stdout)


def read_all(path: Path) -> None:
    """Stream a recording, take clips from it, and print the peak memory of that."""
    from pipeline.audio import load_audio, probe, stream_audio

    duration = probe(path).duration_seconds
    for start in (0.0, duration / 2, duration - 30):
        load_audio(path, start, 30.0)
    total = sum(block.size for block in stream_audio(path))
    assert abs(total / 16_000 - duration) < 1
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def main() -> None:
    """Measure speed and memory, print JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=int, default=100)
    parser.add_argument("--hours", type=float, default=10.0)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--read", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.read:
        read_all(options.read)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        result = speed(folder, options.clips, min(options.hours, 1.0))
        for kind in ("flac", "mp3"):
            write_long(folder / f"short.{kind}", 1 / 6)
            write_long(folder / f"long.{kind}", options.hours)
            small = peak_megabytes(folder / f"short.{kind}")
            large = peak_megabytes(folder / f"long.{kind}")
            result[f"{kind}_ten_minutes_megabytes"] = round(small, 1)
            result[f"{kind}_long_megabytes"] = round(large, 1)
            result[f"{kind}_difference_megabytes"] = round(large - small, 1)
            (folder / f"long.{kind}").unlink()
    text = json.dumps(result | {"hours": options.hours}, indent=2)
    print(text)
    if options.output:
        options.output.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

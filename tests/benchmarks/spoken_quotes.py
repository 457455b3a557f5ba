"""Nine hours of synthetic speech without transcripts, for students to learn from.

    python -m tests.benchmarks.spoken_quotes --output runs/quotes
    whisper-pipeline run --config runs/quotes/run.yaml

Sentences out of Debian's collection of quotations (fortunes), each read once by one of flite's four
voices, which were made of people's (slt, rms, awb, and kal16), at one of four paces. What actors
say in games (`tests.benchmarks.game_voices`) is many voices and few words; these are few voices and
many words. `apt-get download` fetches the packages, nothing is installed. The labels are the
teacher's, as for speech that nobody wrote down.
"""

import argparse
import os
import random
import re
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import soundfile

from tests.benchmarks.real_speech import corpus, prepare
from tests.benchmarks.unheard_voice import fetch
from tests.shared_data import ABSENT, TEACHER

PACKAGES = ("flite", "libflite1", "fortunes", "fortunes-min")
VOICES = ("kal16", "awb", "rms", "slt")
SPOKEN = re.compile(r"[A-Za-z ,.'?!;:-]+")
"""What a voice reads as it is written: no figures and no signs."""
MIN_WORDS, MAX_WORDS = 4, 30
PACES = (0.85, 0.95, 1.05, 1.15)
MAX_SECONDS = 14.0


def sentences(root: Path) -> list[str]:
    """Return the sentences of the quotations, without who said them, each once."""
    found: dict[str, None] = {}
    for path in sorted((root / "share" / "games" / "fortunes").iterdir()):
        if path.suffix or path.is_symlink():
            continue
        for quote in path.read_text(encoding="utf-8").split("\n%\n"):
            text = " ".join(re.sub(r"\n\s*--.*", "", quote, flags=re.DOTALL).split())
            for sentence in re.split(r"(?<=[.?!]) ", text):
                words = len(sentence.split())
                if SPOKEN.fullmatch(sentence) and MIN_WORDS <= words <= MAX_WORDS:
                    found[sentence] = None
    return list(found)


def speak(root: Path, folder: Path, number: int, sentence: str) -> dict[str, Any]:
    """Have one sentence read; return its line of the manifest."""
    voice, pace = VOICES[number % len(VOICES)], PACES[number // len(VOICES) % len(PACES)]
    path = (folder / f"{number:05d}.wav").resolve()
    libraries = next((root / "lib").glob("*-linux-gnu*"))
    command = [root / "bin" / "flite", "-voice", voice, "--setf", f"duration_stretch={pace}",
               "-t", sentence, "-o", path]  # fmt: skip
    subprocess.run(command, check=True, env=os.environ | {"LD_LIBRARY_PATH": str(libraries)})
    return {"audio_filepath": str(path), "duration": soundfile.info(path).duration,
            "id": f"flite{number:05d}", "speaker": f"{voice}-{pace}", "lang": "en"}  # fmt: skip


def utterances(root: Path, folder: Path, hours: float) -> Iterator[dict[str, Any]]:
    """Have sentences read until there are so many hours, and yield their lines of the manifest."""
    folder.mkdir(exist_ok=True)
    texts = sentences(root)
    random.Random(0).shuffle(texts)
    seconds = 0.0
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        for start in range(0, len(texts), 1000):
            numbered = list(enumerate(texts[start : start + 1000], start))
            for row in pool.map(lambda one: speak(root, folder, *one), numbered):
                if row["duration"] <= MAX_SECONDS and seconds < hours * 3600:
                    seconds += row["duration"]
                    yield row
            if seconds >= hours * 3600:
                return


def main() -> None:
    """Write the manifest and the configuration that makes shards of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("runs/quotes"))
    parser.add_argument("--hours", type=float, default=9.0)
    arguments = parser.parse_args()
    if not TEACHER.is_dir():
        raise SystemExit(ABSENT)
    output = arguments.output
    root = fetch(output / "debian", PACKAGES)
    rows = list(utterances(root, output / "lines", arguments.hours))
    voices = corpus("quotes", output / "manifest.jsonl", "other", "train") | {"references": False}
    prepare(output, rows, voices, filter={"min_avg_logprob": -1.0})


if __name__ == "__main__":
    main()

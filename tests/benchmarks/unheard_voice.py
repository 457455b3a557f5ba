"""A voice that no model of ours has heard: the English prompts of a telephone exchange.

    python -m tests.benchmarks.unheard_voice --output runs/unheard
    whisper-pipeline run --config runs/unheard/run.yaml
    whisper-distill evaluate --models TEACHER STUDENT --data runs/unheard/data --output DIR

Debian keeps 283 read sentences of three words and more with their texts (19 minutes; Asterisk's
prompts by Allison Smith, CC BY-SA 3.0, and five of a LibriVox reader in pocketsphinx's tests).
`apt-get download` fetches them, nothing is installed. The shared teacher has learnt from the
sentences that `tests.benchmarks.real_speech` judges by; how far a student is behind it on speech
that is new to both is seen here. Packs of 20 s, no label dropped.
"""

import argparse
import gzip
import re
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
import soundfile

from pipeline.audio import SAMPLE_RATE
from tests.benchmarks.real_speech import corpus, prepare
from tests.shared_data import ABSENT, TEACHER

PACKAGES = ("asterisk-core-sounds-en", "asterisk-core-sounds-en-g722", "pocketsphinx-testdata")
PROMPTS = "share/asterisk/sounds/en_US_f_Allison"
PROMPT_TEXTS = "share/doc/asterisk-core-sounds-en/core-sounds-en.txt.gz"
LIBRIVOX = "share/pocketsphinx/test/data/librivox"
MAX_SECONDS = 29.0


def fetch(folder: Path, packages: Sequence[str] = PACKAGES) -> Path:
    """Unpack packages of Debian below `folder`; return where their files lie."""
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["apt-get", "download", *packages], cwd=folder, check=True)
    for package in sorted(folder.glob("*.deb")):
        subprocess.run(["dpkg", "-x", package.name, "unpacked"], cwd=folder, check=True)
    return folder / "unpacked" / "usr"


def decode_g722(path: Path) -> np.ndarray:
    """Read a file that has no header, which the pipeline's decoders want."""
    with av.open(str(path), format="g722") as container:
        resampler = av.AudioResampler("s16", "mono", SAMPLE_RATE)
        frames = [f for frame in container.decode(audio=0) for f in resampler.resample(frame)]
        frames += resampler.resample(None)
    return np.concatenate([frame.to_ndarray().ravel() for frame in frames])


def prompts(root: Path, folder: Path) -> Iterator[dict[str, Any]]:
    """Write the prompts as WAV, and yield their lines of a manifest."""
    folder.mkdir(exist_ok=True)
    texts = gzip.decompress((root / PROMPT_TEXTS).read_bytes()).decode()
    for line in texts.splitlines():
        found = re.fullmatch(r"([\w/\-]+): ([^\[\]<>]+)", line)  # brackets: tones, no speech
        source = root / PROMPTS / f"{found[1]}.g722" if found else None
        if found is None or source is None or not source.is_file():
            continue
        samples = decode_g722(source)
        name = found[1].replace("/", "-")
        path = folder / f"{name}.wav"
        soundfile.write(path, samples, SAMPLE_RATE)
        seconds = len(samples) / SAMPLE_RATE
        yield {"audio_filepath": str(path.resolve()), "text": found[2], "duration": seconds,
               "id": f"asterisk-{name}", "speaker": "allison", "lang": "en"}  # fmt: skip


def read_aloud(root: Path) -> Iterator[dict[str, Any]]:
    """Yield the sentences of a novel."""
    for line in (root / LIBRIVOX / "transcription").read_text().splitlines():
        found = re.fullmatch(r"<s> (.*) </s> \((.*)\)", line)
        assert found, line
        path = root / LIBRIVOX / f"{found[2]}.wav"
        yield {"audio_filepath": str(path.resolve()), "text": found[1],
               "duration": soundfile.info(path).duration, "id": found[2], "speaker": "librivox",
               "lang": "en"}  # fmt: skip


def main() -> None:
    """Write the manifest and the configuration that makes shards of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("runs/unheard"))
    output = parser.parse_args().output
    if not TEACHER.is_dir():
        raise SystemExit(ABSENT)
    root = fetch(output / "debian")
    rows = [*prompts(root, output / "wav"), *read_aloud(root)]
    rows = [r for r in rows if r["duration"] <= MAX_SECONDS and len(r["text"].split()) >= 3]
    voice = corpus("prompts", output / "manifest.jsonl", "cc-by-sa-3.0", "test")
    prepare(output, rows, voice, filter={"max_wer": 100.0})


if __name__ == "__main__":
    main()

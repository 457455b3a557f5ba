"""Seven hours of human speech without transcripts, for students to learn from.

    python -m tests.benchmarks.game_voices --output runs/games
    whisper-pipeline run --config runs/games/run.yaml

The spoken lines of three adventure games that Debian has (Flight of the Amazon Queen, Beneath a
Steel Sky, Drascula: freeware, which may be passed on unchanged): actors, 11 kHz or compressed, some
10,800 lines of up to 14 s. `apt-get download` fetches them, nothing is installed. Nobody wrote down
what is said, so the teacher's own confidence decides which labels are kept.
"""

import argparse
import re
import struct
import wave
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
from av.error import FFmpegError

from tests.benchmarks.real_speech import corpus, prepare
from tests.benchmarks.unheard_voice import fetch
from tests.shared_data import ABSENT, TEACHER

PACKAGES = ("flight-of-the-amazon-queen", "beneath-a-steel-sky", "drascula")
QUEEN = "flight-of-the-amazon-queen/queen.1c"
SKY = "beneath-a-steel-sky/sky"
DRASCULA = "drascula/en"
RAW_RATE = 11025
SKY_HEADER_BYTES = 22
FIRST_SKY_SPEECH = 50000
MIN_SECONDS, MAX_SECONDS = 0.4, 14.0


def queen_lines(root: Path) -> Iterator[tuple[str, str, bytes]]:
    """Yield (name, speaker, MP3) of each line; the file begins with a table of its parts."""
    data = (root / QUEEN).read_bytes()
    start = len("QTBLCEM10") + 4
    (number,) = struct.unpack_from(">H", data, start)
    for entry in range(number):
        name, _, place, size = struct.unpack_from(">12sBII", data, start + 2 + 21 * entry)
        name = name.rstrip(b"\0").decode()
        if name.endswith(".SB") and size >= 1500:
            stem = name.removesuffix(".SB")
            yield f"q{stem}", f"queen-{stem[6]}", data[place : place + size]


def sky_lines(root: Path) -> Iterator[tuple[str, str, bytes]]:
    """Yield (name, speaker, 8-bit samples) of each line; the speakers are not told apart."""
    data, table = (root / f"{SKY}.{end}" for end in ("dsk", "dnr"))
    content, entries = data.read_bytes(), table.read_bytes()
    for at in range(4, len(entries), 8):
        (number,) = struct.unpack_from("<H", entries, at)
        place, size = (int.from_bytes(entries[at + n : at + n + 3], "little") for n in (2, 5))
        place = (place & 0x7FFFFF) << 4 if place >> 23 else place
        size &= 0x3FFFFF
        if number >= FIRST_SKY_SPEECH and size > 8000:
            samples = content[place + SKY_HEADER_BYTES : place + size]
            yield f"s{number}", f"sky-{number // 500}", samples


def drascula_lines(root: Path) -> Iterator[tuple[str, str, bytes]]:
    """Yield (name, speaker, 8-bit samples) of each line."""
    for path in sorted((root / DRASCULA).glob("*.ALS")):
        stem = path.stem
        yield f"d{stem}", f"drascula-{stem[0] if stem[0].isalpha() else 0}", path.read_bytes()


def utterances(root: Path, folder: Path) -> Iterator[dict[str, Any]]:
    """Write the lines as files, and yield those of the manifest."""
    folder.mkdir(exist_ok=True)
    for lines in (queen_lines, sky_lines, drascula_lines):
        for name, speaker, content in lines(root):
            assert re.fullmatch(r"\w+", name), name
            path = (folder / f"{name}.{'mp3' if lines is queen_lines else 'wav'}").resolve()
            if lines is queen_lines:
                path.write_bytes(content)
                seconds = decoded_seconds(path)
            else:
                with wave.open(str(path), "wb") as file:
                    file.setparams((1, 1, RAW_RATE, 0, "NONE", ""))
                    file.writeframes(content)
                seconds = len(content) / RAW_RATE
            if MIN_SECONDS < seconds < MAX_SECONDS:
                yield {"audio_filepath": str(path), "duration": seconds, "id": name,
                       "speaker": speaker, "lang": "en"}  # fmt: skip


def decoded_seconds(path: Path) -> float:
    """Return how long a file is, 0 for one that cannot be read."""
    try:
        with av.open(str(path)) as container:
            stream = container.streams.audio[0]
            return sum(frame.samples for frame in container.decode(stream)) / stream.rate
    except FFmpegError:
        return 0.0


def main() -> None:
    """Write the manifest and the configuration that makes shards of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("runs/games"))
    output = parser.parse_args().output
    if not TEACHER.is_dir():
        raise SystemExit(ABSENT)
    root = fetch(output / "debian", PACKAGES) / "share" / "scummvm"
    rows = list(utterances(root, output / "lines"))
    voices = corpus("games", output / "manifest.jsonl", "other", "train") | {"references": False}
    prepare(output, rows, voices, filter={"min_avg_logprob": -1.0})


if __name__ == "__main__":
    main()

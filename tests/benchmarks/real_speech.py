"""A study on human speech: labels by a teacher of Whisper-tiny's size, speakers nobody has heard.

    python -m tests.benchmarks.real_speech --output runs/real-speech
    python -m tests.benchmarks.real_speech --output runs/real-speech-matching --matching
    python -m tests.benchmarks.real_speech --output runs/labels --student DIR --steps 150

It takes the short English sentences and the teacher of `tests/shared_data.py`, puts every fifth
speaker of the many aside for the test, learns from the others and from one reader, and runs the two
commands that anybody would run: `whisper-pipeline run` labels, `whisper-distill study` trains and
compares students of one, two and four decoder layers, with and without the teacher's distribution
(or, with `--matching`, by several maps from layer to layer). With `--student`, one that has learned
from other speech, every 25th reference is another sentence's, all labels are kept, and the study
is about losses, thresholds and shares of the data: a student that starts with nothing hears too
little after so few steps to answer for them. The manifests and the configurations
of both commands stay in the output, and either command may be run again by itself. Utterances of a
speaker are labelled and trained on in packs of 20 s, which this teacher knows; windows shorter than
30 s it does not. It has heard this corpus in its own training, the test speakers too: what is
judged is the distance of students from it, and that includes what it knows by heart.
"""

import argparse
import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import yaml

from tests.shared_data import ABSENT, SPEECH, TEACHER

CORPUS = SPEECH / "en_speechocean_train"
VOICE = SPEECH / "en_kathleen"
MAX_WER = 0.4
"""About what the teacher errs itself: with 10 % hardly a clip would be left."""


def utterances(test: bool, num_speakers: int, from_each: int) -> Iterator[dict[str, Any]]:
    """Yield the first utterances of speakers, those of the test or the others."""
    with (CORPUS / "manifest.jsonl").open(encoding="utf-8") as lines:
        rows = sorted(map(json.loads, lines), key=lambda row: (row["speaker"], row["id"]))
    by_speaker = [list(group) for _, group in itertools.groupby(rows, lambda row: row["speaker"])]
    chosen = [group for n, group in enumerate(by_speaker) if (n % 5 == 0) == test]
    for row in itertools.chain.from_iterable(group[:from_each] for group in chosen[:num_speakers]):
        yield row | {"audio_filepath": str(CORPUS / row["audio_filepath"])}


def with_wrong_references(rows: Iterator[dict[str, Any]], every: int) -> Iterator[dict[str, Any]]:
    """Give every so manieth utterance the words of the one before it."""
    before = ""
    for number, row in enumerate(rows, 1):
        yield row | ({"text": before} if number % every == 0 else {})
        before = row["text"]


def write_manifest(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Write utterances as `whisper-pipeline` reads them."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def corpus(name: str, manifest: Path, licence: str, split: str) -> dict[str, Any]:
    """Configure a corpus of `whisper-pipeline run`."""
    return {
        "name": name,
        "kind": "manifest",
        "path": str(manifest),
        "language": "en",
        "licence": licence,
        "split": split,
    }


def labelling(output: Path, corpora: list[dict[str, Any]], **options: Any) -> dict[str, Any]:
    """Configure `whisper-pipeline run` for this teacher, which knows packs and no timestamps."""
    return {
        "output": str(output / "data"),
        "corpora": corpora,
        "clips": {"pack": "before_label", "pack_seconds": 20.0},
        "teacher": {"model": str(TEACHER)},
        "decoding": {"timestamps": False, "temperatures": [0.0]},
    } | options


def prepare(
    output: Path, rows: list[dict[str, Any]], voices: dict[str, Any], **options: Any
) -> None:
    """Write the manifest of a corpus and the configuration that labels it; say what comes next."""
    write_manifest(Path(voices["path"]), rows)
    config, path = labelling(output, [voices], **options), output / "run.yaml"
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    hours = sum(row["duration"] for row in rows) / 3600
    print(f"{len(rows)} utterances, {hours:.1f} h; next: whisper-pipeline run --config {path}")


def studying(output: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Configure `whisper-distill study`."""
    shards = [str(output / "data")]
    questions: dict[str, Any] = {
        "shares": [],
        "decoder_layers": arguments.depths,
        "labels_only": True,
        "zero_shot": True,
    }
    if arguments.matching:
        questions = {
            "shares": [],
            "decoder_layers": [],
            "labels_only": False,
            "matchings": ["uniform", "dynamic_greedy", "dynamic_dp", "reverse"],
        }
    elif arguments.student:
        questions = {
            "student": arguments.student,
            "decoder_layers": [],
            "zero_shot": True,
            "corrupted": shards,
            "thresholds": [0.05, 0.1, 0.2, 1.0],
            "shares": [0.25, 0.5, 1.0],
        }
    return questions | {
        "output": str(output / "study"),
        "teacher": str(TEACHER),
        "data": {
            "shards": shards,
            "batch_seconds": 120,
            "timestamp_probability": 0.0,
            "filter": {"max_wer": MAX_WER},
        },
        "test": {"shards": shards, "split": "test", "max_clips": None},
        "seeds": list(range(arguments.seeds)),
        "max_steps": arguments.steps,
        "learning_rate": arguments.learning_rate,
        "warmup_steps": arguments.steps // 10,
        "speed_rounds": 3,
        "dtype": arguments.dtype,
        "device": "cpu",
    }


def main() -> None:
    """Write manifests and configurations, run both commands, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("runs/real-speech"))
    parser.add_argument("--speakers", type=int, default=100, help="to learn from, of 100")
    parser.add_argument("--test_speakers", type=int, default=25, help="of 25")
    parser.add_argument("--from_each", type=int, default=20, help="utterances of each, of 20")
    parser.add_argument("--test_from_each", type=int, default=8)
    parser.add_argument("--depths", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="bfloat16")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--learning_rate", type=float, default=1e-3)
    parser.add_argument("--student", help="that has heard other speech: compare labels and data")
    parser.add_argument("--matching", action="store_true", help="compare maps of layers instead")
    arguments = parser.parse_args()
    if not TEACHER.is_dir():
        raise SystemExit(ABSENT)
    output = arguments.output
    output.mkdir(parents=True, exist_ok=True)
    learnt = utterances(False, arguments.speakers, arguments.from_each)
    tested = utterances(True, arguments.test_speakers, arguments.test_from_each)
    if arguments.student:
        learnt = with_wrong_references(learnt, 25)
    write_manifest(output / "train.jsonl", learnt)
    write_manifest(output / "test.jsonl", tested)
    corpora = [
        corpus("speechocean", output / "train.jsonl", "cc-by-4.0", "train"),
        corpus("speechocean", output / "test.jsonl", "cc-by-4.0", "test"),
        corpus("kathleen", VOICE / "manifest.jsonl", "cc0-1.0", "train"),
    ]
    kept = 100.0 if arguments.student else MAX_WER
    labelled = labelling(output, corpora, filter={"max_wer": kept}) | {
        "teacher": {"model": str(TEACHER), "num_threads": arguments.threads}
    }
    seconds = {}
    for command, config in (
        (["pipeline", "run"], labelled),
        (["distill", "study"], studying(output, arguments)),
    ):
        path = output / f"{command[1]}.yaml"
        path.write_text(yaml.safe_dump(config, sort_keys=False))
        started = time.perf_counter()
        subprocess.run([sys.executable, "-m", *command, "--config", str(path)], check=True)
        seconds[" ".join(command)] = round(time.perf_counter() - started)
    print((output / "study" / "study.md").read_text())
    print(json.dumps({"seconds": seconds}))


if __name__ == "__main__":
    main()

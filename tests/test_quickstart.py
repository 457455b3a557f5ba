"""The main job on a small part of the embedded corpus: corpus to shards to student to results."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.schema import EMBEDDED_FOLDER, ClipUtterance, read_index
from pipeline.shards import read_shard

ROOT = Path(__file__).parent.parent
NUM_UTTERANCES = 24


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Cut manifests of a few utterances out of the embedded corpus, defects included."""
    folder = tmp_path_factory.mktemp("corpus")
    planted = {
        json.loads(line)["id"]: json.loads(line)["defect"]
        for line in (EMBEDDED_FOLDER / "planted.jsonl").read_text().splitlines()
    }
    (folder / "audio").symlink_to(EMBEDDED_FOLDER / "audio")
    for split in ("train", "test"):
        lines = (EMBEDDED_FOLDER / f"{split}.jsonl").read_text().splitlines()
        kinds = {line: planted.get(json.loads(line)["id"]) for line in lines}
        wrong = [line for line in lines if kinds[line] == "wrong_reference"][:4]
        corrupt = [line for line in lines if kinds[line] == "corrupt_file"][:1]
        good = [line for line in lines if kinds[line] is None][:NUM_UTTERANCES]
        (folder / f"{split}.jsonl").write_text("\n".join([*good, *wrong, *corrupt]) + "\n")
    return folder


@pytest.fixture(scope="module")
def output(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run the commands of the quickstart; return the output folder."""
    output = tmp_path_factory.mktemp("run") / "quickstart"
    config = output.parent / "pipeline.yaml"
    config.write_text(
        f"""
output: {output}
corpora:
  - {{name: small, kind: manifest, path: {corpus}/train.jsonl, licence: cc0-1.0, split: train}}
  - {{name: small, kind: manifest, path: {corpus}/test.jsonl, licence: cc0-1.0, split: test}}
teacher: {{model: embedded, window: clip}}
filter: {{max_wer: 0.10}}
blocks: {{minutes: 2}}
max_failed_fraction: 0.05
"""
    )
    command("pipeline", "run", "--config", config)
    command("distill", "init", "--teacher", "embedded", "--output", output / "init")
    command(
        "distill", "train", "--config", ROOT / "configs/distill/quickstart.yaml",
        "--output", output, "--student", output / "init", "--data.shards", f'["{output}"]',
        "--max_steps", 3, "--warmup_steps", 1,
    )  # fmt: skip
    command(
        "distill", "evaluate", "--config", ROOT / "configs/evaluate/quickstart.yaml",
        "--models", "embedded", output / "student", "--data", output,
        "--output", output / "evaluation",
    )  # fmt: skip
    return output


def wrong_references() -> set[str]:
    planted = map(json.loads, (EMBEDDED_FOLDER / "planted.jsonl").read_text().splitlines())
    return {line["id"] for line in planted if line["defect"] == "wrong_reference"}


def kept_utterances(output: Path) -> Iterator[ClipUtterance]:
    for shard in read_index(output).shards:
        for sample, _ in read_shard(output / "shards" / shard.name):
            yield from sample.utterances


def command(package: str, *arguments: object) -> str:
    done = subprocess.run(
        [sys.executable, "-m", package, *map(str, arguments)],
        capture_output=True, text=True, cwd=ROOT, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_the_chain_leaves_what_the_readme_says(output: Path) -> None:
    for name in (
        "index.json",
        "report.json",
        "report.html",
        "config.yaml",
        "plan.json",
        "evaluation/results.json",
        "evaluation/report.html",
    ):
        assert (output / name).is_file(), name
    assert (output / "student" / "model.safetensors").is_file()


def test_every_utterance_is_accounted_for_and_wrong_references_are_rejected(output: Path) -> None:
    totals = read_index(output).totals
    assert totals.planned == 2 * NUM_UTTERANCES + 5
    assert totals.planned == totals.kept + sum(totals.rejected.values()) + sum(
        totals.failed.values()
    )
    assert totals.failed == {"read": 1}
    kept = {u.id for u in kept_utterances(output)}
    assert len(kept) == totals.kept > NUM_UTTERANCES
    assert not kept & wrong_references()


def test_the_student_has_half_the_decoder_and_is_compared_with_its_teacher(output: Path) -> None:
    results = json.loads((output / "evaluation" / "results.json").read_text())
    teacher, student = results["models"]
    assert results["num_clips"] == NUM_UTTERANCES
    assert student["parameters"] < 0.8 * teacher["parameters"]
    rates = student["rates"]
    assert rates["wer_low"] <= rates["wer"] <= rates["wer_high"]

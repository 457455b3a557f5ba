"""The whole story with the commands that a user types, and a Hub on loopback.

A corpus becomes shards, the shards a dataset on the Hub; a copy of that trains a student, and the
student becomes a model on the Hub. A process that knows only `datasets` and `transformers` then
lets the one hear the other.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import snapshot_download

from distill.__main__ import main as distill
from pipeline.__main__ import main as pipeline
from pipeline.teacher.conversion import CACHE_VARIABLE
from tests.hub_server import HubServer, hub_environment, hub_in_process
from tests.pipeline.conftest import SENTENCE, write_teacher, write_tone

DATASET, MODEL = "owner/tones", "owner/student"

STRANGER = """
import io, json
import soundfile
from datasets import Features, Json, Value, load_dataset
from transformers import WhisperForConditionalGeneration, WhisperProcessor

bare = Features({"flac": Value("binary"), "json": Json()})
data = load_dataset("owner/tones", features=bare)
processor = WhisperProcessor.from_pretrained("owner/student")
model = WhisperForConditionalGeneration.from_pretrained("owner/student")
sample = data["train"][0]
audio, rate = soundfile.read(io.BytesIO(sample["flac"]), dtype="float32")
inputs = processor(audio, sampling_rate=rate, return_tensors="pt")
tokens = model.generate(inputs.input_features, language="en", max_new_tokens=20)
print(json.dumps({
    "clips": {split: len(rows) for split, rows in data.items()},
    "label": sample["json"]["pseudo_label"],
    "heard": processor.batch_decode(tokens, skip_special_tokens=True)[0],
}))
"""


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[HubServer]:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "conversions"))
    with hub_in_process(monkeypatch) as server:
        yield server


def write_config(folder: Path, teacher: Path) -> Path:
    """Write a corpus of six tones, two of them a test split, and the configuration of a run."""
    for split, count in (("train", 4), ("test", 2)):
        lines = []
        for number in range(count):
            name = f"{split}{number}.wav"
            write_tone(folder / name, 1 + number / 2, hertz=200 + 50 * number)
            lines.append(json.dumps({"audio_filepath": name, "text": SENTENCE}) + "\n")
        (folder / f"{split}.jsonl").write_text("".join(lines))
    corpora = [
        f"  - {{name: tones, kind: manifest, path: {folder}/{split}.jsonl, licence: cc0-1.0, "
        f"split: {split}}}\n"
        for split in ("train", "test")
    ]
    path = folder / "run.yaml"
    path.write_text(
        f"output: {folder}/dataset\ncorpora:\n{''.join(corpora)}"
        f"teacher: {{model: {teacher}, engine: transformers, device: cpu, canary: false}}\n"
        "decoding: {max_new_tokens: 20}\nblocks: {minutes: 0.05}\n"
    )
    return path


def test_from_a_corpus_to_a_student_that_anybody_can_load(hub: HubServer, tmp_path: Path):
    teacher = write_teacher(tmp_path / "teacher")
    config = write_config(tmp_path, teacher)

    assert pipeline(["run", "--config", str(config)]) == 0
    assert pipeline(["publish", str(tmp_path / "dataset"), DATASET]) == 0

    copy = snapshot_download(DATASET, repo_type="dataset", local_dir=tmp_path / "copy")
    student, run, evaluation = (str(tmp_path / name) for name in ("init", "run", "evaluation"))
    init = ["--teacher", str(teacher), "--decoder_layers", "1", "--output", student]
    assert distill(["init", *init]) == 0
    train = ["--student", student, "--teacher", str(teacher), "--output", run, "--max_steps", "2"]
    data = ["--data.shards", copy, "--data.num_workers", "0", "--data.verify_checksums"]
    assert distill(["train", *train, *data, "--device", "cpu", "--learning_rate", "1e-6"]) == 0
    models = ["--models", str(teacher), f"{run}/student", "--data", copy, "--output", evaluation]
    assert distill(["evaluate", *models, "--max_new_tokens", "20"]) == 0
    publish = [f"{run}/student", MODEL, "--results", evaluation]
    assert distill(["publish", *publish, "--datasets", DATASET, "--licence", "cc0-1.0"]) == 0

    card = hub.repository(MODEL, "model").files["README.md"].decode()
    assert "| tones | 4 |" in card
    assert "model-index" in card

    stranger = subprocess.run(
        [sys.executable, "-c", STRANGER],
        env=hub_environment(hub, tmp_path / "home"),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert stranger.returncode == 0, stranger.stderr
    found = json.loads(stranger.stdout.splitlines()[-1])
    assert found["clips"] == {"train": 4, "test": 2}
    assert found["label"].strip() == SENTENCE
    assert found["heard"].strip() == SENTENCE, "the student still says what its teacher said"

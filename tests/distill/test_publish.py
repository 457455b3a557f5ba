"""A student goes to the Hub with a card that says what was measured, and loads back from it."""

import dataclasses
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import torch
import transformers
import yaml

from distill.__main__ import main
from distill.config import TrainConfig
from distill.data_config import DataConfig
from distill.publish import plan_publication, publish
from distill.publish_config import PublishConfig
from distill.run_card import describe_data
from distill.student import load_model
from pipeline.schema import read_index, to_json
from pipeline.upload import Outcome, PublishError
from tests.hub_server import File, HubServer, hub_in_process

REPO = "owner/student"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    with hub_in_process(monkeypatch) as server:
        yield server


@pytest.fixture
def student(teacher_folder: Path, tmp_path: Path) -> Path:
    """A model as a training leaves it, with things beside it that are nobody's business."""
    folder = shutil.copytree(teacher_folder, tmp_path / "run" / "student")
    (folder / "training_args.bin").write_bytes(b"\x80\x04 a pickle")
    (folder / "notes.md").write_text("private")
    return folder


@pytest.fixture
def run_card(student: Path, dataset: Path) -> dict[str, Any]:
    """`run.json` of a training on the dataset."""
    card = {
        "ended": "finished",
        "steps": 2,
        "tokens": 345,
        "student_parameters": 1000,
        "trained_parameters": 600,
        "data": [
            {
                "folder": str(dataset),
                "label_key": "labels",
                "shard_key": "shards",
                "max_wer": None,
                "corpora": ["tones"],
                "clips": 8,
                "hours": 0.0131,
            }
        ],
        "hardware": {"gpus": [], "processor": "a processor", "processes": 1},
        "versions": {"torch": "2.13.0"},
        "config": {
            "student": "/home/me/init",
            "teacher": "openai/whisper-large-v3",
            "learning_rate": 1e-4,
            "schedule": "linear",
            "loss": {"preset": "paper", "temperature": 2.0},
            "data": {"filter": {"max_wer": 0.1}},
        },
    }
    (student.parent / "run.json").write_text(json.dumps(card))
    return card


@pytest.fixture
def results(student: Path, dataset: Path, teacher_folder: Path, tmp_path: Path) -> Path:
    """A real evaluation of teacher and student."""
    output = tmp_path / "evaluation"
    models = ["--models", str(teacher_folder), str(student), "--max_new_tokens", "8"]
    arguments = ["--data", str(dataset), "--output", str(output), "--max_clips", "3"]
    assert main(["evaluate", *models, *arguments]) == 0
    return output


def config(student: Path, **fields: Any) -> PublishConfig:
    return PublishConfig(**{"student": str(student), "repo_id": REPO, **fields})


def files_on(hub: HubServer) -> dict[str, bytes]:
    return {n: c for n, c in hub.repository(REPO, "model").files.items() if n != ".gitattributes"}


def card_of(student: Path, **fields: Any) -> str:
    files = plan_publication(config(student, **fields)).all_files
    return next(file.read().decode() for file in files if file.path == "README.md")


def front_matter(card: str) -> dict[str, Any]:
    return yaml.safe_load(card.split("---\n")[1])


def test_plain_transformers_loads_what_was_published(student: Path, hub: HubServer, tmp_path: Path):
    publish(config(student))
    cache = tmp_path / "cache"
    model = transformers.WhisperForConditionalGeneration.from_pretrained(REPO, cache_dir=cache)
    processor = transformers.WhisperProcessor.from_pretrained(REPO, cache_dir=cache)
    here = load_model(str(student))
    for name, value in here.state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], value, rtol=0, atol=0)
    sound = torch.zeros(16_000).numpy()
    features = processor(sound, sampling_rate=16_000, return_tensors="pt").input_features
    there: Any = model.generate(features, max_new_tokens=5)
    assert there.tolist() == cast(Any, here.generate(features, max_new_tokens=5)).tolist()
    assert processor.batch_decode(there)


def test_only_what_is_the_model_goes_up_and_only_once(student: Path, hub: HubServer):
    publish(config(student))
    names = set(files_on(hub))
    assert names >= {"model.safetensors", "config.json", "generation_config.json", "README.md"}
    assert not names & {"training_args.bin", "notes.md"}
    again = publish(config(student))
    assert isinstance(again, Outcome)
    assert again.difference.send == ()


def test_other_formats_beside_it_go_into_folders(
    student: Path, run_card: dict[str, Any], hub: HubServer
):
    small = student.parent / "w8"
    assert main(["quantize", f"--model={student}", "--preset=w8", f"--output={small}"]) == 0
    export = student.parent / "export" / "ggml"
    export.mkdir(parents=True)
    report = {"model": str(student), "formats": [
        {"format": "ggml", "passed": True, "agreement": {"identical": 1.0}}
    ]}  # fmt: skip
    (export.parent / "export.json").write_text(json.dumps(report))
    (export / "ggml-model.bin").write_bytes(b"ggml")
    shutil.copytree(student, student.parent / "init")
    publish(config(student))
    found = files_on(hub)
    assert found["ggml/ggml-model.bin"] == b"ggml"
    assert found["w8/quantized.safetensors"] == (small / "quantized.safetensors").read_bytes()
    assert not [name for name in found if name.startswith("init/")], "a model of its own"
    card = found["README.md"].decode()
    assert "| (root) | transformers | float32 |" in card
    assert "| `w8` | packed integers (whisper-distill) | int8, float16 |" in card
    assert "| `ggml` | ggml (whisper.cpp) | float16 |" in card

    shutil.rmtree(export)
    publish(config(student))
    assert not [name for name in files_on(hub) if name.startswith("ggml/")]
    publish(config(student, variants=[]))
    assert not [name for name in files_on(hub) if "/" in name]


def test_what_the_owner_added_by_hand_is_not_deleted_by_the_next_publication(
    student: Path, hub: HubServer
):
    publish(config(student, variants=[]))
    mine = [
        "samples/transcripts.json", "notes/log.txt", "notes/config.json", "onnx/model.onnx",
        "images.bin", "README.txt",
    ]  # fmt: skip
    repository = hub.repository(REPO, "model")
    there = repository.states[repository.head]
    added = {name: File(name.encode(), is_lfs=False) for name in mine}
    stale = {"quantized.safetensors": File(b"of an earlier student", is_lfs=False)}
    repository.commit(there | added | stale, mine)
    small = student.parent / "w8"
    assert main(["quantize", f"--model={student}", "--preset=w8", f"--output={small}"]) == 0
    for variants in ([str(small)], []):
        publish(config(student, variants=variants))
        found = files_on(hub)
        assert found.keys() >= set(mine)
        assert "quantized.safetensors" not in found
        assert ("w8/quantized.safetensors" in found) == bool(variants)


def test_a_quantised_student_is_published_as_what_it_is(
    student: Path, hub: HubServer, tmp_path: Path
):
    small = tmp_path / "alone" / "w8"
    assert main(["quantize", f"--model={student}", "--preset=w8", f"--output={small}"]) == 0
    publish(config(small))
    assert "transformers does not read" in files_on(hub)["README.md"].decode()
    copy = tmp_path / "copy"
    for name, content in files_on(hub).items():
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / name).write_bytes(content)
    assert load_model(str(copy))


def test_the_card_has_the_results_that_were_measured_and_no_others(
    student: Path, results: Path, run_card: dict[str, Any]
):
    measured = json.loads((results / "results.json").read_text())
    rates = measured["models"][1]["rates"]
    card = card_of(student, results=str(results), evaluated_on="tones")
    assert f"{rates['wer']:.2%} | {rates['wer_low']:.2%} to {rates['wer_high']:.2%}" in card
    (entry,) = front_matter(card)["model-index"]
    (result,) = entry["results"]
    assert result["metrics"][0]["type"] == "wer"
    assert result["metrics"][0]["value"] == round(100 * rates["wer"], 2)
    assert result["dataset"] == {"type": "tones", "name": "tones", "split": "test"}
    assert front_matter(card)["base_model"] == "openai/whisper-large-v3"


def test_the_card_says_what_it_was_trained_on_with_which_limit(
    student: Path, run_card: dict[str, Any]
):
    card = card_of(student)
    assert "| tones | 8 | 0.01 | 0.1 | `shards` |" in card
    assert "preset paper, temperature 2" in card
    assert "2, 345 tokens (finished)" in card


@pytest.mark.parametrize(
    ("splits", "labels", "limit"),
    [
        (["train"], "", "0.3"),
        (["dev"], "", "not on record"),
        (["train"], "second", "not on record"),
    ],
)
def test_the_limit_on_the_card_is_the_one_of_the_labels_that_were_learnt(
    student: Path, run_card: dict[str, Any], dataset: Path, tmp_path: Path,
    splits: list[str], labels: str, limit: str,
):  # fmt: skip
    index = read_index(dataset)
    index = dataclasses.replace(index, filter={"max_wer": 0.3, "splits": splits})
    (tmp_path / "index.json").write_text(to_json(index))
    data = DataConfig(shards=[str(tmp_path)])
    run_card["data"] = describe_data(TrainConfig(output="", student="", teacher="", data=data))
    run_card["config"]["data"] = {"filter": None, "split": "train", "labels": labels}
    (student.parent / "run.json").write_text(json.dumps(run_card))
    (tmp_path / "index.json").unlink()  # whatever becomes of the shards
    card = card_of(student)
    assert f"| {limit} | `{index.shard_key}` |" in card
    assert ("| labels | `labels@second` |" in card) == bool(labels)


def test_a_record_of_the_training_that_lacks_something_is_refused_in_words(
    student: Path, run_card: dict[str, Any]
):
    del run_card["trained_parameters"]
    (student.parent / "run.json").write_text(json.dumps(run_card))
    with pytest.raises(ValueError, match=r"damaged or of another release .*trained_parameters"):
        card_of(student)


def test_without_an_evaluation_the_card_claims_nothing(student: Path):
    card = card_of(student)
    data = front_matter(card)
    assert "model-index" not in data
    assert "language" not in data
    assert "license" not in data
    assert "No licence is stated" in card
    assert "No licence is stated" not in card_of(student, licence="mit")
    assert "Nothing was measured" in card
    assert "Its error rate is not known" in card
    assert "no record of the training" in card


def test_no_path_of_this_machine_is_on_the_card(
    student: Path, results: Path, run_card: dict[str, Any]
):
    card = card_of(student, results=str(results))
    assert str(student.parent.parent) not in card
    assert "/home/" not in card
    assert not re.search(r"/tmp/", card)


def refused(hub: HubServer, folder: Path, message: str, **fields: Any) -> None:
    with pytest.raises((PublishError, ValueError, FileNotFoundError), match=message):
        publish(config(folder, **fields))
    assert not hub.uploads
    assert not hub.repositories


@pytest.mark.parametrize(
    "name", ["config.json", "generation_config.json", "model.safetensors", "tokenizer_config.json"]
)
def test_a_student_that_lacks_a_part_is_refused(student: Path, hub: HubServer, name: str):
    (student / name).unlink()
    refused(hub, student, "no student" if name == "model.safetensors" else f"lacks {name}")


def test_weights_that_are_cut_off_are_refused(student: Path, hub: HubServer):
    path = student / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    refused(hub, student, "model.safetensors")


def test_a_model_of_another_kind_is_refused(student: Path, hub: HubServer):
    (student / "config.json").write_text('{"model_type": "bert"}')
    refused(hub, student, "type 'bert'")


def test_a_licence_in_its_spdx_spelling_is_published(student: Path, hub: HubServer):
    publish(config(student, licence="Apache-2.0"))
    assert front_matter(files_on(hub)["README.md"].decode())["license"] == "apache-2.0"


def test_results_of_other_models_are_refused(student: Path, hub: HubServer, tmp_path: Path):
    path = tmp_path / "results.json"
    path.write_text('{"models": [{"model": "openai/whisper-tiny"}]}')
    refused(hub, student, r"knows nothing of .*openai/whisper-tiny", results=str(path))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"repo_id": "nobody"}, "OWNER/NAME"),
        ({"results": "/nowhere"}, "does not exist"),
        ({"run": "/nowhere"}, "does not exist"),
        ({"variants": ["/nowhere"]}, "no model in a format"),
        ({"licence": " "}, "give an SPDX name"),
    ],
)
def test_what_is_named_and_not_there_is_refused(
    student: Path, hub: HubServer, fields: dict[str, Any], message: str
):
    refused(hub, student, message, **fields)


def test_the_command_publishes_and_a_dry_run_does_not(
    student: Path, hub: HubServer, capsys: pytest.CaptureFixture[str]
):
    arguments = ["publish", str(student), REPO]
    assert main([*arguments, "--dry_run"]) == 0
    shown = capsys.readouterr().out
    assert "model.safetensors" in shown
    assert not hub.repositories
    assert main(arguments) == 0
    assert "files sent" in capsys.readouterr().out
    assert shown.endswith(f"\nREADME.md:\n\n{files_on(hub)['README.md'].decode()}\n")
    assert main([*arguments[:-1], "nobody"]) == 2
    assert "OWNER/NAME" in capsys.readouterr().err
    assert main([*arguments[:-1], "somebody/student"]) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("whisper-distill: error: ")
    assert "may not write there" in error

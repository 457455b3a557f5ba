import json
from pathlib import Path
from typing import Any

import pytest

from distill.card_evidence import Evidence, gather
from distill.card_metadata import hub_licence, metadata
from distill.model_files import Variant
from distill.publish_config import PublishConfig
from distill.weight_files import weights_sha256


def config(student: Path, **fields: Any) -> PublishConfig:
    return PublishConfig(**{"student": str(student), "repo_id": "owner/student", **fields})


@pytest.fixture
def student(tmp_path: Path) -> Path:
    folder = tmp_path / "run" / "student"
    folder.mkdir(parents=True)
    return folder


def write(path: Path, value: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))
    return path


def plain(folder: Path, format_: str = "transformers") -> Variant:
    return Variant(folder=folder, format=format_, files=())


NOTHING = Evidence(run=None, results=None, measured=None)
RATES = {"metric": "wer", "wer": 0.12345}


def test_what_lies_beside_the_student_is_its_training_unless_another_is_named(
    student: Path, tmp_path: Path
):
    assert gather(config(student)) == Evidence(run=None, results=None, measured=None)
    write(student.parent / "run.json", {"steps": 1})
    write(tmp_path / "other" / "run.json", {"steps": 2})
    assert gather(config(student)).run == {"steps": 1}
    assert gather(config(student, run=str(tmp_path / "other"))).run == {"steps": 2}


def test_only_the_students_own_result_is_its_measurement(student: Path, tmp_path: Path):
    (student / "model.safetensors").write_bytes(b"weights")
    weights = {"weights_sha256": weights_sha256(str(student)), "rates": RATES}
    models = [{"model": "embedded", "rates": {}}, {"model": "somewhere/else"} | weights]
    write(tmp_path / "evaluation" / "results.json", {"models": models})
    found = gather(config(student, results=str(tmp_path / "evaluation")))
    assert found.measured == models[1]
    write(tmp_path / "evaluation" / "results.json", {"models": models[:1]})
    with pytest.raises(ValueError, match="knows nothing of .*: it judged embedded"):
        gather(config(student, results=str(tmp_path / "evaluation")))


def test_a_student_that_was_trained_further_has_no_result_yet(student: Path, tmp_path: Path):
    (student / "model.safetensors").write_bytes(b"weights")
    models = [{"model": str(student), "weights_sha256": weights_sha256(str(student))}]
    write(tmp_path / "evaluation" / "results.json", {"models": models})
    (student / "model.safetensors").write_bytes(b"WEIGHTS")
    with pytest.raises(ValueError, match="when its weights were others"):
        gather(config(student, results=str(tmp_path / "evaluation")))


@pytest.mark.parametrize("text", ["{", "[]"])
def test_a_damaged_file_is_named(student: Path, text: str):
    (student.parent / "run.json").write_text(text)
    with pytest.raises(ValueError, match="run.json is damaged"):
        gather(config(student))


def test_the_front_matter_has_a_rate_only_where_one_was_measured(student: Path):
    nothing = metadata(
        config(student), plain(student), Evidence(run=None, results=None, measured=None)
    ).to_dict()
    assert "model-index" not in nothing
    assert "metrics" not in nothing
    measured = {"rates": RATES, "by_language": {"en": 0.1}}
    results = {"split": "test", "num_clips": 195}
    found = metadata(
        config(student), plain(student), Evidence(run=None, results=results, measured=measured)
    )
    (entry,) = found.to_dict()["model-index"]
    (result,) = entry["results"]
    assert result["metrics"][0]["value"] == 12.35  # percent, as the Hub has it
    assert found.to_dict()["language"] == ["en"]


@pytest.mark.parametrize(
    ("teacher", "expected"), [("openai/whisper-small", "openai/whisper-small"), ("/my/own", None)]
)
def test_a_teacher_is_the_base_model_only_where_the_hub_has_it(
    student: Path, teacher: str, expected: str | None
):
    evidence = Evidence(run={"config": {"teacher": teacher}}, results=None, measured=None)
    assert (
        metadata(config(student), plain(student), evidence).to_dict().get("base_model") == expected
    )


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("mit", ("mit", None)),
        ("Apache-2.0", ("apache-2.0", None)),
        (" CC-BY-NC-4.0 ", ("cc-by-nc-4.0", None)),
        ("GPL-3.0-only", ("other", "GPL-3.0-only")),
    ],
)
def test_a_licence_is_given_by_the_hubs_identifier_or_as_other_with_its_name(
    student: Path, given: str, expected: tuple[str, str | None]
):
    found = metadata(config(student, licence=given), plain(student), NOTHING).to_dict()
    assert (found["license"], found.get("license_name")) == expected


@pytest.mark.parametrize("given", ["", "  ", "mit\napache-2.0"])
def test_a_licence_that_is_no_name_is_refused(given: str):
    with pytest.raises(ValueError, match="give an SPDX name"):
        hub_licence(given)


def test_the_front_matter_names_metric_and_languages_as_the_hub_does(student: Path):
    measured = {"rates": RATES | {"metric": "cer"}, "by_language": {"jw": 0.1, "th": 0.2, "": 0.3}}
    evidence = Evidence(run=None, results={"split": "test", "num_clips": 1}, measured=measured)
    found = metadata(config(student), plain(student), evidence).to_dict()
    assert found["metrics"] == ["cer"]
    assert found["language"] == ["jv", "th"]


@pytest.mark.parametrize(
    ("format_", "library"),
    [
        ("transformers", "transformers"),
        ("packed integers (whisper-distill)", "whisper-distillery"),
    ],
)
def test_transformers_is_named_only_where_it_can_load_the_weights(
    student: Path, format_: str, library: str
):
    found = metadata(config(student), plain(student, format_), NOTHING).to_dict()
    assert found["library_name"] == library

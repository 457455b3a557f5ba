"""Every file under configs/ is one that its command accepts, and says what it is for."""

import re
from pathlib import Path

import pytest
import yaml
from jsonargparse import auto_cli

from distill.config import TrainConfig
from distill.evaluate_config import EvaluateConfig
from pipeline.config_files import load_config

ROOT = Path(__file__).parents[1]
CONFIGS = ROOT / "configs"


def files(folder: str) -> list[Path]:
    return sorted((CONFIGS / folder).glob("*.yaml"))


def name(path: Path) -> str:
    return path.stem


def parse(command: str, path: Path) -> object:
    """Read a file as `whisper-distill COMMAND --config FILE` does."""
    return auto_cli(
        {"train": TrainConfig, "evaluate": EvaluateConfig},
        as_positional=False,
        args=[command, f"--config={path}"],
    )


@pytest.mark.parametrize("path", files("pipeline"), ids=name)
def test_pipeline_config_is_accepted(path: Path):
    assert load_config(path).corpora


@pytest.mark.parametrize("path", files("distill"), ids=name)
def test_training_config_is_accepted(path: Path):
    assert isinstance(parse("train", path), TrainConfig)


@pytest.mark.parametrize("path", files("evaluate"), ids=name)
def test_evaluation_config_is_accepted(path: Path):
    assert isinstance(parse("evaluate", path), EvaluateConfig)


@pytest.mark.parametrize("path", sorted(CONFIGS.rglob("*.yaml")), ids=name)
def test_config_begins_by_saying_what_it_is_for(path: Path):
    assert path.read_text(encoding="utf-8").startswith("# ")


@pytest.mark.parametrize("text", ["Makefile", "README.md"])
def test_every_config_that_is_named_exists(text: str):
    named = set(re.findall(r"configs/[\w/.-]+\.yaml", (ROOT / text).read_text(encoding="utf-8")))
    assert named
    assert [n for n in sorted(named) if not (ROOT / n).is_file()] == []


def test_the_smallest_config_of_the_readme_is_the_one_in_the_folder():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = [yaml.safe_load(b) for b in re.findall(r"```yaml\n(.*?)```", readme, re.DOTALL)]
    assert yaml.safe_load((CONFIGS / "pipeline/minimal.yaml").read_text()) in blocks


def test_an_unknown_key_is_refused_by_name(tmp_path: Path):
    path = tmp_path / "wrong.yaml"
    path.write_text((CONFIGS / "pipeline/minimal.yaml").read_text() + "max_wre: 0.2\n")
    with pytest.raises(ValueError, match="max_wre"):
        load_config(path)

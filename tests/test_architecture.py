"""The map of the packages is true: who may import whom, and what runs without Beam or torch."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
GROUND = (
    "pipeline.schema",
    "pipeline.scoring",
    "pipeline.audio",
    "pipeline.features",
    "pipeline.upload",
)


def run_python(code: str) -> subprocess.CompletedProcess[str]:
    """Run code in a fresh interpreter, where nothing has been imported yet."""
    return subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )


def modules_of(package: str) -> list[str]:
    """Return every importable module of a package, without its `__main__`."""
    files = sorted((ROOT / package).rglob("*.py"))
    names = [".".join(f.relative_to(ROOT).with_suffix("").parts) for f in files]
    return [n.removesuffix(".__init__") for n in names if not n.endswith("__main__")]


def test_every_import_follows_the_contracts():
    lint_imports = Path(sys.executable).with_name("lint-imports")
    result = subprocess.run(
        [lint_imports, "--no-logo", "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr


def test_distill_works_where_beam_is_not_installed():
    names = modules_of("distill")
    code = f"""
import importlib, sys

class NoBeam:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "apache_beam":
            raise ModuleNotFoundError("No module named 'apache_beam'", name=name)

sys.meta_path.insert(0, NoBeam())
for name in {names!r}:
    importlib.import_module(name)
"""
    result = run_python(code)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("module", GROUND)
def test_the_ground_floor_loads_neither_torch_nor_beam(module: str):
    result = run_python(
        f"import sys, {module}; "
        "print([m for m in ('torch', 'apache_beam', 'transformers') if m in sys.modules])"
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "[]"

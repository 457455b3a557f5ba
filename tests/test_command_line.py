"""Both commands as somebody meets them first: quick, with examples, clear about what is missing."""

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

import pipeline

ROOT = Path(__file__).parents[1]
HEAVY = ("torch", "transformers", "apache_beam", "datasets", "pyarrow", "matplotlib", "webdataset")
HIDING = """
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == {missing!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Missing())
from {package}.__main__ import main
sys.exit(main({arguments!r}))
"""


def run_python(code: str) -> subprocess.CompletedProcess[str]:
    """Run code in a fresh interpreter, where nothing has been imported yet."""
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=os.environ | {"COLUMNS": "100"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("package", "arguments"),
    [("pipeline", ["--help"]), ("pipeline", ["run", "--help"]), ("distill", ["--help"])],
)
def test_help_loads_nothing_heavy(package: str, arguments: list[str]):
    code = (
        f"import sys\nfrom {package}.__main__ import main\n"
        f"try:\n    main({arguments!r})\nexcept SystemExit:\n    pass\n"
        f"print([m for m in {HEAVY!r} if m in sys.modules], file=sys.stderr)"
    )
    result = run_python(code)
    assert result.stderr.strip() == "[]"
    assert "usage:" in result.stdout


@pytest.mark.parametrize("package", ["pipeline", "distill"])
def test_the_command_line_is_there_in_half_a_second(package: str):
    code = (
        f"import {package}.__main__, time\n"
        "print(time.process_time())"  # of this process alone, however busy the machine is
    )
    assert min(float(run_python(code).stdout) for _ in range(3)) <= 0.5


@pytest.mark.parametrize("package", ["pipeline", "distill"])
def test_help_shows_examples_one_in_a_line(package: str):
    printed = run_python(f"from {package}.__main__ import main; main(['--help'])").stdout
    _, _, examples = printed.partition("examples:\n")
    lines = examples.strip().splitlines()
    assert len(lines) >= 6
    assert all(line.strip().startswith(f"whisper-{package} ") for line in lines)


@pytest.mark.parametrize("package", ["pipeline", "distill"])
def test_help_of_each_command_ends_with_examples_of_it(package: str):
    code = (
        "import contextlib\n"
        f"from {package}.__main__ import main\n"
        "{names}"
        "for name in names:\n"
        "    with contextlib.suppress(SystemExit):\n"
        "        main([name, '--help'])\n"
    )
    names = {
        "pipeline": "from pipeline.commands import make_parser\n"
        "names = make_parser()[0]._subcommands_action.choices\n",
        "distill": "from distill.__main__ import COMMANDS as names\n",
    }
    printed = run_python(code.format(names=names[package])).stdout
    helps = printed.split("usage: ")[1:]
    assert len(helps) >= 7
    for text in helps:
        command = text.split()[1]
        assert f"\nexamples:\n  whisper-{package} {command} " in text, command


@pytest.mark.parametrize("package", ["pipeline", "distill"])
def test_the_version_is_that_of_the_package(package: str):
    result = run_python(f"from {package}.__main__ import main; main(['--version'])")
    assert result.stdout.strip() == f"whisper-{package} {pipeline.__version__}"


@pytest.mark.parametrize(
    ("package", "arguments", "message"),
    [
        ("pipeline", ["run"], "run needs output and corpora: give --config FILE, or each as"),
        ("pipeline", ["report"], "report needs output: `whisper-pipeline report --help` explains"),
        ("distill", ["train"], "train needs output and data.shards and student: give --config"),
        ("distill", ["export", "m"], "export needs output: give --config FILE, or"),
    ],
)
def test_what_a_command_lacks_is_said_with_how_to_give_it(
    package: str, arguments: list[str], message: str
):
    result = run_python(f"from {package}.__main__ import main; main({arguments!r})")
    assert result.returncode == 2
    assert result.stderr.strip().splitlines()[-1].startswith(f"error: {message}")


@pytest.mark.skipif(find_spec("shtab") is None, reason="shtab is not installed")
@pytest.mark.parametrize("package", ["pipeline", "distill"])
def test_a_completion_script_knows_commands_and_options(package: str):
    code = f"from {package}.__main__ import main; main(['--print_completion', 'shtab-bash'])"
    script = run_python(code).stdout
    known = {"pipeline": ("run", "--filter.max_wer"), "distill": ("export", "--data.shards")}
    for name in (*known[package], "--version"):
        assert name in script


@pytest.mark.parametrize(
    ("missing", "package", "arguments", "extra"),
    [
        ("torch", "distill", ["init", "--output=o"], "distill"),
        ("transformers", "distill", ["inspect", "o"], "distill"),
        ("apache_beam", "pipeline", ["run", "--config={config}"], "pipeline"),
        ("pyarrow", "pipeline", ["explain", "o", "id"], "pipeline"),
    ],
)
def test_a_missing_extra_is_named_in_one_line(
    tmp_path: Path, missing: str, package: str, arguments: list[str], extra: str
):
    config = tmp_path / "c.yaml"
    config.write_text((ROOT / "configs/pipeline/minimal.yaml").read_text())
    filled = [each.format(config=config) for each in arguments]
    result = run_python(HIDING.format(missing=missing, package=package, arguments=filled))
    assert result.returncode == 1
    (line,) = result.stderr.strip().splitlines()
    assert line == (
        f"whisper-{package}: error: {missing} is not installed: "
        f"pip install 'whisper-distillery[{extra}]'"
    )


@pytest.mark.parametrize(
    ("package", "arguments"), [("pipeline", ["report", "nowhere"]), ("distill", ["inspect", "no"])]
)
def test_both_commands_log_in_one_style(package: str, arguments: list[str]):
    code = (
        f"import logging\nfrom {package}.__main__ import main\nmain({arguments!r})\n"
        f"logging.getLogger('another').info('kept quiet')\n"
        f"logging.getLogger('{package}.any').info('25 of 100')"
    )
    *_, line = run_python(code).stderr.splitlines()
    assert re.fullmatch(r"\d\d:\d\d:\d\d INFO 25 of 100", line)


def test_modules_of_optional_parts_name_their_own_extra():
    for module, extra in {"av": "video", "s3fs": "s3", "silero_vad.utils": "vad"}.items():
        error = ModuleNotFoundError("no", name=module)
        assert f"whisper-distillery[{extra}]'" in pipeline.how_to_install(error, "pipeline")


def test_a_missing_module_of_this_project_is_a_defect_and_not_advice():
    with pytest.raises(ModuleNotFoundError):
        pipeline.how_to_install(ModuleNotFoundError("no", name="distill.losses"), "distill")


@pytest.mark.parametrize(("columns", "width"), [(None, 120), ("", 120), ("90", None)])
def test_tables_in_a_log_are_wider_than_the_80_columns_that_nobody_asked_for(
    monkeypatch: pytest.MonkeyPatch, columns: str | None, width: int | None
):
    monkeypatch.delenv("COLUMNS", raising=False)
    if columns is not None:
        monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: False)
    assert pipeline.table_width() == width
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert pipeline.table_width() is None

"""The documentation, followed from the first to the last page as a new user would.

Commands of blocks marked `<!-- executed -->` run, in order and in one folder; configurations marked
`<!-- file: NAME -->` are written there. Of all other commands, options, links and error messages it
is checked that they exist.
"""

import ast
import contextlib
import importlib.util
import io
import os
import re
import shlex
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path

import pytest

import distill.__main__ as distill_command
import pipeline.__main__ as pipeline_command
from distill.arguments import expand
from pipeline.commands import make_parser
from tests import hub_server

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
ORDER = (
    "label-a-corpus", "choose-a-threshold", "run-at-scale", "train", "evaluate-and-transcribe",
    "quantise", "export", "publish", "shard-contract", "extending", "troubleshooting",
)  # fmt: skip
PAGES = {name: (DOCS / f"{name}.md").read_text(encoding="utf-8") for name in ORDER}
OTHERS = {
    name: (ROOT / name).read_text(encoding="utf-8")
    for name in ("docs/README.md", "CONTRIBUTING.md", "SECURITY.md")
}
BLOCK = re.compile(r"(?:<!-- (.+?) -->\n)?```(\w+)\n(.*?)```", re.DOTALL)
NEEDED = {
    "onnx": "onnx",
    "ct2-": "ctranslate2",
    "parity": "ctranslate2",
    "--clips.long vad": "silero_vad",
}
"""What part of a command needs which library that may be missing."""
OF_OTHER_PROGRAMS = {
    "--build-arg",
    "--print_completion",  # added while parsing; tests/test_command_line.py runs it
    "--rm",
    "--target",
    "--user",
    "--nproc_per_node",
    "--extra-index-url",
    "--num_processes",
    "--use_fsdp",
    "--fsdp_version",
    "--fsdp_auto_wrap_policy",
    "--fsdp_transformer_layer_cls_to_wrap",
}


def blocks(text: str, language: str) -> list[tuple[str, str]]:
    """Return mark and content of each fenced block of a language."""
    return [(mark, content) for mark, of, content in BLOCK.findall(text) if of == language]


def commands(text: str, executed: bool) -> list[str]:
    """Return the commands of the blocks that are executed, or of the others."""
    return [
        line.removeprefix("$ ")
        for mark, content in blocks(text, "console")
        if (mark == "executed") == executed
        for line in content.splitlines()
        if line.startswith("$ ")
    ]


EXECUTED = [(page, line) for page in ORDER for line in commands(PAGES[page], executed=True)]
SHOWN = [
    (page, line)
    for page, text in (PAGES | OTHERS).items()
    for line in commands(text, executed=False)
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new user's folder: manifests, a recording, and the configurations of the pages."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "configs").symlink_to(ROOT / "configs")
    ((_, snippet),) = blocks(OTHERS["docs/README.md"], "python")
    subprocess.run(
        [sys.executable, "-c", snippet],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        check=True,
    )
    for text in PAGES.values():
        for mark, content in blocks(text, "yaml"):
            if mark.startswith("file: "):
                (folder / mark.removeprefix("file: ")).write_text(content)
    return folder


def call(line: str) -> tuple[int, str]:
    """Run a command in this process; return its exit code and what it printed."""
    program, *arguments = shlex.split(line)
    main = {"whisper-pipeline": pipeline_command, "whisper-distill": distill_command}[program].main
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        try:
            code = main(arguments)
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
    return code, printed.getvalue()


@pytest.mark.slow
def test_every_executed_command_of_the_pages_works(folder: Path, monkeypatch):
    monkeypatch.chdir(folder)
    monkeypatch.setattr(hub_server, "OWNER", "anna")
    with hub_server.hub_in_process(monkeypatch) as hub:
        for page, line in EXECUTED:
            libraries = [library for part, library in NEEDED.items() if part in line]
            if any(importlib.util.find_spec(library) is None for library in libraries):
                continue
            code, printed = call(line)
            assert code == 0, f"{page}.md: {line}\n{printed[-3000:]}"
        assert "index.json" in hub.repository("anna/my-corpus").files
        assert (
            "model-index" in hub.repository("anna/my-student", "model").files["README.md"].decode()
        )
    for made in (
        "runs/mine/index.json",
        "runs/mine/report.html",
        "runs/mine-student/student/model.safetensors",
        "runs/mine-student/run.md",
        "runs/evaluation/results.json",
        "runs/evaluation/report.html",
        "subtitles/talk.srt",
        "runs/small/quantized.safetensors",
    ):
        assert (folder / made).is_file(), made


def test_the_pages_run_commands_of_both_packages():
    ran = {tuple(shlex.split(line)[:2]) for _, line in EXECUTED}
    assert {command for program, command in ran if program == "whisper-pipeline"} >= {
        "plan", "run", "report", "explain", "parity", "relabel", "publish",
    }  # fmt: skip
    assert {command for program, command in ran if program == "whisper-distill"} >= {
        "init", "train", "evaluate", "transcribe", "quantize", "inspect", "export", "publish",
    }  # fmt: skip


@pytest.mark.parametrize(("page", "line"), SHOWN, ids=[f"{p}: {s[:60]}" for p, s in SHOWN])
def test_every_other_command_is_one_that_its_program_accepts(
    page: str, line: str, folder: Path, monkeypatch
):
    monkeypatch.chdir(folder)
    program, *arguments = shlex.split(line, comments=True)
    match program:
        case "whisper-pipeline" | "whisper-distill":
            check_arguments(program, arguments)
        case "torchrun" | "accelerate":
            check_arguments("whisper-distill", arguments[arguments.index("distill") + 1 :])
        case "make":
            targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
            assert set(arguments) <= set(targets)
        case "pip":
            for extra in re.findall(r"\[([\w,]+)\]", line):
                assert set(extra.split(",")) <= extras()
        case "python":
            assert importlib.util.find_spec(arguments[1])
        case "docker" if arguments[0] == "build":
            assert (ROOT / arguments[arguments.index("-f") + 1]).is_file()
        case "docker":
            check_arguments(
                "whisper-pipeline", arguments[arguments.index("whisper-pipeline") + 1 :]
            )
        case _:
            assert program in ("source", "git", "pre-commit"), line


PARSERS = {
    "whisper-pipeline": lambda: make_parser()[0],
    "whisper-distill": lambda: distill_command._parser()[0],
}


def check_arguments(program: str, arguments: list[str]) -> None:
    """Parse a command line without doing what it says."""
    if program == "whisper-distill" and arguments[0] in distill_command.COMMANDS:
        kind = distill_command.COMMANDS[arguments[0]][0]
        positional = distill_command.POSITIONAL.get(arguments[0], ())
        arguments = [arguments[0], *expand(arguments[1:], kind, positional)]
    PARSERS[program]().parse_args(arguments)


def extras() -> set[str]:
    """The optional parts of the package."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return set(project["optional-dependencies"])


@cache
def options(program: str) -> dict[str, set[str]]:
    """Every option of every command of a program."""
    parser = PARSERS[program]()
    found = {"": set(parser._option_string_actions)}
    for action in parser._subparsers._group_actions:  # pyright: ignore
        for name, command in action.choices.items():  # pyright: ignore
            found[name] = set(command._option_string_actions)
    return found


def every_option() -> set[str]:
    """All options of both programs."""
    programs = ("whisper-pipeline", "whisper-distill")
    return set().union(*(each for program in programs for each in options(program).values()))


@pytest.mark.parametrize("page", [*PAGES, *OTHERS])
def test_every_option_that_is_named_exists(page: str):
    text = (PAGES | OTHERS)[page]
    named = set(re.findall(r"(?<![\w-])--[a-z][\w.-]*", text)) - OF_OTHER_PROGRAMS
    known = every_option()
    # the parts of what may be null are no options of their own, but are accepted
    assert {o for o in named if o not in known and o.partition(".")[0] not in known} == set()
    parts = {o.removeprefix("--").partition(".")[0] for o in known if "." in o}
    dotted = {
        name
        for name in re.findall(r"`([a-z]+\.[a-z_.]+)`", text)
        if name.partition(".")[0] in parts and not name.endswith((".py", ".md", ".json", ".yaml"))
    }
    assert {name for name in dotted if f"--{name}" not in known} == set()


@pytest.mark.parametrize("page", [*PAGES, *OTHERS])
def test_every_internal_link_leads_somewhere(page: str):
    home = DOCS if page in PAGES else (ROOT / page).parent
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", (PAGES | OTHERS)[page]):
        if not target.startswith(("http", "mailto:")):
            assert (home / target).exists(), f"{page}: {target}"


def test_the_index_lists_every_page():
    listed = set(re.findall(r"\]\(([\w-]+)\.md\)", OTHERS["docs/README.md"]))
    assert listed == set(ORDER) == {path.stem for path in DOCS.glob("*.md")} - {"README"}


def texts_of_the_source() -> list[str]:
    """Every string of both packages, with … for what is filled in."""
    found = []
    for package in ("pipeline", "distill"):
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.JoinedStr):
                    parts = (v.value if isinstance(v, ast.Constant) else "…" for v in node.values)
                    found.append("".join(map(str, parts)))
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    found.append(node.value)
    return found


def test_every_message_in_troubleshooting_is_one_that_the_programs_print():
    messages = re.findall(r"^### `(.+)`$", PAGES["troubleshooting"], re.MULTILINE)
    assert len(messages) >= 25
    source = "\n".join(texts_of_the_source())
    missing = []
    for message in messages:
        words = [re.escape(part.strip()) for part in message.split("…") if part.strip()]
        if not re.search("[^\n]*?".join(words), source):
            missing.append(message)
    assert missing == []


@pytest.mark.parametrize(
    "snippet",
    [content for mark, content in blocks(PAGES["shard-contract"], "python") if "tested" in mark],
)
def test_the_byte_level_example_reads_the_golden_shard(snippet: str):
    result = subprocess.run(
        [sys.executable, "-c", snippet], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "a/golden.wav-000 0.5 the color of the sky"


def test_the_fields_in_the_contract_are_those_of_a_sample():
    from dataclasses import fields

    from pipeline.schema import Sample

    table = PAGES["shard-contract"].partition("## Fields of a sample")[2]
    assert set(re.findall(r"`(\w+)`", table)) >= {field.name for field in fields(Sample)}

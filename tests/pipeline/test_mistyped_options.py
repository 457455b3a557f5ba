"""Whoever mistypes an option is told which one there is."""

from pathlib import Path

import pytest

from distill.__main__ import main as distill
from pipeline.__main__ import main as pipeline


@pytest.mark.parametrize(
    ("command", "arguments", "meant"),
    [
        (distill, ["transcribe", "--model=m", "--formt=srt", "a.wav"], "format"),
        (pipeline, ["explain", "runs/x", "id", "--maxwer=0.2"], "max_wer"),
    ],
)
def test_an_option_that_is_mistyped_is_answered_with_the_nearest(command, arguments, meant, capsys):
    with pytest.raises(SystemExit) as stopped:
        command(arguments)
    assert stopped.value.code == 2
    assert f"; did you mean {meant}?\n" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "subcommand", "text", "meant"),
    [
        (
            distill,
            "evaluate",
            "longform: {chunk_secods: 3}",
            "; did you mean longform.chunk_seconds?",
        ),
        (pipeline, "run", "filtr: {max_wer: 0.1}", "; did you mean filter.max_wer?"),
        (pipeline, "run", "colour: red", "does not accept option 'colour'\n"),
    ],
)
def test_so_is_one_of_a_configuration_unless_nothing_is_near(
    command, subcommand, text, meant, tmp_path: Path, capsys
):
    path = tmp_path / "c.yaml"
    path.write_text(text)
    with pytest.raises(SystemExit) as stopped:
        command([subcommand, f"--config={path}"])
    assert stopped.value.code == 2
    assert meant in capsys.readouterr().err

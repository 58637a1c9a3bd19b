"""The README's examples, run as they stand."""

import contextlib
import io
import re
import shlex
from pathlib import Path

import pytest

from minigpt2.cli import main

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


def test_python_examples_run_one_after_another(capsys):
    names = {}
    for block in blocks("python"):
        exec(compile(block, "README.md", "exec"), names)
    assert capsys.readouterr().out.startswith("ROMEO:")


@pytest.mark.parametrize(
    "session", re.findall(r"^\$ .*\n(?:[^$].*\n|\n)*", "".join(blocks("console")), re.M)
)
def test_console_examples_print_what_they_show(session):
    command, _, expected = session.partition("\n")
    arguments = shlex.split(command)[2:]
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        assert main(arguments) == 0
    assert out.getvalue().strip("\n") == expected.strip("\n")


def test_files_that_the_tour_names_are_there():
    for target in re.findall(r"\]\((?!http)([^)]+)\)", README):
        assert (Path(__file__).parents[1] / target).is_file(), target


def test_lines_fit_into_100_characters():
    assert [line for line in README.splitlines() if len(line) > 100] == []

"""The guide to the command line lists each command with what its help says, and the codes of errors that there are."""

import re
from collections.abc import Iterator
from typing import Any

import typer

from gateway.cli import exit_codes
from gateway.cli.main import app
from tests.house.source import ROOT

GUIDE = (ROOT / "docs" / "command-line.md").read_text()


def commands(group: Any, before: str = "interlock") -> Iterator[tuple[str, str]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, f"{before} {name}")
        else:
            yield f"{before} {name}", (command.help or "").partition("\n\n")[0].replace("\n", " ").strip()


def test_each_command_is_in_the_guide_with_its_help_and_no_other() -> None:
    rows = re.findall(r"^\| `(interlock [^`]+)` \| (.*) \|$", GUIDE, re.MULTILINE)
    assert len(rows) > 90
    assert {name: text.replace("\\|", "|") for name, text in rows} == dict(commands(typer.main.get_command(app)))


def test_each_command_in_the_table_of_the_console_exists() -> None:
    known = {name for name, _ in commands(typer.main.get_command(app))}
    cells = re.findall(r"^\| `/console.* \| ([^|]*) \|$", (ROOT / "docs" / "console.md").read_text(), re.MULTILINE)
    named = [f"interlock {each.removeprefix('interlock ')}" for cell in cells for each in re.findall("`([^`]+)`", cell)]
    assert len(named) > 30 and [name for name in named if name not in known] == []


def test_each_code_of_an_error_of_a_command_is_in_the_guide() -> None:
    kinds = [each for each in vars(exit_codes).values() if isinstance(each, type) and issubclass(each, exit_codes.CommandError)]
    assert len(kinds) > 4 and [kind.code for kind in kinds if f"`{kind.code}`" not in GUIDE] == []

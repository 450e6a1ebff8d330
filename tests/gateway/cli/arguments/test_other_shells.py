"""Completion in a real zsh and a real fish: commands, names of the gateway in use, and nothing that the shell would run."""

import shutil
import subprocess

import pytest

from tests.fakes.gateway_api import GatewayApi
from tests.gateway.cli.arguments.test_completion import LIMIT, Shell, shell

__all__ = ["shell"]  # a fixture

HOSTILE = ("$(touch x)", "`touch x`", "a;touch x", "a b", "-rf", "\x1b[2J")
FISH = """
_INTERLOCK_COMPLETE=source_fish interlock | source
complete -C $argv[1]
"""
ZSH = """
zmodload zsh/zpty
zpty typed zsh -f -i
zpty -w typed 'PS1= ; unsetopt beep; autoload -U compinit; compinit -D -u'
zpty -w typed 'eval "$(_INTERLOCK_COMPLETE=source_zsh interlock)"; print ready:$?'
zpty -r typed shown '*ready:0*'
zpty -w -n typed "$1"$'\t'
zpty -r typed shown "*$2*"
print -r -- "$shown"
zpty -d typed
"""
needs_fish = pytest.mark.skipif(shutil.which("fish") is None, reason="fish is not installed (Debian: apt-get install fish)")
needs_zsh = pytest.mark.skipif(shutil.which("zsh") is None, reason="zsh is not installed (Debian: apt-get install zsh)")


def run(shell: Shell, *command: str) -> str:
    ran = subprocess.run(command, env=shell.environment, cwd=shell.home, capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def complete_in_fish(shell: Shell, line: str) -> list[str]:
    """What fish offers for the last word of a line: each with a tab and what it is."""
    return run(shell, "fish", "--no-config", "-c", FISH, line).splitlines()


def press_tab_in_zsh(shell: Shell, line: str, expected: str) -> str:
    """What a terminal shows after the tab, once it has what is expected."""
    return run(shell, "zsh", "-f", "-c", ZSH, "zsh", line, expected)


@needs_fish
def test_fish_offers_commands_with_what_they_do(shell: Shell) -> None:
    offered = dict(each.split("\t", 1) for each in complete_in_fish(shell, "interlock agent s"))
    assert {"show", "set"} <= offered.keys() and offered["show"].startswith("Show one agent")


@needs_fish
def test_fish_offers_names_of_the_gateway_and_runs_nothing(shell: Shell, api: GatewayApi) -> None:
    items = [{"name": name, "status": "active"} for name in ("sales", *HOSTILE)]
    api.on(f"GET /api/agents{LIMIT}", {"items": items, "next": None})
    assert complete_in_fish(shell, "interlock send ") == ["sales\tactive"] and not (shell.home / "x").exists()


@needs_zsh
def test_zsh_completes_a_command(shell: Shell) -> None:
    assert "interlock approval" in press_tab_in_zsh(shell, "interlock approv", "approval")


@needs_zsh
def test_zsh_completes_a_name_of_the_gateway_and_runs_nothing(shell: Shell, api: GatewayApi) -> None:
    items = [{"name": name, "status": "$(touch x)"} for name in ("sales", *HOSTILE)]
    api.on(f"GET /api/agents{LIMIT}", {"items": items, "next": None})
    assert "interlock send sales" in press_tab_in_zsh(shell, "interlock send ", "sales") and not (shell.home / "x").exists()

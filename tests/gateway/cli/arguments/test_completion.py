"""Completion in a real bash: commands, options, and names of the gateway in use, quickly and without a word where it fails."""

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread

import pytest

from tests.fakes.gateway_api import Answer, GatewayApi
from tests.fakes.ports import nowhere

BASH = shutil.which("bash")
LIMIT = "?limit=100"
ASK = """
eval "$(_INTERLOCK_COMPLETE=source_bash interlock)"
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
_interlock_completion interlock
printf '%s\\n' "${COMPREPLY[@]}"
"""


@dataclass(frozen=True)
class Shell:
    """A bash in which `interlock` is the command of this environment."""

    home: Path
    environment: dict[str, str]

    def run(self, script: str, *words: str) -> str:
        command = [str(BASH), "--norc", "-c", script, "bash", *words]
        ran = subprocess.run(command, env=self.environment, cwd=self.home, capture_output=True, text=True, timeout=120, check=False)
        assert ran.stderr == "", ran.stderr
        return ran.stdout

    def complete(self, *words: str) -> list[str]:
        """What is offered for the last word of a command line."""
        return self.run(ASK, "interlock", *words).split()


@pytest.fixture
def shell(tmp_path: Path, api: GatewayApi) -> Shell:
    script = tmp_path / "bin" / "interlock"
    script.parent.mkdir()
    script.write_text(f'#!/bin/sh\nexec {sys.executable} -m gateway "$@"\n')
    script.chmod(0o755)
    path = f"{script.parent}:{os.environ['PATH']}"
    told = {"PATH": path, "HOME": str(tmp_path), "INTERLOCK_URL": api.url, "INTERLOCK_TOKEN": "secret-token"}
    return Shell(tmp_path, {**os.environ, **told})


@pytest.mark.skipif(BASH is None, reason="there is no bash")
class TestBash:
    def test_commands_and_options_are_completed(self, shell: Shell) -> None:
        assert {"show", "set"} <= set(shell.complete("agent", "s"))
        assert shell.complete("cost", "--estim") == ["--estimate"]

    def test_names_are_those_that_the_gateway_shows_to_the_person(self, shell: Shell, api: GatewayApi) -> None:
        agents = [{"name": name, "status": "active"} for name in ("sales", "support", "billing")]
        api.on(f"GET /api/agents{LIMIT}", {"items": agents, "next": None})
        assert shell.complete("send", "s") == ["sales", "support"]
        assert api.asked[0].headers["authorization"] == "Bearer secret-token"

    @pytest.mark.parametrize(
        ("words", "path", "item"),
        [
            (("server", "show", "c"), "servers", {"name": "crm", "status": "active"}),
            (("tools", "--server", "c"), "servers", {"name": "crm", "status": "active"}),
            (("workflow", "show", "o"), "workflows", {"name": "order", "version": "1.0.0"}),
            (("run", "show", "t_"), "runs", {"id": "t_1", "workflow": "order", "state": "TASK_STATE_WORKING"}),
            (("trace", "t_"), "tasks", {"id": "t_1", "agent": "sales", "state": "TASK_STATE_COMPLETED"}),
        ],
        ids=["server", "option", "workflow", "run", "task"],
    )
    def test_each_kind_of_name_is_completed(
        self, shell: Shell, api: GatewayApi, words: tuple[str, ...], path: str, item: dict[str, str]
    ) -> None:
        api.on(f"GET /api/{path}{LIMIT}", {"items": [item], "next": None})
        assert shell.complete(*words) == [item.get("name") or item["id"]]

    def test_a_name_that_means_something_to_the_shell_is_not_offered(self, shell: Shell, api: GatewayApi) -> None:
        names = ("ok", "$(touch x)", "`touch x`", "a b", "a;b", "a\nb", "-rf", "\x1b[2J")
        api.on(f"GET /api/agents{LIMIT}", {"items": [{"name": name, "status": "active"} for name in names], "next": None})
        assert shell.complete("send", "") == ["ok"] and not (shell.home / "x").exists()

    def test_without_a_gateway_nothing_is_offered_and_nothing_is_said(self, shell: Shell) -> None:
        shell.environment["INTERLOCK_URL"] = nowhere()
        assert shell.complete("send", "s") == []

    def test_show_completion_prints_the_script_of_the_shell_that_asks(self, shell: Shell) -> None:
        assert "_interlock_completion" in shell.run("interlock --show-completion; true")

    def test_install_completion_adds_the_script_to_the_persons_bash(self, shell: Shell) -> None:
        shell.run("interlock --install-completion >/dev/null; true")
        installed = next(path for path in (shell.home / ".bash_completions").iterdir())
        assert "_interlock_completion" in installed.read_text() and str(installed) in (shell.home / ".bashrc").read_text()


@pytest.mark.parametrize("name", ["zsh", "fish"])
def test_other_shells_have_their_script_and_get_names_with_what_they_are(name: str, shell: Shell, api: GatewayApi) -> None:
    api.on(f"GET /api/agents{LIMIT}", {"items": [{"name": "sales", "status": "active"}], "next": None})
    script = shell.run(f"_INTERLOCK_COMPLETE=source_{name} interlock")
    assert "interlock" in script and f"complete_{name}" in script
    asked = f"_INTERLOCK_COMPLETE=complete_{name} _TYPER_COMPLETE_FISH_ACTION=get-args _TYPER_COMPLETE_ARGS='interlock send s' interlock"
    assert "sales" in (answer := shell.run(asked)) and "active" in answer


@pytest.fixture
def dripping() -> Iterator[str]:
    """The address of a server that answers one byte at a time, and never ends."""
    stop = Event()
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
            while not stop.wait(0.2):
                try:
                    connection.sendall(b" ")
                except OSError:
                    return

    thread = Thread(target=serve)
    thread.start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    stop.set()
    listener.close()
    thread.join()


def test_a_gateway_that_never_ends_its_answer_holds_up_nobody(dripping: str, shell: Shell) -> None:
    shell.environment["INTERLOCK_URL"] = dripping
    assert shell.run("_INTERLOCK_COMPLETE=complete_bash COMP_WORDS='interlock send s' COMP_CWORD=2 interlock").split() == []


@pytest.mark.parametrize("answer", ["[]", '{"items": {}}', '{"items": [1]}', '{"items": [{"id": "x"}]}', "no json", "null"])
def test_any_other_answer_offers_nothing(shell: Shell, api: GatewayApi, answer: str) -> None:
    api.answers[f"GET /api/agents{LIMIT}"] = Answer(answer, content_type="application/json")
    assert shell.run("_INTERLOCK_COMPLETE=complete_bash COMP_WORDS='interlock send s' COMP_CWORD=2 interlock").split() == []

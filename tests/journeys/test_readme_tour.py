"""The README's tour: its console blocks, run in their order against a real gateway."""

import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from threading import Timer
from time import monotonic, sleep

import pytest

from tests.fakes.ports import free_port

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"```console\n(.*?)```", re.DOTALL)
EXIT_CODE = re.compile(r"# .*exit code (\d+)$")
TASK = re.compile(r"\bt_\w+")
PLACEHOLDERS = {"TASK_ID": TASK, "DECISION_ID": re.compile(r"\bd_\w+"), "RUN_ID": TASK, "CHECKPOINT": re.compile(r"\bcp_\w+")}
PATIENCE = 300.0  # seconds for the whole tour
README_PORTS = ("7001", "7002", "7003")


def wait_for(port: int) -> None:
    """Returns as soon as somebody listens there."""
    until = monotonic() + 120
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=2).close()
        except OSError:
            assert monotonic() < until, f"nobody listens on {port}"
            sleep(0.05)
        else:
            return


class Shell:
    """One bash that a reader types into. Ids that the text leaves open are the last that were printed."""

    def __init__(self, cwd: Path, environment: dict[str, str]) -> None:
        self.printed = ""
        self._patience = Timer(PATIENCE, self._give_up)
        self._bash = subprocess.Popen(
            ["bash", "--norc"], cwd=cwd, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

        self._patience.start()

    def _give_up(self) -> None:
        self._bash.kill()

    def type(self, line: str) -> tuple[int, str]:
        """Runs one line: its exit code and all that it printed."""
        assert self._bash.stdin is not None
        assert self._bash.stdout is not None
        self._bash.stdin.write(f'{line}\necho "<end> $?"\n')
        self._bash.stdin.flush()
        lines: list[str] = []
        for printed in self._bash.stdout:
            before, end, code = printed.partition("<end> ")
            lines.append(before)
            if end:
                self.printed += "".join(lines)
                return int(code), "".join(lines)
        raise AssertionError(f"the shell ended at: {line}\n{''.join(lines)}")

    def filled_in(self, line: str) -> str:
        for name, pattern in PLACEHOLDERS.items():
            if name in line:
                line = line.replace(name, pattern.findall(self.printed)[-1])
        return line

    def close(self) -> None:
        self._patience.cancel()
        self._bash.communicate("kill $(jobs -p); wait\n", timeout=60)


@pytest.fixture
def ports() -> dict[str, int]:
    return {port: free_port() for port in README_PORTS}


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    """A terminal in a fresh folder, beside a gateway of its own that was started as the README says."""
    for name, command in {"interlock": "-m gateway", "python": ""}.items():
        script = tmp_path / "bin" / name
        script.parent.mkdir(exist_ok=True)
        script.write_text(f'#!/bin/sh\nexec {sys.executable} {command} "$@"\n')
        script.chmod(0o755)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    port = free_port()
    clean = {name: value for name, value in os.environ.items() if not name.startswith("INTERLOCK_")}
    path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
    environment = {**clean, "PATH": path, "PYTHONPATH": str(ROOT), "INTERLOCK_URL": f"http://127.0.0.1:{port}", "COLUMNS": "160"}
    serve = ["interlock", "serve", "--port", str(port), "--config", str(ROOT / "examples/demo/interlock.yaml")]
    with (tmp_path / "gateway.log").open("wb") as log:
        gateway = subprocess.Popen(serve, cwd=tmp_path, env=environment, stdout=log, stderr=subprocess.STDOUT)
    typed_into = Shell(tmp_path, environment)
    try:
        wait_for(port)
        yield typed_into
    finally:
        typed_into.close()
        gateway.terminate()
        gateway.wait(20)


def commands(ports: dict[str, int]) -> Iterator[str]:
    """The lines to type, with free ports in place of those of the text."""
    for block in BLOCK.findall((ROOT / "README.md").read_text()):
        for line in block.splitlines():
            assert line.startswith("$ "), f"a console block holds commands only, not: {line}"
            for given, free in ports.items():
                line = line.replace(given, str(free))
            if line != "$ . .venv/bin/activate":
                yield line[2:]


def test_the_tour_of_the_readme_works_as_written(shell: Shell, ports: dict[str, int]) -> None:
    typed = list(commands(ports))
    assert len(typed) > 15
    for line in typed:
        expected = EXIT_CODE.search(line)
        code, printed = shell.type(shell.filled_in(line))
        assert code == (int(expected[1]) if expected else 0), f"{line}\n{printed}"
        for port in ports.values() if line.endswith("&") else ():
            if str(port) in line:
                wait_for(port)
    assert "R-1001" in shell.printed
    assert "tool:inventory.reserve_stock (user)" in shell.printed
    assert '"reservation": "R-1002"' in shell.printed

"""The guide to the first agent: its files saved and its commands typed, by somebody who has nothing but an empty folder."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.ports import free_port
from tests.journeys.test_readme_tour import EXIT_CODE, ROOT, Shell, wait_for

GUIDE = (ROOT / "docs" / "first-agent.md").read_text()
STEP = re.compile(r"(?:<!-- file (?P<file>\S+) -->\n)?```(?P<kind>\w+)\n(?P<text>.*?)```", re.DOTALL)


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """`interlock` and `python` of this environment, and a port that is free."""
    for name, command in {"interlock": "-m gateway", "python": ""}.items():
        script = tmp_path / "bin" / name
        script.parent.mkdir(exist_ok=True)
        script.write_text(f'#!/bin/sh\nexec {sys.executable} {command} "$@"\n')
        script.chmod(0o755)
    clean = {name: value for name, value in os.environ.items() if not name.startswith("INTERLOCK_")}
    port = str(free_port())
    return {
        **clean,
        "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "COLUMNS": "160",
        "INTERLOCK_PORT": port,
        "INTERLOCK_URL": f"http://127.0.0.1:{port}",
    }


class Reader:
    """Does what the guide says, in its order: saves files, types commands, and leaves the gateway running."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.folder = folder
        self.shell = Shell(folder, environment)
        self.agent_port = str(free_port())
        self._environment = environment
        self._gateway: subprocess.Popen[bytes] | None = None

    def save(self, name: str, text: str) -> None:
        (self.folder / name).write_text(text)

    def serve(self, text: str) -> None:
        assert text.strip() == "interlock serve"
        with (self.folder / "gateway.log").open("wb") as log:
            self._gateway = subprocess.Popen(["interlock", "serve"], cwd=self.folder, env=self._environment, stderr=log)
        wait_for(int(self._environment["INTERLOCK_PORT"]))

    def type(self, line: str) -> None:
        expected = EXIT_CODE.search(line)
        code, printed = self.shell.type(self.shell.filled_in(line.removeprefix("$ ").replace("7010", self.agent_port)))
        assert code == (int(expected[1]) if expected else 0), f"{line}\n{printed}"
        if line.endswith("&"):
            wait_for(int(self.agent_port))

    def close(self) -> None:
        self.shell.close()
        if self._gateway is not None:
            self._gateway.terminate()
            self._gateway.wait(20)


@pytest.fixture
def reader(tmp_path: Path, environment: dict[str, str]) -> Iterator[Reader]:
    folder = tmp_path / "empty"
    folder.mkdir()
    made = Reader(folder, environment)
    yield made
    made.close()


def test_the_guide_to_the_first_agent_works_as_written(
    reader: Reader, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]
) -> None:
    monkeypatch.setenv("PATH", environment["PATH"])
    steps = list(STEP.finditer(GUIDE))
    assert len(steps) >= 8
    for step in steps:
        if step["file"]:
            reader.save(step["file"], step["text"])
        elif step["kind"] == "sh":
            reader.serve(step["text"])
        else:
            assert step["kind"] == "console"
            for line in step["text"].splitlines():
                reader.type(line)
    assert "Hello! You wrote: good morning" in reader.shell.printed
    assert "You wrote: are you there?" not in reader.shell.printed
    assert "bob-is-not-greeted" in reader.shell.printed
    assert '"refused"' in (reader.folder / "gateway.log").read_text()

"""The tours of the guides, typed in their order against a gateway that was started as the guide says."""

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.ports import free_port
from tests.journeys.test_first_agent import environment
from tests.journeys.test_readme_tour import EXIT_CODE, ROOT, Shell, wait_for

__all__ = ["environment"]  # a fixture

BLOCK = re.compile(r"```(sh|console)\n(.*?)```", re.DOTALL)
QUOTE = re.compile(r"<!-- from (\S+) -->\n```\w+\n(.*?)```", re.DOTALL)
TOUR = re.compile(r"^## A tour\n(.*?)^## ", re.DOTALL | re.MULTILINE)
IDS = {"FACT_ID": re.compile(r"\bf_\w+"), "HELD_ID": re.compile(r"\bhv_\w+")}  # beside those of the README's tour
PORTS = ("7001", "7002", "7003", "7004")
UNNEEDED = ("make setup", ". .venv/bin/activate")
SEEN = {  # texts that the tour has to show
    "state": ["breaks the rule `enum`", "platinum", "escalated", "state:write:customer/42/status (user)"],
    "memory": ["memory: write (agent concierge)", "I remember: Prefers deliveries on Mondays", "Lives in Basel", "1 fact", "3 facts are"],
    "costs": ["are left, and the call reserves 0.02", "0.000", "total  0.04", "day,amount,currency", "concierge"],
    "configuration-as-code": [
        "4 to create",
        "nothing to do: 4 objects as declared",
        'ceiling: ["tool:inventory.*"] → ["tool:inventory.check_stock"]',
        "upstream.headers.X-Shop-Key: (secret) → env:SHOP_KEY",
        "Workflow stock-check is deleted",
        "3 unchanged",
    ],
    "conflicts": ["sales-waits-after-support", "sent as M-2", "a complaint", "customer:42 is claimed since", "open-escalation-holds-mail"],
}


def tour_of(guide: str) -> str:
    found = TOUR.search((ROOT / "docs" / f"{guide}.md").read_text())
    assert found is not None
    return found[1]


class Reader:
    """Types a tour into one terminal, and leaves the gateway running in another."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        (folder / "examples").symlink_to(ROOT / "examples")
        self.folder = folder
        self.shell = Shell(folder, environment)
        self._environment = environment
        self._ports = {given: str(free_port()) for given in PORTS}
        self._gateway: subprocess.Popen[bytes] | None = None

    def serve(self, line: str) -> None:
        """Starts the gateway with the settings that the line names, on free ports."""
        name = line.removeprefix("interlock serve --config ")
        settings = self.folder / "settings.yaml"
        settings.write_text(self._on_free_ports((ROOT / name).read_text()))
        with (self.folder / "gateway.log").open("wb") as log:
            command = ["interlock", "serve", "--config", str(settings)]
            self._gateway = subprocess.Popen(command, cwd=self.folder, env=self._environment, stderr=log)
        wait_for(int(self._environment["INTERLOCK_PORT"]))

    def type(self, line: str) -> None:
        expected = EXIT_CODE.search(line)
        line = self._on_free_ports(line)
        for name, pattern in IDS.items():
            if name in line:
                line = line.replace(name, pattern.findall(self.shell.printed)[-1])
        code, printed = self.shell.type(self.shell.filled_in(line))
        if line.startswith("cp -r "):
            for file in (self.folder / line.split()[-1]).glob("*.yaml"):
                file.write_text(self._on_free_ports(file.read_text()))
        assert code == (int(expected[1]) if expected else 0), f"{line}\n{printed}"
        for port in self._ports.values() if line.endswith("&") else ():
            if port in line:
                wait_for(int(port))

    def close(self) -> None:
        self.shell.close()
        if self._gateway is not None:
            self._gateway.terminate()
            self._gateway.wait(20)

    def _on_free_ports(self, text: str) -> str:
        for given, free in self._ports.items():
            text = text.replace(given, free)
        return text


@pytest.fixture
def reader(tmp_path: Path, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Reader]:
    monkeypatch.setenv("PATH", environment["PATH"])
    folder = tmp_path / "clone"
    folder.mkdir()
    made = Reader(folder, {**os.environ, **environment})
    yield made
    made.close()


@pytest.mark.parametrize("guide", SEEN)
def test_the_tour_of_a_guide_works_as_written(guide: str, reader: Reader) -> None:
    blocks = BLOCK.findall(tour_of(guide))
    assert [kind for kind, _ in blocks].count("sh") == 1 and sum(text.count("interlock ") for _, text in blocks) >= 10
    for _, text in blocks:
        for line in (each.removeprefix("$ ") for each in text.splitlines()):
            if line.startswith("interlock serve "):
                reader.serve(line)
            elif line not in UNNEEDED:
                reader.type(line)
    assert [text for text in SEEN[guide] if text not in reader.shell.printed + read_files(reader.folder)] == []


def read_files(folder: Path) -> str:
    return "".join(path.read_text() for path in folder.glob("*.csv"))


@pytest.mark.parametrize("guide", SEEN)
def test_what_a_guide_quotes_of_a_file_is_there(guide: str) -> None:
    quotes = QUOTE.findall((ROOT / "docs" / f"{guide}.md").read_text())
    assert quotes and [path for path, text in quotes if text not in (ROOT / path).read_text()] == []

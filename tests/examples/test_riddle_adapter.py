"""The adapter that the guide teaches: installed as a distribution of its own, it is a kind of agent like any other."""

import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from adapters.catalog import ENTRY_POINT_GROUP, AdapterCatalog, UnknownKind, _installed_entry_points
from adapters.contract import Answer, Ask, Event, RefLearned, Turn, VendorRef
from adapters.upstream.egress import Egress
from adapters.upstream.guarded import GuardedAdapter
from adapters.vendors.sdk.connection import VendorEndpoint
from tests.adapters.replay import build_message, call_of, gathered, outcome
from tests.fakes.upstream import Upstream, answer

HERE = Path(__file__).parents[2] / "examples" / "riddle_adapter"


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As an installer leaves it: the module, and what its metadata says of it."""
    project = tomllib.loads((HERE / "pyproject.toml").read_text())["project"]
    entries = project["entry-points"][ENTRY_POINT_GROUP]
    shutil.copy(HERE / "riddle.py", tmp_path)
    info = tmp_path / "interlock_riddle-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    lines = "\n".join(f"{name} = {value}" for name, value in {**entries, "langgraph": "nowhere:Thief", "broken": "nowhere:Nothing"}.items())
    (info / "entry_points.txt").write_text(f"[{ENTRY_POINT_GROUP}]\n{lines}\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    _installed_entry_points.cache_clear()
    yield
    _installed_entry_points.cache_clear()


class Riddler:
    """Speaks Riddle on loopback."""

    def __init__(self) -> None:
        self.said: list[bytes] = []

    async def __call__(self, head: bytes, _reader: Any, writer: Any) -> None:
        place = head.split(b" ")[:2]
        if place == [b"GET", b"/about"]:
            writer.write(answer(b'{"name": "Sphinx", "description": "Asks."}', "200 OK", "Content-Type: application/json"))
        elif place[0] == b"DELETE":
            writer.write(answer(b"", "404 Not Found" if b"over" in place[1] else "204 No Content"))
        else:
            writer.write(answer(self.events().encode(), "200 OK", "Content-Type: text/event-stream"))

    def events(self) -> str:
        if self.said and b"answers" in self.said[-1]:
            return 'event: token\ndata: {"text":"Right"}\n\nevent: token\ndata: {"text":"!"}\n\nevent: done\ndata: {"tokens":2}\n\n'
        question = '{"id":"q1","text":"What walks?","schema":{"type":"string"},"token":"t-77"}'
        return f'event: turn\ndata: {{"id":"turn-1"}}\n\nevent: question\ndata: {question}\n\n'


async def test_a_distribution_brings_an_adapter(installed: None) -> None:
    riddler, egress = Riddler(), Egress(["127.0.0.1"])
    async with Upstream(riddler) as upstream:
        riddler.said = upstream.bodies
        catalog = AdapterCatalog(egress)
        assert "riddle" in catalog.kinds and isinstance(catalog.adapter("riddle"), GuardedAdapter)
        call = call_of("riddle", {"level": "hard"}, upstream.url)
        told = await catalog.describe("riddle", VendorEndpoint(upstream.url, {}, {}, call.deadline))
        assert (told.name, told.description) == ("Sphinx", "Asks.")
        asked = await gathered(catalog.adapter("riddle").run(Turn(build_message({"text": "Hello"}), session="s-1"), call))
        prompt = _prompt(asked)
        assert _ref(asked) == VendorRef("s-1", "turn-1") and (prompt.text, prompt.token) == ("What walks?", "t-77")
        turn = Turn(build_message({"text": "a man"}), _ref(asked), answers=(Answer(prompt, "a man"),), session="s-1")
        found = outcome(await gathered(catalog.adapter("riddle").run(turn, call)))
        assert (found["state"], found["artifacts"]) == ("COMPLETED", [{"text": "Right!"}])
        assert b'"answers":{"t-77":"a man"}' in upstream.bodies[-1] and b'"level":"hard"' in upstream.bodies[-1]
        assert await catalog.adapter("riddle").cancel(VendorRef("s-1", "turn-1"), call)
        assert not await catalog.adapter("riddle").cancel(VendorRef("s-1", "over"), call)
    await egress.close()


def test_a_distribution_takes_no_kind_that_is_there_and_a_broken_one_harms_nobody(installed: None) -> None:
    catalog = AdapterCatalog(Egress())
    assert catalog.features("langgraph").streams  # ours
    with pytest.raises(UnknownKind):
        catalog.adapter("broken")


def test_the_distribution_s_own_tests_pass_with_pytest_alone(tmp_path: Path) -> None:
    shutil.copytree(HERE, tmp_path / "riddle", ignore=shutil.ignore_patterns("__init__.py", "__pycache__"))
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:asyncio", "-p", "no:xdist", "-c", os.devnull, "."]
    told = subprocess.run(command, cwd=tmp_path / "riddle", capture_output=True, text=True, timeout=120)
    assert told.returncode == 0 and " passed" in told.stdout and " skipped" not in told.stdout, told.stdout[-3000:]


def _prompt(events: list[Event]) -> Any:
    ending = events[-1]
    assert isinstance(ending, Ask)
    return ending.prompts[0]


def _ref(events: list[Event]) -> VendorRef:
    return next(event.ref for event in events if isinstance(event, RefLearned))

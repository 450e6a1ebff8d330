"""How many files a warm call enters, and how often it goes from one to another: these figures only fall.

The goals are in docs/decisions/order-of-a-call.md, with why they are not reached.
"""

import re
import sys
from contextvars import ContextVar
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Self

import pytest

from tests.fakes.house import CallbackAgent, House

ROOT = f"{Path(__file__).resolve().parents[3]}/"
TRIPS = 3  # the shortest counts: on a busy machine a call waits at more places, and enters them again
PRODUCT = tuple(f"{ROOT}{package}/" for package in ("gateway", "adapters", "registry", "policies"))


class Trip:
    """Follows one call through the product's files; what other tasks and threads do meanwhile is not counted."""

    def __init__(self) -> None:
        self.files: dict[str, int] = {}
        self.functions: set[tuple[str, str]] = set()
        self.changes: dict[tuple[str, str], int] = {}
        self._mark: ContextVar[bool] = ContextVar("mark", default=False)
        self._last = ""

    def __enter__(self) -> Self:
        self._token = self._mark.set(True)
        sys.setprofile(self._on_event)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        sys.setprofile(None)
        self._mark.reset(self._token)

    def _on_event(self, frame: FrameType, event: str, argument: Any) -> None:
        path = frame.f_code.co_filename
        if event != "call" or not path.startswith(PRODUCT) or not self._mark.get():
            return
        file = path.removeprefix(ROOT)
        self.files[file] = self.files.get(file, 0) + 1
        self.functions.add((file, frame.f_code.co_qualname))
        if file != self._last and self._last:
            self.changes[(self._last, file)] = self.changes.get((self._last, file), 0) + 1
        self._last = file

    def count_changes(self) -> int:
        return sum(self.changes.values())

    def __str__(self) -> str:
        lines = [f"{len(self.files)} files, {len(self.functions)} functions, {self.count_changes()} changes of file", ""]
        lines += [f"  {count:4} calls into {file}" for file, count in self.files.items()]
        lines += [
            "",
            *(f"  {count:4} {before} > {after}" for (before, after), count in sorted(self.changes.items(), key=lambda item: -item[1])),
        ]
        return "\n".join(lines)


def check(trip: Trip, files: int, changes: int) -> None:
    assert 10 < len(trip.files) <= files, f"more than {files} files:\n{trip}"
    assert trip.count_changes() <= changes, f"more than {changes} changes of file:\n{trip}"


@pytest.fixture
def alice(home: House) -> str:
    return home.token("alice")


@pytest.fixture
async def message_trip(home: House, alice: str) -> Trip:
    """A warm SendMessage."""
    await home.agent(CallbackAgent("support"))
    await home.send(alice, "support", "warm")
    trips = [Trip() for _ in range(TRIPS)]
    for trip in trips:
        with trip:
            answer = await home.send(alice, "support", "hello")
        assert answer["result"]["task"]["status"]["state"] == "TASK_STATE_COMPLETED"
    return min(trips, key=Trip.count_changes)


@pytest.fixture
async def tool_trip(home: House, alice: str) -> Trip:
    """A warm tools/call."""
    await home.server("inventory", "check")
    await home.call(alice, "/mcp/inventory", "check", {"sku": "A"})
    trips = [Trip() for _ in range(TRIPS)]
    for trip in trips:
        with trip:
            answer = await home.call(alice, "/mcp/inventory", "check", {"sku": "B"})
        assert "result" in answer.json()
    return min(trips, key=Trip.count_changes)


async def test_warm_send_message_enters_few_files(message_trip: Trip) -> None:
    check(message_trip, files=64, changes=266)


async def test_warm_tool_call_enters_few_files(tool_trip: Trip) -> None:
    check(tool_trip, files=50, changes=169)


async def test_no_file_of_composition_or_settings_is_entered_by_a_warm_call(message_trip: Trip, tool_trip: Trip) -> None:
    entered = [*message_trip.files, *tool_trip.files]
    assert "gateway/server/router.py" in entered
    assert [file for file in entered if file.startswith(("gateway/server/composition/", "gateway/server/settings"))] == []


async def test_architecture_names_files_that_a_call_enters(message_trip: Trip, tool_trip: Trip) -> None:
    section = (Path(ROOT) / "ARCHITECTURE.md").read_text().partition("## One call")[2].partition("The invariants")[0]
    named = set(re.findall(r"`((?:gateway|adapters|policies)/[\w/]+\.py)`", section))
    assert len(named) > 10
    assert named - message_trip.files.keys() - tool_trip.files.keys() == set()

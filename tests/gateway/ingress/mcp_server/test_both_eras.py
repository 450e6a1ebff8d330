"""Reference clients of either era before the gateway, reference servers of either era behind it: what crosses, in all four pairs."""

import asyncio
import warnings
from typing import Any

import pytest
from mcp.shared.exceptions import MCPError

from tests.fakes.house import House
from tests.fakes.mcp_clients import Mode, Person, client_of, text, upstream
from tests.fakes.mcp_talkers import Talker

warnings.filterwarnings("ignore", category=DeprecationWarning)
pytestmark = [
    pytest.mark.parametrize("database_url", ["sqlite"], indirect=True),
    pytest.mark.filterwarnings("ignore::mcp.shared.exceptions.MCPDeprecationWarning"),
]
ERAS = pytest.mark.parametrize("era", ["modern", "legacy"])
MODES = pytest.mark.parametrize("mode", ["legacy", "2026-07-28"])


@ERAS
@MODES
@pytest.mark.parametrize("path", ["desk", ""])
async def test_what_a_server_asks_reaches_the_person_and_the_answer_the_server(open_home: House, mode: Mode, era: Any, path: str) -> None:
    await upstream(open_home, era, Talker().server)
    person, prefix = Person(), "" if path else "desk_"
    async with client_of(open_home, "admin", mode, path, **person.able()) as client:
        assert text(await client.call_tool(f"{prefix}greet", {})) == "hello Ada"
        assert text(await client.call_tool(f"{prefix}think", {})) == "deep"
        assert text(await client.call_tool(f"{prefix}roots", {})) == "file:///home"
        assert text(await client.call_tool(f"{prefix}all_of_it", {})) == "Ada 1 m-1"
    assert sorted(person.asked) == sorted(["Who are you?", "sample", "roots"] * 2)


@ERAS
@MODES
async def test_what_a_server_asks_is_answered_in_search_mode_too(open_home: House, mode: Mode, era: Any) -> None:
    await upstream(open_home, era, Talker().server)
    async with client_of(open_home, "admin", mode, "?mode=search", **Person().able()) as client:
        assert text(await client.call_tool("call_tool", {"name": "desk_greet", "arguments": {}})) == "hello Ada"


async def test_an_older_client_is_asked_by_a_server_of_both_eras_as_the_older_era_does(open_home: House) -> None:
    await upstream(open_home, "both", Talker().server)
    async with client_of(open_home, "admin", "legacy", "desk", **Person().able()) as client:
        assert text(await client.call_tool("confer", {})) == "hello Ada"


@ERAS
@MODES
async def test_progress_and_logs_come_while_the_call_is_under_way(open_home: House, mode: Mode, era: Any) -> None:
    await upstream(open_home, era, Talker().server)
    person = Person()
    meta: Any = {"io.modelcontextprotocol/logLevel": "warning"} if mode != "legacy" else None
    async with client_of(open_home, "admin", mode, "desk", logging_callback=person.logged) as client:
        if mode == "legacy":
            await client.set_logging_level("warning")
        called = await client.call_tool("count", {"to": 3}, progress_callback=person.progressed, meta=meta)
        assert text(called) == "done"
    assert person.progress == [1, 2, 3]
    assert person.logs == ["a warning"]


@ERAS
@MODES
async def test_a_client_that_asked_for_nothing_hears_nothing(open_home: House, mode: Mode, era: Any) -> None:
    await upstream(open_home, era, Talker().server)
    person = Person()
    async with client_of(open_home, "admin", mode, "desk", logging_callback=person.logged) as client:
        assert text(await client.call_tool("count", {"to": 3})) == "done"
    assert person.progress == []
    assert person.logs == ([] if mode != "legacy" else ["a debug", "a warning"])  # an older client that set no level gets all


@ERAS
@MODES
async def test_a_call_that_is_given_up_is_cancelled_at_the_server(open_home: House, mode: Mode, era: Any) -> None:
    talker = Talker()
    await upstream(open_home, era, talker.server)
    for able in ({}, Person().able()):
        talker.started.clear()
        talker.cancelled.clear()
        async with client_of(open_home, "admin", mode, "desk", **able) as client:
            seconds = 1.0
            while not talker.started.is_set():  # more, if it was over before the server heard of it
                with pytest.raises(MCPError):
                    await client.call_tool("slow", {}, read_timeout_seconds=seconds)
                seconds *= 4
            await asyncio.wait_for(talker.cancelled.wait(), 60)


@ERAS
@MODES
async def test_a_person_who_did_not_say_that_they_can_be_asked_is_not(open_home: House, mode: Mode, era: Any) -> None:
    await upstream(open_home, era, Talker().server)
    async with client_of(open_home, "admin", mode, "desk") as client:
        try:
            assert (await client.call_tool("greet", {})).is_error
        except MCPError as refused:
            assert refused.error.code in (-32021, -32603, -32602)


@ERAS
@MODES
@pytest.mark.parametrize("path", ["desk", ""])
async def test_resources_are_listed_and_read(open_home: House, mode: Mode, era: Any, path: str) -> None:
    await upstream(open_home, era, Talker().server)
    uri = "note://one" if path else "desk+note://one"
    async with client_of(open_home, "admin", mode, path) as client:
        assert [str(found.uri) for found in (await client.list_resources()).resources] == [uri]
        read = await client.read_resource(uri)
        assert (read.contents[0].text, str(read.contents[0].uri)) == ("one", uri)  # type: ignore[union-attr]  # a text
        for unknown in ("note://two", "shop+note://one", "desk+note://two"):
            with pytest.raises(MCPError) as refused:
                await client.read_resource(unknown)
            assert refused.value.error.code in ((-32602,) if mode != "legacy" else (-32002, -32602))

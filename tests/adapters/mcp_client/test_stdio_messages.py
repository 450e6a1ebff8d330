"""Claims about commands that talk back: questions reach whose process it is, nobody else's words arrive, and output is bounded."""

import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import uvloop
from msgspec.structs import replace

from adapters.contract import UpstreamFault
from adapters.mcp_client import stdio as mcp_stdio
from adapters.mcp_client.duplex.process import LINE_MAX
from adapters.mcp_client.pool import McpPool
from adapters.mcp_client.stdio import OWN_PROCESSES_MAX, Command, StdioServers
from adapters.mcp_client.wire.peer import ListenFilter
from adapters.tool_servers import ToolServerClient
from adapters.upstream.egress import Egress
from tests.adapters.mcp_client.test_listening import TOOLS
from tests.adapters.mcp_client.test_messages_during_calls import FRONTS, talk
from tests.adapters.mcp_client.test_pool import request_of, text
from tests.adapters.mcp_client.test_stdio import stdio_call
from tests.fakes import stdio_old, stdio_talker
from tests.fakes.clock import Clock
from tests.fakes.peers import ScriptedPeer
from tests.fakes.timeouts import LONG_START, LONG_TIMEOUTS
from tests.fakes.waiting import until

SERVERS = {era: str(Path(program.__file__).resolve()) for era, program in (("modern", stdio_talker), ("legacy", stdio_old))}
ERAS = pytest.mark.parametrize("era", ["modern", "legacy"])


@pytest.fixture
def clock() -> Clock:
    return Clock(time.monotonic())


@pytest.fixture
async def tools(clock: Clock) -> AsyncIterator[ToolServerClient]:
    commands = {era: Command(sys.executable, (path,)) for era, path in SERVERS.items()}
    tools = ToolServerClient(
        McpPool(Egress(), time.monotonic, initialize_seconds=LONG_TIMEOUTS.initialize_probe),
        StdioServers(commands, clock, start=LONG_START),
    )
    yield tools
    await tools.close()


async def test_a_program_that_prints_other_things_and_knows_only_initialize_is_served(tools: ToolServerClient) -> None:
    found = await tools.probe("legacy", "stdio:", {})
    assert (found.era, found.protocol_version, len(found.tools)) == ("legacy", "2025-06-18", 1)
    assert (await tools.probe("modern", "stdio:", {})).era == "modern"


@FRONTS
async def test_an_older_command_asks_the_client_whose_process_it_is(tools: ToolServerClient, front: bool) -> None:
    peer = ScriptedPeer()
    answer = json.loads(text((await tools.call(stdio_call("legacy"), talk("greet", peer, front))).result))
    assert answer == {"action": "accept", "content": {"name": "Ada"}}
    declared = json.loads(text((await tools.call(stdio_call("legacy"), talk("declared", peer, front))).result))
    assert declared == [peer.capabilities]
    assert json.loads(text((await tools.call(stdio_call("legacy"), request_of("declared"))).result)) == [{}]


async def test_a_modern_command_is_answered_for_an_older_client(tools: ToolServerClient) -> None:
    peer = ScriptedPeer()
    assert text((await tools.call(stdio_call("modern"), talk("all_of_it", peer, False))).result) == "Ada 1 m-1"
    answer = json.loads((await tools.call(stdio_call("modern"), talk("greet", peer, True))).result)
    assert answer["resultType"] == "input_required"


async def test_an_older_client_is_asked_by_a_command_of_both_eras_as_the_older_era_does(
    tools: ToolServerClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    peer = ScriptedPeer()
    assert text((await tools.call(stdio_call("modern"), talk("confer", peer, False))).result) == "hello Ada"
    assert [method for method, _ in peer.asked] == ["elicitation/create"]
    assert text((await tools.call(stdio_call("modern"), talk("count", ScriptedPeer({}), True, to=1))).result) == "done"
    monkeypatch.setattr(mcp_stdio, "OWN_PROCESSES_MAX", 0)  # nobody gets one of their own any more, and is asked by results
    assert text((await tools.call(stdio_call("modern", "bob"), talk("greet", peer, False))).result) == "hello Ada"


@ERAS
@FRONTS
async def test_progress_on_a_shared_process_reaches_who_asked_for_it(tools: ToolServerClient, era: str, front: bool) -> None:
    peers = [ScriptedPeer({}), ScriptedPeer({})]
    requests = [talk("count", peer, front, {"progressToken": "same"}, to=2) for peer in peers]
    await asyncio.gather(*(tools.call(stdio_call(era, user), request) for user, request in zip("ab", requests, strict=True)))
    for peer in peers:
        progress = [params for method, params in peer.heard if method == "notifications/progress"]
        assert [(params["progress"], params["progressToken"]) for params in progress] == [(1, "same"), (2, "same")]
        assert "notifications/message" not in peer.methods()  # attack TEN-01: it could be another person's


async def test_logs_of_a_process_of_ones_own_are_heard(tools: ToolServerClient) -> None:
    peer = ScriptedPeer()
    await tools.call(stdio_call("legacy"), talk("count", peer, False))
    assert "notifications/message" in peer.methods()


@ERAS
async def test_changes_of_a_command_are_heard(tools: ToolServerClient, era: str) -> None:
    listener = ScriptedPeer({})
    task = asyncio.create_task(tools.listen(stdio_call(era), ListenFilter(tools=True), listener))
    await listener.until(lambda peer: bool(peer.granted))
    assert listener.granted == [ListenFilter(tools=True)]
    await tools.call(stdio_call(era), talk("change", ScriptedPeer({}), True))
    await listener.until(lambda peer: bool(peer.heard))
    assert listener.methods()[0] == TOOLS
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_an_endless_line_ends_the_process_and_not_ours(tools: ToolServerClient) -> None:
    with pytest.raises(UpstreamFault, match="too large"):
        await tools.call(stdio_call("legacy"), request_of("big", size=LINE_MAX * 3))
    assert text((await tools.call(stdio_call("legacy"), request_of("declared"))).result) == "[{}]"


async def test_a_call_that_is_given_up_leaves_the_process_to_others(tools: ToolServerClient) -> None:
    await tools.call(stdio_call("modern"), request_of("count", to=1))
    slow = asyncio.create_task(tools.call(stdio_call("modern"), request_of("slow")))
    await asyncio.sleep(0)
    slow.cancel()
    assert text((await tools.call(stdio_call("modern"), request_of("count", to=1))).result) == "done"
    with pytest.raises(UpstreamFault, match="in time"):
        await tools.call(stdio_call("modern", seconds=0.2), request_of("slow"))


async def test_what_a_command_started_ends_with_it(tools: ToolServerClient) -> None:
    child = int(text((await tools.call(stdio_call("legacy"), request_of("child"))).result))
    assert _alive(child)
    await tools.close()
    await until(lambda: not _alive(child))
    assert not _alive(child)


async def test_a_process_that_ended_is_missed_even_while_another_holds_its_output(tools: ToolServerClient) -> None:
    await tools.call(stdio_call("legacy"), request_of("child"))
    with pytest.raises(UpstreamFault, match="ended"):
        await tools.call(stdio_call("legacy"), request_of("leave"))


def test_the_loop_of_production_serves_commands_too() -> None:
    """Its transports are no subclasses of asyncio's."""

    async def talk_to_it() -> None:
        now = asyncio.get_running_loop().time
        commands = {era: Command(sys.executable, (path,)) for era, path in SERVERS.items()}
        tools = ToolServerClient(
            McpPool(Egress(), now, initialize_seconds=LONG_TIMEOUTS.initialize_probe), StdioServers(commands, now, start=LONG_START)
        )
        try:
            assert "Ada" in text((await tools.call(stdio_call("legacy"), talk("greet", ScriptedPeer(), False))).result)
            assert text((await tools.call(stdio_call("modern"), talk("all_of_it", ScriptedPeer(), False))).result) == "Ada 1 m-1"
            for name, size in (("big", LINE_MAX * 2), ("leave", 0)):
                with pytest.raises(UpstreamFault):
                    await tools.call(stdio_call("legacy"), request_of(name, size=size))
        finally:
            await tools.close()

    uvloop.run(talk_to_it())


async def test_processes_of_ones_own_are_few_and_end_when_idle_or_left(tools: ToolServerClient, clock: Clock) -> None:
    peer, pids = ScriptedPeer(), []
    for number in range(OWN_PROCESSES_MAX + 1):
        request = talk("child", peer, False)
        call = stdio_call("legacy", f"user-{number}")
        pids.append(int(text((await tools.call(call, request)).result)))
        clock.now += 1
    await until(lambda: sum(map(_alive, pids)) == OWN_PROCESSES_MAX)
    await tools.close_client_session(stdio_call("legacy", "user-5").grant.delegation.principal.owner_key, "s-1")
    await until(lambda: sum(map(_alive, pids)) == OWN_PROCESSES_MAX - 1)
    clock.now += 301
    await tools.sweep()
    await until(lambda: not any(map(_alive, pids)))
    assert not any(map(_alive, pids))


async def test_one_persons_many_processes_end_none_of_another_person(tools: ToolServerClient, clock: Clock) -> None:  # attack AVL-03
    pids = {}
    for number, user in enumerate(["bob", *["alice"] * OWN_PROCESSES_MAX]):
        request = replace(talk("child", ScriptedPeer(), False), client_session=f"s-{number}")
        pids[number] = int(text((await tools.call(stdio_call("legacy", user), request)).result))
        clock.now += 1
    assert _alive(pids[0])
    await until(lambda: sum(map(_alive, pids.values())) == 13)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().split(")")[1].split()[0] != "Z"

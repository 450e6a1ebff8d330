"""Claims about commands as MCP servers: one process, nothing of our environment, started again when it died."""

import asyncio
import dataclasses
import json
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from structlog.testing import capture_logs

from adapters.contract import Call, Failure, UpstreamFault
from adapters.mcp_client.duplex.process import ERROR_LINE_MAX, ERROR_LINES_MAX, HUNG, ErrorOutput
from adapters.mcp_client.pool import McpPool
from adapters.mcp_client.stdio import Command, StdioServers
from adapters.mcp_client.wire.messages import McpRefused
from adapters.redaction.exchanges import ExchangeRecorder, recording_with
from adapters.tool_servers import ToolServerClient
from adapters.upstream.egress import Egress
from gateway.calls.limits.pausable_timeout import call_with_pausable_timeout
from tests.adapters.mcp_client.test_pool import call_of, request_of, text
from tests.fakes import stdio_server
from tests.fakes.clock import Clock
from tests.fakes.peers import ScriptedPeer
from tests.fakes.timeouts import LONG_START, LONG_TIMEOUTS

PROGRAM = str(Path(stdio_server.__file__).resolve())
HANGS = "import time; time.sleep(60)"


@pytest.fixture
async def tools() -> AsyncIterator[ToolServerClient]:
    commands = {
        "tools": Command(sys.executable, (PROGRAM,), {"TOKEN": "t-1"}),
        "missing": Command("/nowhere/at/all"),
        "hangs": Command(sys.executable, ("-c", HANGS)),
        "ends": Command(sys.executable, ("-c", "print('hello')")),
    }
    tools = ToolServerClient(
        McpPool(Egress(), time.monotonic, initialize_seconds=LONG_TIMEOUTS.initialize_probe),
        StdioServers(commands, time.monotonic, ping_seconds=0.3, start=LONG_START),
    )
    yield tools
    await tools.close()


def stdio_call(name: str = "tools", user: str = "alice", seconds: float = 20.0, timeout: float | None = None) -> Call:
    """`timeout`: the server's own, of its registration."""
    call = call_of("stdio:", "", user, seconds)
    upstream = {} if timeout is None else {"timeout": timeout}
    return replace(call, target=dataclasses.replace(call.target, name=name, upstream=upstream))


async def test_a_command_is_called_like_any_server_and_is_one_process(tools: ToolServerClient) -> None:
    found = await tools.probe("tools", "stdio:", {})
    assert {tool["name"] for tool in found.tools} == {"echo", "environment", "process", "fail", "die", "hang", "dawdle", "cancelled"}
    for modern in (True, False):
        answers = await asyncio.gather(*(tools.call(stdio_call(), request_of("echo", modern, 1, text=str(n))) for n in range(5)))
        assert [text(answer.result) for answer in answers] == ["0", "1", "2", "3", "4"]
        assert [("resultType" in json.loads(answer.result)) for answer in answers] == [modern] * 5
    pids = {text((await tools.call(stdio_call(user=user), request_of("process"))).result) for user in ("alice", "bob")}
    assert len(pids) == 1
    assert json.loads((await tools.call(stdio_call(), request_of("fail"))).result)["isError"] is True
    with pytest.raises(McpRefused):
        await tools.call(stdio_call(), replace(request_of("echo"), params=b'{"arguments": []}'))


async def test_a_command_gets_only_the_environment_that_is_listed(tools: ToolServerClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INTERLOCK_SECRET", "ours")
    seen: dict[str, Any] = json.loads(text((await tools.call(stdio_call(), request_of("environment"))).result))
    assert seen.pop("TOKEN") == "t-1"
    assert not set(seen) - {"LC_CTYPE"}  # Python sets this one itself


async def test_a_command_that_died_is_started_again(tools: ToolServerClient) -> None:
    before = text((await tools.call(stdio_call(), request_of("process"))).result)
    with pytest.raises(UpstreamFault, match="ended"):
        await tools.call(stdio_call(), request_of("die"))
    assert text((await tools.call(stdio_call(), request_of("process"))).result) != before


async def process_of(tools: ToolServerClient) -> str:
    return text((await tools.call(stdio_call(), request_of("process"))).result)


async def test_a_process_that_answers_no_ping_is_started_again(tools: ToolServerClient) -> None:
    before = await process_of(tools)
    with pytest.raises(UpstreamFault, match="in time"):
        await tools.call(stdio_call(seconds=0.3, timeout=0.3), request_of("hang"))
    assert await process_of(tools) != before


async def test_calls_behind_a_hung_one_fail_once_the_process_is_ended(tools: ToolServerClient) -> None:
    await process_of(tools)
    hung = asyncio.create_task(tools.call(stdio_call(seconds=0.3, timeout=0.3), request_of("hang")))
    behind = asyncio.create_task(tools.call(stdio_call(), request_of("hang")))
    first, second = await asyncio.gather(hung, behind, return_exceptions=True)
    assert isinstance(first, UpstreamFault) and isinstance(second, UpstreamFault)
    assert (first.failure, second.failure, second.public) == (Failure.LATE, Failure.LATE, HUNG)


async def test_a_hung_process_is_ended_too_where_the_client_can_be_asked(tools: ToolServerClient) -> None:
    before, request = await process_of(tools), request_of("hang")
    with pytest.raises(UpstreamFault, match="in time"):
        await call_with_pausable_timeout(tools.call, stdio_call(seconds=0.3, timeout=0.3), request, ScriptedPeer())
    assert await process_of(tools) != before


async def test_a_slow_quiet_call_fails_alone_and_is_cancelled_at_the_server(tools: ToolServerClient) -> None:  # attack PRO-12
    before = await process_of(tools)
    other = asyncio.create_task(tools.call(stdio_call(user="bob"), request_of("cancelled")))
    with pytest.raises(UpstreamFault, match="in time"):
        await tools.call(stdio_call(seconds=0.3, timeout=0.3), request_of("dawdle"))
    assert text((await other).result) == "dawdle"  # another person's call went on, and saw that the slow one was cancelled
    assert await process_of(tools) == before


async def test_a_slow_quiet_call_of_a_client_that_can_be_asked_fails_alone_too(tools: ToolServerClient) -> None:
    before = await process_of(tools)
    other = asyncio.create_task(tools.call(stdio_call(user="bob"), request_of("cancelled")))
    with pytest.raises(UpstreamFault, match="in time"):
        await call_with_pausable_timeout(tools.call, stdio_call(seconds=0.3, timeout=0.3), request_of("dawdle"), ScriptedPeer({}))
    assert text((await other).result) == "dawdle"
    assert await process_of(tools) == before


async def test_a_caller_in_a_hurry_ends_nobodys_process(tools: ToolServerClient) -> None:
    before = await process_of(tools)
    with pytest.raises(UpstreamFault, match="in time"):
        await tools.call(stdio_call(seconds=0.2, timeout=20), request_of("hang", seconds=0.4))
    assert await process_of(tools) == before


async def test_a_slow_tool_does_not_end_a_process_that_answers_others(tools: ToolServerClient) -> None:
    before = await process_of(tools)
    slow = asyncio.create_task(tools.call(stdio_call(seconds=0.5, timeout=0.5), request_of("dawdle")))
    assert await asyncio.create_task(process_of(tools)) == before
    with pytest.raises(UpstreamFault, match="in time"):
        await slow
    assert await process_of(tools) == before


@pytest.mark.parametrize("name", ["missing", "ends", "unknown"])
async def test_a_command_that_cannot_run_is_a_fault(tools: ToolServerClient, name: str) -> None:
    with pytest.raises(UpstreamFault):
        await tools.call(stdio_call(name), request_of("echo", text="x"))


async def test_a_command_that_hangs_fails_the_call_in_time(tools: ToolServerClient) -> None:
    with pytest.raises(UpstreamFault, match="in time"):
        await tools.call(stdio_call("hangs", seconds=0.3), request_of("echo", text="x"))


async def test_a_command_that_keeps_failing_is_not_started_at_every_call() -> None:
    clock = Clock()
    servers = StdioServers({"missing": Command("/nowhere/at/all")}, clock, start=LONG_START)
    starts = []
    for _ in range(6):
        with pytest.raises(UpstreamFault) as fault:
            await servers.call(replace(stdio_call("missing"), deadline=clock.now + 5), request_of("echo", text="x"))
        starts.append("keeps failing" not in str(fault.value))
    assert starts == [True, True, False, False, False, False]
    clock.now += 61
    with pytest.raises(UpstreamFault, match="does not start"):
        await servers.call(replace(stdio_call("missing"), deadline=clock.now + 5), request_of("echo", text="x"))
    await servers.close()


SPEAKS = """
import json, sys
print("ready with t0p-secret", file=sys.stderr, flush=True)
declared = {}
for line in sys.stdin:
    request = json.loads(line)
    method, params = request.get("method"), request.get("params") or {}
    if "id" not in request:
        continue
    reply = {"jsonrpc": "2.0", "id": request["id"]}
    if method == "initialize":
        declared = params["capabilities"]
        info = {"name": "s", "version": "1"}
        reply["result"] = {"protocolVersion": "2025-11-25", "capabilities": {}, "serverInfo": info, "instructions": "Be brief."}
    elif method == "server/discover" and "modern" in sys.argv:
        reply["result"] = {"supportedVersions": ["2026-07-28"], "capabilities": {}, "resultType": "complete"}
    elif method == "tools/list":
        names = ["always"] + (["asks"] if "elicitation" in declared and "conditional" in sys.argv else [])
        reply["result"] = {"tools": [{"name": name, "inputSchema": {"type": "object"}} for name in names]}
    else:
        reply["error"] = {"code": -32601, "message": "no"}
    print(json.dumps(reply), flush=True)
"""


@pytest.mark.parametrize(("arguments", "names", "processes"), [(("conditional",), ["always", "asks"], 2), ((), ["always"], 1)])
async def test_a_command_is_looked_at_as_a_client_sees_it_that_can_be_asked(
    arguments: tuple[str, ...], names: list[str], processes: int
) -> None:
    servers = StdioServers({"s": Command(sys.executable, ("-c", SPEAKS, *arguments))}, time.monotonic, start=LONG_START)
    for _ in range(2):
        found = await servers.probe("s")
        assert [tool["name"] for tool in found.tools] == names and found.instructions == "Be brief."
        assert len(servers._processes) == processes
    await servers.close()


@pytest.mark.parametrize(("initialize", "era"), [(False, "modern"), (True, "legacy")])
async def test_the_operator_may_say_that_a_command_speaks_the_initialize_era(initialize: bool, era: str) -> None:
    command = Command(sys.executable, ("-c", SPEAKS, "modern"), initialize=initialize)
    servers = StdioServers({"s": command}, time.monotonic, start=LONG_START)
    assert (await servers.probe("s")).era == era
    await servers.close()


async def test_operators_see_a_commands_standard_error_without_its_secrets() -> None:
    secret = Command(sys.executable, ("-c", SPEAKS), {"KEY": "t0p-secret"}, secrets=("t0p-secret",))
    servers = StdioServers({"s": secret}, time.monotonic, start=LONG_START)
    await servers.probe("s")
    assert servers.error_lines("s") == ["ready with ***"] and servers.error_lines("other") == []
    await servers.close()


@pytest.mark.parametrize(
    ("command", "words"), [("no-such-program", "no program no-such-program on the PATH"), (sys.executable, "SyntaxError")]
)
async def test_a_command_that_does_not_start_says_why(command: str, words: str) -> None:
    servers = StdioServers({"s": Command(command, ("-c", "syntax error"), {"PATH": "/usr/bin"})}, time.monotonic, start=LONG_START)
    with pytest.raises(UpstreamFault) as fault:
        await servers.probe("s")
    assert words in " ".join(servers.error_lines("s")) and words in fault.value.detail + " ".join(servers.error_lines("s"))
    await servers.close()


async def test_the_end_of_a_process_is_logged_with_its_last_lines() -> None:
    writes = "import sys; [print(f'line {n} with s3cret-value', file=sys.stderr) for n in range(8)]; sys.exit(3)"
    servers = StdioServers({"s": Command(sys.executable, ("-c", writes), secrets=("s3cret-value",))}, time.monotonic, start=LONG_START)
    with capture_logs() as lines:
        with pytest.raises(UpstreamFault):
            await servers.call(stdio_call("s"), request_of("echo"))
        await servers.close()
    (ended,) = [line for line in lines if line["event"] == "mcp_process_ended"]
    assert (ended["log_level"], ended["server"]) == ("warning", "s")
    assert ended["said"] == [f"line {n} with ***" for n in range(3, 8)]


async def test_the_end_of_a_process_that_the_gateway_stops_is_no_warning(tools: ToolServerClient) -> None:
    await tools.call(stdio_call(), request_of("echo"))
    with capture_logs() as lines:
        await tools.close()
    assert [line["log_level"] for line in lines if line["event"] == "mcp_process_ended"] == ["info"]


def test_standard_error_is_kept_within_bounds() -> None:
    output = ErrorOutput(("s3cret-value",))
    output.add(b"x" * 1_000_000)
    output.add(b"\n" + b"".join(b"line %d\n" % number for number in range(1000)) + b"half \x1b[31m s3cret-value")
    assert output.lines[-2:] == ["line 999", "half  [31m ***"] and len(output.lines) <= ERROR_LINES_MAX + 1
    assert all(len(line) <= ERROR_LINE_MAX for line in output.lines)


async def test_without_commands_a_registration_for_one_runs_nothing() -> None:  # attack REG-07
    tools = ToolServerClient(McpPool(Egress(), time.monotonic, initialize_seconds=LONG_TIMEOUTS.initialize_probe))
    with pytest.raises(UpstreamFault):
        await tools.call(stdio_call(), request_of("echo", text="x"))
    with pytest.raises(UpstreamFault):
        await tools.probe("tools", "stdio:", {})


async def test_a_call_that_is_tried_shows_what_the_command_was_sent_and_no_other_call(tools: ToolServerClient) -> None:
    recorder = ExchangeRecorder()

    async def tried() -> None:
        with recording_with(recorder):
            await tools.call(stdio_call(), request_of("echo", text="mine"))

    await asyncio.gather(tried(), tools.call(stdio_call(user="bob"), request_of("echo", text="bobs")))
    await tools.call(stdio_call(user="bob"), request_of("echo", text="later"))
    (exchange,) = recorder.exchanges()
    assert exchange.start == "tools/call" and '"mine"' in exchange.request.text and "mine" in exchange.response.text
    assert "bobs" not in str(exchange) and "later" not in str(exchange)

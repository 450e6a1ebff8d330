"""Claims about servers that can't be reached: they are left alone for a while, tried by one call, and errors of tools mean nothing."""

import asyncio
import socket
from typing import Any

import pytest
from msgspec.structs import replace
from starlette.responses import JSONResponse, Response

from adapters.contract import NotSent, UpstreamFault
from adapters.mcp_client.pool import McpPool
from adapters.mcp_client.wire.messages import McpRefused
from adapters.upstream.breaker import FAILURES_MAX, OPEN_TEXT, PAUSE_MAX_SECONDS, PAUSE_SECONDS, Breaker
from adapters.upstream.egress import CONNECTIONS_MAX, Egress
from tests.adapters.mcp_client.test_pool import call_of, egress, fault_of, ok, pool, request_of, text
from tests.fakes.clock import Clock
from tests.fakes.mcp_servers import mcp_server, scripted_server, serving, tools
from tests.fakes.timeouts import LONG_TIMEOUTS

__all__ = ["egress", "pool"]


def opened(breaker: Breaker, server: str = "a") -> bool:
    try:
        breaker.acquire(server)
    except UpstreamFault:
        return True
    return False


def test_it_opens_after_faults_in_a_row_and_only_for_that_server() -> None:
    clock = Clock(0.0)
    breaker = Breaker(clock)
    for number in range(FAILURES_MAX):
        assert not opened(breaker)
        breaker.record_failure("a")
        if number == 1:
            breaker.record_success("a")
    assert not opened(breaker)
    breaker.record_failure("a")
    breaker.record_failure("a")
    assert opened(breaker) and not opened(breaker, "b")


def test_one_call_tries_and_its_end_decides() -> None:
    clock = Clock(0.0)
    breaker = Breaker(clock)
    pause = PAUSE_SECONDS
    for _ in range(FAILURES_MAX):
        breaker.record_failure("a")
    for _ in range(6):
        clock.now += pause - 0.1
        assert opened(breaker)
        clock.now += 0.2
        assert not opened(breaker) and opened(breaker)  # the one that tries, and another meanwhile
        breaker.release("a")
        assert not opened(breaker)  # whoever tried went away, so the next one tries
        breaker.record_failure("a")
        pause = min(PAUSE_MAX_SECONDS, 2 * pause)
    clock.now += pause
    assert not opened(breaker)
    breaker.record_success("a")
    assert not opened(breaker) and not breaker.states


async def test_a_server_that_is_down_is_not_tried_by_every_call_and_found_when_it_is_back(egress: Egress) -> None:
    clock = Clock(asyncio.get_running_loop().time())
    pool = McpPool(egress, clock, initialize_seconds=LONG_TIMEOUTS.initialize_probe)
    async with mcp_server("modern") as (url, _):
        port = int(url.split(":")[2].split("/")[0])
    faults = [(await fault_of(pool, url)).public for _ in range(FAILURES_MAX + 2)]
    assert [fault == OPEN_TEXT for fault in faults] == [False] * FAILURES_MAX + [True] * 2
    async with serving(tools().streamable_http_app(json_response=True), grace=0, port=port):
        assert (await fault_of(pool, url)).public == OPEN_TEXT
        clock.now += PAUSE_SECONDS + 1
        assert text((await pool.call(call_of(url, "modern", seconds=60), request_of("echo", text="back"))).result) == "back"
        assert text((await pool.call(call_of(url, "modern", seconds=60), request_of("echo", text="on"))).result) == "on"


async def test_a_call_that_was_never_sent_says_nothing_of_the_server(egress: Egress) -> None:
    clock = Clock(asyncio.get_running_loop().time())
    pool = McpPool(egress, clock, initialize_seconds=LONG_TIMEOUTS.initialize_probe)
    with socket.socket() as closed:  # bound, and nobody listens: every connection is refused
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/mcp"
        for _ in range(FAILURES_MAX):
            assert (await fault_of(pool, url)).public != OPEN_TEXT
        clock.now += PAUSE_SECONDS + 1
        for _ in range(3):
            with pytest.raises(NotSent):  # it may try, and has no time left for that
                await pool.call(call_of(url, "modern", seconds=-60), request_of("echo", text="late"))
        tried = [(await refused(pool, url)).public for _ in range(3)]
    assert [fault == OPEN_TEXT for fault in tried] == [False, True, True]


async def refused(pool: McpPool, url: str) -> UpstreamFault:
    with pytest.raises(UpstreamFault) as fault:
        await pool.call(call_of(url, "modern", seconds=60), request_of("echo", text="hi"))
    return fault.value


@pytest.mark.parametrize("kind", ["isError", "refusal", "500", "401", "nonsense"])
async def test_what_a_server_answers_never_opens_it(pool: McpPool, kind: str) -> None:
    async def answer(request: dict[str, Any]) -> Response:
        body: Any = {"jsonrpc": "2.0", "id": request["id"]}
        if kind == "isError":
            return JSONResponse({**body, "result": {"content": [], "isError": True}})
        if kind == "refusal":
            return JSONResponse({**body, "error": {"code": -32602, "message": "no"}})
        return Response("{", 200) if kind == "nonsense" else Response("", int(kind))

    async with scripted_server(answer) as url:
        for _ in range(FAILURES_MAX * 3):
            try:
                await pool.call(call_of(url, "modern"), request_of("echo", text="x"))
            except (UpstreamFault, McpRefused) as fault:
                assert fault.public != OPEN_TEXT


async def test_who_leaves_a_server_no_time_has_nobody_else_leave_it_alone(pool: McpPool) -> None:  # attack PRO-12
    release = asyncio.Event()

    async def hang(request: dict[str, Any]) -> Response:
        await release.wait()
        return JSONResponse(ok(request))

    async with scripted_server(hang) as url:
        for hurried in (True, False):
            for _ in range(FAILURES_MAX):
                with pytest.raises(UpstreamFault) as fault:
                    await pool.call(
                        replace(call_of(url, "modern", seconds=0.01), has_shortened_deadline=hurried), request_of("echo", text="x")
                    )
                assert fault.value.public != OPEN_TEXT
        release.set()


async def test_who_is_in_a_hurry_finds_out_all_the_same_that_nobody_is_there(egress: Egress) -> None:
    pool = McpPool(egress, Clock(asyncio.get_running_loop().time()), initialize_seconds=LONG_TIMEOUTS.initialize_probe)
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        call = replace(call_of(f"http://127.0.0.1:{closed.getsockname()[1]}/mcp", "modern", seconds=60), has_shortened_deadline=True)
        found = []
        for _ in range(FAILURES_MAX + 1):
            with pytest.raises(UpstreamFault) as fault:
                await pool.call(call, request_of("echo", text="x"))
            found.append(fault.value.public == OPEN_TEXT)
    assert found == [False] * FAILURES_MAX + [True]


async def test_a_server_that_hangs_does_not_take_the_places_of_others(pool: McpPool) -> None:
    release = asyncio.Event()

    async def hang(request: dict[str, Any]) -> Response:
        await release.wait()
        return JSONResponse(ok(request))

    async with scripted_server(hang) as bad, scripted_server(hang) as worse, mcp_server("modern") as (good, _):
        hanging = [asyncio.create_task(fault_of(pool, url, seconds=3600)) for url in (bad, worse) for _ in range(CONNECTIONS_MAX // 2 + 20)]
        await asyncio.sleep(0)
        assert text((await pool.call(call_of(good, "modern", seconds=60), request_of("echo", text="on"))).result) == "on"
        release.set()
        for task in hanging:
            task.cancel()
        await asyncio.gather(*hanging, return_exceptions=True)

"""The fuzzer makes the same cases from the same seed, sees the faults it looks for, and finds none in a small run."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web

from tests.fuzz.__main__ import fuzz_rpc, report
from tests.fuzz.api_cases import ApiFindings, read_report
from tests.fuzz.judge import Findings, fault_of, send_cases
from tests.fuzz.mutations import Case, build_case
from tests.fuzz.requests import Known, every_seed
from tests.fuzz.stage import open_stage

_SEEDS = every_seed(Known("agent", "server", "t_1", "session"))


def test_the_same_seed_gives_the_same_cases() -> None:
    first = [build_case(number, _SEEDS, 1) for number in range(300)]
    assert first == [build_case(number, _SEEDS, 1) for number in range(300)]
    assert first != [build_case(number, _SEEDS, 2) for number in range(300)]


def test_valid_requests_are_among_the_cases() -> None:
    """Without them, every change would be refused for another one."""
    valid = {(seed.path, json.dumps(seed.body)) for seed in _SEEDS if seed.body is not None}
    cases = [build_case(number, _SEEDS, 1) for number in range(500)]
    assert sum((case.path, case.body.decode(errors="replace")) in valid for case in cases) > 25


@pytest.mark.parametrize(
    ("status", "media_type", "body", "beginning"),
    [
        (500, "text/plain", b"oops", "5xx"),
        (503, "application/json", b"{}", "5xx"),
        (200, "application/json", b'{"jsonrpc":"2.0","id":1,"error":{"code":-32603,"message":"m"}}', "5xx"),
        (200, "application/json", b'[{"error":{"code":-32603}}]', "5xx"),
        (400, "application/problem+json", b"{", "unreadable"),
        (400, "application/json", b'{"error":{"code":-32600}}', ""),
        (202, "application/json", b"", ""),
    ],
)
def test_server_errors_and_broken_answers_are_faults(status: int, media_type: str, body: bytes, beginning: str) -> None:
    fault = fault_of(status, media_type, body)
    assert fault.startswith(beginning) and bool(fault) == bool(beginning)


@asynccontextmanager
async def _server(answer: web.Response | None) -> AsyncIterator[str]:
    """Gives every request the answer, or closes the connection."""

    async def handle(request: web.Request) -> web.StreamResponse:
        if answer is None:
            assert request.transport is not None
            request.transport.close()
            return web.Response()
        return web.Response(status=answer.status, body=answer.body)

    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", handle)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@pytest.mark.parametrize(("answer", "beginning"), [(web.Response(status=500), "5xx"), (None, "no answer")])
def test_a_server_that_fails_is_noticed(answer: web.Response | None, beginning: str) -> None:
    async def run() -> Findings:
        async with _server(answer) as url:
            return await send_cases(url, "token", [Case(1, "POST", "/mcp", {}, b"{}")], 1)

    findings = asyncio.run(run())
    assert findings.cases == 1 and findings.count(beginning) == 1


def test_the_report_of_schemathesis_is_read() -> None:
    failure = {"title": "Server error", "code": 500}
    errors = [{"title": "Network Error", "count": 1}, {"title": "Runtime Error", "count": 2}]
    document = {"operations": {"tested": 3}, "test_cases": {"generated": 40}, "failures": [failure, {"title": "Timeout"}], "errors": errors}
    found = read_report(document)
    assert (found.operations, found.cases, found.hangs, found.errors) == (3, 40, 1, ["Runtime Error (2 times)"])
    assert found.server_errors == [json.dumps(failure), "Network Error: an answer broke off"]


def test_a_fault_fails_the_run_and_is_written_down(tmp_path: Path) -> None:
    fault = (Case(5, "POST", "/mcp", {}, b"{"), "5xx: 500", "oops")
    assert report(Findings(cases=9, faults=[fault]), {"operator": ApiFindings(1, 4, [], 0, [])}, tmp_path) == 1
    assert json.loads((tmp_path / "fuzz.json").read_text()) == {"api_cases": 4, "rpc_cases": 9, "answers_5xx": 1, "hangs": 0}
    assert json.loads((tmp_path / "fuzz-faults.jsonl").read_text())["case"] == 5


def test_a_gateway_answers_changed_requests_without_a_server_error(tmp_path: Path) -> None:
    with open_stage(tmp_path) as stage:
        findings = fuzz_rpc(stage, 400, seed=3, width=8)
    assert findings.cases == 400
    assert [(fault, case.path, case.body[:200]) for case, fault, _ in findings.faults] == []

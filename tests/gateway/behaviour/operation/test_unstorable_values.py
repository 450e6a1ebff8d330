"""Texts that PostgreSQL holds in no column, in all requests that look something up by them: an answer with a reason, and no failure."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gateway.state.memory.tables import memory_scopes
from gateway.storage.database import Batch, UnstorableValue
from tests.fakes.house import CAPABILITIES, House, house
from tests.fakes.memory import MEMORY_ROLES
from tests.fakes.reception import Reception

NUL = "a\0b"
TOOLS: dict[str, list[tuple[str, dict[str, Any]]]] = {
    "/mcp/memory": [
        ("search", {"query": NUL, "cursor": NUL}),
        ("search", {"query": "x", "scope": f"workflow:{NUL}"}),
        ("put", {"text": "x", "scope": f"workflow:{NUL}"}),
        ("put", {"text": NUL}),
        ("forget", {"id": NUL}),
        ("correct", {"id": NUL, "text": "x"}),
    ],
    "/mcp/state": [("get", {"key": NUL}), ("list", {"prefix": NUL}), ("history", {"key": NUL}), ("claims", {"subject": NUL})],
    "/mcp": [("memory_forget", {"id": NUL}), (f"memory_{NUL}", {}), ("state_get", {"key": NUL})],
}
REQUESTS: list[tuple[str, dict[str, Any]]] = [
    ("tasks/get", {"taskId": NUL}),
    ("tasks/cancel", {"taskId": NUL}),
    ("resources/read", {"uri": f"memory://context/{NUL}"}),
    ("resources/read", {"uri": f"memory://{NUL}"}),
    ("prompts/get", {"name": NUL}),
    ("tools/call", {"name": "memory_forget", "arguments": {"id": "x"}, "_meta": CAPABILITIES | {"interlock/approval": NUL}}),
]


@pytest.fixture
async def home(tmp_path: Path, database_url: str) -> AsyncIterator[House]:
    async with house(tmp_path / "home", database_url, roles=MEMORY_ROLES) as built:
        yield built


def is_refused(answer: Any) -> bool:
    """Whether an answer of MCP says no, and names a reason that is none of the gateway's own faults."""
    body = answer.json()
    shown = body.get("error") or body["result"].get("structuredContent", {}).get("error") or {}
    reason = shown.get("data", shown).get("reason_id", "a result")
    return answer.status_code < 500 and reason not in ("not-read", "not-kept", "internal")


async def test_a_nul_in_arguments_of_mcp_is_no_fault_of_the_gateway(home: House) -> None:
    token = home.token("admin")
    for path, calls in TOOLS.items():
        for tool, arguments in calls:
            answer = await home.call(token, path, tool, arguments)
            assert is_refused(answer), (path, tool, arguments, answer.text)


async def test_a_nul_in_requests_of_mcp_is_no_fault_of_the_gateway(home: House) -> None:
    for method, params in REQUESTS:
        headers = {"mcp-protocol-version": "2026-07-28", "mcp-method": method}
        answer = await home.rpc("/mcp", home.token("admin"), method, {"_meta": CAPABILITIES, **params}, **headers)
        assert is_refused(answer), (method, params, answer.text)


BODIES: list[tuple[str, str, Any]] = [
    ("POST", "/api/memory", {"text": "x", "scope": f"workflow:{NUL}"}),
    ("POST", "/api/memory/quarantines", {"agent": NUL, "reason": "x"}),
    ("POST", "/api/kill", {"agent": NUL}),
    ("POST", "/api/claims", {"subject": "customer:1", "purpose": NUL, "seconds": 9}),
    ("POST", "/api/events", {"specversion": "1.0", "id": "1", "source": "s", "type": "t", "subject": NUL}),
    (
        "POST",
        "/access/v1/evaluation",
        {"subject": {"type": "user", "id": NUL}, "action": {"name": NUL}, "resource": {"type": "tool", "id": NUL}},
    ),
    ("POST", "/api/virtual-servers", {"name": "front", "title": NUL, "tools": ["x.*"]}),
    ("POST", "/ard/search", {"query": {"text": NUL}}),
]


async def test_a_nul_in_requests_to_the_api_is_no_fault_of_the_gateway(home: House) -> None:
    for method, path, body in BODIES:
        answer = await Reception(home).ask(method, path, "admin", body)
        assert answer.status_code < 500, (path, answer.text)


async def test_what_a_database_can_not_hold_is_told_from_a_database_that_is_away(home: House) -> None:
    database = home.gateway.database
    query = memory_scopes.select().where(memory_scopes.c.tenant == "\ud800")
    with pytest.raises(UnstorableValue):
        await database.read(lambda connection: connection.execute(query).all())

    def write(batch: Batch) -> None:
        batch.run("UPDATE memory_scopes SET facts = ? WHERE tenant = ?", (1 << 70, "t"))

    with pytest.raises(UnstorableValue):
        await database.write(write)
    assert database.is_writable

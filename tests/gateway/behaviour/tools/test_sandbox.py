"""The built-in server for calculations: ruled on, recorded and told of like any other, and nobody's to change."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from adapters.sandbox.isolation import BUBBLEWRAP, INTERPRETER, Isolation
from gateway.server.banner import banner_lines
from gateway.server.composition.built_in import sandbox as calculations
from gateway.server.settings import Settings
from policies.tables import audit_records as audit_table
from registry.names import RESERVED_NAMES
from tests.fakes.house import House, open_house
from tests.fakes.reception import Reception
from tests.gateway.behaviour.tools.test_mcp_client import MODES, Mode, client_of

sqlite_only = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
ROLES = {"operator": ["*"], "member": ["tool:*"], "sales": ["tool:sandbox.python", "agent:sandbox"], "nobody": []}


@pytest.fixture
async def lab(tmp_path: Path, database_url: str) -> AsyncIterator[House]:
    async with open_house(tmp_path / "home", database_url, sandbox="on", roles=ROLES) as built:
        yield built


def result(answer: Any) -> Any:
    assert answer.status_code == 200, answer.text
    return answer.json()["result"]


@pytest.mark.parametrize("mode", MODES)
@sqlite_only
async def test_it_is_a_tool_like_any_other(lab: House, mode: Mode) -> None:
    async with client_of(lab, "mel", mode) as client:
        assert [tool.name for tool in (await client.list_tools()).tools] == ["sandbox_python"]
        done = await client.call_tool("sandbox_python", {"code": "print(n)\nn * 2", "inputs": {"n": 21}})
        assert (done.is_error, done.structured_content) == (False, {"value": 42, "output": "21\n"})
        failed = await client.call_tool("sandbox_python", {"code": "1\n1/0"})
        assert failed.is_error and failed.structured_content is not None
        assert failed.structured_content["error"] == {"type": "ZeroDivisionError", "message": "division by zero", "line": 2}
    async with client_of(lab, "mel", mode, "sandbox") as client:
        assert [tool.name for tool in (await client.list_tools()).tools] == ["python"]
        assert (await client.call_tool("python", {"code": "1 + 1"})).structured_content == {"value": 2, "output": ""}


@sqlite_only
async def test_the_answer_says_which_isolation_is_in_force(lab: House) -> None:
    told = result(await lab.call(lab.token("alice"), "/mcp", "sandbox_python", {"code": "1"}))
    assert lab.gateway.sandbox is not None
    isolation = lab.gateway.sandbox.isolation
    assert isolation is not None and told["_meta"] == {"dev.interlock/isolation": isolation.kind}
    assert any(line.startswith("  sandbox") for line in banner_lines(lab.gateway))


async def test_every_call_has_its_decision(lab: House) -> None:
    result(await lab.call(lab.token("alice"), "/mcp", "sandbox_python", {"code": "6 * 7"}))
    refused = (await lab.call(lab.token("nora"), "/mcp/sandbox", "python", {"code": "6 * 7"})).json()
    assert "error" in refused
    query = select(audit_table.c.body).where(audit_table.c.kind == "decision").order_by(audit_table.c.seq)
    rows = [
        json.loads(body)
        for body in (await lab.gateway.database.read(lambda connection: connection.execute(query).all()))[0:2]
        for body in body
    ]
    assert [(row["principal"]["subject"], row["permission"], row["allowed"]) for row in rows] == [
        ("alice", "tool:sandbox.python", True),
        ("nora", "tool:sandbox.python", False),
    ]
    assert "6 * 7" not in json.dumps(rows)


@sqlite_only
async def test_who_has_no_right_does_not_see_it(lab: House) -> None:
    async with client_of(lab, "nora", "2026-07-28") as client:
        assert (await client.list_tools()).tools == []
    narrow = lab.token("alice", "tool:other.*")
    assert "error" in (await lab.call(narrow, "/mcp", "sandbox_python", {"code": "1"})).json()


@sqlite_only
@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"code": 1},
        {"code": "1", "inputs": [1]},
        {"code": "1", "inputs": {"a b": 1}},
        {"code": "1", "seconds": 60},
        {"code": "x" * 70_000},
    ],
)
async def test_other_arguments_are_refused(lab: House, arguments: dict[str, Any]) -> None:
    assert result(await lab.call(lab.token("alice"), "/mcp", "sandbox_python", arguments))["isError"] is True


@sqlite_only
async def test_there_is_no_other_tool_of_it(lab: House) -> None:
    assert "error" in (await lab.call(lab.token("mel"), "/mcp/sandbox", "shell", {"code": "1"})).json()


@sqlite_only
async def test_agents_clients_can_call_it_too(lab: House) -> None:
    sent = await lab.send(lab.token("alice"), "sandbox", "", parts=[{"data": {"tool": "python", "arguments": {"code": "6 * 7"}}}])
    assert "42" in json.dumps(sent), sent


@sqlite_only
async def test_nobody_can_change_or_take_its_place(lab: House) -> None:
    desk = Reception(lab)
    shown = await desk.ask("GET", "/api/servers/sandbox")
    assert shown.status_code == 200 and shown.json()["tool_names"] == ["python"]
    tag = shown.headers["etag"]
    for method, path, body in [
        ("PATCH", "/api/servers/sandbox", {"status": "down"}),
        ("DELETE", "/api/servers/sandbox", None),
        ("POST", "/api/servers/sandbox/refresh", None),
    ]:
        assert (await desk.ask(method, path, body=body, match=tag)).status_code == 422, (method, path)
    taken = await desk.post("/api/servers", name="sandbox", url="http://127.0.0.1:9/mcp")
    assert taken.status_code == 422 and "sandbox" in RESERVED_NAMES
    assert (await desk.ask("GET", "/api/servers/sandbox")).json() == shown.json()


@sqlite_only
async def test_every_tenant_has_it_and_none_has_anothers(lab: House) -> None:
    registry = lab.gateway.registry
    assert {registry.find(tenant, "sandbox").tenant for tenant in ("default", "acme")} == {"default", "acme"}
    assert [entry.name for entry in registry.list("acme")] == ["sandbox"]


@pytest.mark.parametrize(
    ("sandbox", "host", "kind", "there"),
    [
        ("auto", "127.0.0.1", INTERPRETER, True),
        ("auto", "0.0.0.0", INTERPRETER, False),
        ("auto", "0.0.0.0", BUBBLEWRAP, True),
        ("on", "0.0.0.0", INTERPRETER, True),
        ("off", "127.0.0.1", BUBBLEWRAP, False),
    ],
)
def test_it_is_there_where_it_is_safe_or_wanted(tmp_path: Path, sandbox: str, host: str, kind: str, there: bool) -> None:
    settings = Settings.model_validate({"home": tmp_path, "host": host, "sandbox": sandbox})
    assert calculations.is_offered(settings, Isolation(kind, ("monty",))) is there
    assert not calculations.is_offered(settings, Isolation(kind))


@sqlite_only
async def test_the_interpreter_is_loaded_when_it_is_first_called(lab: House) -> None:
    assert lab.gateway.sandbox is not None and lab.gateway.sandbox.tools._sandbox is None
    result(await lab.call(lab.token("alice"), "/mcp", "sandbox_python", {"code": "1"}))
    assert lab.gateway.sandbox.tools._sandbox is not None

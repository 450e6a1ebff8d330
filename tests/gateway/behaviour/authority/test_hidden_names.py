"""What a caller may not know of is refused as what is not there: in the same words, after the same waits, and with a record of each."""

import json
from collections.abc import AsyncIterator, Callable
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import select

from gateway.calls.targets.unknown_names import NAME_MAX
from gateway.storage.batch import WriteFailed
from gateway.storage.database import Database
from policies.tables import audit_records
from registry.cards.card import Family, McpPrompt, McpResource, McpTool, RegistrationStatus
from registry.rows import Candidate
from tests.fakes.house import CAPABILITIES, ROLES, USERS, CallbackAgent, House, house

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
PEOPLE = {**USERS, "eve": {"roles": ["narrow"]}}
MEANT = {**ROLES, "narrow": ["agent:own", "tool:own.*", "prompt:own.*", "resource:own"]}
USING = {**ROLES, "narrow": ["agent:mine", "tool:own.*"]}  # an agent, and a server whose tools eve calls as an agent
VERSION = {"A2A-Version": "1.0"}
HIDDEN, ABSENT = "secret", "absent"  # names of as many letters, one of which stands for everything that the caller may not know of
waits: ContextVar[list[str] | None] = ContextVar("waits", default=None)
Ask = Callable[[House, str], Any]


@pytest.fixture(autouse=True)
def _counting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Notes each wait for the database that a request causes in its own task."""
    for name in ("read", "write"):
        monkeypatch.setattr(Database, name, _noting(name, getattr(Database, name)))


def _noting(name: str, act: Callable[..., Any]) -> Callable[..., Any]:
    async def noted(self: Database, work: Any) -> Any:
        noting = waits.get()
        if noting is not None:
            noting.append(name)
        return await act(self, work)

    return noted


@pytest.fixture
async def home(tmp_path: Path, database_url: str) -> AsyncIterator[House]:
    async with house(tmp_path / "home", database_url, roles=MEANT, users=PEOPLE) as built:
        await furnish(built)
        yield built


async def furnish(home: House) -> None:
    """A server and an agent that eve may know of, and of either kind one that she may not."""
    for name in ("own", HIDDEN):
        await home.gateway.registry.add(server(name))
    await home.agent(CallbackAgent(f"{HIDDEN}-agent"))
    await home.agent(CallbackAgent("mine"))
    await home.gateway.database.refresh_epochs()


def server(name: str) -> Candidate:
    return Candidate(
        tenant="default", name=name, family=Family.SERVER, kind="mcp", url="http://127.0.0.1:9/mcp", owner="operator",
        status=RegistrationStatus.ACTIVE, facts={"era": "modern", "protocol_version": "2026-07-28"},
        tools=tuple(McpTool(tool, {"name": tool, "inputSchema": {"type": "object"}}) for tool in ("check", "other")),
        prompts=(McpPrompt("ask", {"name": "ask"}),), resources=(McpResource("file:///a", {"uri": "file:///a", "name": "a"}),),
    )  # fmt: skip


async def mcp(home: House, path: str, method: str, **params: Any) -> httpx.Response:
    named = params.get("name") or params.get("uri")
    headers = {"mcp-protocol-version": "2026-07-28", "mcp-method": method, **({"mcp-name": named} if named else {})}
    return await home.rpc(path, home.token("eve"), method, {**params, "_meta": CAPABILITIES}, **headers)


async def a2a(home: House, agent: str, method: str, params: Any = None, **headers: str) -> httpx.Response:
    return await home.rpc(f"/agents/{agent}", home.token("eve"), method, params or {}, **VERSION, **headers)


def message(**more: Any) -> dict[str, Any]:
    return {"message": {"messageId": "m1", "role": "ROLE_USER", "parts": [{"text": "hi"}], **more}}


async def api(home: House, method: str, path: str, body: Any = None) -> httpx.Response:
    return await home.http.request(method, path, json=body, headers={"authorization": f"Bearer {home.token('eve')}"})


def question(action: str, kind: str, name: str) -> dict[str, Any]:
    return {"subject": {"type": "user", "id": "eve"}, "action": {"name": action}, "resource": {"type": kind, "id": name}}


ACTS: dict[str, Ask] = {  # asks for an act on what has this name
    "a tool": lambda home, name: mcp(home, "/mcp", "tools/call", name=f"{name}_check", arguments={}),
    "a tool at its server": lambda home, name: mcp(home, f"/mcp/{name}", "tools/call", name="check", arguments={}),
    "a tool in the search mode": lambda home, name: mcp(
        home, "/mcp?mode=search", "tools/call", name="call_tool", arguments={"name": f"{name}_check", "arguments": {}}
    ),
    "an agent as a tool": lambda home, name: mcp(home, "/mcp", "tools/call", name=f"{name}-agent", arguments={"message": "hi"}),
    "an agent as a tool, asked badly": lambda home, name: mcp(home, "/mcp", "tools/call", name=f"{name}-agent", arguments={"x": 1}),
    "a prompt": lambda home, name: mcp(home, "/mcp", "prompts/get", name=f"{name}_ask"),
    "a resource": lambda home, name: mcp(home, "/mcp", "resources/read", uri=f"{name}+file:///a"),
    "a message": lambda home, name: a2a(home, f"{name}-agent", "SendMessage", message()),
    "a message that streams": lambda home, name: a2a(home, f"{name}-agent", "SendStreamingMessage", message()),
    "a message with a key": lambda home, name: a2a(home, f"{name}-agent", "SendMessage", message(), **{"idempotency-key": "k"}),
    "a message to a task": lambda home, name: a2a(home, f"{name}-agent", "SendMessage", message(taskId="t_1")),
    "a message with an extension": lambda home, name: a2a(
        home, f"{name}-agent", "SendMessage", message(), **{"A2A-Extensions": "https://x.test/e"}
    ),
    "a message to a server": lambda home, name: a2a(home, name, "SendMessage", message()),
}
LOOKS: dict[str, Ask] = {  # asks about it, which no ruling is needed for
    "tools of a server": lambda home, name: mcp(home, f"/mcp/{name}", "tools/list"),
    "tasks of an agent": lambda home, name: a2a(home, f"{name}-agent", "ListTasks"),
    "a task of an agent": lambda home, name: a2a(home, f"{name}-agent", "GetTask", {"id": "t_1"}),
    "the end of a task": lambda home, name: a2a(home, f"{name}-agent", "CancelTask", {"id": "t_1"}),
    "an extended card": lambda home, name: a2a(home, f"{name}-agent", "GetExtendedAgentCard"),
    "an agent": lambda home, name: api(home, "GET", f"/api/agents/{name}-agent"),
    "a card": lambda home, name: api(home, "GET", f"/api/agents/{name}-agent/card"),
    "a server": lambda home, name: api(home, "GET", f"/api/servers/{name}"),
    "its removal": lambda home, name: api(home, "DELETE", f"/api/servers/{name}"),
    "its approval": lambda home, name: api(home, "POST", f"/api/servers/{name}/approve"),
    "what may be called": lambda home, name: api(home, "POST", "/access/v1/evaluation", question("callTool", "tool", f"{name}.check")),
    "who may be called": lambda home, name: api(home, "POST", "/access/v1/evaluation", question("invokeAgent", "agent", f"{name}-agent")),
}


async def asked(home: House, ask: Ask, name: str) -> tuple[int, str, list[str]]:
    """Status, answer without the name, and the waits for the database."""
    noting: list[str] = []
    token = waits.set(noting)
    try:
        answer = await ask(home, name)
    finally:
        waits.reset(token)
    return answer.status_code, answer.text.replace(name, "NAME"), noting


async def denials(home: House) -> list[dict[str, Any]]:
    query = select(audit_records.c.body).where(audit_records.c.kind == "decision").order_by(audit_records.c.at, audit_records.c.seq)
    bodies = await home.gateway.database.read(lambda connection: connection.execute(query).scalars().all())
    return [record for record in map(json.loads, bodies) if not record["allowed"]]


# attack LOG-06
@pytest.mark.parametrize("what", ACTS)
async def test_an_act_on_something_hidden_is_answered_as_one_on_nothing(home: House, what: str) -> None:
    for _ in range(2):  # the second time from caches
        hidden, absent = await asked(home, ACTS[what], HIDDEN), await asked(home, ACTS[what], ABSENT)
        assert hidden == absent
        assert hidden[2].count("write") == 1  # the denial, which both wait for
    records = await denials(home)
    assert [record["reason_id"] for record in records] == ["user-lacks-permission", "unknown"] * 2
    assert all(record["principal"]["subject"] == "eve" for record in records)
    assert [HIDDEN in record["resource"] or ABSENT in record["resource"] for record in records] == [True] * 4


# attack LOG-06
@pytest.mark.parametrize("what", LOOKS)
async def test_a_look_at_something_hidden_is_answered_as_one_at_nothing(home: House, what: str) -> None:
    for _ in range(2):
        hidden, absent = await asked(home, LOOKS[what], HIDDEN), await asked(home, LOOKS[what], ABSENT)
        assert hidden == absent and "write" not in hidden[2]


@pytest.mark.parametrize("what", ["a tool", "a prompt", "a resource", "a tool at its server"])
async def test_what_the_caller_may_know_of_is_answered_as_itself(home: House, what: str) -> None:
    """Else both would be alike because everything is."""
    own, absent = await asked(home, ACTS[what], "own"), await asked(home, ACTS[what], ABSENT)
    assert own[:2] != absent[:2]


# attack LOG-06
@pytest.mark.parametrize("limit", [{"rate": 0.001, "burst": 1}, {"max_bytes": 1}, {"concurrent": 1}])
async def test_a_limit_of_something_hidden_tells_nothing_of_it(tmp_path: Path, database_url: str, limit: dict[str, Any]) -> None:
    per = [{"what": f"agent:{HIDDEN}-agent", **limit}, {"what": f"server:{HIDDEN}", **limit}]
    async with house(tmp_path / "home", database_url, roles=MEANT, users=PEOPLE, limits={"per": per}) as home:
        await furnish(home)
        await home.send(home.token("admin"), f"{HIDDEN}-agent", "hi")
        await home.call(home.token("admin"), "/mcp", f"{HIDDEN}_check", {})
        for what in ("a tool", "a tool at its server", "a message", "an agent as a tool"):
            assert await asked(home, ACTS[what], HIDDEN) == await asked(home, ACTS[what], ABSENT), what


async def reasons(home: House) -> list[str]:
    return [record["reason_id"] for record in await denials(home)]


LIMITS = [({"rate": 0.001, "burst": 1}, 429), ({"calls_per_day": 1}, 429), ({"max_bytes": 1}, 413)]


@pytest.mark.parametrize(("limit", "status"), LIMITS)
@pytest.mark.parametrize("place", ["interlock", "mine"])
async def test_a_limit_of_an_agent_that_the_caller_may_know_of_is_named(
    tmp_path: Path, database_url: str, place: str, limit: dict[str, Any], status: int
) -> None:
    per = [{"what": "agent:mine", **limit}]
    async with house(tmp_path / "home", database_url, roles=USING, users=PEOPLE, limits={"per": per}) as home:
        await furnish(home)
        quote = message(parts=[{"text": "Makes a quote"}])
        answers = [await a2a(home, place, "SendMessage", quote) for _ in range(2)]
        assert answers[1].status_code == status and "unknown" not in answers[1].text
        assert await reasons(home) == []


@pytest.mark.parametrize(("limit", "status"), LIMITS)
async def test_a_limit_of_a_server_used_as_an_agent_is_named(tmp_path: Path, database_url: str, limit: dict[str, Any], status: int) -> None:
    per = [{"what": "server:own", **limit}]
    async with house(tmp_path / "home", database_url, roles=USING, users=PEOPLE, limits={"per": per}) as home:
        await furnish(home)
        call = {"message": {"messageId": "m1", "role": "ROLE_USER", "parts": [{"data": {"tool": "check", "arguments": {}}}]}}
        answers = [await a2a(home, "own", "SendMessage", call) for _ in range(2)]
        assert answers[1].status_code == status and "unknown" not in answers[1].text
        assert await reasons(home) == []


async def test_a_limit_is_named_to_callers_over_mcp_too(tmp_path: Path, database_url: str) -> None:
    per = [{"what": "agent:mine", "rate": 0.001, "burst": 1}]
    async with house(tmp_path / "home", database_url, roles=USING, users=PEOPLE, limits={"per": per}) as home:
        await furnish(home)
        answers = [await mcp(home, "/mcp", "tools/call", name="mine", arguments={"message": "hi"}) for _ in range(2)]
        assert "rate limit is exceeded" in answers[1].text and await reasons(home) == []


# attack LOG-06
async def test_a_limit_of_the_callers_own_counts_names_that_are_not_there_too(tmp_path: Path, database_url: str) -> None:
    per = [{"who": "user:eve", "rate": 0.001, "burst": 2}]
    for name in (HIDDEN, ABSENT):
        async with house(tmp_path / name, database_url, roles=MEANT, users=PEOPLE, limits={"per": per}) as home:
            if name == HIDDEN:
                await furnish(home)
            answers = [(await a2a(home, f"{name}-agent", "SendMessage", message())).status_code for _ in range(3)]
            assert answers == [404, 404, 429]


async def test_a_long_name_is_kept_in_part(home: House) -> None:
    await mcp(home, "/mcp", "tools/call", name="own_" + "x" * 10_000, arguments={})
    await a2a(home, "a" * 64, "SendMessage", message())
    assert all(len(record["resource"]) <= NAME_MAX and len(record["permission"]) <= NAME_MAX for record in await denials(home))
    assert len(await denials(home)) == 2


async def test_where_a_denial_can_not_be_kept_both_are_refused_alike(home: House, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(self: Database, work: Any) -> Any:
        raise WriteFailed("away")

    monkeypatch.setattr(Database, "write", broken)
    for what in ("a tool", "a message", "a resource"):
        hidden, absent = await asked(home, ACTS[what], HIDDEN), await asked(home, ACTS[what], ABSENT)
        assert hidden == absent and "unknown" not in hidden[1]

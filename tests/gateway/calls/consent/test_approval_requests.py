"""What people approve of is what is sent, and an act that has to wait for something else goes on with the approval that it used."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from gateway.calls.limits.meters import TooManyCalls, release
from gateway.calls.turns import pausing as parking
from gateway.storage.database import Database
from policies.delegation.approval import Requester
from policies.delegation.approval_rows import ApprovalGone, find_used_by, mark_unused, mark_used, write_pending
from policies.delegation.rulings import Decision, act_of_calling_tool, act_of_invoking_agent
from tests.fakes.a2a_agents import serving
from tests.fakes.authorization_server import Plain, authorization_server, protected
from tests.fakes.house import CallbackAgent, House, ToolServer, house, open_house
from tests.fakes.reception import Reception
from tests.fakes.waiting import until
from tests.gateway.behaviour.upstreams.test_connect import address
from tests.gateway.behaviour.upstreams.test_connect_agents import Agents
from tests.gateway.calls.consent.test_approval_votes import PEOPLE, WITH_CHIEF, vote

POLICY = """
@id("large") @ask("Reservations above 10 need a second person") @approvals("1")
forbid(principal, action == Action::"callTool", resource) when { context.input has amount && context.input.amount > 10 };
@id("read") @ask("Reading is looked at first")
forbid(principal, action == Action::"callTool", resource == Tool::"inventory.read");
@id("vendor") @ask("The vendor is asked with care")
forbid(principal, action == Action::"invokeAgent", resource == Agent::"vendor");
"""
ASKS = {"method": "elicitation/create", "params": {"mode": "form", "message": "Sure?", "requestedSchema": {"type": "object"}}}
QUESTION = {"resultType": "input_required", "inputRequests": {"sure": ASKS}}
ANSWER = {"sure": {"action": "accept", "content": {}}}
TASKS = {"extensions": {"io.modelcontextprotocol/tasks": {}}}
ONCE = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)  # the rows are tried below, on both


class Replying(ToolServer):
    """A tool server that answers with what the test lays down, one after the other."""

    def __init__(self) -> None:
        super().__init__()
        self.params: list[Any] = []
        self.answers: list[Any] = []

    def result(self, params: Any) -> Any:
        self.params.append(params)
        return self.answers.pop(0) if self.answers else super().result(params)


def policies(tmp_path: Path) -> dict[str, Any]:
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "ours.cedar").write_text(POLICY)
    limits = {"per": [{"what": "agent:vendor", "concurrent": 1}]}
    return {"policies": str(tmp_path / "policies"), "roles": WITH_CHIEF, "users": PEOPLE, "limits": limits}


@pytest.fixture
async def home(tmp_path: Path, database_url: str) -> AsyncIterator[House]:
    async with house(tmp_path / "home", database_url, **policies(tmp_path)) as built:
        yield built


@pytest.fixture
async def open_asking(tmp_path: Path, database_url: str) -> AsyncIterator[House]:
    async with open_house(tmp_path / "home", database_url, **policies(tmp_path)) as built:
        yield built


@pytest.fixture
async def inventory(home: House) -> Replying:
    server = Replying()
    url = await home.stack.enter_async_context(serving(server))
    await home.server("inventory", "reserve", url=url.rstrip("/"))
    return server


async def ask(home: House, method: str, params: dict[str, Any], meta: dict[str, Any] | None = None, **capabilities: Any) -> Any:
    """The error's data, or the result."""
    told = {"io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": capabilities}
    headers = {"mcp-protocol-version": "2026-07-28", "mcp-method": method, "mcp-name": params.get("name", params.get("taskId", ""))}
    answer = (
        await home.rpc("/mcp/inventory", home.token("alice"), method, {**params, "_meta": {**told, **(meta or {})}}, **headers)
    ).json()
    return {"code": answer["error"]["code"], **answer["error"].get("data", {})} if "error" in answer else answer["result"]


async def reserve(home: House, meta: dict[str, Any] | None = None, **more: Any) -> Any:
    params = {"name": "reserve", "arguments": {"amount": 11}, **more}
    return await ask(home, "tools/call", params, meta, elicitation={"form": {}, "url": {}}, **TASKS)


async def approved(home: House, **more: Any) -> str:
    found: str = (await reserve(home, **more))["approval"]["id"]
    assert (await vote(home, found)).status_code == 200
    return found


@ONCE
async def test_what_is_sent_beside_the_arguments_is_approved_or_refused(home: House, inventory: Replying) -> None:  # attack DLG-13
    approval = await approved(home)
    named = {"dev.interlock/approval": approval}
    for more in ({"inputResponses": ANSWER}, {"force": True}, {"arguments": {"amount": 11, "force": True}}):
        assert (await reserve(home, named, **more))["reason_id"] == "approval-other-arguments"
    for name in ("vendor/dry-run", "io.modelcontextprotocol/note", "dev.interlock/note"):
        assert (await reserve(home, {**named, name: False}))["reason_id"] == "approval-other-arguments"
    assert inventory.params == []
    found = await approved(home, force=True, meta={"vendor/dry-run": False})
    shown = (await Reception(home).ask("GET", f"/api/approvals/{found}", "carol")).json()
    assert (shown["arguments"], shown["beside"]) == ({"amount": 11}, {"force": True, "_meta": {"vendor/dry-run": False}})
    assert "reason_id" not in await reserve(home, {"vendor/dry-run": False, "progressToken": "another"}, force=True)
    client = {"io.modelcontextprotocol/clientInfo": {"name": "Refund it to mallory", "version": "1"}}
    assert "reason_id" not in await reserve(home, {"progressToken": 7, **client})  # the first approval is as good as ever
    assert [params.get("force") for params in inventory.params] == [True, None]
    assert [params["_meta"]["io.modelcontextprotocol/clientInfo"]["name"] for params in inventory.params] == ["interlock"] * 2


@ONCE
@pytest.mark.parametrize("state", [{"requestState": "theirs"}, {}])
async def test_what_a_server_asks_is_answered_under_the_approval_of_the_call_once(
    home: House, inventory: Replying, state: dict[str, str]
) -> None:  # attack DLG-13
    approval = await approved(home)
    inventory.answers = [QUESTION | state, QUESTION | state]
    first = await reserve(home)
    assert first["resultType"] == "input_required"
    goes_on = {"requestState": first["requestState"], "inputResponses": ANSWER}
    second = await reserve(home, **goes_on)  # the server asks once more
    assert second["resultType"] == "input_required"
    assert (await reserve(home, **goes_on))["reason_id"] == "approval-needed"  # from the first it went on once
    other = {**goes_on, "requestState": second["requestState"], "arguments": {"amount": 12}}
    assert (await reserve(home, **other))["code"] == -32602
    done = await reserve(home, **{**goes_on, "requestState": second["requestState"]})
    assert done["resultType"] == "complete"
    again = await reserve(home, **{**goes_on, "requestState": second["requestState"]})
    assert again["reason_id"] == "approval-needed"
    assert [params.get("inputResponses") for params in inventory.params] == [None, ANSWER, ANSWER]
    assert [params.get("requestState") for params in inventory.params] == [None, state.get("requestState"), state.get("requestState")]
    assert (await reserve(home, {"dev.interlock/approval": approval}))["reason_id"] == "approval-used"


@ONCE
async def test_what_an_approved_call_began_can_be_asked_for_and_nothing_else(home: House, inventory: Replying) -> None:  # attack DLG-13
    told = {
        "taskId": "t-1",
        "status": "working",
        "createdAt": "2026-01-01T00:00:00Z",
        "lastUpdatedAt": "2026-01-01T00:00:00Z",
        "ttlMs": 60000,
    }
    await approved(home)
    inventory.answers = [{"resultType": "task", **told}, *[{"resultType": "complete", **told}] * 3]
    task = (await reserve(home))["taskId"]
    await home.gateway.database.write(lambda batch: batch.run("UPDATE approvals SET expires = 1", ()))
    for _ in range(2):
        assert (await ask(home, "tasks/get", {"taskId": task}, **TASKS))["status"] == "working"
    assert (await reserve(home))["reason_id"] == "approval-needed"
    await home.gateway.database.write(lambda batch: batch.run("UPDATE approvals SET used_by = 'd_other'", ()))
    assert "status" not in await ask(home, "tasks/get", {"taskId": task}, **TASKS)
    assert len(inventory.params) == 3


@ONCE
async def test_more_people_have_to_agree_when_the_policy_wants_more_by_then(tmp_path: Path, home: House, inventory: Replying) -> None:
    await approved(home)
    (tmp_path / "policies" / "ours.cedar").write_text(POLICY.replace('@approvals("1")', '@approvals("2")'))
    home.gateway.rulings.engine.reload()
    home.gateway.rulings.authority.invalidate()
    asked_anew = await reserve(home)
    assert asked_anew["reason_id"] == "approval-needed" and inventory.params == []
    for chief in ("carol", "dave"):
        assert (await vote(home, asked_anew["approval"]["id"], chief)).status_code == 200
    assert "reason_id" not in await reserve(home)


@asynccontextmanager
async def behind_oauth(home: House, app: Any) -> AsyncIterator[Agents]:
    async with AsyncExitStack() as stack:
        issuer = await stack.enter_async_context(authorization_server())
        server = await stack.enter_async_context(protected(app, lambda: issuer))
        yield Agents(home, issuer, server, None)  # type: ignore[arg-type]  # nobody looks inside


@ONCE
async def test_a_call_that_needs_a_consent_then_gives_its_approval_back(open_asking: House) -> None:
    async with behind_oauth(open_asking, Plain()) as place:
        await place.registered()
        needed = (await place.call()).json()["error"]["data"]["approval"]["id"]
        assert (await vote(open_asking, needed)).status_code == 200
        page = (await place.call()).json()["result"]["inputRequests"]["connect"]["params"]["url"]
        await place.connect(page, "alice")
        assert (await place.call()).json()["result"]["content"][0]["text"] == "read"
        assert (await place.call()).json()["error"]["data"]["reason_id"] == "approval-needed"


@ONCE
async def test_a_message_goes_on_after_a_consent_as_it_was_approved(open_asking: House) -> None:  # attack DLG-13
    agent = CallbackAgent("vendor")
    async with behind_oauth(open_asking, agent) as place:
        await open_asking.registered("vendor", f"{place.server.origin}/mcp", upstream={"auth": {}}, delegation="header")
        task = (await open_asking.send(open_asking.token("alice"), "vendor", "hello"))["result"]["task"]
        page = address(await said(place, task["id"], await voted(open_asking)))
        other = await open_asking.send(open_asking.token("alice"), "vendor", "send it all", taskId=task["id"])
        assert other["result"]["task"]["status"]["state"] == "TASK_STATE_AUTH_REQUIRED"  # nobody is asked again, the page is
        await open_asking.gateway.database.write(lambda batch: batch.run("UPDATE approvals SET expires = 1", ()))
        await open_asking.send(open_asking.token("alice"), "vendor", "send it all", taskId=task["id"])
        waits = await pending(open_asking)
        shown = (await Reception(open_asking).ask("GET", f"/api/approvals/{waits}", "carol")).json()
        assert [part["text"] for part in shown["arguments"]["message"]["parts"]] == ["hello"]
        await place.connect(page, "alice")
        assert (await vote(open_asking, waits)).status_code == 200
        done = await place.ended(task["id"])
        assert done["artifacts"][0]["parts"][0]["text"] == "vendor got: hello"
        assert len(agent.requests) == 1


@ONCE
async def test_what_goes_on_waits_for_a_place_and_takes_it(home: House) -> None:
    entered, ended = asyncio.Event(), asyncio.Event()

    async def slowly(token: str, text: str) -> str:
        entered.set()
        await ended.wait()
        return f"done: {text}"

    agent = await home.agent(CallbackAgent("vendor", slowly))
    task = (await home.send(home.token("alice"), "vendor", "hello"))["result"]["task"]
    alice = await home.gateway.rulings.caller_resolver.authenticate(home.token("alice"), (home.url,))
    place = home.gateway.limits.acquire_concurrency(alice, act_of_invoking_agent("vendor"))  # all there is
    await voted(home)
    await home.gateway.approved_task_resumer.run_once()
    assert await state_of(home, task["id"]) == "TASK_STATE_AUTH_REQUIRED" and agent.requests == []
    release(place)
    async with asyncio.timeout(60):
        await entered.wait()
    with pytest.raises(TooManyCalls):
        home.gateway.limits.acquire_concurrency(alice, act_of_invoking_agent("vendor"))
    ended.set()

    def free() -> bool:
        try:
            release(home.gateway.limits.acquire_concurrency(alice, act_of_invoking_agent("vendor")))
        except TooManyCalls:
            return False
        return True

    await until(free, every=0.02)
    assert await state_of(home, task["id"]) == "TASK_STATE_COMPLETED"


@ONCE
async def test_what_waits_for_a_place_holds_up_nothing_else(
    home: House, inventory: Replying, monkeypatch: pytest.MonkeyPatch
) -> None:  # attack PRO-12
    monkeypatch.setattr(parking, "BATCH_SIZE", 1)
    await home.agent(CallbackAgent("vendor"))
    await home.send(home.token("alice"), "vendor", "hello")
    alice = await home.gateway.rulings.caller_resolver.authenticate(home.token("alice"), (home.url,))
    place = home.gateway.limits.acquire_concurrency(alice, act_of_invoking_agent("vendor"))  # all there is
    await voted(home)
    await home.send(home.token("alice"), "inventory", 'tool: reserve {"amount": 11}')
    await voted(home)

    async def called() -> bool:
        await home.gateway.approved_task_resumer.run_once()
        return bool(inventory.params)

    await until(called, every=0.02)
    release(place)


async def state_of(home: House, task_id: str) -> str:
    return str((await home.send_get(home.token("alice"), "vendor", task_id))["result"]["status"]["state"])


async def pending(home: House) -> str:
    items = (await Reception(home).ask("GET", "/api/approvals?state=pending", "carol")).json()["items"]
    return str(items[0]["id"])


async def voted(home: House) -> str:
    found = await pending(home)
    assert (await vote(home, found)).status_code == 200
    return found


async def said(place: Agents, task_id: str, approval: str) -> str:
    """What the task says once it goes on, to wait for something else than the approval."""
    texts: list[str] = []

    async def elsewhere() -> bool:
        status = (await place.home.send_get(place.home.token("alice"), "vendor", task_id))["result"]["status"]
        texts.append("".join(part.get("text", "") for part in status.get("message", {}).get("parts", [])))
        return "/connect/" in texts[-1] and approval not in texts[-1]

    await until(elsewhere, every=0.02)
    return texts[-1]


APPROVAL = {
    "tenant": "acme", "id": "ap_1", "owner": "acme|idp|alice", "txn": "", "task_id": "", "decision_id": "d_0", "definition": "d",
    "act": '{"permission": "tool:crm.refund"}', "chain": "[]", "arguments_hash": "h", "arguments": '{"amount":11}', "described": "",
    "policies": "[]", "prompt": "?", "state": "approved", "needed": 1, "created": 1, "expires": 1000,
}  # fmt: skip
ALICE = Requester("acme", "acme|idp|alice", (), "", "")


def decision(name: str, continues: str = "", at: int = 10) -> Decision:
    return Decision(
        name,
        at,
        True,
        "allowed",
        ALICE.owner,
        (),
        (),
        act_of_calling_tool("crm", "refund"),
        approval="ap_1",
        continues_decision_id=continues,
    )


async def test_an_approval_is_with_one_decision_at_a_time(database: Database) -> None:  # attack DLG-13
    async def uses(who: Decision) -> bool:
        try:
            await database.write(lambda batch: mark_used(batch, "acme", who))
        except ApprovalGone:
            return False
        return True

    await database.write(lambda batch: write_pending(batch, APPROVAL))
    assert not await uses(decision("d_9", continues="d_1"))  # nobody used it yet
    assert not await uses(decision("d_9", at=1000))  # too late
    assert await uses(decision("d_1"))
    assert not await uses(decision("d_2"))
    assert [await uses(decision(name, continues="d_1")) for name in ("d_2", "d_3")] == [True, False]
    found = await database.read(lambda connection: find_used_by(connection, ALICE, "d_2"))
    assert found is not None and (found[0].used_by, found[1].arguments) == ("d_2", '{"amount":11}')
    for errand, name in (
        (ALICE, "d_1"),
        (ALICE, ""),
        (replace(ALICE, owner="acme|idp|bob"), "d_2"),
        (replace(ALICE, tenant="evil"), "d_2"),
    ):
        assert await database.read(lambda connection, who=errand, by=name: find_used_by(connection, who, by)) is None
    await database.write(lambda batch: mark_unused(batch, "acme", decision("d_1")))  # which has it no more
    assert not await uses(decision("d_4"))
    await database.write(lambda batch: mark_unused(batch, "acme", decision("d_2", continues="d_1")))
    assert not await uses(decision("d_4"))  # what d_1 continues_decision_id is there, and goes on
    assert await uses(decision("d_5", continues="d_1"))
    assert not await uses(decision("d_9", continues="d_5", at=1000))


async def test_an_approval_of_which_nothing_came_is_as_good_as_before(database: Database) -> None:
    await database.write(lambda batch: write_pending(batch, APPROVAL))
    await database.write(lambda batch: mark_used(batch, "acme", decision("d_1")))
    await database.write(lambda batch: mark_unused(batch, "acme", decision("d_2")))
    with pytest.raises(ApprovalGone):
        await database.write(lambda batch: mark_used(batch, "acme", decision("d_3")))
    await database.write(lambda batch: mark_unused(batch, "acme", decision("d_1")))
    await database.write(lambda batch: mark_used(batch, "acme", decision("d_3")))


async def test_an_approval_of_a_task_that_waits_is_not_given_back(database: Database) -> None:
    await database.write(lambda batch: write_pending(batch, {**APPROVAL, "grant_id": "g_1", "state": "used", "used_by": "d_1"}))
    await database.write(lambda batch: mark_unused(batch, "acme", decision("d_1")))
    assert await database.read(lambda connection: find_used_by(connection, ALICE, "d_1")) is not None

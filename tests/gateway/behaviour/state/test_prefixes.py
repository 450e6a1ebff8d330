"""What operators say of prefixes: schemas, owners of held values, expiry, sensitivity, and tools that hold the values."""

import json
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from gateway.server.composition.process import Gateway
from gateway.server.settings import BadSettings, Settings
from gateway.state.board.feed import BoardFeed
from gateway.state.board.held_values import questions
from tests.fakes.a2a_agents import serving
from tests.fakes.board import ROLES, USERS, BoardHome, board_home
from tests.fakes.house import ToolServer

sqlite_only = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
STATES = {"enum": ["open", "closed"]}
CRM = {"server": "crm", "read": "get_tier", "write": "set_tier", "arguments": {"customer_id": 1}, "value": "tier", "result": "tier"}
PREFIXES = [
    {"prefix": "customer/*/status", "value_schema": STATES, "owner": "reader"},
    {"prefix": "customer/*/held", "value_schema": STATES, "owner": "reader", "on_misfit": "hold"},
    {"prefix": "customer/*/asked", "value_schema": STATES, "owner": "reader", "on_misfit": "ask", "ask_seconds": 3600},
    {"prefix": "customer/*/short", "ttl": 60, "sensitivity": 1},
    {"prefix": "customer/*/tier", "backed_by": CRM, "value_schema": {"type": "string"}},
]
HELD = "customer/42/held"
ASKED = "customer/42/asked"
TIER = "customer/42/tier"


@pytest.fixture
async def board(tmp_path: Path, database_url: str) -> AsyncIterator[BoardHome]:
    async with board_home(tmp_path, database_url, state={"prefixes": PREFIXES}) as built:
        yield built


class Crm(ToolServer):
    """A tool server that holds one tier for each customer, and fails on request."""

    def __init__(self) -> None:
        super().__init__()
        self.tiers = {"42": "gold"}
        self.fails = False

    def result(self, params: Any) -> Any:
        arguments = params["arguments"]
        if self.fails:
            return {"content": [{"type": "text", "text": "database password is hunter2"}], "isError": True, "resultType": "complete"}
        if params["name"] == "set_tier":
            self.tiers[arguments["customer_id"]] = arguments["tier"]
        found = {"tier": self.tiers[arguments["customer_id"]]} if arguments["customer_id"] in self.tiers else {}
        return {"content": [{"type": "text", "text": json.dumps(found)}], "structuredContent": found, "resultType": "complete"}


async def crm_of(board: BoardHome) -> Crm:
    crm = Crm()
    await board.home.server("crm", "get_tier", "set_tier", url=await board.home.stack.enter_async_context(serving(crm)))
    return crm


async def held(board: BoardHome, user: str = "rita") -> list[dict[str, Any]]:
    token = board.home.token(user)
    answer = await board.home.http.get("/api/state-held", headers={"authorization": f"Bearer {token}"})
    return list(answer.json()["items"])


async def decide(board: BoardHome, held_id: str, decision: str, user: str = "rita") -> Any:
    headers = {"authorization": f"Bearer {board.home.token(user)}"}
    return await board.home.http.post(f"/api/state-held/{held_id}/decision", json={"decision": decision}, headers=headers)


@sqlite_only
async def test_a_value_that_misses_its_schema_is_refused(board: BoardHome) -> None:
    refused = await board.put("customer/42/status", "half-open")
    assert (refused.status_code, refused.json()["reason_id"]) == (422, "value-misfit")
    assert '$ breaks the rule `enum` (["open"' in refused.json()["detail"] and "reader" in refused.json()["detail"]
    assert (await board.put("customer/42/status", "open")).status_code == 201
    assert (await board.ask("PATCH", "/customer/42/status", body={"a": 1}, if_match="*")).status_code == 422
    assert (await board.value("customer/42/status"))["version"] == 1


async def test_a_misfit_is_held_until_another_person_accepts_it(board: BoardHome) -> None:
    agent = await board.agent("sales")
    await board.put(HELD, "open")
    kept = (await agent.asked("ann", ("set", {"key": HELD, "value": "half-open", "version": 1})))[0]["held"]
    assert (kept["key"], kept["base"], kept["source"]["agent"]) == (HELD, 1, "sales")
    assert (await board.value(HELD))["value"] == "open"
    assert [each["id"] for each in await held(board)] == [kept["id"]]
    own = await decide(board, kept["id"], "accept", "ann")
    assert (own.status_code, own.json()["reason_id"]) == (403, "user-lacks-permission")
    accepted = await decide(board, kept["id"], "accept")
    assert (accepted.status_code, accepted.json()["value"]["version"]) == (200, 2)
    value = await board.value(HELD)
    assert (value["value"], value["source"]["agent"]) == ("half-open", "sales")
    assert (await decide(board, kept["id"], "drop")).json()["reason_id"] == "held-value-decided"
    assert await held(board) == []


@sqlite_only
async def test_nobody_accepts_what_they_wrote_themselves(board: BoardHome) -> None:
    kept = (await board.put(HELD, "x", "admin")).json()["held"]
    own = await decide(board, kept["id"], "accept", "admin")
    assert (own.status_code, own.json()["reason_id"]) == (403, "held-value-own")
    assert (await decide(board, kept["id"], "drop", "admin")).json() == {"id": kept["id"], "state": "dropped"}
    assert (await board.ask("GET", f"/{HELD}")).status_code == 404


@sqlite_only
async def test_an_accepted_value_replaces_only_the_version_that_was_meant(board: BoardHome) -> None:
    kept = (await board.put(HELD, "x")).json()["held"]
    await board.put(HELD, "open")
    late = await decide(board, kept["id"], "accept")
    assert (late.status_code, late.json()["reason_id"]) == (412, "stale-version")
    assert (await board.value(HELD))["value"] == "open"


async def approval_of(board: BoardHome, held_value: dict[str, Any], user: str = "admin") -> Any:
    token = board.home.token(user)
    return await board.home.http.get(f"/api/approvals/{held_value['approval']}", headers={"authorization": f"Bearer {token}"})


async def vote(board: BoardHome, held_value: dict[str, Any], decision: str = "approve", user: str = "admin") -> Any:
    headers = {"authorization": f"Bearer {board.home.token(user)}"}
    path = f"/api/approvals/{held_value['approval']}/decision"
    return await board.home.http.post(path, json={"decision": decision}, headers=headers)


async def test_people_are_asked_about_a_misfit_with_the_exact_value(board: BoardHome) -> None:
    await board.put(ASKED, "open")
    asked = await board.put(ASKED, "half-open", if_match='"1"')
    held_value = asked.json()["held"]
    shown = (await approval_of(board, held_value)).json()
    assert (asked.status_code, shown["state"], shown["requester"]["principal"]) == (202, "pending", "default|interlock-development|ann")
    assert shown["arguments"] == {"value": "half-open", "replaces_version": 1, "problem": held_value["problem"]}
    assert shown["expires"] == held_value["expires"] and shown["resource"] == ASKED
    assert (await vote(board, held_value)).json()["state"] == "used"
    value = await board.value(ASKED)
    assert (value["value"], value["version"], value["source"]["principal"]) == ("half-open", 2, "default|interlock-development|ann")
    assert (await vote(board, held_value)).json()["reason_id"] == "approval-closed"


async def test_a_denied_misfit_is_dropped(board: BoardHome) -> None:
    held_value = (await board.put(ASKED, "x")).json()["held"]
    assert (await vote(board, held_value, "deny")).json()["state"] == "denied"
    assert await held(board) == [] and (await board.ask("GET", f"/{ASKED}")).status_code == 404
    assert (await decide(board, held_value["id"], "accept")).json()["reason_id"] == "held-value-decided"


@sqlite_only
async def test_an_approved_misfit_replaces_only_the_version_that_was_meant(board: BoardHome) -> None:
    held_value = (await board.put(ASKED, "x")).json()["held"]
    await board.put(ASKED, "open")
    late = await vote(board, held_value)
    assert (late.status_code, late.json()["reason_id"]) == (412, "stale-version")
    assert (await approval_of(board, held_value)).json()["votes"] == []
    assert (await vote(board, held_value, "deny")).json()["state"] == "denied"


@sqlite_only
async def test_the_owner_of_the_prefix_answers_the_question_too(board: BoardHome) -> None:
    first, second = [(await board.put(key, "x")).json()["held"] for key in (ASKED, f"{ASKED}/more")]
    assert (await vote(board, first, user="rita")).status_code == 403
    assert (await decide(board, first["id"], "accept")).status_code == 200
    assert (await decide(board, second["id"], "drop")).status_code == 200
    assert [(await approval_of(board, each)).json()["state"] for each in (first, second)] == ["used", "denied"]


@sqlite_only
async def test_a_misfit_that_nobody_can_be_asked_about_is_not_held(board: BoardHome, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(questions, "PENDING_MAX", 1)
    first = (await board.put(ASKED, "x")).json()["held"]
    refused = await board.put(f"{ASKED}/more", "x")
    assert (refused.status_code, refused.json()["reason_id"]) == (409, "board-full")
    assert [each["id"] for each in await held(board)] == [first["id"]]


@sqlite_only
async def test_followers_of_an_approved_misfit_are_woken_by_the_event_loop_alone(board: BoardHome, monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[threading.Thread] = []
    monkeypatch.setattr(BoardFeed, "announce", lambda _feed: threads.append(threading.current_thread()))
    held_value = (await board.put(ASKED, "x")).json()["held"]
    assert (await vote(board, held_value)).json()["state"] == "used"
    assert threads and set(threads) == {threading.main_thread()}


@sqlite_only
async def test_the_writer_of_a_misfit_does_not_approve_it(board: BoardHome) -> None:
    held_value = (await board.put(ASKED, "x", "admin")).json()["held"]
    assert (await vote(board, held_value)).json()["reason_id"] == "approval-own"


@sqlite_only
async def test_a_question_about_a_misfit_expires(board: BoardHome) -> None:
    held_value = (await board.put(ASKED, "x")).json()["held"]
    for table in ("state_held", "approvals"):
        await board.home.gateway.database.write(lambda batch, table=table: batch.run(f"UPDATE {table} SET expires = 1", ()))
    assert await held(board) == []
    assert (await vote(board, held_value)).json()["reason_id"] == "approval-closed"
    late = await decide(board, held_value["id"], "accept")
    assert (late.status_code, late.json()["detail"]) == (409, "The value was expired before.")
    await board.home.gateway.board.prune()
    query = text("SELECT state FROM state_held")
    assert await board.home.gateway.database.read(lambda connection: connection.execute(query).scalar_one()) == "expired"


@sqlite_only
async def test_held_values_are_unknown_to_people_without_rights_and_to_other_tenants(board: BoardHome) -> None:
    kept = (await board.put(HELD, "x")).json()["held"]
    assert await held(board, "fay") == [] == await held(board, "admin|x")
    assert (await decide(board, "hv_%C3%A9", "accept")).status_code == 404
    for user in ("fay", "nobody"):
        unknown = await decide(board, kept["id"], "accept", user)
        assert (unknown.status_code, unknown.json()["reason_id"]) == (404, "unknown")


@sqlite_only
async def test_a_prefix_gives_values_an_end_and_a_sensitivity(board: BoardHome) -> None:
    short = (await board.ask("PUT", "/customer/42/short?ttl=100000", body=1)).json()
    assert short["sensitivity"] == 1 and short["expires"] < short["updated"].replace("2026", "2027")
    assert short["expires"][:16] != short["updated"][:16] or short["expires"] > short["updated"]


async def test_a_tool_holds_the_values_of_its_prefix(board: BoardHome) -> None:
    crm = await crm_of(board)
    read = await board.ask("GET", f"/{TIER}")
    assert read.json() == {"key": TIER, "value": "gold", "backed_by": {"server": "crm", "tool": "get_tier"}}
    assert "etag" not in read.headers
    written = await board.put(TIER, "silver")
    assert (written.status_code, crm.tiers, crm.calls[-1]) == (200, {"42": "silver"}, ("set_tier", {"customer_id": "42", "tier": "silver"}))
    crm.tiers["42"] = "bronze"
    assert (await board.value(TIER))["value"] == "bronze"
    assert (await board.ask("GET", "?prefix=customer/42")).json()["items"] == []
    items = (await board.home.http.get("/api/audit?kind=decision", headers=board._operator)).json()["items"]
    assert {"tool:crm.get_tier", "tool:crm.set_tier", f"state:read:{TIER}", f"state:write:{TIER}"} <= {each["permission"] for each in items}


@sqlite_only
async def test_a_backing_tool_needs_the_rights_of_the_caller(board: BoardHome) -> None:
    crm = await crm_of(board)
    token = board.home.token("ann", "state:*")
    refused = await board.home.http.get(f"/api/state/{TIER}", headers={"authorization": f"Bearer {token}"})
    assert refused.status_code in (403, 404) and crm.calls == []
    foreign = await board.ask("GET", "/customer/43/tier")
    assert foreign.status_code == 403 and crm.calls == []


@sqlite_only
async def test_a_failing_backing_tool_leaves_nothing_and_is_not_quoted(board: BoardHome) -> None:
    crm = await crm_of(board)
    crm.fails = True
    for answer in (await board.put(TIER, "silver"), await board.ask("GET", f"/{TIER}")):
        assert (answer.status_code, answer.json()["reason_id"]) == (502, "state-backing") and "hunter2" not in answer.text
    by_tool = await board.call(board.home.token("ann"), "set", key=TIER, value="silver")
    assert by_tool["error"]["reason_id"] == "state-backing"
    crm.fails = False
    crm.tiers.clear()
    missing = await board.ask("GET", f"/{TIER}")
    assert (missing.status_code, missing.json()["reason_id"]) == (502, "state-backing")
    assert (await board.ask("GET", "?prefix=customer")).json()["items"] == []


@sqlite_only
async def test_a_backed_value_has_no_versions_history_or_deletion(board: BoardHome) -> None:
    crm = await crm_of(board)
    for answer in (
        await board.put(TIER, "x", if_match='"1"'),
        await board.ask("PUT", f"/{TIER}?ttl=60", body="x"),
        await board.ask("DELETE", f"/{TIER}"),
        await board.ask("GET", f"/{TIER}?history"),
    ):
        assert (answer.status_code, answer.json()["reason_id"]) == (422, "state-not-backed")
    assert (await board.put(TIER, 5)).json()["reason_id"] == "value-misfit"
    assert (await board.ask("PATCH", f"/{TIER}", body="silver")).json()["value"] == "silver"
    assert [name for name, _ in crm.calls] == ["get_tier", "set_tier"]


@sqlite_only
async def test_an_absent_backing_server_is_a_typed_error(board: BoardHome) -> None:
    absent = await board.ask("GET", f"/{TIER}")
    assert (absent.status_code, absent.json()["reason_id"]) == (502, "state-backing")


@pytest.mark.parametrize("schema", [{"type": "nope"}, {"$ref": "http://127.0.0.1/x"}, {"$ref": "file:///etc/passwd"}])
@sqlite_only
def test_a_schema_that_cannot_work_stops_the_start(tmp_path: Path, database_url: str, schema: dict[str, Any]) -> None:
    state = {"prefixes": [{"prefix": "a", "value_schema": schema}]}
    with pytest.raises(BadSettings, match=r"state\.prefixes\.a\.value_schema"):
        Gateway(Settings(home=tmp_path, database={"url": database_url}, sandbox="off", state=state, roles=ROLES, users=USERS))


@sqlite_only
async def test_a_value_that_a_tool_holds_is_as_sensitive_as_its_prefix(tmp_path: Path, database_url: str) -> None:
    prefixes = [{"prefix": "customer/*/tier", "backed_by": CRM, "sensitivity": 3}]
    async with board_home(tmp_path, database_url, state={"prefixes": prefixes}) as board:
        await crm_of(board)
        public = await board.agent("public", clearance=1)
        for tool, arguments in (("get", {}), ("patch", {"patch": {}})):
            refused = (await public.asked("ann", (tool, {"key": TIER, **arguments})))[0]
            assert refused["error"]["reason_id"] == "sensitivity-exceeds-clearance"
        assert (await board.value(TIER))["value"] == "gold"


async def test_a_misfit_in_a_member_with_a_nul_is_held_back(tmp_path: Path, database_url: str) -> None:
    prefixes = [{"prefix": "customer/*/held", "value_schema": {"additionalProperties": {"type": "string"}}, "on_misfit": "hold"}]
    async with board_home(tmp_path, database_url, state={"prefixes": prefixes}) as board:
        assert (await board.put(HELD, {"a\0b": 1})).status_code == 202

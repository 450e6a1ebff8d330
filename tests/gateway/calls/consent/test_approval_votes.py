"""People allow an act: exactly as it was shown, once, and somebody else than who asked for it."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gateway.calls.consent.approval_requests import PENDING_MAX, PendingApproval
from registry.cards.card import RegistrationStatus
from tests.fakes.a2a_agents import serving
from tests.fakes.house import ROLES, USERS, CallbackAgent, House, ToolServer, house
from tests.fakes.reception import Reception
from tests.fakes.waiting import until

POLICY = """
@id("large") @ask("Reservations above 10 need a second person")
forbid(principal, action == Action::"callTool", resource == Tool::"inventory.reserve") when { context.input.amount > 10 };
@id("both") @ask("Two people have to agree") @approvals("2")
forbid(principal, action == Action::"callTool", resource == Tool::"inventory.drop");
@id("offer") @ask("Offers are looked at first") @expires("30m")
forbid(principal, action == Action::"invokeAgent", resource == Agent::"sales");
"""
PEOPLE = {**USERS, "carol": {"roles": ["support", "chief"]}, "dave": {"roles": ["chief"]}, "eve": {"roles": ["sales", "chief"]}}
WITH_CHIEF = {**ROLES, "chief": ["approval:decide"]}


@pytest.fixture
async def asking(tmp_path: Path, database_url: str) -> AsyncIterator[House]:
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "ours.cedar").write_text(POLICY)
    async with house(tmp_path / "home", database_url, policies=str(tmp_path / "policies"), roles=WITH_CHIEF, users=PEOPLE) as built:
        yield built


@pytest.fixture
async def inventory(asking: House) -> ToolServer:
    return await asking.server("inventory", "check", "reserve", "drop")


async def reserve(
    home: House, user: str = "alice", tool: str = "inventory_reserve", named: str = "", token: str = "", **arguments: Any
) -> Any:
    """The error's data, or the result."""
    params = {"name": tool, "arguments": arguments or {"amount": 11}}
    capabilities = {"io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {}}
    params["_meta"] = {**capabilities, **({"dev.interlock/approval": named} if named else {})}
    headers = {"mcp-protocol-version": "2026-07-28", "mcp-method": "tools/call", "mcp-name": tool}
    answer = (await home.rpc("/mcp", token or home.token(user), "tools/call", params, **headers)).json()
    return answer["error"]["data"] if "error" in answer else answer["result"]


async def vote(home: House, approval_id: str, user: str = "carol", decision: str = "approve", **more: Any) -> Any:
    body = {"decision": decision, "reason": more.pop("reason", "")}
    return await Reception(home).ask("POST", f"/api/approvals/{approval_id}/decision", user, body, **more)


async def test_an_approved_call_goes_through_once_with_the_very_arguments(asking: House, inventory: ToolServer) -> None:  # attack DLG-13
    asked = await reserve(asking)
    assert asked["reason_id"] == "approval-needed" and inventory.calls == []
    approval = asked["approval"]["id"]
    assert (await reserve(asking))["approval"]["id"] == approval  # asking again asks nobody again
    assert (await vote(asking, approval)).status_code == 200
    assert "reason_id" not in await reserve(asking)
    assert inventory.calls == [("reserve", {"amount": 11})]
    again = await reserve(asking)
    assert again["reason_id"] == "approval-needed" and again["approval"]["id"] != approval
    assert (await reserve(asking, named=approval))["reason_id"] == "approval-used"
    assert len(inventory.calls) == 1


async def test_who_decides_sees_exactly_what_is_asked_for_and_others_its_status_alone(asking: House, inventory: ToolServer) -> None:
    desk = Reception(asking)  # attack INJ-01: whoever approves sees the whole call
    approval = (await reserve(asking, amount=12, note="for the fair"))["approval"]["id"]
    shown = (await desk.ask("GET", f"/api/approvals/{approval}", "carol")).json()
    assert shown["arguments"] == {"amount": 12, "note": "for the fair"}
    assert (shown["requester"]["principal"].rpartition("|")[2], shown["requester"]["chain"]) == ("alice", [])
    assert (shown["policies"], shown["prompt"]) == (["large"], "Reservations above 10 need a second person")
    assert len(shown["arguments_sha256"]) == len(shown["definition_sha256"]) == 64
    mine = (await desk.ask("GET", f"/api/approvals/{approval}", "alice")).json()
    assert mine["state"] == "pending" and "arguments" not in mine
    assert (await desk.ask("GET", "/api/approvals", "alice")).json()["items"] == [mine]
    assert (await desk.ask("GET", "/api/approvals", "bob")).json()["items"] == []
    foreign, unknown = [await desk.ask("GET", f"/api/approvals/{one}", "bob") for one in (approval, "ap_nobodys")]
    assert (foreign.status_code, foreign.json()) == (404, unknown.json())
    listed = (await desk.ask("GET", "/api/approvals?state=pending", "carol")).json()["items"]
    assert [one["id"] for one in listed] == [approval]
    assert (await desk.ask("GET", "/api/approvals?state=used", "carol")).json()["items"] == []


async def test_an_approval_is_good_for_nothing_else(asking: House, inventory: ToolServer) -> None:  # attack DLG-13
    approval = (await reserve(asking))["approval"]["id"]
    assert (await vote(asking, approval)).status_code == 200
    refused = {
        "other arguments": await reserve(asking, named=approval, amount=500),
        "other act": await reserve(asking, tool="inventory_drop", named=approval, amount=11),
        "other user": await reserve(asking, "eve", named=approval),
        "no approval": await reserve(asking, named="ap_nobodys"),
    }
    assert {what: data["reason_id"] for what, data in refused.items()} == {
        "other arguments": "approval-other-arguments",
        "other act": "approval-other-act",
        "other user": "approval-unknown",
        "no approval": "approval-unknown",
    }
    assert inventory.calls == []
    assert "reason_id" not in await reserve(asking, named=approval)


async def test_an_approval_is_for_one_chain_and_one_task(asking: House, inventory: ToolServer) -> None:  # attack DLG-13
    told, named = [], [""]

    async def act(token: str, text: str) -> str:
        onward = await asking.exchanged("helper", token, "/mcp", "tool:*")
        told.append(await reserve(asking, token=onward, named=named[0]))
        return "done"

    async def goes() -> Any:
        await asking.send(asking.token("alice"), "helper", "go")
        return told.pop()

    await asking.agent(CallbackAgent("helper", act))
    named[0] = (await reserve(asking))["approval"]["id"]
    await vote(asking, named[0])
    assert (await goes())["reason_id"] == "approval-other-chain"
    named[0] = ""
    first = (await goes())["approval"]["id"]
    await vote(asking, first)
    assert (await goes())["approval"]["id"] != first
    named[0] = first
    assert (await goes())["reason_id"] == "approval-other-task"
    assert inventory.calls == []


async def test_what_is_too_large_to_be_shown_is_not_asked_about(asking: House, inventory: ToolServer) -> None:  # attack DLG-13
    assert (await reserve(asking, amount=11, note="x" * 65_536))["reason_id"] == "approval-too-large"
    assert (await Reception(asking).ask("GET", "/api/approvals", "carol")).json()["items"] == []
    assert inventory.calls == []


async def test_an_approval_ends_with_the_definition_that_was_shown(asking: House, inventory: ToolServer) -> None:  # attack DLG-13
    approval = (await reserve(asking))["approval"]["id"]
    await vote(asking, approval)
    registry = asking.gateway.registry
    entry = registry.find("default", "inventory")
    changed = tuple(type(tool)(tool.name, {**tool.definition, "description": "sends it all away"}) for tool in entry.tools)
    await registry.update(replace(entry, tools=changed))
    await asking.gateway.database.refresh_epochs()
    assert (await reserve(asking, named=approval))["reason_id"] == "approval-other-definition"
    assert (await reserve(asking))["approval"]["id"] != approval
    assert inventory.calls == []


async def test_an_approval_ends_in_time(asking: House, inventory: ToolServer) -> None:  # attack DLG-13
    approval = (await reserve(asking))["approval"]["id"]
    await vote(asking, approval)
    await asking.gateway.database.write(lambda batch: batch.run("UPDATE approvals SET expires = 1", ()))
    assert (await reserve(asking, named=approval))["reason_id"] == "approval-expired"
    late = (await reserve(asking))["approval"]["id"]
    await asking.gateway.database.write(lambda batch: batch.run("UPDATE approvals SET expires = 1", ()))
    assert (await vote(asking, late)).json()["reason_id"] == "approval-closed"
    assert inventory.calls == []


async def test_nobody_approves_of_their_own_act_nor_does_an_agent_or_a_stranger(
    asking: House, inventory: ToolServer
) -> None:  # attack DLG-13
    approval = (await reserve(asking, "eve"))["approval"]["id"]
    helper = await asking.agent(CallbackAgent("helper"))
    await asking.send(asking.token("carol"), "helper", "approve it")
    hop = helper.tokens[-1]
    answers = [
        await vote(asking, approval, "eve"),
        await vote(asking, approval, "bob"),
        await vote(asking, approval, token=hop),
        await vote(asking, "ap_nobodys"),
    ]
    assert [(one.status_code, one.json().get("reason_id")) for one in answers][:2] == [
        (403, "approval-own"),
        (403, "user-lacks-permission"),
    ]
    assert answers[2].status_code in (401, 403) and answers[3].status_code == 404
    assert (await reserve(asking, "eve"))["reason_id"] == "approval-needed" and inventory.calls == []


async def test_of_two_at_once_one_call_uses_the_approval(asking: House, inventory: ToolServer) -> None:  # attack DLG-13
    approval = (await reserve(asking))["approval"]["id"]
    await vote(asking, approval)
    told = await asyncio.gather(*(reserve(asking) for _ in range(6)))
    assert sorted(one.get("reason_id", "") for one in told).count("") == 1
    assert {one["reason_id"] for one in told if "reason_id" in one} <= {"approval-used", "approval-needed"}
    assert len(inventory.calls) == 1


async def test_two_have_to_agree_where_a_policy_wants_two(asking: House, inventory: ToolServer) -> None:
    approval = (await reserve(asking, tool="inventory_drop"))["approval"]["id"]
    assert (await vote(asking, approval)).json()["state"] == "pending"
    again = await vote(asking, approval)
    assert (again.status_code, again.json()["reason_id"]) == (409, "approval-voted")
    assert (await reserve(asking, tool="inventory_drop"))["reason_id"] == "approval-needed"
    assert (await vote(asking, approval, "dave")).json()["state"] == "approved"
    assert "reason_id" not in await reserve(asking, tool="inventory_drop")
    assert (await vote(asking, approval, "eve")).json()["reason_id"] == "approval-closed"


async def test_a_denial_gives_its_reason_to_whoever_asked(asking: House, inventory: ToolServer) -> None:
    approval = (await reserve(asking))["approval"]["id"]
    assert (await vote(asking, approval, decision="deny", reason="ask purchasing")).json()["state"] == "denied"
    told = (await asking.call(asking.token("alice"), "/mcp", "inventory_reserve", {"amount": 11})).json()["error"]
    assert told["data"]["reason_id"] == "approval-denied" and "ask purchasing" in told["message"]


async def test_the_audit_and_why_name_the_approval_and_whose_it_is(asking: House, inventory: ToolServer) -> None:
    desk = Reception(asking)
    asked = await reserve(asking)
    approval = asked["approval"]["id"]
    await vote(asking, approval, reason="fine")
    await reserve(asking)
    trail = (await desk.ask("GET", "/api/audit?limit=50")).json()["items"]
    (cast,) = [record for record in trail if record["kind"] == "vote"]
    assert (cast["approval"], cast["principal"]["subject"], cast["verdict"], cast["asked_by"]) == (
        approval,
        "carol",
        "approve",
        asked["decision_id"],
    )
    used = next(record for record in trail if record["kind"] == "decision" and record["allowed"] and record.get("approval") == approval)
    why = (await desk.ask("GET", f"/api/decisions/{used['decision_id']}", "alice")).json()
    assert why["approval"] == approval and [one.rpartition("|")[2] for one in why["approvers"]] == ["carol"]
    shown = (await desk.ask("GET", f"/api/approvals/{approval}", "carol")).json()
    assert (shown["state"], shown["used_by"], shown["votes"][0]["reason"]) == ("used", used["decision_id"], "fine")


async def state_of(home: House, task_id: str, agent: str = "sales") -> str:
    return str((await home.send_get(home.token("alice"), agent, task_id))["result"]["status"]["state"])


async def test_a_task_that_waits_goes_on_by_itself_when_it_is_approved(asking: House) -> None:
    sales = await asking.agent(CallbackAgent("sales"))
    task = (await asking.send(asking.token("alice"), "sales", "an offer for 40 chairs"))["result"]["task"]
    assert task["status"]["state"] == "TASK_STATE_AUTH_REQUIRED" and sales.requests == []
    assert "Offers are looked at first" in task["status"]["message"]["parts"][0]["text"]
    desk = Reception(asking)
    (item,) = (await desk.ask("GET", "/api/approvals", "carol")).json()["items"]
    shown = (await desk.ask("GET", f"/api/approvals/{item['id']}", "carol")).json()
    assert shown["arguments"]["message"]["parts"] == [{"text": "an offer for 40 chairs"}]
    assert (await vote(asking, item["id"])).status_code == 200

    async def completed() -> bool:
        return await state_of(asking, task["id"]) == "TASK_STATE_COMPLETED"

    await until(completed, every=0.02)
    assert [one["params"]["message"]["parts"][0]["text"] for one in sales.requests] == ["an offer for 40 chairs"]
    assert await asking.gateway.approved_task_resumer.run_once() == 0


async def test_a_task_goes_on_in_a_process_that_never_saw_it(tmp_path: Path, database_url: str) -> None:
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "ours.cedar").write_text(POLICY)
    settings: dict[str, Any] = {"policies": str(tmp_path / "policies"), "roles": WITH_CHIEF, "users": PEOPLE}
    sales = CallbackAgent("sales")
    async with serving(sales) as url:
        async with house(tmp_path / "home", database_url, **settings) as first:
            await first.registered("sales", url)
            task = (await first.send(first.token("alice"), "sales", "an offer"))["result"]["task"]
            approval = (await Reception(first).ask("GET", "/api/approvals", "carol")).json()["items"][0]["id"]
        async with house(tmp_path / "home", database_url, **settings) as second:
            assert (await vote(second, approval)).status_code == 200

            async def completed() -> bool:
                return await state_of(second, task["id"]) == "TASK_STATE_COMPLETED"

            await until(completed, every=0.02)
    assert len(sales.requests) == 1


async def test_a_task_that_is_denied_or_waits_too_long_is_rejected_with_the_reason(asking: House) -> None:
    sales = await asking.agent(CallbackAgent("sales"))
    denied, late = [(await asking.send(asking.token("alice"), "sales", text))["result"]["task"] for text in ("one", "two")]
    desk = Reception(asking)
    items = {one["task_id"]: one["id"] for one in (await desk.ask("GET", "/api/approvals", "carol")).json()["items"]}
    await vote(asking, items[denied["id"]], decision="deny", reason="not this year")
    await asking.gateway.database.write(lambda batch: batch.run("UPDATE approvals SET expires = 1 WHERE closed IS NULL", ()))
    await asking.gateway.approved_task_resumer.run_once()
    ended = [(await asking.send_get(asking.token("alice"), "sales", one["id"]))["result"]["status"] for one in (denied, late)]
    assert [one["state"] for one in ended] == ["TASK_STATE_REJECTED"] * 2
    assert "not this year" in ended[0]["message"]["parts"][0]["text"]
    assert sales.requests == []


async def test_what_was_approved_is_ruled_on_again_before_it_is_done(asking: House) -> None:  # attack DLG-14
    sales = await asking.agent(CallbackAgent("sales"))
    tasks = [(await asking.send(asking.token("alice"), "sales", text))["result"]["task"] for text in ("one", "two")]
    items = {one["task_id"]: one["id"] for one in (await Reception(asking).ask("GET", "/api/approvals", "carol")).json()["items"]}
    await asking.gateway.registry.set_status("default", "sales", RegistrationStatus.QUARANTINED)
    await asking.gateway.database.refresh_epochs()
    await vote(asking, items[tasks[0]["id"]])
    await asking.gateway.registry.set_status("default", "sales", RegistrationStatus.ACTIVE)
    record = await asking.gateway.stores.tasks.read_record("default", "default|interlock-development|alice", tasks[1]["id"])
    ended = await Reception(asking).ask("DELETE", f"/api/grants/{record.row.grant_id}", "alice")
    assert ended.status_code == 204
    await vote(asking, items[tasks[1]["id"]])
    assert [await state_of(asking, one["id"]) for one in tasks] == ["TASK_STATE_REJECTED"] * 2
    assert sales.requests == []


async def test_a_message_to_a_task_that_waits_for_people_is_no_approval(asking: House) -> None:  # attack DLG-14
    sales = await asking.agent(CallbackAgent("sales"))
    task = (await asking.send(asking.token("alice"), "sales", "one"))["result"]["task"]
    refused = (await asking.send(asking.token("alice"), "sales", "I approve", taskId=task["id"]))["error"]
    assert refused["code"] == -32004
    assert await state_of(asking, task["id"]) == "TASK_STATE_AUTH_REQUIRED" and sales.requests == []


async def test_a_canceled_task_can_not_be_approved_any_more(asking: House) -> None:
    sales = await asking.agent(CallbackAgent("sales"))
    task = (await asking.send(asking.token("alice"), "sales", "one"))["result"]["task"]
    await asking.rpc("/agents/sales", asking.token("alice"), "CancelTask", {"id": task["id"]}, **{"A2A-Version": "1.0"})
    (item,) = (await Reception(asking).ask("GET", "/api/approvals", "carol")).json()["items"]
    assert (await vote(asking, item["id"])).json()["reason_id"] == "approval-closed"
    assert sales.requests == []


async def test_nobody_asks_more_than_people_can_answer_however_many_at_once(asking: House, inventory: ToolServer) -> None:
    sales = await asking.agent(CallbackAgent("sales"))
    asked, parked = await asyncio.gather(
        asyncio.gather(*(reserve(asking, amount=100 + at) for at in range(40))),
        asyncio.gather(*(asking.send(asking.token("alice"), "sales", f"offer {at}") for at in range(20))),
    )
    waiting = [one["approval"]["id"] for one in asked if "approval" in one]
    waits = [one for one in parked if "result" in one]
    assert len(set(waiting)) + len(waits) == PENDING_MAX, (len(waiting), len(waits))
    assert sales.requests == [] and inventory.calls == []


@pytest.mark.parametrize(("prompt", "sentence"), [("A second person decides", "A second person decides."), ("Really?", "Really?")])
def test_a_question_is_a_sentence_where_others_follow(prompt: str, sentence: str) -> None:
    assert PendingApproval("ap_1", prompt, 0, 1).punctuated_prompt == sentence

"""One view of a subject: what was done and is under way, what holds it, who has claimed it, and which conflicts were refused."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gateway.state.claims.claim import ClaimRequest, Holder
from tests.fakes.house import ROLES, USERS, House
from tests.fakes.reception import Reception
from tests.fakes.waiting import until
from tests.fakes.workflows import Workflows
from tests.gateway.behaviour.state.test_conflict_rules import mail, mailing_agent, open_scene, put

CAROL = "default|interlock-development|carol"


@pytest.fixture
async def home(tmp_path: Path, database_url: str) -> AsyncIterator[House]:
    async with open_scene(tmp_path, database_url) as built:
        yield built


async def get(home: House, user: str, path: str) -> Any:
    return await home.http.get(f"/api/subjects{path}", headers={"authorization": f"Bearer {home.token(user)}"})


async def test_a_view_shows_everything_that_is_known(home: House) -> None:
    await mailing_agent(home, "support")
    await home.send(home.token("admin"), "support", "resolved")
    await put(home, "customer/42/status", '"vip"')
    await put(home, "customer/42/holds/open-escalation", "true")
    await home.gateway.subjects.claims.take(ClaimRequest("default", "customer:42", "refund", Holder(CAROL), "a refund", 100, 60_000_000))
    await mail(home)
    view = (await get(home, "admin", "/customer:42")).json()
    assert view["values"] == {"status": "vip"}
    assert [(hold["name"], hold["set_by"]) for hold in view["holds"]] == [("open-escalation", CAROL)]
    assert [(claim["effect"], claim["purpose"], claim["owner"]) for claim in view["claims"]] == [("refund", "a refund", CAROL)]
    assert [(each["effect"], each["agent"], each["state"]) for each in view["done"]] == [("outbound-email", "support", "done")]
    assert [(each["reason_id"], each["facts"][0]["name"], each["count"]) for each in view["conflicts"]] == [
        ("policy-forbids", "open-escalation", 1)
    ]
    assert view["opt_outs"] == view["under_way"] == []


async def test_a_view_needs_the_right_to_read_the_subject(home: House) -> None:
    refused = await get(home, "alice", "/customer:42")
    assert refused.status_code == 403 and refused.json()["decision"]["missing"] == ["state:read:customer/42 (user)"]
    assert (await get(home, "admin", "/customer")).status_code == 422


async def test_a_conflict_is_open_until_the_call_is_made(home: House) -> None:
    await put(home, "customer/42/holds/open-escalation", "true")
    for _ in range(2):
        await mail(home)
    found = (await get(home, "admin", "?conflicts")).json()["items"]
    assert [(each["subject"], each["count"], each["owner"]) for each in found] == [
        ("customer:42", 2, "default|interlock-development|admin")
    ]
    assert (await get(home, "alice", "?conflicts")).json()["items"] == []
    assert (await get(home, "alice", "?everybody=true")).status_code == 403
    await put(home, "customer/42/holds/open-escalation", "false")
    await mail(home)
    assert (await get(home, "admin", "?everybody=true")).json()["items"] == []


async def test_another_tenant_sees_nothing(home: House) -> None:
    await put(home, "customer/42/holds/open-escalation", "true")
    stranger = {"authorization": f"Bearer {home.token('admin', tenant='other')}"}
    view = (await home.http.get("/api/subjects/customer:42", headers=stranger)).json()
    assert view["holds"] == view["done"] == view["claims"] == view["conflicts"] == []


PLAN = """
do:
- pause: {wait: PT1H}
- care:
    metadata: {gateway: {claim: {subject: '${ "customer:\\($context.customer)" }', purpose: a letter}}}
    do:
    - send:
        input: {from: $context}
        call: gateway.tool
        with: {tool: mail.send, arguments: {customer_id: '${ .customer }', text: hello}}
- other: {if: 'false', call: gateway.tool, with: {tool: mail.send, arguments: {customer_id: '${ .unknown }'}}}
- last: {wait: PT9H}
"""
READERS = {"roles": {**ROLES, "reader": ["state:read:customer"]}, "users": {**USERS, "rita": {"roles": ["reader"]}}}
NIGHTLY = """document: {dsl: 1.0.3, namespace: tests, name: nightly, version: 1.0.0, metadata: {gateway: {runAs: nightly}}}
schedule: {every: PT1H}
do:
- first: {call: gateway.tool, with: {tool: mail.send, arguments: {customer_id: 42}}}
- every: {for: {in: '[1]'}, do: [{one: {call: gateway.tool, with: {tool: mail.send, arguments: {customer_id: '${ $item }'}}}}]}
- another: {call: gateway.tool, with: {tool: mail.send, arguments: {customer_id: 7}}}
"""


async def planned(home: House, user: str = "admin", subject: str = "customer:42") -> list[dict[str, Any]]:
    return list((await get(home, user, f"/{subject}")).json()["planned"])


async def test_a_view_shows_what_steps_of_open_runs_are_going_to_do(tmp_path: Path, database_url: str) -> None:
    async with open_scene(tmp_path, database_url, **READERS) as home:
        workflows = Workflows(home)
        await workflows.add("letters", PLAN)
        run = await workflows.start("letters", {"customer": 42}, "admin")
        await workflows.reached(run, "SUSPENDED", user="admin")
        claim, send = await planned(home)
        assert (claim["effect"], claim["target"], claim["purpose"], claim["step"]) == ("*", "claim", "a letter", "/do/1/care")
        assert (send["effect"], send["target"], send["agent"], send["run"]) == ("outbound-email", "tool:mail.send", "letters", run)
        assert send["at"] is not None and send["certain"]
        assert [(each["effect"], each["run"], each["owner"]) for each in await planned(home, "rita")] == [
            ("*", None, None),
            ("outbound-email", None, None),
        ]
        assert await planned(home, subject="customer:43") == []
        await workflows.pass_time(3601)

        async def waits_at_the_end() -> bool:
            return "/last" in (await workflows.show(run, "admin"))["note"]

        await until(waits_at_the_end)
        assert await planned(home) == []


async def test_a_view_shows_what_schedules_are_going_to_do(tmp_path: Path, light_url: str) -> None:
    services = {"service_principals": {"nightly": {"roles": ["operator"], "ceiling": ["*"]}}}
    async with open_scene(tmp_path, light_url, **READERS, **services) as home:
        assert (await Reception(home).post("/api/workflows", document=NIGHTLY)).status_code == 201
        await home.gateway.workflows.wake_once()
        shown = [(each["step"], each["certain"], each["at"] is not None, each["run"]) for each in await planned(home)]
        assert shown == [("/do/0/first", True, True, None), ("/do/1/every/do/0/one", False, True, None)]
        assert await planned(home, "rita") == []

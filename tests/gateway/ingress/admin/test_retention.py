"""/api/retention and /api/holds in a whole gateway: tasks go, their readers learn of it, and operators hold what must stay."""

import json

import pytest
from sqlalchemy import select

from gateway.audit.retention.terms import RetentionTerms, TermsTooShort
from gateway.server.composition.access.retention import terms_of
from gateway.server.sections.retention import RetentionSettings, TenantRetentionSettings
from policies.tables import audit_records
from tests.fakes.house import CallbackAgent, House
from tests.fakes.reception import Reception

DAYS_40_US = 40 * 86_400_000_000


async def furnished(home: House) -> str:
    """A task of alice that ended 40 days ago, and that GetTask has answered with."""
    await home.agent(CallbackAgent("sales"))
    task_id = str((await home.send(home.token("alice"), "sales", "hello"))["result"]["task"]["id"])
    await home.gateway.database.write(lambda batch: batch.run("UPDATE tasks SET updated = updated - ?", (DAYS_40_US,)))
    assert "result" in await home.send_get(home.token("alice"), "sales", task_id)
    return task_id


async def test_a_task_that_was_deleted_is_unknown_even_to_those_who_remembered_it(home: House) -> None:
    task_id, desk = await furnished(home), Reception(home)
    due = (await desk.post("/api/retention/prune", days=35, dry_run=True)).json()
    assert due["tasks"] == 1 and "result" in await home.send_get(home.token("alice"), "sales", task_id)
    assert (await desk.post("/api/retention/prune", days=35)).json() == {"tasks": 1, "records": {}, "complete": True, "dry_run": False}
    await home.gateway.database.refresh_epochs()
    assert (await home.send_get(home.token("alice"), "sales", task_id))["error"]["code"] == -32001


async def test_no_request_deletes_what_is_younger_than_the_minimum(home: House) -> None:
    """A tenant's administrator can't remove the traces of what was done there."""
    await furnished(home)
    await home.gateway.database.write(lambda batch: batch.run("UPDATE tasks SET updated = updated + ?", (15 * DAYS_40_US // 40,)))
    desk = Reception(home)
    for dry_run in (True, False):
        refused = await desk.post("/api/retention/prune", days=1, dry_run=dry_run)
        assert refused.status_code == 422 and "30 at least" in refused.json()["detail"]
    await home.send(home.token("alice"), "sales", "another")
    assert (await desk.post("/api/retention/prune", tasks=1)).json()["tasks"] == 0


async def test_a_tenant_has_a_minimum_of_its_own_and_never_above_its_days() -> None:
    given = RetentionSettings(days=10, tenants={"a": TenantRetentionSettings(), "b": TenantRetentionSettings(days=400, min_days=90)})
    terms = terms_of(given)
    assert [terms.least_days(name) for name in ("other", "a", "b")] == [10, 30, 90]
    assert terms.for_request("b", None, 5) == RetentionTerms(None, 5, 90) and terms.for_request("b", None, None) == RetentionTerms(400)
    assert terms.for_request("other", 10, None).days == 10
    with pytest.raises(TermsTooShort, match="90 at least"):
        terms.for_request("b", 89, None)


async def test_a_hold_is_placed_listed_and_released_over_http(home: House) -> None:
    task_id, desk = await furnished(home), Reception(home)
    placed = await desk.post("/api/holds", kind="person", name="alice", reason="case 17")
    assert placed.status_code == 201 and placed.json()["name"].endswith("|alice")
    assert (await desk.ask("GET", "/api/holds")).json()["items"] == [placed.json()]
    assert (await desk.post("/api/retention/prune", days=35)).json()["tasks"] == 0
    assert (await desk.ask("DELETE", f"/api/holds/{placed.json()['id']}")).status_code == 204
    assert (await desk.ask("DELETE", f"/api/holds/{placed.json()['id']}")).json()["reason_id"] == "unknown"
    assert (await desk.post("/api/retention/prune", days=35)).json()["tasks"] == 1
    query = select(audit_records.c.body).where(audit_records.c.kind.in_(("hold", "retention"))).order_by(audit_records.c.seq)
    bodies = [json.loads(body) for body in await home.gateway.database.read(lambda c: c.execute(query).scalars().all())]
    assert [(each["kind"], each.get("verb", "")) for each in bodies] == [("hold", "placed"), ("hold", "released"), ("retention", "")]
    assert bodies[0]["reason"] == "case 17" and bodies[2]["task_ids"] == [task_id]


async def test_a_hold_without_a_target_and_one_on_an_unknown_task_are_refused(home: House) -> None:
    desk = Reception(home)
    assert (await desk.post("/api/holds", kind="person")).json()["reason_id"] == "bad-request"
    assert (await desk.post("/api/holds", kind="tenant", name="default")).json()["reason_id"] == "bad-request"
    assert (await desk.post("/api/holds", kind="task", name="t_nowhere")).json()["reason_id"] == "unknown"
    assert (await desk.post("/api/retention/prune", user="alice", days=35)).json()["reason_id"] == "user-lacks-permission"
    assert (await desk.ask("GET", "/api/holds", "alice")).json()["reason_id"] == "user-lacks-permission"

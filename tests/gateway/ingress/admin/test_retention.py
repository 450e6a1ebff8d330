"""/api/retention and /api/holds in a whole gateway: tasks go, their readers learn of it, and operators hold what must stay."""

import json

from sqlalchemy import select

from policies.tables import audit_records
from tests.fakes.house import CallbackAgent, House
from tests.fakes.reception import Reception

WEEK_US = 7 * 86_400_000_000


async def furnished(home: House) -> str:
    """A task of alice that ended a week ago, and that GetTask has answered with."""
    await home.agent(CallbackAgent("sales"))
    task_id = str((await home.send(home.token("alice"), "sales", "hello"))["result"]["task"]["id"])
    await home.gateway.database.write(lambda batch: batch.run("UPDATE tasks SET updated = updated - ?", (WEEK_US,)))
    assert "result" in await home.send_get(home.token("alice"), "sales", task_id)
    return task_id


async def test_a_task_that_was_deleted_is_unknown_even_to_those_who_remembered_it(home: House) -> None:
    task_id, desk = await furnished(home), Reception(home)
    due = (await desk.post("/api/retention/prune", days=3, dry_run=True)).json()
    assert due["tasks"] == 1 and "result" in await home.send_get(home.token("alice"), "sales", task_id)
    assert (await desk.post("/api/retention/prune", days=3)).json() == {"tasks": 1, "records": {}, "complete": True, "dry_run": False}
    await home.gateway.database.refresh_epochs()
    assert (await home.send_get(home.token("alice"), "sales", task_id))["error"]["code"] == -32001


async def test_a_hold_is_placed_listed_and_released_over_http(home: House) -> None:
    task_id, desk = await furnished(home), Reception(home)
    placed = await desk.post("/api/holds", kind="person", name="alice", reason="case 17")
    assert placed.status_code == 201 and placed.json()["name"].endswith("|alice")
    assert (await desk.ask("GET", "/api/holds")).json()["items"] == [placed.json()]
    assert (await desk.post("/api/retention/prune", days=3)).json()["tasks"] == 0
    assert (await desk.ask("DELETE", f"/api/holds/{placed.json()['id']}")).status_code == 204
    assert (await desk.ask("DELETE", f"/api/holds/{placed.json()['id']}")).json()["reason_id"] == "unknown"
    assert (await desk.post("/api/retention/prune", days=3)).json()["tasks"] == 1
    query = select(audit_records.c.body).where(audit_records.c.kind.in_(("hold", "retention"))).order_by(audit_records.c.seq)
    bodies = [json.loads(body) for body in await home.gateway.database.read(lambda c: c.execute(query).scalars().all())]
    assert [(each["kind"], each.get("verb", "")) for each in bodies] == [("hold", "placed"), ("hold", "released"), ("retention", "")]
    assert bodies[0]["reason"] == "case 17" and bodies[2]["task_ids"] == [task_id]


async def test_a_hold_without_a_target_and_one_on_an_unknown_task_are_refused(home: House) -> None:
    desk = Reception(home)
    assert (await desk.post("/api/holds", kind="person")).json()["reason_id"] == "bad-request"
    assert (await desk.post("/api/holds", kind="tenant", name="default")).json()["reason_id"] == "bad-request"
    assert (await desk.post("/api/holds", kind="task", name="t_nowhere")).json()["reason_id"] == "unknown"
    assert (await desk.post("/api/retention/prune", user="alice", days=3)).json()["reason_id"] == "user-lacks-permission"
    assert (await desk.ask("GET", "/api/holds", "alice")).json()["reason_id"] == "user-lacks-permission"

"""Events: runs send them and listen for them, each is stored once, and each has the rights of the run's person."""

from typing import Any

import pytest

from tests.fakes.house import House
from tests.fakes.waiting import until
from tests.fakes.workflows import Workflows

LISTEN = """
do:
- paid:
    listen:
      to:
        one:
          with: {type: test.paid, data: '${ .amount > 10 }'}
          correlate: {order: {from: .data.order, expect: '${ .order }'}}
      read: data
- result: {set: {paid: '${ .[0].amount }'}}
"""
LATE = """
do:
- attempt:
    try:
    - paid:
        listen: {to: {one: {with: {type: test.paid}}}}
        timeout: {after: PT1H}
    catch:
      errors: {with: {status: 408}}
      do:
      - late: {set: {late: true}}
- after: {wait: PT2H}
"""
ALL = """
do:
- both:
    listen:
      to: {all: [{with: {type: test.stock}}, {with: {type: test.price}}]}
    foreach:
      item: event
      do:
      - pick: {set: {value: '${ $event.value }'}}
"""
UNTIL = """
do:
- gather:
    listen:
      to:
        any: [{with: {type: test.item}}]
        until: {one: {with: {type: test.end}}}
- count: {set: {count: '${ length }'}}
"""
EMIT = """
do:
- tell:
    emit: {event: {with: {type: test.paid, data: {order: '${ .order }', amount: 20}}}}
- result: {set: '${ {id: .id, source: .source} }'}
"""


@pytest.fixture
async def workflows(home: House) -> Workflows:
    return Workflows(home)


def event(kind: str, number: int = 1, **data: Any) -> dict[str, Any]:
    return {"specversion": "1.0", "id": f"e{number}", "source": "https://shop.example", "type": kind, "data": data}


async def sent(workflows: Workflows, body: Any, user: str = "admin") -> dict[str, Any]:
    answer = await workflows.desk.ask("POST", "/api/events", user, body)
    assert answer.status_code == 202, answer.text
    return dict(answer.json())


async def listening(workflows: Workflows, name: str, body: str, given: Any = None) -> str:
    await workflows.add(name, body)
    run = await workflows.start(name, given, "admin")
    shown = await workflows.reached(run, "SUSPENDED", user="admin")
    assert "listens for events" in shown["note"]
    return run


async def test_a_run_listens_without_a_process_until_its_event_comes(home: House, workflows: Workflows) -> None:
    run = await listening(workflows, "waits", LISTEN, {"order": 7})
    owner = (await workflows.show(run, "admin"))["owner"]

    async def has_no_process() -> bool:
        return (await home.gateway.stores.tasks.find("default", owner, run)).runner == ""

    await until(has_no_process, every=0.05)
    await sent(workflows, event("test.paid", 1, order=8, amount=20))
    await sent(workflows, event("test.paid", 2, order=7, amount=5))
    assert (await workflows.show(run, "admin"))["state"] == "TASK_STATE_WORKING"
    await sent(workflows, event("test.paid", 3, order=7, amount=30))
    assert await workflows.output(run, "admin") == {"paid": 30}


async def test_an_event_that_comes_twice_counts_once(workflows: Workflows) -> None:
    run = await listening(workflows, "gather", UNTIL)
    item = event("test.item", 1)
    assert await sent(workflows, item) == {"accepted": 1, "repeated": 0, "not_started": []}
    assert await sent(workflows, item) == {"accepted": 1, "repeated": 1, "not_started": []}
    assert await sent(workflows, [event("test.item", 2), item, event("test.end", 3)]) == {"accepted": 3, "repeated": 1, "not_started": []}
    assert await workflows.output(run, "admin") == {"count": 2}


async def test_all_events_in_any_order_each_handled_by_foreach(workflows: Workflows) -> None:
    run = await listening(workflows, "both", ALL)
    await sent(workflows, event("test.price", 1, value=3))
    await sent(workflows, event("test.stock", 2, value=4))
    assert await workflows.output(run, "admin") == [{"value": 3}, {"value": 4}]


async def test_an_event_before_the_listening_does_not_count(workflows: Workflows) -> None:
    await workflows.add("waits", LISTEN)
    await sent(workflows, event("test.paid", 1, order=7, amount=30))
    run = await workflows.start("waits", {"order": 7}, "admin")
    await workflows.reached(run, "SUSPENDED", user="admin")
    await sent(workflows, event("test.paid", 1, order=7, amount=30))
    assert (await workflows.show(run, "admin"))["state"] == "TASK_STATE_WORKING"
    await sent(workflows, event("test.paid", 2, order=7, amount=30))
    assert await workflows.output(run, "admin") == {"paid": 30}


async def test_listening_ends_with_its_time_limit(home: House, workflows: Workflows) -> None:
    run = await listening(workflows, "late", LATE)
    await workflows.pass_time(3601)
    shown = await workflows.reached(run, "SUSPENDED", user="admin")
    while "waits until 20" not in shown["note"]:
        shown = await workflows.reached(run, "SUSPENDED", user="admin")
    await sent(workflows, event("test.paid", 1))
    assert await home.gateway.workflows.wake_once() == 0
    await workflows.pass_time(7201)
    assert await workflows.output(run, "admin") == {"late": True}


async def test_a_run_sends_an_event_to_another_run(workflows: Workflows) -> None:
    listener = await listening(workflows, "waits", LISTEN, {"order": 7})
    await workflows.add("tells", EMIT)
    run = await workflows.start("tells", {"order": 7}, "admin")
    made = await workflows.output(run, "admin")
    assert made["id"].startswith(f"{run}:/do/0/tell:") and made["source"] == "urn:interlock:workflow:tells"
    assert await workflows.output(listener, "admin") == {"paid": 20}


async def test_events_need_the_right_to_their_type(workflows: Workflows) -> None:
    answer = await workflows.desk.ask("POST", "/api/events", "alice", event("test.paid"))
    assert answer.status_code == 403 and answer.json()["decision"]["missing"] == ["state:write:events/test.paid (user)"]
    await workflows.add("waits", LISTEN)
    await workflows.add("tells", EMIT)
    for name, permission in (("waits", "state:read:events/test.paid"), ("tells", "state:write:events/test.paid")):
        run = await workflows.start(name, {"order": 7})
        await workflows.ended(run)
        task = (await workflows.desk.ask("GET", f"/api/tasks/{run}", "alice")).json()
        assert permission in task["status"]["message"]["parts"][0]["text"]


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ([], "a batch has 1 to 100 events"),
        ("text", "is no JSON object"),
        ({"specversion": "1.0", "id": "1", "source": "s"}, "lacks the attribute `type`"),
        (event("x" * 300), "`type` is no name"),
        (event("a") | {"specversion": "0.3"}, "`specversion` is not 1.0"),
        (event("a") | {"source": "urn:interlock:workflow:tells"}, "`source` begins with urn:interlock:"),
        (event("a") | {"BAD": 1}, "has an attribute whose name"),
        (event("a") | {"time": "yesterday"}, "`time` is no moment"),
        (event("a") | {"data_base64": "AA=="}, "has both"),
        (event("a", 1, text="x" * 70_000), "has 70"),
        ([event("a"), {}], "[1]: lacks the attribute"),
    ],
)
async def test_what_is_no_event_is_refused(workflows: Workflows, body: Any, problem: str) -> None:
    answer = await workflows.desk.ask("POST", "/api/events", "admin", body)
    assert (answer.status_code, answer.json()["reason_id"]) == (422, "bad-event"), answer.text
    assert problem in answer.json()["detail"]


async def test_an_attribute_with_a_nul_is_refused(workflows: Workflows) -> None:
    sent = {"specversion": "1.0", "source": "https://shop.example", "type": "test.paid", "id": "a\0"}
    assert (await workflows.desk.ask("POST", "/api/events", "admin", sent)).status_code == 422


async def test_a_type_that_only_the_run_knows_is_refused_at_upload(workflows: Workflows) -> None:
    problems = await workflows.refused("tells", "do:\n- tell: {emit: {event: {with: {type: '${ .kind }'}}}}\n")
    assert [each["path"] for each in problems] == ["/do/0/tell/emit/event/with"]


async def test_old_events_are_deleted(home: House, workflows: Workflows) -> None:
    await workflows.add("tells", EMIT)
    await sent(workflows, event("test.paid", 1))
    assert (await sent(workflows, event("test.paid", 1)))["repeated"] == 1
    await workflows.pass_time(8 * 86_400)
    await home.gateway.workflows.prune_events()
    assert (await sent(workflows, event("test.paid", 1)))["repeated"] == 0

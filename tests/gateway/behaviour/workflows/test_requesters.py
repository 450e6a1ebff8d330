"""Who approves a run that no person starts: neither who uploaded the document, nor who sent the event that began it."""

from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from gateway.storage.tables import tasks
from gateway.workflows.runs.tables import workflow_listens
from tests.fakes.house import House, house
from tests.fakes.waiting import until
from tests.fakes.workflows import Workflows

SERVICES = {"nightly": {"roles": ["reader"], "ceiling": ["agent:*", "state:*", "tool:*"]}}
ROLES = {
    "operator": ["*"],
    "member": ["agent:*", "tool:*"],
    "reader": ["agent:*", "state:*", "tool:*"],
    "approver": ["agent:*", "approval:decide", "state:write:events/*"],
    "author": ["agent:*", "approval:decide", "registry:write", "workflow:run-as/*"],
}
APPROVERS = ("sam", "ada", "eve", "max")
USERS = {name: {"roles": ["approver"]} for name in APPROVERS} | {name: {"roles": ["author"]} for name in ("ursula", "uma")}
HEAD = "document: {dsl: 1.0.3, namespace: tests, name: %s, version: 1.0.0, metadata: {gateway: {runAs: nightly}}}\n"
PLAIN = "document: {dsl: 1.0.3, namespace: tests, name: %s, version: 1.0.0}\n"
ON = "schedule: {on: {one: {with: {type: test.%s}}}}\n"
APPROVE = "do:\n- look: {call: gateway.approve, with: {prompt: 'Pay?'}}\n"
CHOOSE = "do:\n- look: {call: gateway.choose, with: {prompt: 'Which?', options: [a, b]}}\n"
EMIT = "do:\n- tell: {emit: {event: {with: {type: test.second}}}}\n"
RESERVE = "do:\n- take: {call: gateway.tool, with: {tool: inventory.reserve, arguments: {}}}\n"
ASKING = '@id("asked") @ask("A second person looks") forbid(principal, action, resource == Tool::"inventory.reserve");'
LISTEN = "do:\n- hear: {listen: {to: {one: {with: {type: test.second}}}}}\n- look: {call: gateway.approve, with: {prompt: 'Pay?'}}\n"
BESIDE = """
do:
- both:
    fork:
      branches:
      - look: {call: gateway.approve, with: {prompt: 'Pay?'}}
      - hear: {listen: {to: {one: {with: {type: test.second, subject: '${ . == "pay" or .subject == "pay" }'}}}}}
"""
TELLS = "do:\n- hear: {listen: {to: {one: {with: {type: test.second}}}}}\n- tell: {emit: {event: {with: {type: test.third}}}}\n"
CALL = "do:\n- below: {run: {workflow: {namespace: tests, name: below}}}\n"


@pytest.fixture
async def home(tmp_path: Path, database_url: str) -> AsyncIterator[House]:
    async with house(tmp_path / "home", database_url, service_principals=SERVICES, roles=ROLES, users=USERS) as built:
        yield built


async def added(home: House, *texts: str, user: str = "ursula") -> None:
    for text in texts:
        answer = await Workflows(home).desk.ask("POST", "/api/workflows", user, {"document": text})
        assert answer.status_code == 201, answer.text
    await home.gateway.database.refresh_epochs()


async def sent(home: House, kind: str, user: str, **more: str) -> None:
    event = {"specversion": "1.0", "id": "e1" + kind + user, "source": "https://shop.example", "type": kind, **more}
    answer = await Workflows(home).desk.ask("POST", "/api/events", user, event)
    assert answer.status_code == 202, answer.text


async def until_hears(home: House, kind: str, user: str, **more: str) -> None:
    """Sends an event to a run as soon as the run listens for it, and waits until the run has looked at it."""

    async def is_open(condition: Any) -> bool:
        await home.gateway.workflows.wake_once()
        query = select(workflow_listens.c.run_id).where(condition)
        return bool(await home.gateway.database.read(lambda connection: connection.execute(query).all()))

    async def has_heard() -> bool:
        return not await is_open(workflow_listens.c.received > workflow_listens.c.seen)

    await until(partial(is_open, workflow_listens.c.lost == 0))
    await sent(home, kind, user, **more)
    await until(has_heard)


async def asked(home: House) -> str:
    """The id of the checkpoint that people are asked about."""
    workflows = Workflows(home)

    async def is_there() -> bool:
        await home.gateway.workflows.wake_once()
        return bool(await workflows.checkpoints("ada"))

    await until(is_there)
    ((checkpoint),) = await workflows.checkpoints("ada")
    return str(checkpoint["id"])


async def outcomes(home: House, checkpoint: str, *people: str, value: Any = None) -> list[tuple[int, str]]:
    answers = [await Workflows(home).answer(checkpoint, value or {"approved": True}, person) for person in people]
    return [(answer.status_code, answer.json().get("reason_id", "")) for answer in answers]


OWN = (403, "approval-own")


async def test_the_sender_of_the_event_and_the_uploader_do_not_approve(home: House) -> None:
    await added(home, HEAD % "flow" + ON % "first" + APPROVE)
    await sent(home, "test.first", "sam")
    assert await outcomes(home, await asked(home), "sam", "ursula", "ada") == [OWN, OWN, (200, "")]


async def test_the_uploader_does_not_approve_what_time_starts(home: House) -> None:
    await added(home, HEAD % "flow" + "schedule: {every: PT1H}\n" + APPROVE)
    await Workflows(home).pass_time(3601)
    assert await outcomes(home, await asked(home), "ursula", "sam") == [OWN, (200, "")]


async def test_an_event_of_a_run_is_still_its_first_senders(home: House) -> None:
    await added(home, HEAD % "first" + ON % "first" + EMIT)
    await added(home, HEAD % "second" + ON % "second" + APPROVE, user="admin")
    await sent(home, "test.first", "sam")
    assert await outcomes(home, await asked(home), "sam", "ursula", "admin", "ada") == [OWN, OWN, OWN, (200, "")]


async def test_a_run_below_another_one_has_its_requesters(home: House) -> None:
    await added(home, PLAIN % "below" + APPROVE, user="admin")
    await added(home, HEAD % "flow" + ON % "first" + CALL)
    await sent(home, "test.first", "sam")
    assert await outcomes(home, await asked(home), "sam", "ursula", "ada") == [OWN, OWN, (200, "")]


async def test_the_uploader_of_a_workflow_that_a_run_calls_does_not_approve(home: House) -> None:
    await added(home, PLAIN % "below" + "do:\n- done: {set: {x: 1}}\n", user="uma")
    await added(home, HEAD % "flow" + ON % "first" + CALL + APPROVE.removeprefix("do:\n"))
    await sent(home, "test.first", "sam")
    assert await outcomes(home, await asked(home), "uma", "ada") == [OWN, (200, "")]


async def test_the_sender_of_an_event_that_a_run_listens_for_does_not_approve(home: House) -> None:
    await added(home, HEAD % "flow" + ON % "first" + LISTEN)
    await sent(home, "test.first", "sam")
    await until_hears(home, "test.second", "eve")
    assert await outcomes(home, await asked(home), "eve", "sam", "ada") == [OWN, OWN, (200, "")]


async def test_an_event_excludes_its_sender_from_questions_that_are_open(home: House) -> None:
    """Only who sent an event that the run took: `max` sent one that it did not wait for."""
    await added(home, HEAD % "flow" + ON % "first" + BESIDE)
    await sent(home, "test.first", "sam")
    checkpoint = await asked(home)
    await until_hears(home, "test.second", "max", subject="else")
    await until_hears(home, "test.second", "eve", subject="pay")
    assert await outcomes(home, checkpoint, "eve", "max") == [OWN, (200, "")]


async def test_an_event_that_a_run_below_takes_excludes_its_sender(home: House) -> None:
    await added(home, PLAIN % "below" + LISTEN.partition("- look")[0], user="admin")
    await added(home, HEAD % "flow" + ON % "first" + CALL + APPROVE.removeprefix("do:\n"))
    await sent(home, "test.first", "sam")
    await until_hears(home, "test.second", "eve")
    assert await outcomes(home, await asked(home), "eve", "ada") == [OWN, (200, "")]


async def test_an_event_that_a_run_sends_has_the_senders_that_it_heard(home: House) -> None:
    await added(home, HEAD % "first" + ON % "first" + TELLS)
    await added(home, HEAD % "second" + ON % "third" + APPROVE, user="admin")
    await sent(home, "test.first", "sam")
    await until_hears(home, "test.second", "eve")
    assert await outcomes(home, await asked(home), "eve", "sam", "ada") == [OWN, OWN, (200, "")]


async def test_who_uploads_the_same_version_again_answers_for_it(home: House) -> None:
    text = HEAD % "flow" + ON % "first" + APPROVE
    await added(home, text, user="admin")
    await added(home, text)
    await sent(home, "test.first", "sam")
    assert await outcomes(home, await asked(home), "ursula", "ada") == [OWN, (200, "")]


async def test_requesters_answer_questions_that_are_no_approval(home: House) -> None:
    await added(home, HEAD % "flow" + ON % "first" + CHOOSE)
    await sent(home, "test.first", "sam")
    assert await outcomes(home, await asked(home), "sam", value="a") == [(200, "")]


async def test_requesters_do_not_approve_what_a_policy_asks_about(tmp_path: Path, database_url: str) -> None:
    (tmp_path / "rules").mkdir()
    (tmp_path / "rules" / "ours.cedar").write_text(ASKING)
    settings = {"service_principals": SERVICES, "roles": ROLES, "users": USERS, "policies": str(tmp_path / "rules")}
    async with house(tmp_path / "home", database_url, **settings) as home:
        await home.server("inventory", "reserve")
        await added(home, HEAD % "flow" + ON % "first" + RESERVE)
        await sent(home, "test.first", "sam")
        desk = Workflows(home).desk

        async def waiting() -> list[Any]:
            await home.gateway.workflows.wake_once()
            return list((await desk.ask("GET", "/api/approvals", "ada")).json()["items"])

        async def is_there() -> bool:
            return bool(await waiting())

        await until(is_there)
        ((approval),) = await waiting()
        path, body = f"/api/approvals/{approval['id']}/decision", {"decision": "approve"}
        answers = [await desk.ask("POST", path, person, body) for person in ("sam", "ursula", "ada")]
        assert [answer.status_code for answer in answers] == [403, 403, 200]
        assert [answer.json().get("reason_id") for answer in answers[:2]] == ["approval-own", "approval-own"]


async def test_a_misfit_starts_no_run_by_an_event(home: House) -> None:
    await added(home, PLAIN % "below" + APPROVE, user="admin")
    await added(home, HEAD % "flow" + ON % "first" + CALL)
    assert (await Workflows(home).desk.ask("DELETE", "/api/workflows/below", "admin")).status_code == 204
    await home.gateway.database.refresh_epochs()
    await sent(home, "test.first", "sam")

    async def states() -> list[str]:
        query = select(tasks.c.state).where(tasks.c.agent == "flow")
        return list(await home.gateway.database.read(lambda connection: connection.execute(query).scalars().all()))

    async def is_refused() -> bool:
        await home.gateway.workflows.wake_once()
        return await states() == ["TASK_STATE_REJECTED"]

    await until(is_refused)

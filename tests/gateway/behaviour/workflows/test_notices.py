"""People who may answer learn of it: signed notices to the operator's webhooks, and a feed that resumes."""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import select

from gateway.storage.tables import notice_webhooks
from gateway.tasks.notices.notifier import NoticeNotifier
from gateway.tasks.webhooks.delivery import RETRY_SECONDS
from policies.ids import now_us
from policies.keys.strict_jwt import read_unverified
from tests.fakes.a2a_agents import serving
from tests.fakes.house import House, house
from tests.fakes.waiting import until
from tests.fakes.webhook import Webhook
from tests.fakes.workflows import Workflows

ASK = "do:\n- pay:\n    call: gateway.approve\n    with: {prompt: 'Pay 100 EUR?'}\n"
CHOOSE = "do:\n- which:\n    call: gateway.choose\n    with: {prompt: 'Which?', options: [a, b]}\n"
POLICY = '@id("ask") @ask("Really?") forbid(principal, action == Action::"invokeAgent", resource == Agent::"asked");\n'


@asynccontextmanager
async def told(folder: Path, database_url: str, hook: Webhook, **settings: Any) -> AsyncIterator[tuple[House, str]]:
    async with serving(hook) as url, house(folder / "home", database_url, notify=[url], **settings) as home:
        await home.gateway.webhooks.notifier.run_once()  # the webhook gets what happens from now on
        yield home, url


def notifier_at(home: House, url: str, clock: list[int]) -> NoticeNotifier:
    """A notifier whose time is that of `clock`."""
    gateway = home.gateway
    given = (gateway.database, gateway.webhooks.egress, gateway.webhooks.delivery._signer, [url], lambda: clock[0])
    return NoticeNotifier(*given, jitter=lambda: 0.5)


async def test_a_webhook_is_told_of_a_checkpoint_and_its_answer(tmp_path: Path, database_url: str) -> None:
    hook = Webhook()
    async with told(tmp_path, database_url, hook) as (home, url):
        workflows = Workflows(home)
        await workflows.add("pay", ASK)
        run = await workflows.start("pay")
        await workflows.reached(run, "SUSPENDED")
        (checkpoint,) = await workflows.checkpoints("admin")
        await workflows.answer(checkpoint["id"], {"approved": True, "reason": "secret"}, "admin")
        await until(lambda: len(hook.got) == 2)
        opened, answered = (each.json for each in hook.got)
        assert (opened["type"], answered["type"]) == ("interlock.checkpoint.opened.v1", "interlock.checkpoint.answered.v1")
        assert (opened["data"]["prompt"], opened["data"]["checkpoint"]) == ("Pay 100 EUR?", checkpoint["id"])
        assert b"secret" not in hook.got[1].body
        claims = read_unverified(hook.got[0].headers["interlock-signature"]).claims
        assert (claims["aud"], claims["sha256"]) == (url, hashlib.sha256(hook.got[0].body).hexdigest())


async def test_a_webhook_is_told_of_an_approval_and_its_decision(tmp_path: Path, database_url: str) -> None:
    hook, policies = Webhook(), tmp_path / "policies"
    policies.mkdir()
    (policies / "ask.cedar").write_text(POLICY)
    async with told(tmp_path, database_url, hook, policies=str(policies)) as (home, _):
        workflows = Workflows(home)
        await workflows.add("asked", CHOOSE)
        task = await workflows.run("asked")
        assert task["status"]["state"] == "TASK_STATE_AUTH_REQUIRED"
        (approval,) = (await workflows.desk.ask("GET", "/api/approvals")).json()["items"]
        await workflows.desk.ask("POST", f"/api/approvals/{approval['id']}/decision", body={"decision": "deny", "reason": "no"})
        await until(lambda: len(hook.got) == 2)
        assert [each.json["type"] for each in hook.got] == ["interlock.approval.requested.v1", "interlock.approval.decided.v1"]
        assert hook.got[1].json["data"]["state"] == "denied"


async def test_a_notice_is_sent_again_and_in_order(tmp_path: Path, database_url: str) -> None:
    hook = Webhook(500, 500)
    async with told(tmp_path, database_url, hook) as (home, url):
        await home.gateway.periodic_tasks.stop()
        clock = [now_us()]
        notifier = notifier_at(home, url, clock)
        workflows = Workflows(home)
        await workflows.add("pay", ASK)
        for _ in range(2):
            await workflows.reached(await workflows.start("pay"), "SUSPENDED")
        await notifier.run_once()
        await notifier.run_once()  # not due yet
        assert len(hook.got) == 1
        for seconds in RETRY_SECONDS[:2]:
            clock[0] += (seconds + 1) * 1_000_000
            await notifier.run_once()
        assert [each.json["id"] for each in hook.got] == ["notice-1", "notice-1", "notice-1", "notice-2"]


async def test_a_notice_that_the_webhook_refuses_delays_no_other(tmp_path: Path, database_url: str) -> None:
    hook = Webhook(422, 204, 429)
    async with told(tmp_path, database_url, hook) as (home, url):
        await home.gateway.periodic_tasks.stop()
        clock = [now_us()]
        notifier = notifier_at(home, url, clock)
        workflows = Workflows(home)
        await workflows.add("pay", ASK)
        for _ in range(3):
            await workflows.reached(await workflows.start("pay"), "SUSPENDED")
        await notifier.run_once()
        assert [each.json["id"] for each in hook.got] == ["notice-1", "notice-2", "notice-3"]
        clock[0] += (RETRY_SECONDS[0] + 1) * 1_000_000
        await notifier.run_once()
        assert [each.json["id"] for each in hook.got[3:]] == ["notice-3"]


async def test_a_webhook_that_does_not_answer_holds_up_no_other(tmp_path: Path, database_url: str) -> None:
    slow, fast, answering = Webhook(), Webhook(), asyncio.Event()

    async def answer_late(scope: Any, receive: Any, send: Any) -> None:
        await slow(scope, receive, _after(answering, send))

    async with serving(answer_late) as slow_url, serving(fast) as url, house(tmp_path, database_url, notify=[slow_url, url]) as home:
        await home.gateway.webhooks.notifier.run_once()
        workflows = Workflows(home)
        await workflows.add("pay", ASK)
        for number in (1, 2):
            await workflows.reached(await workflows.start("pay"), "SUSPENDED")
            await until(lambda number=number: (len(slow.got), len(fast.got)) == (1, number))  # type: ignore[misc]  # bound now
        database = home.gateway.database
        attempts = await database.read(lambda connection: connection.execute(select(notice_webhooks.c.attempts)).scalars().all())
        assert list(attempts) == [0, 0]  # the slow webhook's first attempt has not ended
        answering.set()


def _after(event: asyncio.Event, send: Any) -> Any:
    async def wait_and_send(message: Any) -> None:
        await event.wait()
        await send(message)

    return wait_and_send


@pytest.fixture
async def workflows(home: House) -> Workflows:
    return Workflows(home)


async def events(workflows: Workflows, user: str, since: int = 0) -> list[dict[str, Any]]:
    headers = {"authorization": f"Bearer {workflows.home.token(user)}"}
    answer = await workflows.home.http.get(f"/api/checkpoints/events?since={since}", headers=headers)
    assert answer.status_code == 200, answer.text
    return list(answer.json()["items"])


async def test_the_feed_has_what_the_caller_may_see_and_resumes(workflows: Workflows) -> None:
    await workflows.add("choose", CHOOSE)
    run = await workflows.start("choose")
    await workflows.reached(run, "INPUT_REQUIRED")
    (opened,) = await events(workflows, "alice")
    assert opened["kind"] == "checkpoint.opened" and opened["checkpoint"]["prompt"] == "Which?"
    assert await events(workflows, "bob") == []
    await workflows.answer(opened["checkpoint"]["id"], "a", "alice")
    assert [each["kind"] for each in await events(workflows, "alice", opened["seq"])] == ["checkpoint.answered"]


async def test_a_question_of_a_canceled_run_is_withdrawn_in_the_feed(workflows: Workflows) -> None:
    await workflows.add("choose", CHOOSE)
    run = await workflows.start("choose")
    await workflows.reached(run, "INPUT_REQUIRED")
    (opened,) = await events(workflows, "alice")
    assert (await workflows.desk.ask("POST", f"/api/runs/{run}/cancel", "alice")).is_success
    (closed,) = await events(workflows, "alice", opened["seq"])
    assert (closed["kind"], closed["checkpoint"]["id"]) == ("checkpoint.withdrawn", opened["checkpoint"]["id"])


async def test_the_stream_of_the_feed_goes_on_after_its_last_event(open_home: House) -> None:
    workflows = Workflows(open_home)
    await workflows.add("choose", CHOOSE)
    first = await workflows.start("choose")
    await workflows.reached(first, "INPUT_REQUIRED")
    (opened,) = await events(workflows, "alice")
    headers = {"authorization": f"Bearer {open_home.token('alice')}", "last-event-id": str(opened["seq"]), "accept": "text/event-stream"}
    client = httpx.AsyncClient(base_url=open_home.url, timeout=30)
    async with client, client.stream("GET", "/api/checkpoints/events", headers=headers) as answer:
        lines = answer.aiter_lines()
        second = asyncio.create_task(workflows.start("choose"))
        event = json.loads(await _data_of(lines))
        assert (event["kind"], event["checkpoint"]["run"]) == ("checkpoint.opened", await second)


async def _data_of(lines: AsyncIterator[str]) -> str:
    async for line in lines:
        if line.startswith("data: "):
            return line.removeprefix("data: ")
    raise AssertionError("the stream ended")


async def test_open_checkpoints_come_in_pages(workflows: Workflows) -> None:
    await workflows.add("choose", CHOOSE)
    for _ in range(3):
        await workflows.reached(await workflows.start("choose"), "INPUT_REQUIRED")
    page = (await workflows.desk.ask("GET", "/api/checkpoints?limit=2", "alice")).json()
    rest = (await workflows.desk.ask("GET", f"/api/checkpoints?limit=2&cursor={page['next']}", "alice")).json()
    assert (len(page["items"]), len(rest["items"]), rest["next"]) == (2, 1, None)
    assert (await workflows.desk.ask("GET", "/api/checkpoints?cursor=x", "alice")).status_code == 400


async def test_a_number_that_no_database_has_is_refused(workflows: Workflows) -> None:
    assert (await workflows.desk.ask("GET", f"/api/checkpoints/events?since={1 << 63}", "alice")).status_code == 422

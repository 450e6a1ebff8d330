"""Events on their way to webhooks: signed, in order per subject, sent again, and dead letters in the end."""

import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from gateway.events.deliveries import EventDeliveries
from gateway.events.queue import RETRY_SECONDS, EventQueue
from gateway.events.standard_webhooks import read_secrets, verify
from gateway.events.tables import event_deliveries
from gateway.server.settings import resolve_credential
from policies.ids import now_us
from tests.fakes.a2a_agents import serving
from tests.fakes.event_house import OTHER_SECRET, SECRET, SECRET_NAME, dead_letters, event_house, send_event
from tests.fakes.house import CallbackAgent, House, two
from tests.fakes.webhook import Webhook


@asynccontextmanager
async def subscribed(folder: Path, database_url: str, hook: Webhook, *types: str) -> AsyncIterator[House]:
    """A house without periodic work, whose webhook gets events of these types."""
    async with serving(hook) as url:
        webhook = {"url": f"{url}/hook?key=hidden", "secret": f"env:{SECRET_NAME}", "types": list(types)}
        async with event_house(folder, database_url, events={"webhooks": [webhook]}) as home:
            await home.gateway.periodic_tasks.stop()
            yield home


def deliveries_at(home: House, clock: list[int]) -> EventDeliveries:
    """Deliveries whose time is that of `clock`, in microseconds."""
    gateway = home.gateway
    queue = EventQueue(gateway.database, event_deliveries, "webhook", lambda: clock[0], lambda: 0.5)
    egress, rules = gateway.webhooks.egress, gateway.events.routes.webhooks
    return EventDeliveries(queue, rules, egress, resolve_credential, lambda: clock[0] / 1_000_000)


def sent_ids(hook: Webhook) -> list[str]:
    return [each.json["id"] for each in hook.got]


async def test_an_event_is_sent_signed_to_the_webhooks_of_its_type(tmp_path: Path, database_url: str) -> None:
    hook = Webhook()
    async with subscribed(tmp_path, database_url, hook, "shop.*") as home:
        await send_event(home, 1, "shop.paid", data={"order": 7})
        await send_event(home, 2, "hr.hired")
        await home.gateway.webhooks.events.run_once()
        (got,) = hook.got
        assert (got.json["id"], got.json["data"], got.headers["content-type"]) == ("e1", {"order": 7}, "application/cloudevents+json")
        assert verify(read_secrets(SECRET), got.headers, got.body, now_us() / 1_000_000).id.startswith("n_")


async def test_an_ended_task_reaches_the_webhook(tmp_path: Path, database_url: str) -> None:
    hook = Webhook()
    async with subscribed(tmp_path, database_url, hook, "interlock.task.ended.v1") as home:
        await home.agent(CallbackAgent("sales"))
        task = (await home.send(home.token("alice"), "sales", "hello"))["result"]["task"]["id"]
        await home.gateway.workflows.wake_once()
        await home.gateway.webhooks.events.run_once()
        assert [(each.json["subject"], each.json["data"]["agent"]) for each in hook.got] == [(task, "sales")]


async def test_a_refused_event_is_sent_again_before_later_ones_of_its_subject(tmp_path: Path, database_url: str) -> None:
    hook = Webhook(503, 204, 204)
    async with subscribed(tmp_path, database_url, hook, "*") as home:
        clock = [now_us()]
        sender = deliveries_at(home, clock)
        for number in (1, 2, 3):
            await send_event(home, number, subject="order/1" if number < 3 else "order/2")
        clock[0] = now_us()
        await sender.run_once()
        assert sorted(sent_ids(hook)) == ["e1", "e3"]  # one subject does not wait for another
        await sender.run_once()
        assert len(hook.got) == 2
        clock[0] += (RETRY_SECONDS[0] + 1) * 1_000_000
        await sender.run_once()
        assert sent_ids(hook)[2:] == ["e1", "e2"]
        first, again = (each for each in hook.got if each.json["id"] == "e1")
        assert first.headers["webhook-id"] == again.headers["webhook-id"]
        assert first.headers["webhook-timestamp"] != again.headers["webhook-timestamp"]


async def test_an_event_that_no_attempt_delivers_is_a_dead_letter(tmp_path: Path, database_url: str) -> None:
    hook = Webhook(*[500] * (len(RETRY_SECONDS) + 1))
    async with subscribed(tmp_path, database_url, hook, "*") as home:
        await send_event(home, 1, subject="order/1")
        await send_event(home, 2, subject="order/1")
        clock = [now_us()]
        sender = deliveries_at(home, clock)
        for seconds in (0, *RETRY_SECONDS):
            clock[0] += (seconds + 1) * 1_000_000
            await sender.run_once()
        (letter,) = await dead_letters(home)
        named = {name: letter[name] for name in ("kind", "event_id", "subject", "attempts", "reason")}
        reason = "the webhook answered with HTTP 500"
        assert named == {"kind": "event", "event_id": "e1", "subject": "order/1", "attempts": 7, "reason": reason}
        assert letter["target"].startswith("http://127.0.0.1") and "hidden" not in str(letter)
        assert sent_ids(hook)[-1] == "e2"  # the dead one holds up no other
        headers = {"authorization": f"Bearer {home.token('admin')}"}
        assert (await home.http.post(f"/api/deadletters/{letter['id']}/retry", headers=headers)).status_code == 204
        await home.gateway.webhooks.events.run_once()
        assert sent_ids(hook)[-1] == "e1" and await dead_letters(home) == []
        assert (await home.http.post(f"/api/deadletters/{letter['id']}/retry", headers=headers)).status_code == 404


async def test_a_webhook_that_is_gone_gets_no_further_attempt(tmp_path: Path, database_url: str) -> None:
    hook = Webhook(410)
    async with subscribed(tmp_path, database_url, hook, "*") as home:
        await send_event(home)
        await home.gateway.webhooks.events.run_once()
        assert [letter["attempts"] for letter in await dead_letters(home)] == [1]


async def test_a_webhook_is_signed_with_both_secrets_while_they_change(tmp_path: Path, database_url: str, monkeypatch: Any) -> None:
    hook = Webhook()
    async with subscribed(tmp_path, database_url, hook, "*") as home:
        monkeypatch.setenv(SECRET_NAME, f"{SECRET} {OTHER_SECRET}")
        await send_event(home)
        await home.gateway.webhooks.events.run_once()
        (got,) = hook.got
        for secret in (SECRET, OTHER_SECRET):
            assert verify(read_secrets(secret), got.headers, got.body, now_us() / 1_000_000)


async def test_deliveries_to_a_removed_webhook_are_dead_letters(tmp_path: Path, database_url: str) -> None:
    hook = Webhook()
    async with subscribed(tmp_path, database_url, hook, "*") as home:
        await send_event(home)
        gateway = home.gateway
        queue = EventQueue(gateway.database, event_deliveries, "webhook", now_us)
        await EventDeliveries(queue, [], gateway.webhooks.egress, resolve_credential, lambda: 0.0).sweep()
        (letter,) = await dead_letters(home)
        assert letter["reason"] == "the settings name this webhook no more" and hook.got == []


async def test_two_processes_send_each_event_once_and_in_order(tmp_path: Path, postgres_url: str, monkeypatch: Any) -> None:
    monkeypatch.setenv(SECRET_NAME, "whsec_" + base64.b64encode(b"s" * 32).decode())
    hook = Webhook()
    async with serving(hook) as url:
        webhook = {"url": url, "secret": f"env:{SECRET_NAME}", "types": ["*"]}
        async with two(tmp_path / "home", postgres_url, events={"webhooks": [webhook]}) as (one, other):
            for number in range(8):
                await send_event(other if number % 2 else one, number, subject="order/1")
            while len(hook.got) < 8:
                await one.gateway.webhooks.events.run_once()
                await other.gateway.webhooks.events.run_once()
            assert sent_ids(hook) == [f"e{number}" for number in range(8)]

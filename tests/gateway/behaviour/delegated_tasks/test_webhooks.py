"""A webhook that comes with a message: kept with the task, told of all that becomes of it."""

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select

from adapters.a2a_client.wire.v1 import BadMessage
from adapters.task import Message, Part, PushConfig, Role
from adapters.upstream.egress import Egress, EgressRefused
from gateway.calls.agent_requests import AgentRequest
from gateway.calls.authorizer import CallRefused
from gateway.storage.tables import push_configs, tasks
from gateway.tasks.turns.recorder import TurnState
from gateway.telemetry.spans import TraceContext
from tests.fakes.a2a_agents import serving
from tests.fakes.house import CallbackAgent, House, open_house
from tests.fakes.waiting import until
from tests.fakes.webhook import Webhook


async def sent(home: House, url: str, user: str = "alice", version: str = "1.0", **config: Any) -> TurnState:
    gateway = home.gateway
    caller = await gateway.rulings.caller_resolver.authenticate(home.token(user), (home.url,))
    webhook = gateway.webhooks.configs.check_config(PushConfig(url=url, **config), version)
    message = Message(message_id="m1", role=Role.USER, parts=(Part(text="hi"),))
    return await gateway.calls.agents.send(caller, AgentRequest("echo", message, TraceContext(), webhook=webhook))


async def count(home: House, table: Any) -> int:
    return await home.gateway.database.read(lambda connection: connection.execute(select(func.count()).select_from(table)).scalar_one())


@pytest.fixture
async def echo(home: House) -> House:
    await home.agent(CallbackAgent("echo"))
    return home


async def test_a_webhook_is_told_of_a_task_from_its_opening_on(echo: House) -> None:
    hook = Webhook()
    async with serving(hook) as url:
        turned = await sent(echo, url, token="t0ken")
        await until(lambda: len(hook.got) == 3, every=0.01)
    assert hook.told == ["submitted", "echo got: hi", "completed"]
    assert {notified.headers["x-a2a-notification-token"] for notified in hook.got} == {"t0ken"}
    [config] = await echo.gateway.webhooks.configs.list(turned.row.owner, turned.row)
    assert config.task_id == turned.row.id


async def test_what_may_not_be_done_leaves_no_webhook(echo: House) -> None:
    with pytest.raises(CallRefused):
        await sent(echo, "http://127.0.0.1:9001/", user="nora")
    with pytest.raises(BadMessage):
        await sent(echo, "http://127.0.0.1:9001/", task_id="another")
    assert await count(echo, push_configs) == await count(echo, tasks) == 0


async def test_who_asks_in_0_3_is_told_in_0_3(echo: House) -> None:
    hook = Webhook()
    async with serving(hook) as url:
        await sent(echo, url, version="0.3")
        await until(lambda: len(hook.got) == 3, every=0.01)
    assert [notified.json["status"]["state"] for notified in hook.got] == ["submitted", "submitted", "completed"]
    assert all(notified.json["kind"] == "task" for notified in hook.got)
    assert hook.got[-1].json["artifacts"][0]["parts"] == [{"kind": "text", "text": "echo got: hi"}]


class InsideNames:
    """Targets whose names all lead inside; `looked_up` notes each of them."""

    def __init__(self) -> None:
        self.looked_up: list[str] = []

    def check(self, url: str) -> None:
        """Every text is fit."""

    async def vet(self, url: str) -> None:
        self.looked_up.append(url)
        raise EgressRefused("the address is private or reserved")


HOOK = {"taskPushNotificationConfig": {"url": "https://hook.example/x"}}
CLOSED = '@id("closed") forbid(principal, action == Action::"invokeAgent", resource);'


@pytest.mark.parametrize(("policy", "code", "lookups"), [(CLOSED, -32010, 0), ("", -32602, 1)], ids=["refused", "granted"])
async def test_the_name_of_a_webhook_is_looked_up_after_the_grant(
    tmp_path: Path, database_url: str, policy: str, code: int, lookups: int
) -> None:  # attack SSR-05
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "ours.cedar").write_text(policy)
    async with open_house(tmp_path / "home", database_url, policies=str(tmp_path / "policies")) as home:
        agent = await home.agent(CallbackAgent("echo"))
        home.gateway.webhooks.configs._targets = names = InsideNames()
        answer = await home.send(home.token("alice"), "echo", "hi", configuration=HOOK)
        assert (answer["error"]["code"], len(names.looked_up)) == (code, lookups)
        assert not agent.headers and await count(home, push_configs) == await count(home, tasks) == 0


async def test_webhooks_are_sent_within_the_bound_of_connections_that_the_settings_give(tmp_path: Path, database_url: str) -> None:
    async with open_house(tmp_path / "home", database_url, limits={"calls": 7}) as home:
        bounds = home.gateway.egress._pool.bounds
        assert home.gateway.webhooks.egress._pool.bounds == bounds != Egress()._pool.bounds

"""Tasks that wait for a consent outlive the process that parked them, and are asked about again before they go on."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from gateway.storage.tables import tasks
from policies.tables import grants
from tests.fakes.a2a_agents import loopback, serving
from tests.fakes.authorization_server import AuthorizationServer, Plain, Protected, authorization_server, protected
from tests.fakes.house import CallbackAgent, house
from tests.gateway.behaviour.authority.test_audit_complete import records
from tests.gateway.behaviour.upstreams.test_connect import Place, address
from tests.gateway.behaviour.upstreams.test_connect_agents import Agents


class Town:
    """An agent `vendor` and a server `inventory` behind an authorization server, and one gateway after the other on one database."""

    def __init__(self, home: Path, database_url: str, issuer: AuthorizationServer, agent: Protected, server: Protected) -> None:
        self._home, self._database_url = home, database_url
        self.issuer, self.agent, self.server = issuer, agent, server
        self._listener = loopback()

    @asynccontextmanager
    async def process(self, **settings: Any) -> AsyncIterator[Agents]:
        """A whole gateway, at the same address each time."""
        url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        async with (
            house(self._home, self._database_url, server={"public_url": url}, **settings) as built,
            serving(built.app, self._listener.dup()),
        ):
            yield Agents(built, self.issuer, self.agent, None)  # type: ignore[arg-type]  # it is no MCP server

    async def furnish(self, place: Agents) -> None:
        await place.home.registered("vendor", f"{self.agent.origin}/mcp", upstream={"auth": {}}, delegation="header")
        desk = Place(place.home, self.issuer, self.server, None)  # type: ignore[arg-type]  # nobody looks inside
        await desk.registered()

    def close(self) -> None:
        self._listener.close()


@pytest.fixture
async def vendor() -> CallbackAgent:
    return CallbackAgent("vendor")


@pytest.fixture
async def town(tmp_path: Path, database_url: str, vendor: CallbackAgent) -> AsyncIterator[Town]:
    async with AsyncExitStack() as stack:
        issuer = await stack.enter_async_context(authorization_server())
        agent = await stack.enter_async_context(protected(vendor, lambda: issuer))  # type: ignore[arg-type]  # any app
        server = await stack.enter_async_context(protected(Plain(), lambda: issuer))
        built = Town(tmp_path / "home", database_url, issuer, agent, server)
        stack.callback(built.close)
        yield built


async def waiting(place: Agents, name: str, text: str) -> Any:
    task = (await place.home.send(place.home.token("alice"), name, text))["result"]["task"]
    assert task["status"]["state"] == "TASK_STATE_AUTH_REQUIRED"
    return task


def page(task: Any) -> str:
    return address(task["status"]["message"]["parts"][0]["text"])


@pytest.mark.parametrize(("name", "text", "said"), [("vendor", "hello", "vendor got: hello"), ("inventory", "tool: read {}", "read")])
async def test_a_task_goes_on_in_a_process_that_never_saw_it(town: Town, name: str, text: str, said: str) -> None:
    async with town.process() as first:
        await town.furnish(first)
        task = await waiting(first, name, text)
    async with town.process() as second:
        await second.connect(page(task), "alice")
        over = await second.over(name, task["id"])
        told = (await records(second.home, "connection"))[-1]
        assert (told["act"], told["server"], told["principal"]["subject"]) == ("connected", name, "alice")
        assert over["status"]["state"] == "TASK_STATE_COMPLETED"
        assert over["artifacts"][0]["parts"][0]["text"] == said


async def test_a_consent_given_just_before_a_process_ended_is_found_at_the_next_start(town: Town, vendor: CallbackAgent) -> None:
    async with town.process() as first:
        await town.furnish(first)
        task = await waiting(first, "vendor", "hello")
        await first.home.gateway.consented_task_resumer._round_lock.acquire()  # it comes no further
        await first.connect(page(task), "alice")
    assert vendor.requests == []
    async with town.process() as second:
        assert (await second.over("vendor", task["id"]))["status"]["state"] == "TASK_STATE_COMPLETED"
    assert len(vendor.requests) == 1


# attack DLG-10
@pytest.mark.parametrize(("name", "text"), [("vendor", "hello"), ("inventory", "tool: read {}")])
async def test_a_consent_is_no_authority(town: Town, vendor: CallbackAgent, name: str, text: str) -> None:
    async with town.process() as first:
        await town.furnish(first)
        task = await waiting(first, name, text)
    async with town.process(users={"alice": {"roles": ["nobody"]}}) as second:
        await second.connect(page(task), "alice")
        assert (await second.over(name, task["id"]))["status"]["state"] == "TASK_STATE_REJECTED"
    assert vendor.requests == []


async def test_a_revoked_grant_goes_nowhere_when_its_person_consents(town: Town, vendor: CallbackAgent) -> None:
    async with town.process() as place:
        await town.furnish(place)
        database, task = place.home.gateway.database, await waiting(place, "vendor", "hello")
        grant = await database.read(lambda connection: connection.execute(select(tasks.c.grant_id)).scalar_one())
        await database.write(lambda batch: place.home.gateway.rulings.grants.revoke(batch, "default", grant, 1))
        await place.connect(page(task), "alice")
        assert (await place.over("vendor", task["id"]))["status"]["state"] == "TASK_STATE_REJECTED"
    assert vendor.requests == []


async def test_two_rounds_at_once_send_a_message_once(town: Town, vendor: CallbackAgent) -> None:
    async with town.process() as place:
        await town.furnish(place)
        gateway, task = place.home.gateway, await waiting(place, "vendor", "hello")
        other = type(gateway.consented_task_resumer)(
            gateway.calls.parts, gateway.calls.resumed_turns, gateway.rulings.caller_resolver, gateway.stores
        )
        async with gateway.consented_task_resumer._round_lock:
            await place.connect(page(task), "alice")
            rows = await gateway.database.read(lambda connection: connection.execute(select(tasks)).all())
            assert [row.state for row in rows] == ["TASK_STATE_AUTH_REQUIRED"]
        await other.run_once()
        await gateway.consented_task_resumer.run_once()
        await place.over("vendor", task["id"])
    assert len(vendor.requests) == 1


async def test_what_a_person_leaves_behind_is_no_more_than_they_sent(town: Town) -> None:
    """The grant that a call of a server goes on with: of that person, through nobody, as long as their token."""
    async with town.process() as place:
        await town.furnish(place)
        await waiting(place, "inventory", "tool: read {}")
        rows = await place.home.gateway.database.read(lambda connection: connection.execute(select(grants)).all())
        assert [(row.subject, row.path, row.parent_id) for row in rows] == [("alice", "[]", "")]

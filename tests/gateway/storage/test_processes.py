"""Who lives: found by silence, never by clocks, and never by one who was deaf."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest
from sqlalchemy import select

from gateway.storage.database import Database, WriteFailed, engine_for
from gateway.storage.processes import GONE_HEARTBEATS, SILENT_HEARTBEATS, ProcessRegistry
from gateway.storage.tables import processes
from tests.fakes.clock import Clock
from tests.fakes.outages import Shaky


class Member:
    """A process with sessions at the database, until it is closed."""

    def __init__(self, url: str, name: str, clock: Clock) -> None:
        self.name = name
        self.database = Database(engine_for(url, name))
        self.database.start()
        self.shaky = Shaky(self.database)
        self.presence = ProcessRegistry(self.shaky, name, clock.us)  # type: ignore[arg-type]  # it does what is needed
        self.clock = clock

    async def beat(self, times: int = 1) -> None:
        for _ in range(times):
            self.clock.now += 1
            await self.presence.heartbeat()

    async def known(self) -> set[str]:
        return set(await self.database.read(lambda connection: connection.execute(select(processes.c.id)).scalars().all()))

    async def die(self) -> None:
        await asyncio.to_thread(self.database.close)


@pytest.fixture
async def members(postgres_url: str) -> AsyncIterator[tuple[Member, Member]]:
    """Two whose clocks are an hour apart."""
    two = Member(postgres_url, "p_1", Clock()), Member(postgres_url, "p_2", Clock(1_800_003_600.0))
    for one in two:
        await one.presence.register()
    yield two
    for one in two:
        with suppress(RuntimeError):
            await one.die()


async def test_those_who_give_signs_live(members: tuple[Member, Member]) -> None:
    first, second = members
    for _ in range(SILENT_HEARTBEATS + 2):
        await first.beat()
        await second.beat()
    assert await first.known() == {"p_1", "p_2"}


async def test_one_whose_sessions_ended_is_struck_off_after_a_few_beats(members: tuple[Member, Member]) -> None:
    first, second = members
    await second.beat()
    await second.die()
    await first.beat(GONE_HEARTBEATS)
    assert await first.known() == {"p_1", "p_2"}
    await first.beat()
    assert await first.known() == {"p_1"}


async def test_one_whose_sessions_stand_may_be_silent_for_longer(members: tuple[Member, Member]) -> None:
    """It may be busy. But its machine may be gone, too, and nobody told the server."""
    first, _ = members
    await first.beat(SILENT_HEARTBEATS)
    assert await first.known() == {"p_1", "p_2"}
    await first.beat()
    assert await first.known() == {"p_1"}


async def test_one_who_was_struck_off_and_lives_is_back_with_its_next_sign(members: tuple[Member, Member]) -> None:
    first, second = members
    await first.beat(SILENT_HEARTBEATS + 1)
    await second.beat()
    assert await first.known() == {"p_1", "p_2"}


async def test_who_could_not_look_starts_to_count_anew(members: tuple[Member, Member]) -> None:
    """After an outage of the database nobody has given a sign for long, and nobody is dead."""
    first, second = members
    await first.beat(GONE_HEARTBEATS)
    await second.die()
    first.shaky.writes = ["refused"]
    with pytest.raises(WriteFailed):
        await first.beat()
    await first.beat(GONE_HEARTBEATS)
    assert await first.known() == {"p_1", "p_2"}
    await first.beat()
    assert await first.known() == {"p_1"}


async def test_one_who_leaves_is_gone_at_once(members: tuple[Member, Member]) -> None:
    first, second = members
    await second.presence.depart()
    assert await first.known() == {"p_1"}


async def test_on_sqlite_whoever_joins_is_alone(tmp_path, sqlite_template) -> None:  # type: ignore[no-untyped-def]  # fixtures
    path = tmp_path / "interlock.db"
    path.write_bytes(sqlite_template.read_bytes())
    for name in ("p_1", "p_2"):
        member = Member(f"sqlite:///{path}", name, Clock())
        await member.presence.register()
        await member.beat(SILENT_HEARTBEATS + 1)
        assert await member.known() == {name}
        await member.die()

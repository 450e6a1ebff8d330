"""Sessions of older clients, in the database of either kind."""

from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import func, select

from gateway.ingress.mcp_server.protocol.modern import BadEnvelope
from gateway.ingress.mcp_server.protocol.sessions import IDLE_SECONDS, McpSessions, UnknownSession
from gateway.storage.database import Database
from gateway.storage.tables import mcp_sessions
from tests.fakes.clock import Clock


def caller(name: str) -> Any:
    return SimpleNamespace(principal=SimpleNamespace(owner_key=f"default|i|{name}"), delegation=SimpleNamespace(actor=""))


async def count(database: Database) -> Any:
    return await database.read(lambda connection: connection.execute(select(func.count()).select_from(mcp_sessions)).scalar())


async def test_a_session_that_nobody_uses_ends_and_one_in_use_does_not(database: Database) -> None:
    clock = Clock()
    sessions = McpSessions(database, clock.us, clock)
    used, _ = await sessions.open(caller("a"), "/mcp", {})
    unused, _ = await sessions.open(caller("a"), "/mcp", {})
    for _ in range(3):
        clock.now += IDLE_SECONDS / 2
        await sessions.find(used, caller("a"), "/mcp")
        await database.write(lambda batch: None)  # with it goes the note of the use
    with pytest.raises(UnknownSession):
        await sessions.find(unused, caller("a"), "/mcp")
    assert await count(database) == 2
    await sessions.sweep()
    assert await count(database) == 1
    assert (await McpSessions(database, clock.us, clock).find(used, caller("a"), "/mcp")).version == "2025-11-25"  # after a restart


async def test_what_a_client_shows_is_not_what_is_kept(database: Database) -> None:
    clock = Clock()
    shown, session = await McpSessions(database, clock.us, clock).open(caller("a"), "/mcp", {"capabilities": {"roots": {}}})
    kept = await database.read(lambda connection: connection.execute(select(mcp_sessions)).one())
    assert shown not in repr(kept) and kept.id == session.id and session.capabilities == {"roots": {}}


async def test_capabilities_have_a_size(database: Database) -> None:
    clock = Clock()
    sessions = McpSessions(database, clock.us, clock)
    with pytest.raises(BadEnvelope):
        await sessions.open(caller("a"), "/mcp", {"capabilities": {"x": "y" * 9000}})
    assert (await sessions.open(caller("a"), "/mcp", {"capabilities": 5}))[1].capabilities == {}

"""Sessions and processes of one person make room for each other before those of anybody else."""

from typing import Any, cast

import pytest

from adapters.contract import NotSent
from adapters.mcp_client.exchange.http import McpHttp
from adapters.mcp_client.legacy.sessions import ServerSession, ServerSessions, SessionKey
from adapters.mcp_client.session_room import ANY_OWNER, owner_to_evict
from tests.fakes.clock import Clock


def sessions(size: int) -> ServerSessions:
    return ServerSessions(cast("McpHttp", None), Clock(), size)


def key(owner: str, front: Any) -> SessionKey:
    return SessionKey("crm", "http://crm.example/mcp", owner, str(front))


def test_a_caller_at_its_share_loses_its_own_sessions_before_others_do() -> None:
    assert owner_to_evict([], "alice", 4) is None
    assert owner_to_evict(["alice"], "alice", 4) is None
    assert owner_to_evict(["alice", "alice"], "alice", 4) == "alice"
    assert owner_to_evict(["alice", "alice"], "bob", 4) is None
    assert owner_to_evict(["alice", "alice", "bob", "carol"], "dave", 4) == ANY_OWNER
    assert owner_to_evict(["alice"] * 11, "alice", 16, 3) is None
    assert owner_to_evict(["alice"] * 12, "alice", 16, 3) == "alice"


def test_one_persons_many_sessions_end_none_of_another_person() -> None:  # attack AVL-03
    kept = sessions(8)
    bobs = kept.session_for(key("bob", 1))
    made = [kept.session_for(key("alice", number)) for number in range(20)]
    assert kept.session_for(key("bob", 1)) is bobs
    assert kept.session_for(key("alice", 19)) is made[-1]
    assert len(kept) == 5


def test_sessions_that_are_busy_are_not_ended_and_leave_room_for_others() -> None:
    kept = sessions(8)
    for number in range(4):
        _busy(kept.session_for(key("alice", number)))
    with pytest.raises(NotSent):
        kept.session_for(key("alice", 4))
    assert kept.session_for(key("bob", 1)) is not None


def _busy(session: ServerSession) -> None:
    session.calls_in_flight += 1

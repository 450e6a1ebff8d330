"""Which turns wait for the other turns of their session."""

import pytest
from msgspec.structs import replace

from gateway.calls.turns.runner import needs_session
from registry.cards.card import FEATURES
from tests.fakes.a2a_calls import call_to, turn


@pytest.mark.parametrize(
    ("session", "features", "waits"),
    [("s-1", {}, True), ("s-1", {"parallel": False}, True), ("s-1", {"parallel": True}, False), ("", {}, False)],
)
async def test_a_turn_waits_for_its_session_unless_its_agent_is_parallel(session: str, features: dict[str, bool], waits: bool) -> None:
    target = call_to("http://a.example/", 60.0, **{FEATURES: features}).target
    assert needs_session(replace(turn("hi"), session=session), target) is waits

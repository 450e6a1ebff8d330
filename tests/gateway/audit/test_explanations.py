"""Refusals say in words what the caller may not do."""

import pytest

from gateway.audit.decisions import READ_AUDIT
from gateway.audit.explanations import describe_act
from gateway.ingress.admin.registry.access import act_of_registry_change
from gateway.state.board.held_values.decisions import DECIDE_HELD
from gateway.state.board.permissions import act_of_reading, act_of_reading_below, act_of_writing
from gateway.state.memory.facts import MemoryScope
from gateway.state.memory.facts import act_of_writing as act_of_writing_memory
from policies.delegation.rulings import Act
from registry.cards.card import Family

KEY = "customer/42/status"


@pytest.mark.parametrize(
    ("act", "text"),
    [
        (act_of_reading(KEY), f"read the key {KEY}"),
        (act_of_writing(KEY), f"write the key {KEY}"),
        (act_of_writing(KEY, "delete"), f"delete the key {KEY}"),
        (act_of_reading(KEY, "history"), f"read the history of the key {KEY}"),
        (act_of_reading_below("customer", "list"), "list the values below customer"),
        (act_of_writing("events/order.paid"), "send events of the type order.paid"),
        (act_of_reading("events/order.paid"), "receive events of the type order.paid"),
        (act_of_writing_memory(MemoryScope("default", "ann")), "write memory of the scope person"),
        (READ_AUDIT, "read the audit"),
        (DECIDE_HELD, "decide on values that are held back"),
        (act_of_registry_change("register", Family.AGENT, ""), "register agents, servers or workflows"),
        (act_of_registry_change("refresh", Family.AGENT, "sales"), "refresh sales"),
    ],
)
def test_an_act_is_described_in_words(act: Act, text: str) -> None:
    assert describe_act(act) == text

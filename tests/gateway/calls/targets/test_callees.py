"""Whom a caller names: what can be called, what can only be known of, and what reads like an unknown name."""

from dataclasses import replace
from typing import Any

import pytest

from gateway.calls.targets.callees import Callees, act_on
from policies.callers import Caller
from policies.delegation.chain import Delegation, Principal
from policies.delegation.permissions import ALL_PERMISSIONS
from policies.delegation.rulings import Act
from registry.cards.card import Family, Registration, RegistrationStatus
from registry.health.reachability import Absences, NotReachable
from registry.names import FRONT_DOOR
from registry.store import UnknownName
from tests.fakes.clock import Clock
from tests.fakes.oauth import SALES

ALICE = Principal("acme", "idp", "alice")
CALLER = Caller(ALICE, Delegation(ALICE, ALL_PERMISSIONS, 2e9), "", "t", 2e9, "alice")
DOWN = replace(SALES, status=RegistrationStatus.DOWN)
CRM = replace(SALES, name="crm", family=Family.SERVER)


class Entries:
    """The registry and the front door."""

    def __init__(self, *entries: Registration) -> None:
        self._entries = {(entry.tenant, entry.name): entry for entry in entries}

    def find(self, tenant: str, name: str) -> Registration:
        if (tenant, name) not in self._entries:
            raise UnknownName(name)
        return self._entries[tenant, name]

    def registration(self, tenant: str) -> Registration:
        return replace(SALES, tenant=tenant, name=FRONT_DOOR)


class Sight:
    """The authorizer: what callers may know of. `asked` has the acts that it ruled on."""

    def __init__(self, sees: bool) -> None:
        self._sees = sees
        self.asked: list[Act] = []

    def can_see(self, caller: Caller, act: Act) -> bool:
        self.asked.append(act)
        return self._sees


def callees(*entries: Registration, sees: bool = True) -> tuple[Callees, Sight, Absences]:
    registered: Any = Entries(*entries)
    sight: Any = Sight(sees)
    absences = Absences(Clock())
    return Callees(registered, sight, registered, absences), sight, absences


def test_an_active_agent_is_found_without_a_ruling() -> None:
    made, sight, _ = callees(SALES)
    assert (made.find(CALLER, "sales", Family.AGENT), sight.asked) == (SALES, [])


def test_an_agent_that_is_down_is_not_reachable_and_is_looked_at_again() -> None:
    made, _, absences = callees(DOWN)
    with pytest.raises(NotReachable):
        made.find(CALLER, "sales", Family.AGENT)
    assert absences.take() == [("acme", "sales")]


def test_an_agent_that_is_down_and_hidden_reads_like_an_unknown_name() -> None:
    made, _, absences = callees(DOWN, sees=False)
    with pytest.raises(UnknownName):
        made.find(CALLER, "sales", Family.AGENT)
    assert absences.take() == []


@pytest.mark.parametrize("status", [RegistrationStatus.PENDING, RegistrationStatus.QUARANTINED])
def test_an_agent_that_no_operator_lets_in_is_unknown(status: RegistrationStatus) -> None:
    made, _, _ = callees(replace(SALES, status=status))
    with pytest.raises(UnknownName):
        made.find(CALLER, "sales", Family.AGENT)


def test_an_agent_of_another_tenant_is_unknown() -> None:
    made, _, _ = callees(replace(SALES, tenant="globex"))
    with pytest.raises(UnknownName):
        made.find(CALLER, "sales", Family.AGENT)


def test_a_server_can_be_called_as_an_agent_and_has_a_card_then() -> None:
    made, _, _ = callees(CRM)
    found = made.find(CALLER, "crm", Family.AGENT)
    assert found.card is not None and found.card.name == "crm"


@pytest.mark.parametrize(
    ("entry", "family"), [(SALES, Family.SERVER), (replace(SALES, family=Family.VIRTUAL), Family.VIRTUAL)], ids=["agent", "virtual server"]
)
def test_an_entry_of_another_family_is_unknown(entry: Registration, family: Family) -> None:
    made, _, _ = callees(entry)
    with pytest.raises(UnknownName):
        made.find(CALLER, "sales", family)


def test_the_front_door_is_an_agent_of_every_tenant_and_no_server() -> None:
    made, _, _ = callees()
    assert made.find(CALLER, FRONT_DOOR, Family.AGENT).tenant == "acme"
    with pytest.raises(UnknownName):
        made.find(CALLER, FRONT_DOOR, Family.SERVER)


def test_an_agent_that_is_down_stays_visible_to_those_who_may_know_of_it() -> None:
    made, _, _ = callees(DOWN)
    assert made.find_visible(CALLER, "sales") == DOWN


def test_a_hidden_agent_and_an_unknown_one_cost_one_ruling_each() -> None:
    for entries in ((), (SALES,)):
        made, sight, _ = callees(*entries, sees=False)
        with pytest.raises(UnknownName):
            made.find_visible(CALLER, "sales")
        assert [act.permission for act in sight.asked] == ["agent:sales"]


def test_a_server_is_visible_to_those_who_may_call_any_of_its_tools() -> None:
    assert (act_on(CRM).permission, act_on(SALES).permission) == ("tool:crm.*", "agent:sales")

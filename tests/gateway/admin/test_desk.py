"""An agent on an errand has no possessions: what its person registered is not its own."""

import pytest

from gateway.admin.desk import Desk
from policies.callers import Caller
from policies.delegation import Delegation, Hop
from policies.permissions import Permissions
from policies.principal import Principal
from registry.card import Family
from registry.store import UnknownName
from tests.fakes.cards import card
from tests.fakes.house import House
from tests.fakes.reception import Reception


def caller(principal: Principal, *path: Hop) -> Caller:
    delegation = Delegation(principal, Permissions.of(["agent:*"]), not_after=2e9, path=path)
    return Caller(principal, delegation, client_id="", token_id="t", expires=2e9, key=f"test {path}")


async def test_what_a_person_registered_is_not_its_agents_to_see_or_to_remove(home: House) -> None:  # attack REG-09
    await Reception(home).post("/api/agents", "alice", card=card("https://93.184.215.14/", "1.0"), name="hers")
    desk = Desk(home.gateway.registry, home.gateway.authority.may, home.gateway.allowed, home.gateway.search, home.gateway.kills)
    alice = Principal("default", "interlock-development", "alice", ("sales",))
    assert desk.find(caller(alice), Family.AGENT, "hers").name == "hers"
    errand = caller(alice, Hop("support"))
    with pytest.raises(UnknownName):
        desk.find(errand, Family.AGENT, "hers")
    with pytest.raises(UnknownName):
        await desk.remove(errand, Family.AGENT, "hers")
    assert desk.page(errand, Family.AGENT, "", 10) == ([], None)

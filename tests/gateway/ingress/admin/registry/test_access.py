"""An agent on an errand has no possessions: what its person registered is not its own."""

from pathlib import Path

import pytest

from gateway.ingress.admin.dead_letters import RETRY_DEAD_LETTERS
from gateway.ingress.admin.registry.access import RegistryAccess, RegistryPermissions, act_of_registry_change
from gateway.server.composition.access.authorization import build_in_person_check
from policies.authority import WRITE_REGISTRY
from policies.callers import Caller
from policies.cedar.engine import CedarQuestion, PolicyEngine
from policies.delegation.chain import Delegation, Hop, Principal
from policies.delegation.permissions import Permissions
from registry.cards.card import Family
from registry.store import UnknownName
from tests.fakes.cards import card
from tests.fakes.house import House
from tests.fakes.reception import Reception


def caller(principal: Principal, *path: Hop) -> Caller:
    delegation = Delegation(principal, Permissions.parse(["agent:*"]), not_after=2e9, path=path)
    return Caller(principal, delegation, client_id="", token_id="t", expires=2e9, ruling_key=f"test {path}")


async def test_what_a_person_registered_is_not_its_agents_to_see_or_to_remove(home: House) -> None:  # attack REG-09
    await Reception(home).post("/api/agents", "alice", card=card("https://93.184.215.14/", "1.0"), name="hers")
    gateway = home.gateway
    ruling = RegistryPermissions(
        gateway.rulings.authority.could_allow,
        gateway.authorize,
        build_in_person_check(gateway.rulings.authority, gateway.authorizer),
        gateway.rulings.authority.rulings_version,
    )
    desk = RegistryAccess(gateway.registry, ruling, gateway.search, gateway.rulings.kills, empty_list_reasons=gateway.empty_lists)
    alice = Principal("default", "interlock-development", "alice", ("sales",))
    assert desk.find(caller(alice), Family.AGENT, "hers").name == "hers"
    errand = caller(alice, Hop("support"))
    with pytest.raises(UnknownName):
        desk.find(errand, Family.AGENT, "hers")
    with pytest.raises(UnknownName):
        await desk.remove(errand, Family.AGENT, "hers", None)
    assert await desk.list_page(errand, Family.AGENT, "", 10) == ([], None)


def permitted(folder: Path, resource: str) -> list[str]:
    """The resources of acts of administration that a permit of the operator's for `resource` allows."""
    (folder / "ours.cedar").write_text(f'@id("ours") permit(principal, action, resource {resource});')
    engine, alice = PolicyEngine({}, folder), Principal("default", "interlock-development", "alice")
    acts = [
        WRITE_REGISTRY,
        RETRY_DEAD_LETTERS,
        act_of_registry_change("register", Family.AGENT, ""),
        act_of_registry_change("approve", Family.AGENT, "sales"),
    ]
    acts.append(act_of_registry_change("change", Family.SERVER, "crm"))
    return [f"{act.kind} {act.resource}" for act in acts if engine.decide(CedarQuestion(alice, act, "default")).allowed]


@pytest.mark.parametrize("name", ["write", "new", "deadletters"])
def test_no_name_of_an_agent_or_server_turns_a_permit_into_operator_rights(tmp_path: Path, name: str) -> None:
    """attack ADM-01"""
    for kind in ("Agent", "Server", "Virtual"):
        for scope in (f'== {kind}::"{name}"', f'in {kind}::"{name}"'):
            assert permitted(tmp_path, scope) == []


def test_a_permit_that_names_no_action_covers_the_administration_of_that_very_entry(tmp_path: Path) -> None:
    assert permitted(tmp_path, 'in Server::"crm"') == ["Server crm"]
    assert permitted(tmp_path, 'in Agent::"sales"') == ["Agent sales"]
    assert permitted(tmp_path, "is Key") == ["Key write", "Key deadletters", "Key write"]

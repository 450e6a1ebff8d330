"""What a person's roles permit, what they may know of, and what each agent of a chain can do for them."""

import pytest

from policies.delegation.chain import Delegation, Hop
from policies.delegation.permissions import ALL, NONE, Permissions
from policies.delegation.principal import Principal
from policies.delegation.rights import links, rights_of, visible
from policies.delegation.rulings import Act, Link, calling, getting, invoking, reading

ALICE = Principal("acme", "https://idp.test", "alice")
KNOWN = {"sales": Permissions.of(["tool:crm.*"]), "ops": Permissions.of(["agent:*"])}


def of(*texts: str) -> Permissions:
    return Permissions.of(texts)


def through(*path: Hop) -> Delegation:
    return Delegation(ALICE, ALL, 0.0, path)


@pytest.mark.parametrize(
    ("roles", "rights"),
    [((), NONE), (("nobody",), NONE), (("sales",), of("tool:crm.*")), (("sales", "nobody", "ops"), of("tool:crm.*", "agent:*"))],
)
def test_rights_are_those_of_all_roles_that_are_known(roles: tuple[str, ...], rights: Permissions) -> None:
    assert rights_of(KNOWN, roles) == rights


@pytest.mark.parametrize(
    ("right", "act", "seen"),
    [
        ("tool:crm.read", calling("crm", "delete"), True),
        ("tool:crm.read", calling("crm2", "read"), False),
        ("tool:crm", calling("crm", "read"), False),
        ("prompt:crm.greet", getting("crm", "other"), True),
        ("prompt:crm.greet", calling("crm", "read"), False),
        ("agent:sales/quote", invoking("sales"), True),
        ("agent:sales", invoking("sales", "quote"), True),
        ("agent:sales", invoking("sales-eu"), False),
        ("resource:crm", reading("crm"), True),
        ("tool:crm.read", reading("crm"), False),
        ("*", reading("crm"), True),
    ],
)
def test_who_has_a_right_near_a_thing_may_know_of_it(right: str, act: Act, seen: bool) -> None:
    assert visible(of(right), through(), act) is seen
    assert visible(of(right), through(Hop("front", of("registry:write"))), act) is seen
    assert visible(NONE, through(), act) is False


@pytest.mark.parametrize(
    ("path", "seen"),
    [
        ((), False),
        ((Hop("front", ALL),), False),
        ((Hop("front", of("tool:crm.read")),), True),
        ((Hop("front", of("tool:mail.send")),), False),
        ((Hop("front", of("tool:crm.read")), Hop("desk", of("agent:*"))), False),
        ((Hop("front", of("agent:*")), Hop("desk", of("tool:crm.read"))), True),
    ],
)
def test_an_agent_may_know_of_what_its_own_ceiling_names(path: tuple[Hop, ...], seen: bool) -> None:
    assert visible(NONE, through(*path), calling("crm", "delete")) is seen


def test_each_agent_of_a_chain_can_do_what_is_left_for_it() -> None:
    path = (Hop("front"), Hop("desk", of("tool:*")), Hop("back", of("tool:crm.read", "agent:*")))
    found = links(of("tool:crm.*", "agent:x"), Delegation(ALICE, of("tool:*", "agent:*"), 0.0, path))
    assert found == (Link("front", ("agent:x", "tool:crm.*")), Link("desk", ("tool:crm.*",)), Link("back", ("tool:crm.read",)))
    assert links(ALL, through()) == ()

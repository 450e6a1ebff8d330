"""What a person's roles permit, what they may know of, and what each agent of a chain can do for them."""

import pytest

from policies.delegation.chain import Delegation, Hop, Principal
from policies.delegation.permissions import ALL_PERMISSIONS, NO_PERMISSIONS, Permissions
from policies.delegation.rights import chain_links, is_visible, permissions_of_roles
from policies.delegation.rulings import (
    Act,
    ChainLink,
    act_of_calling_tool,
    act_of_getting_prompt,
    act_of_invoking_agent,
    act_of_reading_resource,
)

ALICE = Principal("acme", "https://idp.test", "alice")
KNOWN = {"sales": Permissions.parse(["tool:crm.*"]), "ops": Permissions.parse(["agent:*"])}


def of(*texts: str) -> Permissions:
    return Permissions.parse(texts)


def through(*path: Hop) -> Delegation:
    return Delegation(ALICE, ALL_PERMISSIONS, 0.0, path)


@pytest.mark.parametrize(
    ("roles", "rights"),
    [
        ((), NO_PERMISSIONS),
        (("nobody",), NO_PERMISSIONS),
        (("sales",), of("tool:crm.*")),
        (("sales", "nobody", "ops"), of("tool:crm.*", "agent:*")),
    ],
)
def test_rights_are_those_of_all_roles_that_are_known(roles: tuple[str, ...], rights: Permissions) -> None:
    assert permissions_of_roles(KNOWN, roles) == rights


@pytest.mark.parametrize(
    ("right", "act", "seen"),
    [
        ("tool:crm.read", act_of_calling_tool("crm", "delete"), True),
        ("tool:crm.read", act_of_calling_tool("crm2", "read"), False),
        ("tool:crm", act_of_calling_tool("crm", "read"), False),
        ("prompt:crm.greet", act_of_getting_prompt("crm", "other"), True),
        ("prompt:crm.greet", act_of_calling_tool("crm", "read"), False),
        ("agent:sales/quote", act_of_invoking_agent("sales"), True),
        ("agent:sales", act_of_invoking_agent("sales", "quote"), True),
        ("agent:sales", act_of_invoking_agent("sales-eu"), False),
        ("resource:crm", act_of_reading_resource("crm"), True),
        ("tool:crm.read", act_of_reading_resource("crm"), False),
        ("*", act_of_reading_resource("crm"), True),
    ],
)
def test_who_has_a_right_near_a_thing_may_know_of_it(right: str, act: Act, seen: bool) -> None:
    assert is_visible(of(right), through(), act) is seen
    assert is_visible(of(right), through(Hop("front", of("registry:write"))), act) is seen
    assert is_visible(NO_PERMISSIONS, through(), act) is False


@pytest.mark.parametrize(
    ("path", "seen"),
    [
        ((), False),
        ((Hop("front", ALL_PERMISSIONS),), False),
        ((Hop("front", of("tool:crm.read")),), True),
        ((Hop("front", of("tool:mail.send")),), False),
        ((Hop("front", of("tool:crm.read")), Hop("desk", of("agent:*"))), False),
        ((Hop("front", of("agent:*")), Hop("desk", of("tool:crm.read"))), True),
    ],
)
def test_an_agent_may_know_of_what_its_own_ceiling_names(path: tuple[Hop, ...], seen: bool) -> None:
    assert is_visible(NO_PERMISSIONS, through(*path), act_of_calling_tool("crm", "delete")) is seen


def test_each_agent_of_a_chain_can_do_what_is_left_for_it() -> None:
    path = (Hop("front"), Hop("desk", of("tool:*")), Hop("back", of("tool:crm.read", "agent:*")))
    found = chain_links(of("tool:crm.*", "agent:x"), Delegation(ALICE, of("tool:*", "agent:*"), 0.0, path))
    assert found == (
        ChainLink("front", ("agent:x", "tool:crm.*")),
        ChainLink("desk", ("tool:crm.*",)),
        ChainLink("back", ("tool:crm.read",)),
    )
    assert chain_links(ALL_PERMISSIONS, through()) == ()


def test_a_refusal_about_a_key_may_be_explained_to_anybody() -> None:
    act = Act("readState", "Key", "customer/42", "state:read:customer/42", "customer")
    assert is_visible(NO_PERMISSIONS, through(), act)

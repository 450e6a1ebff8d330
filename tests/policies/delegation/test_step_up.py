"""What a refusal lets a client ask the person for."""

from policies.delegation.permissions import ALL_PERMISSIONS, Permissions
from policies.delegation.step_up import scope_after_consent

HELD = Permissions.parse(["tool:crm.read"])


def scope(permission: str = "agent:clerk", *ceiling: str, may: tuple[str, ...] = ("*",)) -> str:
    return scope_after_consent(HELD, permission, Permissions.parse(ceiling) if ceiling else None, Permissions.parse(may).covers)


def test_a_client_keeps_what_it_has_and_asks_for_what_was_missing() -> None:
    assert scope() == "agent:clerk tool:crm.read"


def test_what_the_person_may_not_have_is_not_asked_for() -> None:
    assert scope(may=("tool:*",)) == ""
    assert (
        scope("agent:clerk", "tool:crm.write", "tool:erp.write", may=("agent:*", "tool:crm.*"))
        == "agent:clerk tool:crm.read tool:crm.write"
    )


def test_the_needs_of_the_called_agent_are_asked_for_at_once() -> None:
    needs = ("agent:tax", "memory:read", "prompt:crm.hello", "resource:crm", "state:read:a", "tool:crm.read", "tool:erp.pay")
    assert scope("agent:clerk", *needs).split() == ["agent:clerk", *needs]


def test_wildcards_and_administration_are_never_added() -> None:
    assert scope("agent:clerk", "*") == scope("agent:clerk", "tool:*", "registry:write", "audit:read", "approval:decide") == scope()


def test_a_list_that_nobody_reads_is_left_out() -> None:
    many = tuple(f"tool:erp.t{number}" for number in range(50))
    assert scope("agent:clerk", *many) == scope()
    assert len(scope("agent:clerk", *many[1:]).split()) == 51


def test_a_ceiling_of_everything_adds_nothing() -> None:
    assert scope_after_consent(HELD, "agent:clerk", ALL_PERMISSIONS, lambda _: True) == scope()

"""Permissions: what covers what, what two sets have in common, and what is no permission at all."""

import pytest

from policies.delegation.permissions import ALL_PERMISSIONS, NO_PERMISSIONS, BadPermission, Permissions, parse_ceiling


def of(*texts: str) -> Permissions:
    return Permissions.parse(texts)


def test_names_count_whole() -> None:
    held = Permissions.parse(["agent:sales-eu", "tool:inventory.check"])
    assert not held.overlaps("agent:sales")
    assert held.overlaps("agent:sales-eu") and held.overlaps("tool:inventory.*")
    assert not held.covers("tool:inventory.check/wipe")
    assert held.covers("agent:sales-eu/quote")


@pytest.mark.parametrize(
    ("pattern", "permission", "covered"),
    [
        ("*", "tool:crm.read", True),
        ("*", "*", True),
        ("tool:*", "*", False),
        ("tool:crm.*", "tool:crm.read", True),
        ("tool:crm.*", "tool:crm.x.*", True),
        ("tool:crm.*", "tool:*", False),
        ("tool:crm.*", "tool:crm2.read", False),
        ("tool:crm.read", "tool:crm.*", False),
        ("tool:crm.read", "tool:crm.reading", False),
        ("agent:sales", "agent:sales/quote", True),
        ("agent:sales", "agent:sales-eu", False),
        ("agent:sales/quote", "agent:sales", False),
        ("agent:sales/*", "agent:sales", False),
        ("state:read:team", "state:read:team/x", True),
        ("resource:crm", "resource:crm/x", True),
        ("tool:crm.read", "tool:crm.read/all", False),  # names of tools are strangers'
        ("prompt:crm.greet", "prompt:crm.greet/all", False),
        ("prompt:crm.*", "prompt:crm.greet/all", True),
    ],
)
def test_a_pattern_covers_what_it_names_and_what_lies_below(pattern: str, permission: str, covered: bool) -> None:
    assert of(pattern).covers(permission) is covered
    assert of("registry:write", pattern).covers(permission) is covered
    assert NO_PERMISSIONS.covers(permission) is False and ALL_PERMISSIONS.covers(permission) is True


@pytest.mark.parametrize(
    ("mine", "theirs", "both"),
    [
        (("*",), ("tool:crm.read",), ("tool:crm.read",)),
        (("*",), ("*",), ("*",)),
        (("*",), (), ()),
        (("tool:crm.*", "agent:a"), ("tool:*",), ("tool:crm.*",)),
        (("tool:crm.*",), ("tool:crm.read", "tool:mail.send"), ("tool:crm.read",)),
        (("agent:sales",), ("agent:sales/quote", "agent:other"), ("agent:sales/quote",)),
        (("tool:crm.*",), ("tool:mail.*",), ()),
        (("*", "tool:crm.read"), ("tool:mail.*",), ("tool:mail.*",)),
    ],
)
def test_two_sets_have_in_common_the_narrower_of_what_both_cover(
    mine: tuple[str, ...], theirs: tuple[str, ...], both: tuple[str, ...]
) -> None:
    assert of(*mine).intersect(of(*theirs)) == of(*theirs).intersect(of(*mine)) == of(*both)


@pytest.mark.parametrize(
    ("mine", "other", "within"),
    [((), (), True), ((), ("*",), True), (("tool:a.b",), (), False), (("tool:a.b", "agent:x"), ("tool:*",), False)],
)
def test_a_set_is_within_another_when_that_covers_each_of_it(mine: tuple[str, ...], other: tuple[str, ...], within: bool) -> None:
    assert of(*mine).is_within(of(*other)) is within
    assert of("tool:a.b", "tool:a.c").is_within(of("tool:a.*"))


@pytest.mark.parametrize(
    ("held", "target", "touched"),
    [
        ("tool:crm.read", "tool:crm.*", True),
        ("tool:crm2.read", "tool:crm.*", False),
        ("tool:crm.*", "tool:crm.read", True),
        ("tool:crm.re", "tool:crm.read", False),
        ("agent:sales/quote", "agent:sales", True),
        ("agent:sales-eu", "agent:sales", False),
        ("agent:sales", "agent:sales", True),
        ("*", "agent:sales", True),
    ],
)
def test_a_set_touches_what_it_covers_and_what_it_has_a_right_below(held: str, target: str, touched: bool) -> None:
    assert of(held).overlaps(target) is touched
    assert NO_PERMISSIONS.overlaps(target) is False


@pytest.mark.parametrize(
    "text",
    ["", " ", "tool:", "tool", "tool:é.x", ":x", "Tool:crm.read", "tool:crm.re*", "tool:*.read", "**", "tool:crm read",
     " tool:crm.read", "tool:crm.read\n", "tool:-x", "tool:crm.read*", "tool:crm.réad", "tool:" + "x" * 252, None, 5],
)  # fmt: skip
def test_what_is_no_permission_is_refused_and_named(text: object) -> None:
    with pytest.raises(BadPermission) as refused:
        Permissions.parse(["agent:sales", text])  # type: ignore[list-item]  # that is the claim
    assert refused.value.text == str(text) and "permission" in str(refused.value)


@pytest.mark.parametrize(
    "text", ["*", "tool:*", "tool:crm.*", "agent:sales/*", "state:read:*", "tool:crm.x@y", "registry:write", "tool:" + "x" * 251]
)
def test_what_is_one_is_kept_as_it_is(text: str) -> None:
    assert of(text, text).patterns == {text}


def test_a_set_is_written_in_order_and_read_again() -> None:
    assert str(of("tool:b.c", "agent:a")) == "agent:a tool:b.c"
    assert Permissions.parse(str(of("tool:b.c", "agent:a")).split()) == of("agent:a", "tool:b.c")
    assert (str(ALL_PERMISSIONS), str(NO_PERMISSIONS)) == ("*", "")


def test_a_ceiling_is_read_as_any_permissions() -> None:
    assert parse_ceiling(("tool:a.b",)) == of("tool:a.b") and parse_ceiling(()) == NO_PERMISSIONS
    with pytest.raises(BadPermission):
        parse_ceiling(("tool",))

"""Policies read from text: which name, file and line each has, and what is refused whatever it is."""

import json
from pathlib import Path
from typing import Any

import cedarpy
import pytest

from policies.cedar.engine import load_rules
from policies.cedar.files.folder import LINKS, BadPolicy
from policies.cedar.files.reading import LEVELS_MAX, OVERGROWN, ParsedPolicies, check_unique_ids, read_policies

ANY = "permit(principal, action, resource);"
TEMPLATE = "permit(principal == ?principal, action, resource);"


def read(*texts: tuple[str, str]) -> ParsedPolicies:
    return read_policies(texts, cedarpy.policies_to_json_str, "acme|idp")


def refused(*texts: tuple[str, str]) -> tuple[str, int, str]:
    with pytest.raises(BadPolicy) as found:
        read(*texts)
    return found.value.file, found.value.line, found.value.problem


def test_each_policy_has_a_key_a_name_and_a_place_of_its_own() -> None:
    found = read(("a.cedar", f'// a note\n{ANY}\n@id("own") {ANY}'), ("b.cedar", f'\n@id("") @note("n") {ANY}'))
    names = {key: policy["annotations"] for key, policy in found.policies.items()}
    assert names == {"a.cedar#1": {"id": "a.cedar#1"}, "a.cedar#2": {"id": "own"}, "b.cedar#1": {"id": "b.cedar#1", "note": "n"}}
    assert found.places == {"a.cedar#1": ("a.cedar", 2), "a.cedar#2": ("a.cedar", 3), "b.cedar#1": ("b.cedar", 2)}
    assert (found.templates, found.unused_templates) == ({}, {})


def test_more_than_nine_policies_of_a_file_keep_their_places() -> None:
    found = read(("a.cedar", f"{ANY}\n" * 12))
    assert found.places == {f"a.cedar#{number}": ("a.cedar", number) for number in range(1, 13)}


def test_templates_apply_only_as_they_are_filled_in_wherever_the_links_stand() -> None:
    links = (LINKS, "links:\n- {template: one, principal: alice}\n- {template: one, principal: bob, id: bobs}")
    found = read(links, ("a.cedar", f'{ANY}\n@id("one") {TEMPLATE}\n{TEMPLATE}'))
    names = {key: policy["annotations"]["id"] for key, policy in found.policies.items()}
    assert names == {"a.cedar#1": "a.cedar#1", "links.yaml#1": "one@1", "links.yaml#2": "bobs"}
    assert found.places["links.yaml#2"] == (LINKS, 3)
    assert found.policies["links.yaml#2"]["principal"] == {"op": "==", "entity": {"type": "User", "id": "acme|idp|bob"}}
    assert set(found.templates) == {"one", "a.cedar#3"}
    assert found.unused_templates == {"a.cedar#3": ("a.cedar", 3)}


def test_what_policies_say_of_all_tools_is_meant_of_each() -> None:
    found = read(("a.cedar", 'permit(principal, action == Action::"callTool", resource);'))
    assert found.policies["a.cedar#1"]["action"]["op"] == "in"


@pytest.mark.parametrize(
    ("text", "line", "problem"),
    [
        (f"{ANY}\n{ANY}\npermit(", 3, "unexpected end"),
        (f"{ANY}\npermit(principal, action, resource == Tol::'x');", 2, ""),
        (
            f'{ANY}\n{ANY}\nforbid(principal, action, resource) when {{ context.tasc == "" }};',
            3,
            "policy 3: context has no attribute 'tasc'",
        ),
        (f'{ANY}\n@ask("") forbid(principal, action, resource);', 2, "@ask needs"),
        (f'{ANY}\n@total("") forbid(principal, action, resource);', 2, "@total must name"),
        (f'{ANY}\n@id("x") {TEMPLATE}\n@id("x") {TEMPLATE}', 3, '@id("x") is taken by another template'),
        ('forbid(principal, action, resource) when { [action].contains(Action::"callTool") };', 1, "stands for every tool"),
    ],
)
def test_what_is_wrong_is_said_with_file_and_line(text: str, line: int, problem: str) -> None:
    file, where, said = refused(("a.cedar", ANY), ("b.cedar", text))
    assert (file, where) == ("b.cedar", line)
    assert problem in said


def deep(levels: int) -> dict[str, Any]:
    """A policy as JSON of so many levels; the first two are its own and its conditions'."""
    inner: dict[str, Any] = {"x": 1}
    for _ in range(levels - 3):
        inner = {"x": inner}
    everything = {"op": "All"}
    return {"effect": "permit", "principal": everything, "action": everything, "resource": everything, "conditions": [inner]}


def test_policies_are_read_to_a_depth_and_no_deeper() -> None:
    def read_as(policy: dict[str, Any]) -> ParsedPolicies:
        return read_policies([("a.cedar", ANY)], lambda _: json.dumps({"staticPolicies": {"policy0": policy}, "templates": {}}), "acme|idp")

    assert read_as(deep(LEVELS_MAX)).places == {"a.cedar#1": ("a.cedar", 1)}
    with pytest.raises(BadPolicy) as found:
        read_as(deep(LEVELS_MAX + 1))
    assert (found.value.line, found.value.problem) == (1, OVERGROWN)


@pytest.mark.parametrize("count", [1, 50, 60, 70, 120, 260, 5000])
@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", ' || principal.subject == "x"'),
        ("(", ")"),
        ("[", "].isEmpty()"),
        ("{a: ", "} has a"),
        ("if true then true else ", ""),
        ("", ".a"),
        ("!", ""),
    ],
)
def test_no_text_however_deep_does_anything_but_be_read_or_refused(tmp_path: Path, before: str, after: str, count: int) -> None:
    condition = f"{before * count}{{a: true}}.a{after * count}"
    (tmp_path / "a.cedar").write_text(f"{ANY}\nforbid(principal, action, resource) when {{ {condition} }};")
    try:
        assert len(load_rules({}, tmp_path).operator_policies) == 2
        assert count < 60
    except BadPolicy as error:
        assert (error.file, error.line) == ("a.cedar", 2)


def test_what_people_write_is_not_too_deep(tmp_path: Path) -> None:
    names = ", ".join(f'"u{number}"' for number in range(1000))
    condition = " || ".join(f'principal.subject == "u{number}"' for number in range(50))
    head = "forbid(principal, action, resource) when"
    (tmp_path / "a.cedar").write_text(f"{head} {{ {condition} }}; {head} {{ [{names}].contains(principal.subject) }};")
    assert len(load_rules({}, tmp_path).operator_policies) == 2


def test_no_two_policies_have_one_name_and_none_that_of_a_role() -> None:
    places = {"1": ("a.cedar", 1), "2": ("b.cedar", 7)}

    def named(*names: str) -> dict[str, Any]:
        return {str(number): {"annotations": {"id": name}} for number, name in enumerate(names, 1)}

    check_unique_ids(named("x", "y"), places)
    check_unique_ids(named("role", "roles:x"), places)
    for names, line, by in ((("x", "x"), 7, "a.cedar"), (("x", "role:sales"), 7, "the role rule"), (("role:", "x"), 1, "the role rule")):
        with pytest.raises(BadPolicy, match=f"is taken by {by}$") as found:
            check_unique_ids(named(*names), places)
        assert found.value.line == line

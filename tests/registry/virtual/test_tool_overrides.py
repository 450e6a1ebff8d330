"""How a virtual server shows a tool otherwise, and what its server gets all the same."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.virtual.selection import BadSelection, Selection
from registry.virtual.tool_overrides import BadOverride, Override

TOOL: dict[str, Any] = {
    "name": "search",
    "description": "Finds.",
    "inputSchema": {
        "type": "object",
        "properties": {"q": {"type": "string"}, "region": {"type": "string"}, "limit": {"type": "integer"}},
        "required": ["q", "region", "limit"],
    },
}
SAID: dict[str, Any] = {
    "title": "Customers",
    "description": "Finds customers.",
    "arguments": {"q": {"name": "query", "description": "A name."}, "region": {"value": "eu"}, "limit": {"default": 20}},
}


def test_a_tool_is_shown_as_the_override_says() -> None:
    shown = Override.of(SAID).definition(TOOL)
    assert (shown["name"], shown["title"], shown["description"]) == ("search", "Customers", "Finds customers.")
    assert shown["inputSchema"]["properties"] == {
        "query": {"type": "string", "description": "A name."},
        "limit": {"type": "integer", "default": 20},
    }
    assert shown["inputSchema"]["required"] == ["query"]
    assert TOOL["inputSchema"]["required"] == ["q", "region", "limit"]  # the server's own is as it was


def test_the_server_gets_its_own_arguments() -> None:
    override = Override.of(SAID)
    assert override.arguments_of({"query": "Ada"}) == {"q": "Ada", "region": "eu", "limit": 20}
    assert override.arguments_of({"query": "Ada", "limit": 5, "more": 1}) == {"q": "Ada", "region": "eu", "limit": 5, "more": 1}


@pytest.mark.parametrize("name", ["region", "q"])
def test_no_client_gives_what_it_is_not_shown(name: str) -> None:
    with pytest.raises(BadOverride, match=f"arguments.{name}"):
        Override.of(SAID).arguments_of({"query": "Ada", name: "us"})


def test_two_arguments_may_swap_their_names() -> None:
    swapped = Override.of({"arguments": {"a": {"name": "b"}, "b": {"name": "a"}}})
    assert swapped.arguments_of({"a": 1, "b": 2}) == {"b": 1, "a": 2}


@pytest.mark.parametrize(
    "wrong",
    [
        5,
        {"name": "x"},
        {"title": 5},
        {"description": "x" * 9000},
        {"arguments": []},
        {"arguments": {"a": 5}},
        {"arguments": {"a": {"type": "string"}}},
        {"arguments": {"a": {"name": ""}}},
        {"arguments": {"a": {"name": "b\n"}}},
        {"arguments": {"a": {"name": "x"}, "b": {"name": "x"}}},
        {"arguments": {"a": {"value": 1, "description": "seen by nobody"}}},
        {"arguments": {"a": {"value": "x" * 9000}}},
    ],
)
def test_what_says_something_else_is_refused(wrong: Any) -> None:
    with pytest.raises(BadOverride):
        Override.of(wrong)
    with pytest.raises(BadSelection, match=r"^overrides\.crm\.search"):
        Selection.of({"tools": ["crm.*"], "overrides": {"crm.search": wrong}})


@pytest.mark.parametrize("name", ["crm.*", "*", "crm.\n", 5])
def test_an_override_is_of_one_tool(name: Any) -> None:
    with pytest.raises(BadSelection, match="single tools"):
        Selection.of({"tools": ["crm.*"], "overrides": {name: {}}})


json_values = st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner, max_size=3), max_leaves=5)


@given(json_values)
def test_what_is_kept_says_the_same(value: Any) -> None:
    said = {"tools": ["crm.*"], "overrides": {"crm.größe": {"title": "T", "arguments": {"a": {"value": value}, "b": {"default": value}}}}}
    again = Selection.of(Selection.of(said).document())
    assert again == Selection.of(said) and again.overrides["crm.größe"].arguments_of({}) == {"a": value, "b": value}

"""How a virtual server shows a tool otherwise, and what its server gets all the same."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.virtual.selection import BadSelection, Selection
from registry.virtual.tool_overrides import BadOverride, ToolOverride

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
    shown = ToolOverride.from_document(SAID).apply_to(TOOL)
    assert (shown["name"], shown["title"], shown["description"]) == ("search", "Customers", "Finds customers.")
    assert shown["inputSchema"]["properties"] == {
        "query": {"type": "string", "description": "A name."},
        "limit": {"type": "integer", "default": 20},
    }
    assert shown["inputSchema"]["required"] == ["query"]
    assert TOOL["inputSchema"]["required"] == ["q", "region", "limit"]  # the server's own is as it was


def test_the_server_gets_its_own_arguments() -> None:
    override = ToolOverride.from_document(SAID)
    assert override.to_server_arguments({"query": "Ada"}) == {"q": "Ada", "region": "eu", "limit": 20}
    assert override.to_server_arguments({"query": "Ada", "limit": 5, "more": 1}) == {"q": "Ada", "region": "eu", "limit": 5, "more": 1}


@pytest.mark.parametrize("name", ["region", "q"])
def test_no_client_gives_what_it_is_not_shown(name: str) -> None:
    with pytest.raises(BadOverride, match=f"arguments.{name}"):
        ToolOverride.from_document(SAID).to_server_arguments({"query": "Ada", name: "us"})


def test_two_arguments_may_swap_their_names() -> None:
    swapped = ToolOverride.from_document({"arguments": {"a": {"name": "b"}, "b": {"name": "a"}}})
    assert swapped.to_server_arguments({"a": 1, "b": 2}) == {"b": 1, "a": 2}


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
        ToolOverride.from_document(wrong)
    with pytest.raises(BadSelection, match=r"^overrides\.crm\.search"):
        Selection.from_document({"tools": ["crm.*"], "overrides": {"crm.search": wrong}})


@pytest.mark.parametrize("name", ["crm.*", "*", "crm.\n", 5])
def test_an_override_is_of_one_tool(name: Any) -> None:
    with pytest.raises(BadSelection, match="single tools"):
        Selection.from_document({"tools": ["crm.*"], "overrides": {name: {}}})


json_values = st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner, max_size=3), max_leaves=5)


@given(json_values)
def test_what_is_kept_says_the_same(value: Any) -> None:
    said = {"tools": ["crm.*"], "overrides": {"crm.größe": {"title": "T", "arguments": {"a": {"value": value}, "b": {"default": value}}}}}
    again = Selection.from_document(Selection.from_document(said).to_document())
    assert again == Selection.from_document(said) and again.overrides["crm.größe"].to_server_arguments({}) == {"a": value, "b": value}

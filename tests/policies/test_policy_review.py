"""Operators' policies beside the tools that are registered: what doesn't fit is said, and never takes good rules away."""

from pathlib import Path
from typing import Any

import pytest

from policies.cedar import BadPolicy, CedarQuestion, KnownTool, PolicyEngine, load
from policies.grant import calling
from policies.principal import Principal

ROLES = {"sales": ["tool:*"]}
ALICE = Principal("default", "https://idp", "alice", ("sales",))


def tool(name: str, properties: dict[str, Any], *required: str, server: str = "inventory") -> KnownTool:
    return KnownTool("default", server, name, {"type": "object", "properties": properties, "required": list(required)})


RESERVE = tool("reserve", {"quantity": {"type": "integer"}, "note": {"type": "string"}, "price": {"type": "number"}}, "quantity")
CHECK = tool("check", {"item": {"type": "string"}})
LOOSE = tool("loose", {"n": {"type": ["integer", "string"]}})
TOOLS = (RESERVE, CHECK, LOOSE)
HEAD = 'forbid(principal, action == Action::"callTool", resource == Tool::"inventory.reserve")'


def refused(folder: Path, text: str, tools: tuple[KnownTool, ...] = TOOLS) -> BadPolicy:
    (folder / "ours.cedar").write_text(text)
    with pytest.raises(BadPolicy) as found:
        load(ROLES, folder, tools, ())
    return found.value


def doubts(folder: Path, text: str, tools: tuple[KnownTool, ...] = TOOLS) -> tuple[str, ...]:
    (folder / "ours.cedar").write_text(text)
    return load(ROLES, folder, tools, ()).doubts


@pytest.mark.parametrize(
    ("condition", "problem"),
    [
        ("context.input.quantty > 3", "did you mean 'quantity'"),
        ("context.input has quantty && context.input.quantty > 3", "did you mean 'quantity'"),
        ('context.input["quantty"] > 3', "did you mean 'quantity'"),
        ('context.input.quantity == "3"', "not compatible"),
        ("context.input.quantity.unit == 3", "'quantity.unit'"),
        ('context.input.note == "x"', "optional attribute `input.note`"),
        ("context.input has price && context.input.price > 3", "decimal"),
    ],
)
def test_a_policy_that_names_or_compares_arguments_wrongly_is_refused_with_its_line(tmp_path: Path, condition: str, problem: str) -> None:
    error = refused(tmp_path, f'// first\n\n@id("limit")\n{HEAD}\nwhen {{ {condition} }};')
    assert (error.file, error.line) == ("ours.cedar", 3)
    assert problem in error.problem and "limit" in error.problem


@pytest.mark.parametrize(
    "text",
    [
        f"{HEAD} when {{ context.input.quantity > 3 }};",
        f'{HEAD} when {{ context has input && context.input has note && context.input.note like "x*" }};',
        f'{HEAD} when {{ context.input has price && context.input.price.lessThan(decimal("3.0")) }};',
        'forbid(principal, action == Action::"inventory.reserve", resource) when { context.input.quantity > 3 };',
        'forbid(principal, action in [Action::"inventory.reserve", Action::"readAudit"], resource in Server::"inventory")'
        " when { context has input && context.input has quantity };",
        'forbid(principal, action == Action::"callTool", resource) when { context.input has quantity && context.input.quantity > 3 };',
        'forbid(principal, action == Action::"getPrompt", resource) when { context.input.anything == "x" };',
        "forbid(principal, action, resource) when { context has input && context.input has item };",
        f'{HEAD} when {{ action == Action::"callTool" && context.depth > 1 }};',
    ],
)
def test_a_policy_that_fits_its_tools_is_neither_refused_nor_doubted(tmp_path: Path, text: str) -> None:
    tools = (RESERVE, CHECK)
    assert doubts(tmp_path, text, tools) == ()


def test_an_argument_that_cedar_has_no_type_for_is_a_doubt(tmp_path: Path) -> None:
    text = 'forbid(principal, action == Action::"callTool", resource == Tool::"inventory.loose") when { context.input.n == 1 };'
    (doubt,) = doubts(tmp_path, text)
    assert doubt == "ours.cedar:1: context.input.n of inventory.loose is not checked: it can be of several types"


def test_a_tool_that_is_not_registered_is_a_doubt_and_its_arguments_are_not_looked_at(tmp_path: Path) -> None:
    text = 'forbid(principal, action == Action::"callTool", resource == Tool::"inventory.reserv") when { context.input.x == 1 };'
    (doubt,) = doubts(tmp_path, text)
    assert doubt == "ours.cedar:1: Tool::\"inventory.reserv\" is not registered (did you mean 'inventory.reserve'?)"
    (doubt,) = doubts(tmp_path, 'permit(principal, action == Action::"inventory.chek", resource);')
    assert "did you mean 'inventory.check'" in doubt


def test_each_tool_is_an_action_of_its_own_in_the_group_of_all(tmp_path: Path) -> None:
    (tmp_path / "ours.cedar").write_text(
        '@id("own") forbid(principal, action == Action::"inventory.reserve", resource);'
        '@id("group") forbid(principal, action, resource) when { action == Action::"callTool" && principal.subject == "bob" };'
        '@id("others") forbid(principal, action, resource) when { action != Action::"callTool" };'
    )
    engine = PolicyEngine(ROLES, tmp_path)

    def ruled(name: str, person: Principal = ALICE) -> tuple[str, ...]:
        return engine.decide(CedarQuestion(person, calling("inventory", name), "default")).policies

    assert ruled("reserve") == ("own",)
    assert ruled("check") == ("role:sales",)
    assert ruled("check", Principal("default", "https://idp", "bob", ("sales",))) == ("group",)


def test_a_change_of_the_registry_never_takes_good_rules_away(tmp_path: Path) -> None:
    tools: list[KnownTool] = [RESERVE]
    text = f"{HEAD} when {{ context.input.quantity > 3 }};"
    (tmp_path / "ours.cedar").write_text(text)
    engine = PolicyEngine(ROLES, tmp_path, lambda: tools)
    assert engine.refit() == () and engine.healthy
    version = engine.version
    tools[:] = [tool("reserve", {"amount": {"type": "integer"}})]
    (doubt,) = engine.refit()
    assert "'quantity'" in doubt and doubt.startswith("ours.cedar:1: ")
    assert engine.healthy and engine.version == version and engine.doubts == (doubt,)
    assert engine.refit() == ()
    (tmp_path / "ours.cedar").write_text(text + "\npermit(principal, action, resource);")  # what is new is held to the tools of now
    engine.reload()
    assert engine.healthy and engine.version != version
    assert PolicyEngine(ROLES, tmp_path, lambda: tools).healthy  # and so does a start


def test_a_file_that_was_refused_for_a_tools_sake_is_taken_up_when_the_tool_has_changed(tmp_path: Path) -> None:
    tools: list[KnownTool] = [RESERVE]
    (tmp_path / "ours.cedar").write_text("")
    engine = PolicyEngine(ROLES, tmp_path, lambda: tools)
    version = engine.version
    (tmp_path / "ours.cedar").write_text(f"{HEAD} when {{ context.input.amount > 3 }};")
    engine.reload()
    assert not engine.healthy and engine.version == version
    tools[:] = [tool("reserve", {"amount": {"type": "integer"}}, "amount")]
    engine.refit()
    assert engine.healthy and engine.version != version

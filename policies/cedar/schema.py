"""The Cedar schema: what policies may speak of, from what the gateway asks and from the tools that are registered."""

from collections.abc import Iterable, Mapping
from typing import Any

from policies.cedar.argument_types import ArgumentTypes, CedarType, KnownTool, argument_types, merged
from policies.cedar.role_rules import ACTIONS

_TEXT: CedarType = {"type": "String"}
_TEXTS: CedarType = {"type": "Set", "element": _TEXT}
CONTEXT_TYPES: Mapping[str, CedarType] = {
    "tenant": _TEXT,
    "scopes": _TEXTS,
    "chain": _TEXTS,
    "depth": {"type": "Long"},
    "task": _TEXT,
}
CONTEXT = frozenset({*CONTEXT_TYPES, "input", "history"})
HISTORY_TYPES: Mapping[str, CedarType] = {"approvals": _TEXTS, "repeats": {"type": "Long"}, "taint": {"type": "Long"}}
USER = {"subject": _TEXT, "issuer": _TEXT, "tenant": _TEXT}
RESOURCE = {"tenant": _TEXT, "permission": _TEXT}
ATTRIBUTES: Mapping[str, Iterable[str]] = {"principal": USER, "resource": RESOURCE}
GROUP = "callTool"
RESOURCES: Mapping[str, tuple[str, ...]] = {
    "invokeAgent": ("Agent",),
    GROUP: ("Tool",),
    "getPrompt": ("Prompt",),
    "readResource": ("Server",),
    "runWorkflow": ("Workflow",),
    "registerAgent": ("Agent", "Server", "Virtual", "Key"),
    "decideApproval": ("Task", "Key"),
    "readAudit": ("Task", "Key"),
    "writePolicy": ("Task", "Key"),
}
PARENTS = {"Tool": ["Server"], "Prompt": ["Server"], "Agent": ["Agent"]}
TYPES = frozenset({"User", "Role", "Action", *(kind for kinds in RESOURCES.values() for kind in kinds)})


def schema_document(tools: Mapping[str, ArgumentTypes], calls: Iterable[str] = (), totals: Iterable[str] = ()) -> dict[str, Any]:
    """Cedar's JSON form of a schema. `tools` by their actions, which are in the group of all.

    `calls`: permissions whose calls are counted in `context.history`; `totals`: arguments that are added up there.
    """
    history = {"history": _history(calls, totals)}
    actions = {name: _action(RESOURCES.get(name, ("Key",)), history) for name in ACTIONS}
    for name, types in tools.items():
        actions[name] = _action(("Tool",), {"input": types.record, **history}) | {"memberOf": [{"id": GROUP}]}
    shapes = {kind: {"memberOfTypes": PARENTS.get(kind, []), "shape": _record(RESOURCE)} for kind in TYPES - {"User", "Role", "Action"}}
    people = {"User": {"memberOfTypes": ["Role"], "shape": _record(USER)}, "Role": {}}
    return {"": {"entityTypes": {**shapes, **people}, "actions": actions}}


def known_types(tools: Iterable[KnownTool]) -> dict[str, ArgumentTypes]:
    """By the action of each."""
    found: dict[str, list[ArgumentTypes]] = {}
    for tool in tools:
        found.setdefault(tool.action, []).append(argument_types(tool.schema))
    return {action: merged(types) for action, types in sorted(found.items())}


def _history(calls: Iterable[str], totals: Iterable[str]) -> CedarType:
    counted = {name: {"type": "Long", "required": False} for name in calls}
    return _record({**HISTORY_TYPES, "calls": _record(counted), "totals": _record({name: {"type": "Long"} for name in totals})})


def _action(kinds: Iterable[str], more: Mapping[str, CedarType]) -> dict[str, Any]:
    context = _record({**CONTEXT_TYPES, **more})
    return {"appliesTo": {"principalTypes": ["User"], "resourceTypes": list(kinds), "context": context}}


def _record(attributes: Mapping[str, CedarType]) -> dict[str, Any]:
    return {"type": "Record", "attributes": {name: {"required": True, **kind} for name, kind in attributes.items()}}

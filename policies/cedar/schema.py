"""The Cedar schema: the entities, actions and attributes that policies can use, for the gateway's acts and the registered tools."""

from collections.abc import Iterable, Mapping
from typing import Any

from policies.cedar.argument_types import ArgumentTypes, CedarType, KnownTool, argument_types_of, merge_types
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
CONTEXT_ATTRIBUTES = frozenset({*CONTEXT_TYPES, "input", "history"})
HISTORY_TYPES: Mapping[str, CedarType] = {"approvals": _TEXTS, "repeats": {"type": "Long"}, "taint": {"type": "Long"}}
USER = {"subject": _TEXT, "issuer": _TEXT, "tenant": _TEXT}
RESOURCE = {"tenant": _TEXT, "permission": _TEXT}
ATTRIBUTES: Mapping[str, Iterable[str]] = {"principal": USER, "resource": RESOURCE}
TOOL_ACTION_GROUP = "callTool"
RESOURCE_KINDS: Mapping[str, tuple[str, ...]] = {
    "invokeAgent": ("Agent",),
    TOOL_ACTION_GROUP: ("Tool",),
    "getPrompt": ("Prompt",),
    "readResource": ("Server",),
    "runWorkflow": ("Workflow",),
    "readMemory": ("Memory",),
    "writeMemory": ("Memory",),
    "registerAgent": ("Agent", "Server", "Virtual", "Key"),
    "decideApproval": ("Task", "Key"),
    "readAudit": ("Task", "Key"),
    "writePolicy": ("Task", "Key"),
}
PARENT_KINDS = {"Tool": ["Server"], "Prompt": ["Server"], "Agent": ["Agent"], "Key": ["Key"]}
ENTITY_TYPES = frozenset({"User", "Role", "Action", *(kind for kinds in RESOURCE_KINDS.values() for kind in kinds)})


def schema_document(tools: Mapping[str, ArgumentTypes], calls: Iterable[str] = (), totals: Iterable[str] = ()) -> dict[str, Any]:
    """Cedar's JSON form of the schema. `tools` are argument types by action; each action is in the group of all tools.

    `calls`: permissions whose calls are counted in `context.history`; `totals`: arguments that are added up there.
    """
    history = {"history": _history_type(calls, totals)}
    actions = {name: _action_type(RESOURCE_KINDS.get(name, ("Key",)), history) for name in ACTIONS}
    for name, types in tools.items():
        actions[name] = _action_type(("Tool",), {"input": types.record, **history}) | {"memberOf": [{"id": TOOL_ACTION_GROUP}]}
    shapes = {
        kind: {"memberOfTypes": PARENT_KINDS.get(kind, []), "shape": _record_type(RESOURCE)}
        for kind in ENTITY_TYPES - {"User", "Role", "Action"}
    }
    people = {"User": {"memberOfTypes": ["Role"], "shape": _record_type(USER)}, "Role": {}}
    return {"": {"entityTypes": {**shapes, **people}, "actions": actions}}


def argument_types_by_action(tools: Iterable[KnownTool]) -> dict[str, ArgumentTypes]:
    """The argument types of the tools, by Cedar action."""
    found: dict[str, list[ArgumentTypes]] = {}
    for tool in tools:
        found.setdefault(tool.action, []).append(argument_types_of(tool.schema))
    return {action: merge_types(types) for action, types in sorted(found.items())}


def _history_type(calls: Iterable[str], totals: Iterable[str]) -> CedarType:
    counted = {name: {"type": "Long", "required": False} for name in calls}
    return _record_type(
        {**HISTORY_TYPES, "calls": _record_type(counted), "totals": _record_type({name: {"type": "Long"} for name in totals})}
    )


def _action_type(kinds: Iterable[str], more_context: Mapping[str, CedarType]) -> dict[str, Any]:
    context = _record_type({**CONTEXT_TYPES, **more_context})
    return {"appliesTo": {"principalTypes": ["User"], "resourceTypes": list(kinds), "context": context}}


def _record_type(attributes: Mapping[str, CedarType]) -> dict[str, Any]:
    return {"type": "Record", "attributes": {name: {"required": True, **kind} for name, kind in attributes.items()}}

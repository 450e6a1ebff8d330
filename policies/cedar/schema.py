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
    "effect": _TEXT,
    "subject": _TEXT,
}
CONTEXT_ATTRIBUTES = frozenset({*CONTEXT_TYPES, "input", "history", "facts"})
HISTORY_TYPES: Mapping[str, CedarType] = {"approvals": _TEXTS, "repeats": {"type": "Long"}, "taint": {"type": "Long"}}
FACT_TYPES: Mapping[str, CedarType] = {
    "holds": _TEXTS,
    "opt_outs": _TEXTS,
    "under_way": _TEXTS,
    "claimed_by_other": {"type": "Bool"},
    "cooling_down": {"type": "Bool"},
    "claim_priority": {"type": "Long"},
    "priority": {"type": "Long"},
}
NAMED_FACT_TYPES: Mapping[str, CedarType] = {
    "since_effect": {"type": "Long"},
    "since_agent": {"type": "Long"},
    "values": _TEXT,
    "numbers": {"type": "Long"},
}
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


def schema_document(
    tools: Mapping[str, ArgumentTypes],
    calls: Iterable[str] = (),
    totals: Iterable[str] = (),
    facts: Mapping[str, Iterable[str]] | None = None,
) -> dict[str, Any]:
    """Cedar's JSON form of the schema. `tools` are argument types by action; each action is in the group of all tools.

    `calls`: permissions whose calls are counted in `context.history`; `totals`: arguments that are added up there. `facts`: the names that
    policies read of the facts with names.
    """
    history = {"history": _history_type(calls, totals), "facts": _facts_type(facts or {})}
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


def _facts_type(names: Mapping[str, Iterable[str]]) -> CedarType:
    """The facts about the subject of an act. A fact with a name may be absent, so that policies ask for it with `has`."""
    named = {
        kind: _record_type({name: {**of_one, "required": False} for name in names.get(kind, ())})
        for kind, of_one in NAMED_FACT_TYPES.items()
    }
    return _record_type({**FACT_TYPES, **named})


def _action_type(kinds: Iterable[str], more_context: Mapping[str, CedarType]) -> dict[str, Any]:
    context = _record_type({**CONTEXT_TYPES, **more_context})
    return {"appliesTo": {"principalTypes": ["User"], "resourceTypes": list(kinds), "context": context}}


def _record_type(attributes: Mapping[str, CedarType]) -> dict[str, Any]:
    return {"type": "Record", "attributes": {name: {"required": True, **kind} for name, kind in attributes.items()}}

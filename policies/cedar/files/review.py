"""Reviews policies against the registered tools: each goes to Cedar's validator with the actions that it can apply to."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from policies.cedar.annotations import parse_total
from policies.cedar.argument_types import ArgumentTypes, Path
from policies.cedar.fact_paths import fact_names
from policies.cedar.input_paths import input_paths
from policies.cedar.role_rules import ACTIONS
from policies.cedar.schema import TOOL_ACTION_GROUP, schema_document
from policies.cedar.syntax import counted_permission, policy_objects, reads_input, scope_matches, spelling_hint

Policy = Mapping[str, Any]
Validate = Callable[[Mapping[str, Policy], str], Mapping[str, Sequence[str]]]  # policies and schema -> complaints by policy
_UNTYPED = frozenset({TOOL_ACTION_GROUP, "getPrompt"})  # actions whose arguments have no schema in Cedar


@dataclass(frozen=True, slots=True)
class Review:
    """Sentences by policy. `errors` hold for any tools, `mismatches` for the registered ones; `warnings` name what can't be checked."""

    errors: Mapping[str, Sequence[str]]
    mismatches: Mapping[str, Sequence[str]]
    warnings: Mapping[str, Sequence[str]]


def review_policies(policies: Mapping[str, Policy], tools: Mapping[str, ArgumentTypes], validate: Validate) -> Review:
    """Reviews the policies. `tools` are the argument types by Cedar action."""
    readers = {key: policy for key, policy in policies.items() if reads_input(policy["conditions"])}
    plain = {key: _widen_tool_actions(policy) for key, policy in policies.items() if key not in readers}
    unfit: dict[str, Sequence[str]] = {}
    warnings = (
        {key: list(_describe_unregistered_tools(policy, tools)) for key, policy in policies.items()}
        if tools
        else {key: [] for key in policies}
    )
    checked: dict[str, Policy] = {}
    met: dict[str, ArgumentTypes] = {}
    for key, policy in readers.items():
        concerned = {action: types for action, types in tools.items() if _can_concern(policy, action)}
        paths = input_paths(policy)
        if unknown := [
            _describe_unknown_path(path, concerned) for path in sorted(paths) if concerned and _is_unknown_path(path, concerned)
        ]:
            unfit[key] = unknown
            continue
        clear = {action: types for action, types in concerned.items() if not any(types.why_unclear(path) for path in paths)}
        warnings[key] += _describe_unclear_paths(paths, concerned)
        if clear or not concerned:
            clear = _one_of_each_kind(policy, paths, clear)
            met |= clear
            checked[key] = {**policy, "action": _action_scope([*_other_actions(policy), *clear])}
    past = (*_counted_history(policies), fact_names(policies.values()))
    wrong = validate(plain, json.dumps(schema_document({}, *past))) if plain else {}
    checkable = {key: policy for key, policy in checked.items() if policy["action"]["entities"]}
    if checkable:
        unfit |= validate(checkable, json.dumps(schema_document(met, *past)))
    return Review(wrong, unfit, {key: sentences for key, sentences in warnings.items() if sentences})


def _counted_history(policies: Mapping[str, Policy]) -> tuple[list[str], list[str]]:
    """The permissions whose calls policies count, and the arguments that they add up."""
    counted = {name for policy in policies.values() for node in policy_objects(policy) if (name := counted_permission(node))}
    return sorted(counted), sorted({total for policy in policies.values() if (total := parse_total(policy))})


def _can_concern(policy: Policy, action: str) -> bool:
    """Whether the policy can apply to this tool."""
    lineage = [("Tool", action), ("Server", action.partition(".")[0])]
    return scope_matches(policy["action"], [("Action", action), ("Action", TOOL_ACTION_GROUP)]) and scope_matches(
        policy["resource"], lineage
    )


def _one_of_each_kind(policy: Policy, paths: Iterable[Path], tools: Mapping[str, ArgumentTypes]) -> dict[str, ArgumentTypes]:
    """The first of all tools whose arguments have equal types where the policy reads them, and those that the policy names.

    Cedar's validator takes 2 ms for each policy and tool, and answers the same for tools that differ elsewhere.
    """
    named = {node["id"] for node in policy_objects(policy) if isinstance(node.get("id"), str) and "type" in node}
    first: dict[tuple[str, ...], str] = {}
    ordered = sorted(paths)
    return {
        action: types
        for action, types in tools.items()
        if first.setdefault(tuple(types.kind_at(path) for path in ordered), action) == action or action in named
    }


def _other_actions(policy: Policy) -> list[str]:
    return [name for name in sorted(ACTIONS - _UNTYPED) if scope_matches(policy["action"], [("Action", name)])]


def _action_scope(actions: Iterable[str]) -> dict[str, Any]:
    return {"op": "in", "entities": [{"type": "Action", "id": name} for name in actions]}


def _widen_tool_actions(policy: Policy) -> Policy:
    """Widens actions of single tools to the group: parts that don't read arguments mean the same for every tool."""

    def widen(node: Any) -> Any:
        if isinstance(node, list):
            return [widen(item) for item in node]
        if not isinstance(node, dict):
            return node
        if node.get("type") == "Action" and "." in str(node.get("id")):
            return {"type": "Action", "id": TOOL_ACTION_GROUP}
        return {name: widen(value) if name != "annotations" else value for name, value in node.items()}

    found: Policy = widen(policy)
    return found


def _is_unknown_path(path: Path, concerned: Mapping[str, ArgumentTypes]) -> bool:
    return not any(types.has_path(path) or types.why_unclear(path) for types in concerned.values())


def _describe_unknown_path(path: Path, concerned: Mapping[str, ArgumentTypes]) -> str:
    text = ".".join(path)
    known = {name for types in concerned.values() for name in types.path_names()}
    whom = next(iter(concerned)) if len(concerned) == 1 else "no tool that this policy applies to"
    return f"{whom} has {'no' if len(concerned) == 1 else 'an'} argument {text!r}{spelling_hint(text, known)}"


def _describe_unclear_paths(paths: Iterable[Path], concerned: Mapping[str, ArgumentTypes]) -> list[str]:
    """The paths that can't be checked, one sentence each; at most three, and the number of the others."""
    sentences = []
    for action, types in concerned.items():
        why = {".".join(path) or "input": types.why_unclear(path) for path in sorted(paths) if types.why_unclear(path)}
        sentences += [
            f"context.{'' if name == 'input' else 'input.'}{name} of {action} is not checked: {text}" for name, text in why.items()
        ]
    return sentences[:3] + ([f"and {len(sentences) - 3} more are not checked"] if len(sentences) > 3 else [])


def _describe_unregistered_tools(policy: Policy, tools: Mapping[str, ArgumentTypes]) -> Iterable[str]:
    """Yields a sentence for each tool that the policy names and that is not registered."""
    for node in policy_objects(policy):
        match node:
            case {"type": "Tool" | "Action" as kind, "id": str(name)} if "." in name and name not in tools:
                yield f'{kind}::"{name}" is not registered{spelling_hint(name, tools)}'

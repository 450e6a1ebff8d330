"""Whether policies fit what they speak of: each is put to Cedar's validator with the actions that it can meet, and no others."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from policies.cedar.annotations import total_of
from policies.cedar.argument_types import ArgumentTypes, Path
from policies.cedar.input_paths import input_paths
from policies.cedar.role_rules import ACTIONS
from policies.cedar.schema import GROUP, schema_document
from policies.cedar.syntax import counted_call, fits, meant, reads_input, spoken

Policy = Mapping[str, Any]
Validate = Callable[[Mapping[str, Policy], str], Mapping[str, Sequence[str]]]  # policies and schema -> complaints by policy
_UNTYPED = frozenset({GROUP, "getPrompt"})  # whose arguments no schema of ours describes


@dataclass(frozen=True, slots=True)
class Review:
    """Sentences by policy. `wrong`: whatever is registered; `unfit`: as the tools are that are registered; `doubts`: it can't be said."""

    wrong: Mapping[str, Sequence[str]]
    unfit: Mapping[str, Sequence[str]]
    doubts: Mapping[str, Sequence[str]]


def review(policies: Mapping[str, Policy], tools: Mapping[str, ArgumentTypes], validate: Validate) -> Review:
    """`tools` by their actions."""
    readers = {key: policy for key, policy in policies.items() if reads_input(policy["conditions"])}
    plain = {key: _without_tools(policy) for key, policy in policies.items() if key not in readers}
    unfit: dict[str, Sequence[str]] = {}
    doubts = {key: list(_strangers(policy, tools)) for key, policy in policies.items()} if tools else {key: [] for key in policies}
    checked: dict[str, Policy] = {}
    met: dict[str, ArgumentTypes] = {}
    for key, policy in readers.items():
        about = {action: types for action, types in tools.items() if _meets(policy, action)}
        paths = input_paths(policy)
        if unknown := [_unknown(path, about) for path in sorted(paths) if about and _is_unknown(path, about)]:
            unfit[key] = unknown
            continue
        clear = {action: types for action, types in about.items() if not any(types.doubt(path) for path in paths)}
        doubts[key] += _unclear(paths, about)
        if clear or not about:
            met |= clear
            checked[key] = {**policy, "action": _scope([*_other_actions(policy), *clear])}
    past = _past(policies)
    wrong = validate(plain, json.dumps(schema_document({}, *past))) if plain else {}
    checkable = {key: policy for key, policy in checked.items() if policy["action"]["entities"]}
    if checkable:
        unfit |= validate(checkable, json.dumps(schema_document(met, *past)))
    return Review(wrong, unfit, {key: said for key, said in doubts.items() if said})


def _past(policies: Mapping[str, Policy]) -> tuple[list[str], list[str]]:
    """What policies count and add up: permissions whose calls one of them names, and arguments."""
    counted = {name for policy in policies.values() for node in spoken(policy) if (name := counted_call(node))}
    return sorted(counted), sorted({total for policy in policies.values() if (total := total_of(policy))})


def _meets(policy: Policy, action: str) -> bool:
    """Whether the policy can be about this tool."""
    lineage = [("Tool", action), ("Server", action.partition(".")[0])]
    return fits(policy["action"], [("Action", action), ("Action", GROUP)]) and fits(policy["resource"], lineage)


def _other_actions(policy: Policy) -> list[str]:
    return [name for name in sorted(ACTIONS - _UNTYPED) if fits(policy["action"], [("Action", name)])]


def _scope(actions: Iterable[str]) -> dict[str, Any]:
    return {"op": "in", "entities": [{"type": "Action", "id": name} for name in actions]}


def _without_tools(policy: Policy) -> Policy:
    """The actions of single tools widened to all: what is said beside the arguments is the same of each."""

    def widened(node: Any) -> Any:
        if isinstance(node, list):
            return [widened(item) for item in node]
        if not isinstance(node, dict):
            return node
        if node.get("type") == "Action" and "." in str(node.get("id")):
            return {"type": "Action", "id": GROUP}
        return {name: widened(value) if name != "annotations" else value for name, value in node.items()}

    found: Policy = widened(policy)
    return found


def _is_unknown(path: Path, about: Mapping[str, ArgumentTypes]) -> bool:
    return not any(types.has(path) or types.doubt(path) for types in about.values())


def _unknown(path: Path, about: Mapping[str, ArgumentTypes]) -> str:
    text = ".".join(path)
    known = {name for types in about.values() for name in types.names()}
    whom = next(iter(about)) if len(about) == 1 else "no tool that this is about"
    return f"{whom} has {'no' if len(about) == 1 else 'an'} argument {text!r}{meant(text, known)}"


def _unclear(paths: Iterable[Path], about: Mapping[str, ArgumentTypes]) -> list[str]:
    """What can't be checked, one sentence for each tool."""
    said = []
    for action, types in about.items():
        why = {".".join(path) or "input": types.doubt(path) for path in sorted(paths) if types.doubt(path)}
        said += [f"context.{'' if name == 'input' else 'input.'}{name} of {action} is not checked: {text}" for name, text in why.items()]
    return said[:3] + ([f"and {len(said) - 3} more are not checked"] if len(said) > 3 else [])


def _strangers(policy: Policy, tools: Mapping[str, ArgumentTypes]) -> Iterable[str]:
    """Tools that are named and not registered."""
    for node in spoken(policy):
        match node:
            case {"type": "Tool" | "Action" as kind, "id": str(name)} if "." in name and name not in tools:
                yield f'{kind}::"{name}" is not registered{meant(name, tools)}'

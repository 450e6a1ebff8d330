"""The policy engine: Cedar rules on every act, from the built-in invariants, the role rule and the operator's folder."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cedarpy

from policies.cedar_question import CedarQuestion, Verdict, context_text, slice_text
from policies.cedar_values import cedar_value
from policies.grant import Act
from policies.permissions import BadPermission
from policies.policy_folder import BadPolicy, Stamp, built_in, operators, stamp
from policies.policy_syntax import idle, may_apply, misspelt, reads_input, without_input
from policies.policy_text import fault_line, line_of
from policies.role_rules import role_policies

__all__ = ["BadPolicy", "CedarQuestion", "PolicyEngine", "RuleSet", "Verdict", "load"]

ENTITIES_KEPT = 1024  # 8 KB each


@dataclass(frozen=True, slots=True)
class RuleSet:
    """Parsed policies. `names`: Cedar's policy id -> @id. `readers`: those that look at the arguments.

    `doubts`: sentences about policies that are sound, but name somebody whom they will never meet.
    """

    policies: cedarpy.PolicySet
    visible: cedarpy.PolicySet  # the same without all that reads the arguments
    names: Mapping[str, str]
    readers: tuple[Mapping[str, Any], ...]
    version: str
    doubts: tuple[str, ...] = ()


def load(roles: Mapping[str, Sequence[str]], folder: Path | None = None) -> RuleSet:
    """Reads and checks every policy. Raises BadPolicy."""
    rules: dict[str, dict[str, Any]] = {}
    doubts: list[str] = []
    for origin, texts in (("built-in", built_in()), ("operator", operators(folder) if folder else ())):
        for file, text in texts:
            found = _read(file, text)
            rules |= {f"{origin}/{place}": policy for place, policy in found.items()}
            for index, policy in enumerate(found.values()):
                doubts += [f"{file}:{line_of(text, index)}: {doubt}" for doubt in idle(policy, roles)]
    _refuse_ambiguous(rules)
    try:
        rules |= {f"roles#{index}": policy for index, policy in enumerate(role_policies(roles))}
    except BadPermission as error:
        raise BadPolicy("roles", str(error)) from error
    document = json.dumps(rules, sort_keys=True)
    return RuleSet(
        policies=_parsed(rules),
        visible=_parsed(without_input(rules)),
        names={key: policy["annotations"]["id"] for key, policy in rules.items()},
        readers=tuple(policy for policy in rules.values() if reads_input(policy["conditions"])),
        version=hashlib.sha256(document.encode()).hexdigest()[:12],
        doubts=tuple(doubts),
    )


def _read(file: str, text: str) -> dict[str, dict[str, Any]]:
    """The policies of one file by a key of their own, each with an @id. Raises BadPolicy."""
    try:
        document = json.loads(cedarpy.policies_to_json_str(text))
    except ValueError as error:
        raise BadPolicy(file, str(error), fault_line(text, _complaint)) from error
    if document["templates"]:
        raise BadPolicy(file, "templates (?principal, ?resource) would never apply")
    found = {}
    for index, policy in enumerate(document["staticPolicies"].values()):
        if problem := misspelt(policy):
            raise BadPolicy(file, f"policy {index + 1}: {problem}", line_of(text, index))
        policy.setdefault("annotations", {})
        policy["annotations"]["id"] = policy["annotations"].get("id") or f"{file}#{index + 1}"
        found[f"{file}#{index + 1}"] = policy
    return found


def _complaint(text: str) -> str:
    """What Cedar says of a text that is no policy."""
    try:
        cedarpy.policies_to_json_str(text)
    except ValueError as error:
        return str(error)
    return ""


def _refuse_ambiguous(rules: Mapping[str, Mapping[str, Any]]) -> None:
    """An explanation names policies by @id, so no two may share one, and none may pose as the role rule."""
    seen: dict[str, str] = {}
    for key, policy in rules.items():
        name = policy["annotations"]["id"]
        file = key.partition("/")[2].rpartition("#")[0]
        if name in seen or name.startswith("role:"):
            raise BadPolicy(file, f'@id("{name}") is taken by {seen.get(name, "the role rule")}')
        seen[name] = file


def _parsed(rules: Mapping[str, dict[str, Any]]) -> cedarpy.PolicySet:
    try:
        return cedarpy.PolicySet.from_json_str(json.dumps({"staticPolicies": rules, "templates": {}, "templateLinks": []}))
    except ValueError as error:
        raise BadPolicy("policies", str(error)) from error


class PolicyEngine:
    """Answers from the last good rule set. `healthy` is false while a newer one was refused, `problem` says why."""

    def __init__(self, roles: Mapping[str, Sequence[str]], folder: Path | None = None) -> None:
        self._roles, self._folder = roles, folder
        self._stamp = self.stamp()
        self._rules = load(roles, folder)
        self._entities: dict[tuple[object, ...], cedarpy.Entities] = {}
        self.problem: BadPolicy | None = None

    @property
    def healthy(self) -> bool:
        return self.problem is None

    @property
    def version(self) -> str:
        """Changes whenever any policy changes."""
        return self._rules.version

    @property
    def doubts(self) -> tuple[str, ...]:
        """See RuleSet."""
        return self._rules.doubts

    @property
    def outdated(self) -> bool:
        """Whether the folder looks different from when it was last read."""
        return self.stamp() != self._stamp

    def stamp(self) -> Stamp | None:
        """How the folder looks now; None where there is none to look at."""
        if self._folder is None:
            return None
        return stamp(self._folder) if self._folder.is_dir() else (("", 0, 0, 0),)

    def reload(self) -> None:
        """Takes the rules of today in one step, or keeps the last good ones and reports the problem."""
        self._stamp = self.stamp()
        try:
            self._rules = load(self._roles, self._folder)
        except BadPolicy as problem:
            self.problem = problem
        else:
            self.problem = None

    def reads_input(self, act: Act) -> bool:
        """Whether any policy that may apply to this act looks at the arguments."""
        return any(may_apply(policy, act) for policy in self._rules.readers)

    def decide(self, question: CedarQuestion) -> Verdict:
        """Allows only on an explicit Allow without any diagnostic error: Cedar skips a forbid that fails."""
        rules = self._rules
        try:
            arguments = cedar_value(question.input) if question.input is not None and self.reads_input(question.act) else None
        except (ValueError, RecursionError):
            return Verdict(False, error=True)
        return self._verdict(rules, rules.policies, question, arguments)

    def visible(self, question: CedarQuestion) -> bool:
        """Whether some arguments may be allowed, for lists: conditions on the arguments count as met. The call is ruled on again."""
        rules = self._rules
        return self._verdict(rules, rules.visible, question, None).allowed

    def _verdict(self, rules: RuleSet, policies: cedarpy.PolicySet, question: CedarQuestion, arguments: Any) -> Verdict:
        act = question.act
        try:
            request = {
                "principal": {"type": "User", "id": question.principal.owner},
                "action": {"type": "Action", "id": act.action},
                "resource": {"type": act.kind, "id": act.resource},
                "context": context_text(question, arguments),
            }
            result = cedarpy.is_authorized(request, policies, self._slice(question))
        except (ValueError, TypeError, KeyError, RecursionError):
            return Verdict(False, error=True)
        decided = tuple(sorted({rules.names[key] for key in result.diagnostics.reasons}))
        failed = bool(result.diagnostics.errors) or result.decision == cedarpy.Decision.NoDecision
        return Verdict(result.decision == cedarpy.Decision.Allow and not failed, decided, failed)

    def _slice(self, question: CedarQuestion) -> cedarpy.Entities:
        """The user in their roles and the resource in its parent, parsed once and kept."""
        principal, act = question.principal, question.act
        key = (principal, question.tenant, act)
        kept = self._entities.get(key)
        if kept is None:
            if len(self._entities) >= ENTITIES_KEPT:
                del self._entities[next(iter(self._entities))]
            kept = self._entities[key] = cedarpy.Entities.from_json_str(slice_text(question))
        return kept

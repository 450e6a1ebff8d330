"""The policy engine: Cedar rules on every act, from the built-in invariants, the role rule and the operator's folder."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import cedarpy

from policies.cedar_question import CedarQuestion, Verdict, context_text, slice_text
from policies.cedar_values import cedar_value
from policies.grant import Act
from policies.permissions import BadPermission
from policies.policy_syntax import may_apply, misspelt, reads_input, without_input
from policies.role_rules import role_policies

__all__ = ["BadPolicy", "CedarQuestion", "PolicyEngine", "RuleSet", "Verdict", "load"]

ENTITIES_KEPT = 1024  # 8 KB each


class BadPolicy(Exception):
    """A policy that can't be used; `file` and `problem` are for the operator."""

    def __init__(self, file: str, problem: str) -> None:
        super().__init__(f"{file}: {problem}")
        self.file = file
        self.problem = problem


@dataclass(frozen=True, slots=True)
class RuleSet:
    """Parsed policies. `names`: Cedar's policy id -> @id. `readers`: those that look at the arguments."""

    policies: cedarpy.PolicySet
    visible: cedarpy.PolicySet  # the same without all that reads the arguments
    names: Mapping[str, str]
    readers: tuple[Mapping[str, Any], ...]
    version: str


def load(roles: Mapping[str, Sequence[str]], folder: Path | None = None) -> RuleSet:
    """Reads and checks every policy. Raises BadPolicy."""
    rules: dict[str, dict[str, Any]] = {}
    for origin, texts in (("built-in", _built_in()), ("operator", _operator(folder) if folder else ())):
        for file, text in texts:
            rules |= {f"{origin}/{place}": policy for place, policy in _read(file, text).items()}
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
    )


def _built_in() -> Iterator[tuple[str, str]]:
    for file in sorted((files("policies") / "rules").iterdir(), key=lambda file: file.name):
        if file.name.endswith(".cedar"):
            yield file.name, file.read_text("utf-8")


def _operator(folder: Path) -> Iterator[tuple[str, str]]:
    if not folder.is_dir():
        raise BadPolicy(str(folder), "a folder of .cedar files is expected")
    for path in sorted(folder.glob("*.cedar")):
        try:
            yield path.name, path.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise BadPolicy(path.name, str(error)) from error


def _read(file: str, text: str) -> dict[str, dict[str, Any]]:
    """The policies of one file by a key of their own, each with an @id. Raises BadPolicy."""
    try:
        document = json.loads(cedarpy.policies_to_json_str(text))
    except ValueError as error:
        raise BadPolicy(file, str(error)) from error
    if document["templates"]:
        raise BadPolicy(file, "templates (?principal, ?resource) would never apply")
    found = {}
    for index, policy in enumerate(document["staticPolicies"].values()):
        if problem := misspelt(policy):
            raise BadPolicy(file, f"policy {index + 1}: {problem}")
        policy.setdefault("annotations", {})
        policy["annotations"]["id"] = policy["annotations"].get("id") or f"{file}#{index + 1}"
        found[f"{file}#{index + 1}"] = policy
    return found


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

    def reload(self, roles: Mapping[str, Sequence[str]], folder: Path | None = None) -> None:
        """Takes new rules in one step, or keeps the old ones and reports the problem."""
        try:
            self._rules = load(roles, folder)
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

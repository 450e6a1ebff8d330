"""The policy engine: Cedar rules on every act, from the built-in invariants, the role rule and the operator's folder."""

import hashlib
import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import cedarpy

from policies.cedar.annotations import Ask, ask_of, together, total_of
from policies.cedar.argument_types import KnownTool
from policies.cedar.argument_types import Path as InputPath
from policies.cedar.failures import UNFIT, Failure, failure_of, inexpressible
from policies.cedar.files.folder import BadPolicy, Stamp, built_in, operators, stamp
from policies.cedar.files.reading import Read, Text, read_all, refuse_ambiguous
from policies.cedar.files.review import Policy, Review, review
from policies.cedar.input_paths import decimal_paths, input_paths, other_paths, with_decimals
from policies.cedar.json_types import DeclaredTypes
from policies.cedar.question import CedarQuestion, Verdict, context_text, slice_text
from policies.cedar.role_rules import role_policies
from policies.cedar.schema import GROUP, known_types, schema_document
from policies.cedar.syntax import actions_of, assumed, idle, may_apply, reads, reads_input
from policies.cedar.values import NotExpressible, cedar_value
from policies.delegation.permissions import BadPermission
from policies.delegation.rulings import Act

__all__ = ["BadPolicy", "CedarQuestion", "KnownTool", "PolicyEngine", "RuleSet", "Verdict", "load", "schema_text"]

ENTITIES_KEPT = 1024  # 8 KB each
USER_OF = "default|interlock-development"  # people who are called by a name alone
UNKNOWN_TO_LISTS = ("input", "history")
Tools = Callable[[], Iterable[KnownTool]]
SchemaOf = Callable[[str, Act], Mapping[str, Any] | None]  # the inputSchema of the tool that an act of a tenant calls, as it is now


@dataclass(frozen=True, slots=True)
class RuleSet:
    """Parsed policies. `names`: Cedar's policy id -> @id. `readers`: those that look at the arguments, with what of
    them they take for decimals, and what not, and all that they read of them.

    `doubts`: sentences about policies that are sound, but name somebody whom they will never meet, or don't fit the tools of today.
    `own`: the operator's, as Cedar's JSON; `places`: where each of them stands.
    """

    policies: cedarpy.PolicySet
    settled: cedarpy.PolicySet  # the same without those that ask
    visible: cedarpy.PolicySet  # of these, what is left where neither the arguments nor the history are known, at best
    names: Mapping[str, str]
    readers: tuple[tuple[Policy, set[InputPath], set[InputPath], set[InputPath]], ...]
    version: str
    asks: Mapping[str, Ask] = field(default_factory=dict)  # by @id
    historians: tuple[Policy, ...] = ()  # that look at the history, or want something added up for those that do
    totals: tuple[tuple[Policy, str], ...] = ()  # the argument that is added up for acts to which the policy may apply
    documents: Mapping[str, dict[str, Any]] = field(default_factory=dict)  # all of them, as Cedar's JSON
    own: Mapping[str, Policy] = field(default_factory=dict)
    places: Mapping[str, tuple[str, int]] = field(default_factory=dict)
    idle: tuple[str, ...] = ()
    unfit: tuple[str, ...] = ()

    @property
    def doubts(self) -> tuple[str, ...]:
        return (*self.idle, *self.unfit)


def load(
    roles: Mapping[str, Sequence[str]],
    folder: Path | None = None,
    tools: Iterable[KnownTool] = (),
    known: Iterable[Policy] | None = None,
) -> RuleSet:
    """Reads and checks every policy. Raises BadPolicy: also for one that doesn't fit the tools of today, unless it is one of `known`.

    None: nothing is refused for the tools' sake, which may have changed since it was written.
    """
    return compiled(roles, operators(folder) if folder else (), tools, known)


def compiled(
    roles: Mapping[str, Sequence[str]], texts: Iterable[Text], tools: Iterable[KnownTool], known: Iterable[Policy] | None
) -> RuleSet:
    """The same, of texts by the names of their files."""
    built, own = (read_all(files, cedarpy.policies_to_json_str, USER_OF) for files in (built_in(), texts))
    refuse_ambiguous({**{f"built-in/{key}": one for key, one in built.policies.items()}, **own.policies}, _places(built, own))
    unfit = _reviewed(own, review(own.policies, known_types(tools), _complaints), known)
    rules = {f"built-in/{key}": policy for key, policy in built.policies.items()}
    rules |= {f"operator/{key}": policy for key, policy in own.policies.items()}
    try:
        rules |= {f"roles#{index}": policy for index, policy in enumerate(role_policies(roles))}
    except BadPermission as error:
        raise BadPolicy("roles", str(error)) from error
    return replace(_ruled(rules), own=own.policies, places=own.places, idle=tuple(_idle(own, roles)), unfit=unfit)


def _ruled(rules: Mapping[str, dict[str, Any]]) -> RuleSet:
    document = json.dumps(rules, sort_keys=True)
    asks = {key: ask for key, policy in rules.items() if (ask := ask_of(policy)) is not None}
    settled = {key: policy for key, policy in rules.items() if key not in asks}
    return RuleSet(
        policies=_parsed(rules),
        settled=_parsed(settled),
        visible=_parsed(assumed(settled, UNKNOWN_TO_LISTS, favourable=True)),
        names={key: policy["annotations"]["id"] for key, policy in rules.items()},
        readers=tuple(
            (policy, decimal_paths(policy), other_paths(policy), input_paths(policy))
            for policy in rules.values()
            if reads_input(policy["conditions"])
        ),
        version=hashlib.sha256(document.encode()).hexdigest()[:12],
        asks={rules[key]["annotations"]["id"]: ask for key, ask in asks.items()},
        historians=tuple(policy for policy in rules.values() if reads(policy["conditions"], "history") or total_of(policy)),
        totals=tuple((policy, total) for policy in rules.values() if (total := total_of(policy))),
        documents=rules,
    )


def refitted(rules: RuleSet, tools: Iterable[KnownTool]) -> RuleSet:
    """The same rules, with what is to be said of them beside the tools of now."""
    found = review(rules.own, known_types(tools), _complaints)
    return replace(rules, unfit=tuple(_said(rules.places, found.unfit, found.doubts)))


def schema_text(tools: Iterable[KnownTool]) -> str:
    """The schema in Cedar's own form, for editors."""
    return str(cedarpy.Schema.from_json_str(json.dumps(schema_document(known_types(tools)))))


def _places(built: Read, own: Read) -> dict[str, tuple[str, int]]:
    return {**{f"built-in/{key}": place for key, place in built.places.items()}, **own.places}


def _idle(own: Read, roles: Mapping[str, Sequence[str]]) -> Iterable[str]:
    for key, policy in own.policies.items():
        file, line = own.places[key]
        yield from (f"{file}:{line}: {doubt}" for doubt in idle(policy, roles))
    for name, (file, line) in own.unused.items():
        yield f"{file}:{line}: nothing in links.yaml fills in the template {name!r}"


def _reviewed(own: Read, found: Review, known: Iterable[Policy] | None) -> tuple[str, ...]:
    """What is doubtful. Raises BadPolicy for what is wrong, and for what is unfit and new."""
    standing = None if known is None else list(known)
    for complaints in (found.wrong, found.unfit):
        for key, said in complaints.items():
            if complaints is found.wrong or (standing is not None and own.policies[key] not in standing):
                file, line = own.places[key]
                raise BadPolicy(file, f"{own.policies[key]['annotations']['id']}: {'; '.join(said)}", line)
    return tuple(_said(own.places, found.unfit, found.doubts))


def _said(places: Mapping[str, tuple[str, int]], *complaints: Mapping[str, Sequence[str]]) -> Iterable[str]:
    for each in complaints:
        for key, said in each.items():
            file, line = places[key]
            yield from (f"{file}:{line}: {sentence}" for sentence in said)


def _complaints(policies: Mapping[str, Policy], schema: str) -> dict[str, list[str]]:
    """What Cedar's validator says of each."""
    keyed = {key: {**policy, "annotations": {"id": key}} for key, policy in policies.items()}
    text = cedarpy.policies_from_json_str(json.dumps({"staticPolicies": keyed, "templates": {}, "templateLinks": []}))
    result = cedarpy.validate_policies(text, cedarpy.Schema.from_json_str(schema), release_gil=True)
    found: dict[str, list[str]] = {}
    for error in result.errors:
        key = result.id_annotations_by_policy_id.get(error.policy_id, error.policy_id)
        sentence = error.error.removeprefix(f"for policy `{error.policy_id}`, ")
        if sentence not in found.setdefault(key, []):
            found[key].append(sentence)
    return found


def _parsed(rules: Mapping[str, Mapping[str, Any]]) -> cedarpy.PolicySet:
    try:
        return cedarpy.PolicySet.from_json_str(json.dumps({"staticPolicies": rules, "templates": {}, "templateLinks": []}))
    except ValueError as error:
        raise BadPolicy("policies", str(error)) from error


def _failed(failure: Failure) -> Verdict:
    return Verdict(False, failure.policies, error=True, problem=failure.problem)


def no_tools() -> Iterable[KnownTool]:
    """Where there is no registry."""
    return ()


def _schema_among(tools: Tools) -> SchemaOf:
    """Looks a schema up among all tools."""

    def schema_of(tenant: str, act: Act) -> Mapping[str, Any] | None:
        return next((tool.schema for tool in tools() if (tool.tenant, tool.action) == (tenant, act.resource)), None)

    return schema_of


class PolicyEngine:
    """Answers from the last good rule set. `healthy` is false while a newer one was refused, `problem` says why."""

    def __init__(
        self,
        roles: Mapping[str, Sequence[str]],
        folder: Path | None = None,
        tools: Tools = no_tools,
        rules: RuleSet | None = None,
        *,
        schema_of: SchemaOf | None = None,
    ) -> None:
        """`rules`: those of the folder, where they were read already. `schema_of`: a faster way to a schema than through all `tools`."""
        self._roles, self._folder, self._tools = roles, folder, tools
        self._schema_of = schema_of or _schema_among(tools)
        self._stamp = self.stamp()
        self._rules = rules or load(roles, folder)
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
        return stamp(self._folder) if self._folder is not None and self._folder.is_dir() else None

    def reload(self) -> None:
        """Takes the rules of today in one step, or keeps the last good ones and reports the problem."""
        self._stamp = self.stamp()
        try:
            self._rules = load(self._roles, self._folder, self._tools(), self._rules.own.values())
        except BadPolicy as problem:
            self.problem = problem
        else:
            self.problem = None

    def refit(self) -> tuple[str, ...]:
        """Looks at the rules beside the tools of now, and returns the doubts that are new. What was refused is tried again."""
        before = self._rules.doubts
        if self.problem is not None:
            self.reload()
        elif self._rules.own:
            self._rules = refitted(self._rules, self._tools())
        return tuple(doubt for doubt in self._rules.doubts if doubt not in before)

    def assuming(self, blind: Collection[str], favourable: bool) -> "PolicyEngine":
        """One that does not know these attributes of `context`, and takes what depends on them as best for the caller, or as worst."""
        rules = _ruled(assumed(self._rules.documents, blind, favourable))
        return PolicyEngine(self._roles, tools=self._tools, rules=rules, schema_of=self._schema_of)

    def reads_input(self, act: Act) -> bool:
        """Whether any policy that may apply to this act looks at the arguments."""
        return any(may_apply(policy, act) for policy, *_ in self._rules.readers)

    def recalls(self, act: Act) -> bool:
        """Whether any policy that may apply to this act looks at what the errand did before, or has it added up."""
        return any(may_apply(policy, act) for policy in self._rules.historians)

    def totals(self, act: Act) -> frozenset[str]:
        """The arguments of this act that are added up."""
        return frozenset(total for policy, total in self._rules.totals if may_apply(policy, act))

    @property
    def all_totals(self) -> frozenset[str]:
        """Of any act."""
        return frozenset(total for _, total in self._rules.totals)

    def asking(self, names: Sequence[str]) -> Ask:
        """What the policies with these @ids ask together, of which there is at least one."""
        return together(self._rules.asks[name] for name in names)

    def decide(self, question: CedarQuestion) -> Verdict:
        """Allows only on an explicit Allow without any diagnostic error: Cedar skips a forbid that fails."""
        rules = self._rules
        try:
            arguments = self._arguments(rules, question) if question.input is not None else None
        except NotExpressible as error:
            return _failed(inexpressible(error, self._readers(rules, question)))
        except RecursionError:
            return Verdict(False, error=True, problem="the arguments are nested too deeply")
        verdict = self._verdict(rules, rules.policies, question, arguments)
        if verdict.allowed or verdict.error or not verdict.policies or not rules.asks.keys() >= set(verdict.policies):
            return verdict
        rest = self._verdict(rules, rules.settled, question, arguments)
        return Verdict(False, verdict.policies, asks=True) if rest.allowed else rest

    def _arguments(self, rules: RuleSet, question: CedarQuestion) -> Any:
        """As Cedar values, where a policy that may apply looks at them. Raises NotExpressible, also for what the tool does not take."""
        applying = [paths for policy, *paths in rules.readers if may_apply(policy, question.act)]
        if not applying:
            return None
        decimals, others, read = (set().union(*paths) for paths in zip(*applying, strict=True))
        self._check_types(question, read)
        return with_decimals(cedar_value(question.input), decimals, others)

    def _check_types(self, question: CedarQuestion, paths: Collection[InputPath]) -> None:
        """Raises NotExpressible where an argument that policies read has another type than the tool's schema declares.

        For Cedar, values of different types are unequal without an error, so a forbid would not apply to "13" instead of 13.
        """
        schema = self._schema_of(question.tenant, question.act) if question.act.action == GROUP else None
        if schema is None:
            return
        declared = DeclaredTypes(schema)
        for path in sorted(paths):
            found = declared.mismatch(question.input, path)
            if found is not None:
                raise NotExpressible(found.problem, found.path)

    def _readers(self, rules: RuleSet, question: CedarQuestion) -> Iterable[Policy]:
        """Policies that may apply and look at the arguments."""
        return (policy for policy, *_ in rules.readers if may_apply(policy, question.act))

    def visible(self, question: CedarQuestion) -> bool:
        """Whether some arguments may be allowed, for lists: conditions on the arguments count as met. The call is ruled on again."""
        rules = self._rules
        return self._verdict(rules, rules.visible, question, None).allowed

    def _verdict(self, rules: RuleSet, policies: cedarpy.PolicySet, question: CedarQuestion, arguments: Any) -> Verdict:
        act, ((_, name), *_) = question.act, actions_of(question.act)
        try:
            request = {
                "principal": {"type": "User", "id": question.principal.owner},
                "action": {"type": "Action", "id": name},
                "resource": {"type": act.kind, "id": act.resource},
                "context": context_text(question, arguments),
            }
            result = cedarpy.is_authorized(request, policies, self._slice(question))
        except (ValueError, TypeError, KeyError, RecursionError):
            return Verdict(False, error=True, problem=UNFIT)
        if result.diagnostics.errors or result.decision == cedarpy.Decision.NoDecision:
            return _failed(failure_of(result.diagnostics.errors, rules.documents, arguments))
        decided = tuple(sorted({rules.names[key] for key in result.diagnostics.reasons}))
        return Verdict(result.decision == cedarpy.Decision.Allow, decided)

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

"""The policy engine: evaluates Cedar policies (the built-in ones, the role rules and the operator's folder) on every act."""

import hashlib
import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import cedarpy

from policies.cedar.annotations import AskAnnotation, combine_asks, parse_ask, parse_total
from policies.cedar.argument_types import KnownTool
from policies.cedar.argument_types import Path as InputPath
from policies.cedar.fact_paths import FactReading, fact_needs, fact_readings, notes_on
from policies.cedar.failures import UNEVALUABLE, failure_from_errors, failure_of_inexpressible
from policies.cedar.files.folder import BadPolicy, FolderStamp, folder_stamp, read_operator_files
from policies.cedar.files.reading import FileText, ParsedPolicies, check_unique_ids, read_built_in_policies, read_policies
from policies.cedar.files.review import Policy, Review, review_policies
from policies.cedar.input_paths import decimal_paths, input_paths, non_decimal_paths, with_decimals
from policies.cedar.json_types import DeclaredTypes
from policies.cedar.question import CedarQuestion, Verdict, context_json, entities_json
from policies.cedar.role_rules import role_policies
from policies.cedar.schema import TOOL_ACTION_GROUP, argument_types_by_action, schema_document
from policies.cedar.syntax import (
    ActClasses,
    action_and_group,
    assume_unknown,
    may_apply,
    named_roles,
    never_matching_principals,
    reads_context,
    reads_facts,
    reads_input,
)
from policies.cedar.values import NotExpressible, cedar_value
from policies.delegation.facts import ALL_FACTS, FactNeeds, FactNote, SubjectFacts
from policies.delegation.permissions import BadPermission
from policies.delegation.rulings import Act

__all__ = ["BadPolicy", "CedarQuestion", "KnownTool", "PolicyEngine", "RuleSet", "Verdict", "load_rules", "schema_text"]

ENTITIES_CACHE_SIZE = 1024  # 8 KB each
DEFAULT_USER_PREFIX = "default|interlock-development"  # the tenant and issuer of people whom a policy names by a name alone
UNKNOWN_TO_LISTS = ("input", "history", "effect", "subject", "facts")
BUILT_IN = "built-in/"  # begins the keys of the policies that come with the gateway
ToolSource = Callable[[], Iterable[KnownTool]]
SchemaOf = Callable[[str, Act], Mapping[str, Any] | None]  # the current inputSchema of the tool that an act calls, in a tenant


@dataclass(frozen=True, slots=True)
class RuleSet:
    """Parsed and checked policies.

    `id_by_key` maps Cedar's policy ids to @ids. `argument_readers` are the policies that read arguments, each with the paths that it reads
    as decimals, as other values, and in all. `operator_policies` are the operator's, as Cedar's JSON, and `operator_places` their files
    and lines. `never_matching` and `tool_mismatches` are warnings about valid policies that match no principal or no registered tool.
    """

    policies: cedarpy.PolicySet
    without_asking: cedarpy.PolicySet  # without the policies that have @ask
    best_case: cedarpy.PolicySet  # the policies without @ask, with every condition on arguments or history assumed in the caller's favour
    id_by_key: Mapping[str, str]
    argument_readers: tuple[tuple[Policy, set[InputPath], set[InputPath], set[InputPath]], ...]
    version: str
    act_classes: ActClasses
    asks: Mapping[str, AskAnnotation] = field(default_factory=dict)  # by @id
    history_readers: tuple[Policy, ...] = ()  # policies that read the history, or that have something added up for those that do
    fact_readers: tuple[Policy, ...] = ()  # the operator's policies that read the effect, the subject or facts about it
    fact_readings: Mapping[str, tuple[FactReading, ...]] = field(default_factory=dict)  # by @id
    fact_needs: FactNeeds = ALL_FACTS  # of all policies
    totals: tuple[tuple[Policy, str], ...] = ()  # the argument that is added up for acts that the policy may apply to
    documents: Mapping[str, dict[str, Any]] = field(default_factory=dict)  # all policies, as Cedar's JSON
    permitted_roles: frozenset[str] = frozenset()  # roles that a permit names: of the settings and of the operator's policies
    operator_policies: Mapping[str, Policy] = field(default_factory=dict)
    operator_places: Mapping[str, tuple[str, int]] = field(default_factory=dict)
    never_matching: tuple[str, ...] = ()
    tool_mismatches: tuple[str, ...] = ()

    @property
    def warnings(self) -> tuple[str, ...]:
        return (*self.never_matching, *self.tool_mismatches)


def load_rules(
    roles: Mapping[str, Sequence[str]], folder: Path | None = None, tools: Iterable[KnownTool] = (), known: Iterable[Policy] | None = None
) -> RuleSet:
    """Reads and checks every policy. Raises BadPolicy, also for a policy that does not fit the registered tools and is not in `known`.

    With `known` None, no policy is refused for a mismatch with the tools, which may have changed since it was written.
    """
    return compile_rules(roles, read_operator_files(folder) if folder else (), tools, known)


def compile_rules(
    roles: Mapping[str, Sequence[str]], texts: Iterable[FileText], tools: Iterable[KnownTool], known: Iterable[Policy] | None
) -> RuleSet:
    """Does what `load_rules` does, with the operator's texts by their file names."""
    to_json = cedarpy.policies_to_json_str
    built, own = read_built_in_policies(to_json, DEFAULT_USER_PREFIX), read_policies(texts, to_json, DEFAULT_USER_PREFIX)
    check_unique_ids({**{f"{BUILT_IN}{key}": one for key, one in built.policies.items()}, **own.policies}, _places_by_key(built, own))
    unfit = _check_review(own, review_policies(own.policies, argument_types_by_action(tools), _validate), known)
    rules = {f"{BUILT_IN}{key}": policy for key, policy in built.policies.items()}
    rules |= {f"operator/{key}": policy for key, policy in own.policies.items()}
    try:
        rules |= {f"roles#{index}": policy for index, policy in enumerate(role_policies(roles))}
    except BadPermission as error:
        raise BadPolicy("roles", str(error)) from error
    return replace(
        _build_rule_set(rules),
        operator_policies=own.policies,
        operator_places=own.places,
        never_matching=tuple(_never_matching_warnings(own, roles)),
        tool_mismatches=unfit,
    )


def _build_rule_set(rules: Mapping[str, dict[str, Any]]) -> RuleSet:
    asks = {key: ask for key, policy in rules.items() if (ask := parse_ask(policy)) is not None}
    without_ask = {key: policy for key, policy in rules.items() if key not in asks}
    return RuleSet(
        policies=_parse_policies(rules),
        without_asking=_parse_policies(without_ask),
        best_case=_parse_policies(assume_unknown(without_ask, UNKNOWN_TO_LISTS, favourable=True)),
        id_by_key={key: policy["annotations"]["id"] for key, policy in rules.items()},
        argument_readers=tuple(
            (policy, decimal_paths(policy), non_decimal_paths(policy), input_paths(policy))
            for policy in rules.values()
            if reads_input(policy["conditions"])
        ),
        version=hashlib.sha256(json.dumps(rules, sort_keys=True).encode()).hexdigest()[:12],
        asks={rules[key]["annotations"]["id"]: ask for key, ask in asks.items()},
        history_readers=tuple(policy for policy in rules.values() if reads_context(policy["conditions"], "history") or parse_total(policy)),
        fact_readers=tuple(policy for key, policy in rules.items() if not key.startswith(BUILT_IN) and reads_facts(policy["conditions"])),
        fact_readings={policy["annotations"]["id"]: read for policy in rules.values() if (read := fact_readings(policy))},
        fact_needs=fact_needs(rules.values()),
        totals=tuple((policy, total) for policy in rules.values() if (total := parse_total(policy))),
        documents=rules,
        act_classes=ActClasses(rules.values()),
        permitted_roles=frozenset(role for policy in rules.values() if policy["effect"] == "permit" for role in named_roles(policy)),
    )


def recheck_rules(rules: RuleSet, tools: Iterable[KnownTool]) -> RuleSet:
    """The rule set with its warnings checked again against `tools`."""
    found = review_policies(rules.operator_policies, argument_types_by_action(tools), _validate)
    return replace(rules, tool_mismatches=tuple(_located_sentences(rules.operator_places, found.mismatches, found.warnings)))


def schema_text(tools: Iterable[KnownTool]) -> str:
    """The Cedar schema in its human-readable form, for editors."""
    return str(cedarpy.Schema.from_json_str(json.dumps(schema_document(argument_types_by_action(tools)))))


def _places_by_key(built: ParsedPolicies, own: ParsedPolicies) -> dict[str, tuple[str, int]]:
    return {**{f"{BUILT_IN}{key}": place for key, place in built.places.items()}, **own.places}


def _never_matching_warnings(own: ParsedPolicies, roles: Mapping[str, Sequence[str]]) -> Iterable[str]:
    for key, policy in own.policies.items():
        file, line = own.places[key]
        yield from (f"{file}:{line}: {doubt}" for doubt in never_matching_principals(policy, roles))
    for name, (file, line) in own.unused_templates.items():
        yield f"{file}:{line}: nothing in links.yaml fills in the template {name!r}"


def _check_review(own: ParsedPolicies, found: Review, known: Iterable[Policy] | None) -> tuple[str, ...]:
    """The warnings of a review. Raises BadPolicy for every error, and for a mismatch of a policy that is not in `known`."""
    standing = None if known is None else list(known)
    for problems_by_key in (found.errors, found.mismatches):
        for key, problems in problems_by_key.items():
            if problems_by_key is found.errors or (standing is not None and own.policies[key] not in standing):
                file, line = own.places[key]
                raise BadPolicy(file, f"{own.policies[key]['annotations']['id']}: {'; '.join(problems)}", line)
    return tuple(_located_sentences(own.places, found.mismatches, found.warnings))


def _located_sentences(places: Mapping[str, tuple[str, int]], *problems_by_key: Mapping[str, Sequence[str]]) -> Iterable[str]:
    for each in problems_by_key:
        for key, sentences in each.items():
            file, line = places[key]
            yield from (f"{file}:{line}: {sentence}" for sentence in sentences)


def _validate(policies: Mapping[str, Policy], schema: str) -> dict[str, list[str]]:
    """The complaints of Cedar's validator, by policy key."""
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


def _parse_policies(rules: Mapping[str, Mapping[str, Any]]) -> cedarpy.PolicySet:
    try:
        return cedarpy.PolicySet.from_json_str(json.dumps({"staticPolicies": rules, "templates": {}, "templateLinks": []}))
    except ValueError as error:
        raise BadPolicy("policies", str(error)) from error


def no_tools() -> Iterable[KnownTool]:
    """The tool source of an engine without a registry."""
    return ()


def _schema_among(tools: ToolSource) -> SchemaOf:
    """A slow `schema_of` that searches all tools."""

    def schema_of(tenant: str, act: Act) -> Mapping[str, Any] | None:
        return next((tool.schema for tool in tools() if (tool.tenant, tool.action) == (tenant, act.resource)), None)

    return schema_of


class PolicyEngine:
    """Answers from the last valid rule set. While a newer one is refused, `is_healthy` is false and `problem` says why."""

    def __init__(
        self,
        roles: Mapping[str, Sequence[str]],
        folder: Path | None = None,
        tools: ToolSource = no_tools,
        rules: RuleSet | None = None,
        *,
        schema_of: SchemaOf | None = None,
    ) -> None:
        """`rules`: the folder's policies, if already loaded. `schema_of`: a faster way to a tool's schema than a search of all `tools`."""
        self._roles, self._folder, self._tools = roles, folder, tools
        self._schema_of = schema_of or _schema_among(tools)
        self._stamp = self.current_stamp()
        self._rules = rules or load_rules(roles, folder)
        self._entities: dict[tuple[object, ...], cedarpy.Entities] = {}
        self.problem: BadPolicy | None = None

    @property
    def is_healthy(self) -> bool:
        return self.problem is None

    @property
    def version(self) -> str:
        """A digest that changes whenever any policy changes."""
        return self._rules.version

    @property
    def rules(self) -> RuleSet:
        """The current rule set, with its warnings."""
        return self._rules

    @property
    def permitted_roles(self) -> frozenset[str]:
        """The roles that a permit names. People get roles from the settings, their tenant's identity provider, or its default roles."""
        return self._rules.permitted_roles

    @property
    def is_outdated(self) -> bool:
        """Whether the folder has changed since it was last read."""
        return self.current_stamp() != self._stamp

    def current_stamp(self) -> FolderStamp | None:
        """The current stamp of the folder; None without a folder."""
        return folder_stamp(self._folder) if self._folder is not None and self._folder.is_dir() else None

    def reload(self) -> None:
        """Loads the policies again in one step. On BadPolicy keeps the last valid rule set and sets `problem`."""
        self._stamp = self.current_stamp()
        try:
            self._rules = load_rules(self._roles, self._folder, self._tools(), self._rules.operator_policies.values())
        except BadPolicy as problem:
            self.problem = problem
        else:
            self.problem = None

    def recheck_tools(self) -> tuple[str, ...]:
        """Checks the policies against the current tools and returns the new warnings. Loads a refused folder again."""
        known_warnings = self._rules.warnings
        if self.problem is not None:
            self.reload()
        elif self._rules.operator_policies:
            self._rules = recheck_rules(self._rules, self._tools())
        return tuple(doubt for doubt in self._rules.warnings if doubt not in known_warnings)

    def with_unknown(self, unknown: Collection[str], favourable: bool) -> "PolicyEngine":
        """An engine whose policies do not know these attributes of `context`: conditions on them favour the caller, or go against them."""
        rules = _build_rule_set(assume_unknown(self._rules.documents, unknown, favourable))
        return PolicyEngine(self._roles, tools=self._tools, rules=rules, schema_of=self._schema_of)

    def reads_input(self, act: Act) -> bool:
        """Whether any policy that may apply to this act reads the arguments."""
        readers = self._rules.argument_readers
        return bool(readers) and any(may_apply(policy, act) for policy, *_ in readers)

    def needs_history(self, act: Act) -> bool:
        """Whether any policy that may apply to this act reads the transaction's history, or has an argument added up."""
        readers = self._rules.history_readers
        return bool(readers) and any(may_apply(policy, act) for policy in readers)

    def reads_facts(self, act: Act) -> bool:
        """Whether any policy of the operator that may apply to this act reads its effect or facts about its subject."""
        return any(may_apply(policy, act) for policy in self._rules.fact_readers)

    @property
    def fact_needs(self) -> FactNeeds:
        """The facts that any policy may read."""
        return self._rules.fact_needs

    def fact_notes(self, names: Sequence[str], facts: SubjectFacts) -> tuple[FactNote, ...]:
        """The facts that the policies with these @ids read, as far as they hold."""
        read = self._rules.fact_readings
        return tuple(note for name in names for note in notes_on(name, read.get(name, ()), facts))

    def total_names(self, act: Act) -> frozenset[str]:
        """The arguments of this act that are added up."""
        return frozenset(total for policy, total in self._rules.totals if may_apply(policy, act))

    @property
    def all_total_names(self) -> frozenset[str]:
        """The arguments that any policy has added up."""
        return frozenset(total for _, total in self._rules.totals)

    def combined_ask(self, names: Sequence[str]) -> AskAnnotation:
        """The combined question of the policies with these @ids, of which there is at least one."""
        return combine_asks(self._rules.asks[name] for name in names)

    def decide(self, question: CedarQuestion) -> Verdict:
        """Evaluates the policies. Allows only on an explicit Allow without any diagnostic error, since Cedar skips a forbid that fails."""
        rules = self._rules
        try:
            arguments = self._cedar_arguments(rules, question) if question.input is not None else None
        except NotExpressible as error:
            return failure_of_inexpressible(error, self._applicable_readers(rules, question)).to_verdict()
        except RecursionError:
            return Verdict(False, has_error=True, problem="the arguments are nested too deeply")
        verdict = self._evaluate(rules, rules.policies, question, arguments)
        if verdict.allowed or verdict.has_error or not verdict.policies or not rules.asks.keys() >= set(verdict.policies):
            return verdict
        rest = self._evaluate(rules, rules.without_asking, question, arguments)
        return Verdict(False, verdict.policies, needs_approval=True) if rest.allowed else rest

    def _cedar_arguments(self, rules: RuleSet, question: CedarQuestion) -> Any:
        """The arguments as Cedar values; None where no applicable policy reads them.

        Raises NotExpressible, also for arguments of another type than the tool declares.
        """
        applying = [paths for policy, *paths in rules.argument_readers if may_apply(policy, question.act)]
        if not applying:
            return None
        decimals, others, read = (set().union(*paths) for paths in zip(*applying, strict=True))
        self._check_types(question, read)
        return with_decimals(cedar_value(question.input), decimals, others)

    def _check_types(self, question: CedarQuestion, paths: Collection[InputPath]) -> None:
        """Raises NotExpressible where an argument that policies read has another type than the tool's schema declares.

        For Cedar, values of different types are unequal without an error, so a forbid would not apply to "13" instead of 13.
        """
        schema = self._schema_of(question.tenant, question.act) if question.act.action == TOOL_ACTION_GROUP else None
        if schema is None:
            return
        declared = DeclaredTypes(schema)
        for path in sorted(paths):
            found = declared.mismatch(question.input, path)
            if found is not None:
                raise NotExpressible(found.problem, found.path)

    def _applicable_readers(self, rules: RuleSet, question: CedarQuestion) -> Iterable[Policy]:
        """The policies that may apply to the act and read its arguments."""
        return (policy for policy, *_ in rules.argument_readers if may_apply(policy, question.act))

    def best_verdict(self, question: CedarQuestion) -> Verdict:
        """The verdict on the best arguments, for lists: conditions on arguments count as met. The call itself is ruled on again."""
        return self._evaluate(self._rules, self._rules.best_case, question, None)

    def _evaluate(self, rules: RuleSet, policies: cedarpy.PolicySet, question: CedarQuestion, arguments: Any) -> Verdict:
        act, ((_, name), *_) = question.act, action_and_group(question.act)
        try:
            uids = {"principal": ("User", question.principal.owner_key), "action": ("Action", name), "resource": (act.kind, act.resource)}
            named = {variable: {"type": kind, "id": uid} for variable, (kind, uid) in uids.items()}
            request = {**named, "context": context_json(question, arguments)}
            result = cedarpy.is_authorized(request, policies, self._entities_of(question))
        except (ValueError, TypeError, KeyError, RecursionError):
            return Verdict(False, has_error=True, problem=UNEVALUABLE)
        if result.diagnostics.errors or result.decision == cedarpy.Decision.NoDecision:
            return failure_from_errors(result.diagnostics.errors, rules.documents, arguments).to_verdict()
        decided = tuple(sorted({rules.id_by_key[key] for key in result.diagnostics.reasons}))
        return Verdict(result.decision == cedarpy.Decision.Allow, decided)

    def _entities_of(self, question: CedarQuestion) -> cedarpy.Entities:
        """The Cedar entities of the user with their roles and the resource with its parent, parsed once and cached."""
        key = (question.principal, question.tenant, question.act)
        entities = self._entities.get(key)
        if entities is None:
            if len(self._entities) >= ENTITIES_CACHE_SIZE:
                del self._entities[next(iter(self._entities))]
            entities = self._entities[key] = cedarpy.Entities.from_json_str(entities_json(question))
        return entities

"""Whether a document fits the agents, tools and contracts of the registry: at its upload, and again whenever one of them changes."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import structlog

from adapters.sandbox.calculation import SANDBOX_KIND
from gateway.tasks.contracts.skills import contract_of
from gateway.workflows.dsl.document import CallFunction, CallMcp, CallOpenApi, Document, TaskBase
from gateway.workflows.dsl.loading import read_text
from gateway.workflows.dsl.targets import agent_of
from gateway.workflows.dsl.walk import tasks
from gateway.workflows.expressions.templates import expression_in
from gateway.workflows.problems import DocumentRefused, Problem
from gateway.workflows.publishing.needs import BadTarget, Need, needs_of, needs_of_task
from gateway.workflows.runs.store import RunStore
from gateway.workflows.runs.versions import Versions
from registry.cards.card import KNOWN_STATUSES, WORKFLOW_KIND, Family, Registration
from registry.store import Registry, UnknownName

KEPT_MAX: Final = 1000
log = structlog.get_logger()
Found = Iterator[tuple[str, str]]


class Fitness:
    """Compares documents with the registry."""

    def __init__(self, registry: Registry, store: RunStore, versions: Versions) -> None:
        self._registry = registry
        self.store = store
        self.versions = versions
        self._checked: dict[tuple[str, str, str], tuple[int, tuple[Problem, ...]]] = {}

    async def problems_of(self, entry: Registration) -> tuple[Problem, ...]:
        """What of a published workflow's version no longer fits. It is found anew after each change of the registry."""
        version = entry.workflow_version
        key, generation = (entry.tenant, entry.name, version), self._registry.generation
        known = self._checked.get(key)
        if known is not None and known[0] == generation:
            return known[1]
        found = await self._find_problems(entry, version)
        if known is not None and bool(known[1]) != bool(found):
            event = "workflow_misfit_found" if found else "workflow_misfit_mended"
            log.warning(event, workflow=entry.name, tenant=entry.tenant, problems=[each.reason for each in found[:5]])
        if len(self._checked) >= KEPT_MAX:
            self._checked.pop(next(iter(self._checked)))
        self._checked[key] = (generation, found)
        return found

    async def _find_problems(self, entry: Registration, version: str) -> tuple[Problem, ...]:
        try:
            document = await self.versions.document(entry.tenant, entry.name, version)
        except DocumentRefused as refused:
            return refused.problems
        if document is None:
            return ()
        found = [*self.misfits(entry.tenant, document), *self._narrow_ceiling(entry, document)]
        if not found:
            return ()
        source, _ = await read_text(await self.store.document_of(entry.tenant, entry.name, version) or "")
        return tuple(sorted({source.problem(path, reason) for path, reason in found}))

    def misfits(self, tenant: str, document: Document) -> Found:
        """What a document names that the registry lacks, or that is not as the document uses it."""
        for need in needs_of(document, self.servers(tenant)):
            reason = need.reason if isinstance(need, BadTarget) else self._missing(tenant, document.document.name, need)
            if reason:
                yield need.path, reason
        for placed in tasks(document):
            yield from self._arguments(tenant, placed.task, placed.path)

    def servers(self, tenant: str) -> Sequence[Registration]:
        """Servers whose operations `call: http` may name."""
        return [entry for entry in self._registry.list(tenant, Family.SERVER) if entry.status in KNOWN_STATUSES]

    def _missing(self, tenant: str, own_name: str, need: Need) -> str:
        """Why a target can't be called, or the empty text."""
        kind = "server" if need.tool else "workflow" if need.is_workflow else "agent"
        if need.name == own_name:
            return "calls the workflow itself"
        try:
            entry = self._registry.find(tenant, need.name)
        except UnknownName:
            if need.name == SANDBOX_KIND:
                return "computes, and this gateway does not offer the sandbox (docs/sandbox.md)"
            return f"names the {kind} `{need.name}`, which is not registered"
        if entry.family is not (Family.SERVER if need.tool else Family.AGENT) or (need.is_workflow and entry.kind != WORKFLOW_KIND):
            return f"names `{need.name}`, which is no {kind}"
        if entry.status not in KNOWN_STATUSES:
            return f"names the {kind} `{need.name}`, which is {entry.status.value}"
        if entry.kind == WORKFLOW_KIND and self._leads_to(tenant, entry, own_name):
            return f"runs `{need.name}`, which leads back to this workflow: its runs would start each other without end"
        if need.tool and all(tool.name != need.tool for tool in entry.tools):
            return f"names the tool `{need.tool}`, which the server `{need.name}` does not have"
        if need.is_deterministic and need.tool not in entry.model_free:
            return f"is deterministic, and no operator marked the tool `{need.name}.{need.tool}` as model-free"
        return ""

    def _leads_to(self, tenant: str, entry: Registration, name: str) -> bool:
        """Whether a workflow starts the one of this name, itself or through other workflows."""
        seen, ahead = {entry.name}, [entry]
        while ahead:
            reached = {permission.removeprefix("agent:") for permission in ahead.pop().ceiling if permission.startswith("agent:")}
            if name in reached:
                return True
            found = [self._entry(tenant, each) for each in reached - seen]
            seen |= reached
            ahead += [each for each in found if each is not None and each.kind == WORKFLOW_KIND]
        return False

    def _narrow_ceiling(self, entry: Registration, document: Document) -> Found:
        """Targets that by now are more than the workflow's ceiling allows."""
        for need in needs_of(document, self.servers(entry.tenant)):
            if isinstance(need, Need) and need.tool and f"tool:{need.name}.{need.tool}" not in entry.ceiling:
                yield need.path, f"reaches `{need.name}.{need.tool}` by now; upload this document again"
            if isinstance(need, Need) and need.is_workflow:
                more = sorted(set(self._ceiling_of(entry.tenant, need.name)) - set(entry.ceiling))
                if more:
                    yield need.path, f"runs `{need.name}`, which by now calls {', '.join(more[:5])} too; upload this document again"

    def _ceiling_of(self, tenant: str, name: str) -> tuple[str, ...]:
        try:
            return self._registry.find(tenant, name).ceiling
        except UnknownName:
            return ()

    def _arguments(self, tenant: str, task: TaskBase, path: str) -> Found:
        """Arguments and inputs, as far as the document writes them out, against the schema of the tool or the agent's contract."""
        used = _tool_and_arguments(task)
        if used is not None:
            named, given, place = used
            entry = self._entry(tenant, named[0])
            tool = next((each for each in entry.tools if each.name == named[1]), None) if entry is not None else None
            if tool is not None:
                yield from _members(given, tool.definition.get("inputSchema"), path + place, f"the tool `{named[0]}.{named[1]}`")
        agent = agent_of(task)
        entry = self._entry(tenant, agent) if agent is not None else None
        if entry is None or not isinstance(task, CallFunction):
            return
        skill = task.with_.get("skill", "")
        if not isinstance(skill, str) or expression_in(skill) is not None:
            return
        if skill and entry.card is not None and all(each.id != skill for each in entry.card.skills):
            yield f"{path}/with/skill", f"names the skill `{skill}`, which the agent `{agent}` does not have"
        yield from _members(task.with_.get("input"), contract_of(entry, skill).input, f"{path}/with/input", f"the contract of `{agent}`")

    def _entry(self, tenant: str, name: str) -> Registration | None:
        try:
            return self._registry.find(tenant, name)
        except UnknownName:
            return None


def _tool_and_arguments(task: TaskBase) -> tuple[tuple[str, str], Any, str] | None:
    """Server and tool that a step names, its arguments, and where they stand below the step."""
    need = next((each for each in needs_of_task(task, "") if isinstance(each, Need) and each.tool), None)
    if need is None:
        return None
    match task:
        case CallMcp(with_=call) if isinstance(call.parameters, dict):
            return (need.name, need.tool), call.parameters.get("arguments", {}), "/with/parameters/arguments"
        case CallOpenApi(with_=call):
            return (need.name, need.tool), call.parameters, "/with/parameters"
        case CallFunction(call="gateway.tool", with_=given):
            return (need.name, need.tool), given.get("arguments", {}), "/with/arguments"
    return None


def _members(given: Any, schema: Any, path: str, what: str) -> Found:
    """Members that a schema does not know, and those that it requires and that are not given. Expressions are only known at work."""
    if not isinstance(given, Mapping) or not isinstance(schema, Mapping):
        return
    properties = schema.get("properties")
    known = properties if isinstance(properties, Mapping) else {}
    required = schema.get("required")
    for name in required if isinstance(required, list) else ():
        if name not in given:
            yield path, f"lacks `{name}`, which {what} needs"
    if schema.get("additionalProperties") is False and not {"patternProperties", "allOf", "anyOf", "oneOf", "$ref"} & schema.keys():
        for name in given:
            if name not in known:
                yield path, f"has `{name}`, which {what} does not know"

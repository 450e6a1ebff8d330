"""Registers documents as agents of the kind `workflow`. A document with any problem is refused with all of them."""

import json
from dataclasses import replace
from typing import Any, Final, Protocol

import msgspec

from adapters.vendors.sdk.agent import Features
from gateway.workflows.cloud_events.schedules import ScheduleRow
from gateway.workflows.dsl.document import Document
from gateway.workflows.dsl.durations import milliseconds_of
from gateway.workflows.expressions.evaluator import Evaluator
from gateway.workflows.problems import DocumentRefused
from gateway.workflows.publishing.card import card_of, contracts_of
from gateway.workflows.publishing.checks import read_alone
from gateway.workflows.publishing.event_rights import event_permissions
from gateway.workflows.publishing.fitness import Fitness
from gateway.workflows.publishing.memory_rights import memory_of, memory_permissions
from gateway.workflows.publishing.needs import Need, needs_of
from gateway.workflows.publishing.state_rights import state_permissions
from gateway.workflows.runs.store import RunStore
from policies.delegation.run_as import ServicePrincipals
from registry.cards.budgets import BUDGET_FACT
from registry.cards.card import FEATURES, VERSION_FACT, WORKFLOW_KIND, Family, Registration, RegistrationStatus
from registry.cards.reader import read_card
from registry.changes import RegistryChange
from registry.drift.suspicions import find_suspicions
from registry.rows import Candidate
from registry.store import NameTaken, Registry, UnknownName, has_workflow

ENGINE_FEATURES: Final = Features(streams=True, cancels=True, resumes=True, parallel=True)


class WorkflowRegistrar:
    """Checks documents against the registry and publishes them."""

    def __init__(
        self,
        registry: Registry,
        store: RunStore,
        evaluator: Evaluator,
        fitness: Fitness,
        *,
        public_url: str,
        services: ServicePrincipals,
    ) -> None:
        self._registry = registry
        self._fitness = fitness
        self._services = services
        self._store = store
        self._evaluator = evaluator
        self._public_url = public_url

    async def read(self, tenant: str, text: str) -> Document:
        """The document of a text, once nothing is wrong with it here. Raises DocumentRefused with every problem."""
        evaluator = self._evaluator.for_owner(f"{tenant}|")
        source, document, problems = await read_alone(text, evaluator, lambda name: self._services.has(tenant, name))
        found = {*problems, *(source.problem(path, reason) for path, reason in self._fitness.misfits(tenant, document))}
        if found:
            raise DocumentRefused(tuple(sorted(found)))
        return document

    async def add(self, tenant: str, owner: str, text: str, change: RegistryChange, *, label: str | None = None) -> Registration:
        """Publishes a document under its name, in place of an earlier version of it. `label`: of its declaration; None: as before.

        Raises DocumentRefused, NameTaken and Outdated.
        """
        document = await self.read(tenant, text)
        name = document.document.name
        existing = self.find(tenant, name)
        version = await self._store.add_version(tenant, name, text, owner)
        kept = existing.label if existing is not None else ""
        made = replace(self._candidate(tenant, owner, document, version), label=kept if label is None else label)
        if existing is None:
            return (await self._registry.add(made, change))[0]
        if all(getattr(existing, each) == getattr(made, each) for each in ("facts", "ceiling", "card_text", "label")):
            return existing
        fresh = replace(
            existing,
            ceiling=made.ceiling,
            memory=made.memory,
            upstream=made.upstream,
            facts=made.facts,
            card=made.card,
            card_text=made.card_text,
            contracts=made.contracts,
            label=made.label,
        )
        return await self._registry.update(fresh, change)

    async def reload(self) -> None:
        """Reads what other processes have registered."""
        await self._registry.reload()

    def find(self, tenant: str, name: str) -> Registration | None:
        """The workflow of this name, or None. Raises NameTaken where the name is another kind of entry's."""
        try:
            found = self._registry.find(tenant, name)
        except UnknownName:
            return None
        if found.kind != WORKFLOW_KIND:
            raise NameTaken(name)
        return found

    def is_workflow(self, tenant: str, name: str) -> bool:
        """Whether a workflow has this name."""
        return has_workflow(self._registry, tenant, name)

    def _candidate(self, tenant: str, owner: str, document: Document, version: str) -> Candidate:
        name = document.document.name
        url = f"{self._public_url}/agents/{name}"
        card = card_of(document, url)
        about = document.document
        return Candidate(
            tenant=tenant,
            name=name,
            family=Family.AGENT,
            kind=WORKFLOW_KIND,
            url=url,
            owner=owner,
            status=RegistrationStatus.ACTIVE,
            ceiling=self._ceiling(tenant, document),
            delegation="none",
            upstream={"timeout": milliseconds_of(about.metadata.gateway.deadline) / 1000},
            facts={
                "interface": url,
                "binding": WORKFLOW_KIND,
                "streaming": True,
                "source": "",
                "signature": "none",
                "signed_by": "",
                "warnings": find_suspicions(card),
                FEATURES: msgspec.structs.asdict(ENGINE_FEATURES),
                VERSION_FACT: version,
                "document": f"{about.namespace}/{about.name}@{about.version}",
                **({BUDGET_FACT: budget} if (budget := about.metadata.gateway.cost_budget.to_fact()) else {}),
            },
            card=read_card(card),
            card_text=json.dumps(card, ensure_ascii=False),
            contracts=contracts_of(document),
            memory=memory_of(self._needs(tenant, document)),
        )

    def targets_of(self, tenant: str, document: Document) -> list[tuple[Need, Registration | None]]:
        """What a document calls, with the registrations that it names; None for a name that the registry does not have."""
        known = {entry.name: entry for entry in self._registry.list(tenant)}
        return [(need, known.get(need.name)) for need in self._needs(tenant, document)]

    def _needs(self, tenant: str, document: Document) -> list[Need]:
        return [need for need in needs_of(document, self._fitness.servers(tenant)) if isinstance(need, Need)]

    def _ceiling(self, tenant: str, document: Document) -> tuple[str, ...]:
        """The permissions for exactly what the document names, events and keys of the board too, and for the workflows that it names."""
        allowed: set[str] = set()
        allowed.update(event_permissions(document))
        allowed.update(state_permissions(document))
        needs = self._needs(tenant, document)
        allowed.update(memory_permissions(document.document.name, needs))
        for need in needs:
            allowed.add(f"tool:{need.name}.{need.tool}" if need.tool else f"agent:{need.name}")
            if need.is_workflow:
                allowed.update(self._registry.find(tenant, need.name).ceiling)
        return tuple(sorted(allowed))


class ScheduleReader(Protocol):
    """gateway/workflows/engine/scheduled_starts.py."""

    async def schedule_of(self, tenant: str, workflow: str) -> ScheduleRow | None: ...


async def declaration_of(store: RunStore, schedules: ScheduleReader, entry: Registration) -> dict[str, Any]:
    """Returns the text of a workflow, and whether its schedule is paused; None for one without a schedule."""
    schedule = await schedules.schedule_of(entry.tenant, entry.name)
    text = await store.document_of(entry.tenant, entry.name, entry.workflow_version)
    return {"document": text or "", "paused": None if schedule is None else schedule.paused_at is not None}

"""Onboarding: registers an agent or a server that a person names, after an inspection and within the person's limits."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from adapters.contract import Challenged, UpstreamFault
from adapters.tool_servers import STDIO_PREFIX
from adapters.upstream.egress import EgressRefused
from gateway.calls.limits.meters import TooManyCalls
from gateway.concurrency.fair_shares import Capacity
from gateway.registration.inspection import EntryInspector
from gateway.registration.requests import (
    AgentRegistrationRequest,
    BadRequest,
    OperatorTerms,
    Registrant,
    ServerRegistrationRequest,
)
from registry.cards.card import BadCard, Registration, RegistrationStatus
from registry.drift.pins import withhold_suspicious
from registry.names import check_name
from registry.seeds import DEFAULT_TENANT, OPERATOR, ConfiguredAgent, EntryUnreachable, RemoteEntry
from registry.store import WAITING_MAX, Candidate, Registry, TooManyPending, UnknownName

CONCURRENT_REGISTRATIONS_MAX = 64  # registrations at once in one process, in fair shares


class Onboarding:
    """Registers agents and servers for people, and prepares those of the configuration file."""

    def __init__(self, registry: Registry, inspector: EntryInspector) -> None:
        self._registry = registry
        self._inspector = inspector
        self._registration_slots = Capacity(CONCURRENT_REGISTRATIONS_MAX)

    async def register_agent(self, registrant: Registrant, request: AgentRegistrationRequest) -> tuple[Registration, str]:
        """Registers an agent. Returns the new entry and its client secret.

        Raises BadRequest, BadCard, BadName, NameTaken, TooManyPending, TooManyCalls and UpstreamFault.
        """
        found = await self.inspect_agent(registrant, request)
        return await self._registry.add(found, registrant.registry_change, _pending_limit_for(registrant))

    async def inspect_agent(self, registrant: Registrant, request: AgentRegistrationRequest) -> Candidate:
        """Returns what a registration of an agent would add, without adding it. Raises what register_agent raises, but NameTaken."""
        request.terms.check(registrant)
        await self._inspector.check_upstream(request.kind, request.terms.upstream)
        with _registration_slot(self._registration_slots, registrant):
            self._check_pending_limit(registrant)
            return await self._inspector.inspect_agent(registrant, request)

    async def register_server(self, registrant: Registrant, request: ServerRegistrationRequest) -> tuple[Registration, str]:
        """Registers an MCP server. Returns the new entry and its client secret.

        Raises BadRequest, BadName, NameTaken, TooManyPending, TooManyCalls, UpstreamFault, and ConsentNeeded if the registrant must
        connect an account first.
        """
        found = await self.inspect_server(registrant, request)
        return await self._registry.add(found, registrant.registry_change, _pending_limit_for(registrant))

    async def inspect_server(self, registrant: Registrant, request: ServerRegistrationRequest) -> Candidate:
        """Returns what a registration of a server would add, without adding it. Raises what register_server raises, but NameTaken."""
        request.terms.check(registrant)
        await self._inspector.check_upstream("mcp", request.terms.upstream)
        with _registration_slot(self._registration_slots, registrant):
            self._check_pending_limit(registrant)
            try:
                found = await self._inspector.server_candidate(registrant, request)
            except Challenged:  # the server requires OAuth
                if registrant.grant is None or request.terms.upstream:
                    raise
                found = await self._inspector.server_candidate(
                    registrant, replace(request, terms=replace(request.terms, upstream={"auth": {}}))
                )
        return withhold_suspicious(found)

    def is_name_taken(self, tenant: str, name: str) -> bool:
        """Returns whether an entry has this name already."""
        try:
            self._registry.find(tenant, name)
        except UnknownName:
            return False
        return True

    async def candidate_from_config(self, entry: RemoteEntry) -> Candidate:
        """Returns the candidate for an entry of the configuration file. Raises EntryUnreachable and BadName."""
        check_name(entry.name)
        registrant = Registrant(DEFAULT_TENANT, OPERATOR, is_operator=True)
        terms = OperatorTerms(entry.ceiling, upstream=entry.upstream)
        if isinstance(entry, ConfiguredAgent):
            terms = OperatorTerms(
                entry.ceiling,
                delegation=entry.delegation,
                upstream=entry.upstream,
                trusted_keys=entry.trusted_keys,
                rank=entry.rank,
                contracts=entry.contracts,
                context=entry.context,
                memory=entry.memory,
                endpoints=entry.endpoints,
            )
        try:
            if isinstance(entry, ConfiguredAgent):
                return await self._inspector.inspect_agent(
                    registrant, AgentRegistrationRequest(entry.url, entry.card, entry.name, entry.kind, terms)
                )
            request = ServerRegistrationRequest(entry.name, STDIO_PREFIX if entry.command else entry.url, terms, entry.openapi or None)
            return await self._inspector.server_candidate(registrant, request, command=bool(entry.command))
        except (BadRequest, BadCard) as error:
            raise EntryUnreachable(str(error)) from error
        except (UpstreamFault, EgressRefused) as fault:
            raise EntryUnreachable(fault.public, fault.cause if isinstance(fault, UpstreamFault) else entry.url) from fault

    def _check_pending_limit(self, registrant: Registrant) -> None:
        """Refuses a person with too many pending registrations before the gateway sends any request. Raises TooManyPending."""
        if registrant.is_operator:
            return
        own = [entry for entry in self._registry.list(registrant.tenant) if entry.owner == registrant.owner]
        if sum(entry.status is RegistrationStatus.PENDING for entry in own) >= WAITING_MAX:
            raise TooManyPending


def _pending_limit_for(registrant: Registrant) -> int | None:
    """Returns how many entries of the registrant may wait for an operator; None for no limit."""
    return None if registrant.is_operator else WAITING_MAX


@contextmanager
def _registration_slot(registration_slots: Capacity, registrant: Registrant) -> Iterator[None]:
    """Holds a slot during the inspection of one registration. Raises TooManyCalls."""
    portion = registration_slots.portion_of(registrant.owner)
    if portion.exhausted_share() is not None:
        raise TooManyCalls("You have as many registrations under inspection as your share allows; wait until some are done.", 1)
    portion.take()
    try:
        yield
    finally:
        portion.free()
        if not registration_slots.whole.count:
            registration_slots.sweep()

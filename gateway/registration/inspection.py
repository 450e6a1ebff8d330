"""Inspection: requests the description of an agent or a server, vets it, and builds a candidate for the registry."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit

from adapters.catalog import AdapterCatalog
from adapters.contract import UpstreamFault
from adapters.openapi.tools import OPENAPI_KIND as OPENAPI
from adapters.openapi.tools import DocumentUnchanged
from adapters.tool_servers import STDIO_PREFIX, ToolServerClient
from adapters.upstream.aws_access import AWS_OPTION
from gateway.registration.card_source import CardRejected, CardSource, ParsedCard
from gateway.registration.requests import (
    AgentRegistrationRequest,
    BadRequest,
    OperatorTerms,
    Registrant,
    ServerRegistrationRequest,
    UrlRefused,
)
from gateway.registration.same_agent import EndpointIdentityCheck
from gateway.registration.server_source import ServerSource
from gateway.registration.vendor_source import VendorSource
from policies.delegation.rulings import Grant
from policies.keys.jwks import BadKeySet
from policies.keys.pinned import DetachedSignatureVerifier
from registry.cards.card import AgentCard, BadCard, Family, Registration, RegistrationStatus
from registry.cards.effects import parse_effects
from registry.cards.prices import parse_prices
from registry.cards.reader import choose_interface
from registry.drift.pins import candidate_as_offered
from registry.drift.suspicions import find_suspicions
from registry.health.checks import ProbeState
from registry.names import BadName, check_name, derive_name
from registry.rows import definitions_by_kind
from registry.store import Candidate

REGISTRATION_SECONDS = 30.0  # for all requests of one registration to the agent or server


@dataclass(frozen=True, slots=True)
class InspectionSources:
    """The sources of facts about an entry. `credentials` converts an entry's `upstream` to the headers that the operator configured.

    `vendors` describe agents that have no card.
    """

    cards: CardSource
    mcp: ToolServerClient
    keys: DetachedSignatureVerifier
    credentials: Callable[[Mapping[str, Any]], Mapping[str, str]]
    vendors: AdapterCatalog


class EntryInspector:
    """Inspects agents and servers, new or registered. `kinds` are the protocols and vendors of agents that adapters speak."""

    def __init__(self, sources: InspectionSources, kinds: Sequence[str] = ("a2a",)) -> None:
        self._cards = sources.cards
        self._servers = ServerSource(sources.cards, sources.mcp, sources.credentials)
        self._vendors = VendorSource(sources.vendors, sources.cards, sources.credentials)
        self.endpoint_check = EndpointIdentityCheck(sources.cards, self._vendors)
        self._keys = sources.keys
        self._kinds = kinds

    async def inspect_again(self, entry: Registration, known_state: ProbeState, fetch: bool = True) -> tuple[Candidate, ProbeState]:
        """Returns the candidate from the agent's current card, or without `fetch` from the stored card.

        Raises CardRejected, BadRequest, BadCard and UpstreamFault.
        """
        source = str(entry.facts.get("source", ""))
        if self._vendors.is_vendor(entry.kind):
            return await self._vendors.candidate_from_agent(
                replace(_blank_candidate(entry), upstream=entry.upstream), source or entry.url
            ), ProbeState()
        async with _registration_deadline():
            read: ParsedCard | None = None
            if source and fetch:
                read = await self._cards.fetch(source, entry.upstream, known_state if known_state.hash == entry.card_hash else None)
            elif fetch:
                await self._cards.check_answers(entry.url, entry.upstream)
            if read is None:
                if entry.card is None:
                    raise BadCard("card", "is missing")
                read = ParsedCard(entry.card, entry.card_text, known_state)
            try:
                return await self._candidate_from_verified_card(_blank_candidate(entry), read, entry.trusted_keys), read.probe_state
            except (BadCard, UrlRefused) as error:
                raise CardRejected(read.text, str(error)) from error

    async def inspect_at_url(self, entry: Registration, url: str) -> Candidate:
        """Returns the candidate for an entry at another URL. Raises CardRejected, BadRequest, BadCard, UpstreamFault and ConsentNeeded."""
        if entry.family is Family.SERVER:
            return await self.current_server_state(replace(entry, url=url))
        facts = {**entry.facts, "source": url}
        return (await self.inspect_again(replace(entry, facts=facts), ProbeState()))[0]

    async def current_server_state(self, entry: Registration, grant: Grant | None = None) -> Candidate:
        """Returns the candidate from what a server lists now, to the person of the Grant if the server distinguishes users.

        Raises BadRequest, UpstreamFault and ConsentNeeded.
        """
        registrant = Registrant(entry.tenant, entry.owner, is_operator=True, grant=grant)
        source = str(entry.facts.get("source", "")) or None
        request = ServerRegistrationRequest(
            entry.name, entry.url, OperatorTerms(upstream=entry.upstream), source, str(entry.facts.get("document", ""))
        )
        if entry.kind != OPENAPI or source is not None:  # otherwise the document was part of the registration
            with suppress(DocumentUnchanged):
                return await self.server_candidate(registrant, request, command=entry.url == STDIO_PREFIX)
        return candidate_as_offered(entry)

    async def check_upstream(self, kind: str, upstream: Mapping[str, Any]) -> None:
        """Checks that the options in `upstream` are valid for this kind of agent. Raises BadRequest."""
        await self._vendors.load(kind)
        self._vendors.check(kind, upstream)

    def check_keys(self, field: str, keys: object) -> None:
        """Checks a list of JWKs. Raises BadRequest that names `field`."""
        try:
            if not isinstance(keys, list | tuple) or not all(isinstance(key, Mapping) for key in keys):
                raise BadKeySet("a list of JWKs is expected")
            self._keys.check(keys)
        except BadKeySet as error:
            raise BadRequest(field, f"can't be used: {error}") from error

    def encode_key_set(self, jwks: Mapping[str, Any] | None) -> str:
        """Returns a JWK Set of public keys as stored JSON; empty for None. Raises BadRequest."""
        if jwks is None:
            return ""
        if jwks.keys() != {"keys"} or not jwks["keys"]:
            raise BadRequest("jwks", "must be a JWK Set with at least one key")
        self.check_keys("jwks", jwks["keys"])
        return json.dumps(dict(jwks))

    async def inspect_agent(self, registrant: Registrant, request: AgentRegistrationRequest) -> Candidate:
        """Returns the candidate for an agent of a registration request. Raises BadRequest, BadCard, BadName and UpstreamFault."""
        request.terms.check(registrant)
        if bool(request.url) == (request.card is not None):
            raise BadRequest("url", "or card is needed, and not both")
        if request.kind not in self._kinds:
            raise BadRequest("kind", f"must be one of: {', '.join(self._kinds)}")
        if request.name:
            check_name(request.name)
        vendor = self._vendors.is_vendor_request(request)
        keys = tuple(dict(key) for key in request.terms.trusted_keys)
        self.check_keys("trusted_keys", keys)
        blank = Candidate(
            tenant=registrant.tenant,
            name=request.name,
            family=Family.AGENT,
            kind=request.kind,
            url="",
            owner=registrant.owner,
            status=RegistrationStatus.ACTIVE if registrant.is_operator else RegistrationStatus.PENDING,
            ceiling=("*",) if request.terms.ceiling is None else request.terms.ceiling,
            delegation=request.terms.delegation or _default_delegation(request, vendor),
            upstream=request.terms.upstream,
            facts={"source": request.url},
            trusted_keys=keys,
            rank=request.terms.rank,
            jwks=self.encode_key_set(request.jwks),
            **_label_fields(request.terms),
        )
        async with _registration_deadline():
            found = await (
                self._vendors.candidate_from_agent(blank, request.url) if vendor else self._candidate_from_card(blank, request, keys)
            )
            await self.endpoint_check.check(found)
        return _finish_candidate(found, request, registrant)

    async def _candidate_from_card(
        self, blank: Candidate, request: AgentRegistrationRequest, keys: Sequence[Mapping[str, Any]]
    ) -> Candidate:
        read = (
            await self._cards.read_given(request.card)
            if request.card is not None
            else await self._cards.fetch(request.url, request.terms.upstream)
        )
        assert read is not None  # `fetch` returns None only for an unchanged known card
        return await self._candidate_from_verified_card(blank, read, keys)

    async def _candidate_from_verified_card(self, blank: Candidate, read: ParsedCard, keys: Sequence[Mapping[str, Any]]) -> Candidate:
        """Verifies a card and returns `blank` with the card and its facts. Raises BadCard, UrlRefused, BadRequest and UpstreamFault."""
        card = read.card
        interface = choose_interface(card)
        signed = await self._cards.check_signatures(card, keys)
        await self._cards.vet_urls(card)
        await self._cards.vet_target("url", interface.url)
        _check_same_host(blank, interface.url)
        facts = {
            "interface": interface.url,
            "binding": interface.binding,
            "version": interface.version,
            "tenant": interface.tenant,
            "streaming": card.streaming,
            "source": blank.facts.get("source", ""),
            "signature": signed.state.value,
            "signed_by": signed.kid,
            "warnings": find_suspicions(card.document),
        }
        return replace(blank, url=interface.url, facts=facts, card=card, card_text=read.text)

    async def server_candidate(self, registrant: Registrant, request: ServerRegistrationRequest, command: bool = False) -> Candidate:
        """Returns the candidate for a server of a registration request. Raises BadRequest, BadName, UpstreamFault and ConsentNeeded."""
        request.terms.check(registrant)
        check_name(request.name)
        async with _registration_deadline():
            found = await self._servers.inspect(registrant, request, command)
        return Candidate(
            tenant=registrant.tenant,
            name=request.name,
            family=Family.SERVER,
            kind=found.kind,
            url=found.url,
            owner=registrant.owner,
            status=RegistrationStatus.ACTIVE if registrant.is_operator else RegistrationStatus.PENDING,
            ceiling=("*",) if request.terms.ceiling is None else request.terms.ceiling,
            delegation="none",
            upstream=request.terms.upstream,
            facts=found.facts,
            **_label_fields(request.terms),
            **definitions_by_kind(found.definitions),
        )


def _label_fields(terms: OperatorTerms) -> dict[str, Any]:
    """Returns the fields of the candidate that the operator has set: labels, how it is called, effects, prices, memory."""
    labels: dict[str, Any] = {"sensitivity": terms.sensitivity, "clearance": terms.clearance, "sensitivities": terms.sensitivities}
    labels |= {"contracts": terms.contracts, "context": terms.context, "endpoints": terms.endpoints, "model_free": terms.model_free}
    labels["effects"] = None if terms.effects is None else parse_effects(terms.effects)
    labels["prices"] = None if terms.prices is None else parse_prices(terms.prices)
    labels["memory"], labels["label"] = terms.memory, terms.label
    return {name: label for name, label in labels.items() if label is not None}


def _finish_candidate(found: Candidate, request: AgentRegistrationRequest, registrant: Registrant) -> Candidate:
    """Returns the named candidate; one with card warnings is pending. Raises BadRequest for terms that contradict the card."""
    assert found.card is not None  # the card was read
    request.terms.check_skills(found.card)
    status = RegistrationStatus.PENDING if registrant.is_operator and found.facts["warnings"] else found.status
    return replace(found, name=request.name or _derive_name(found.card), status=status)


def _blank_candidate(entry: Registration) -> Candidate:
    """Returns a candidate with the entry's identity and no facts but its source."""
    source = {"source": entry.facts.get("source", "")}
    return Candidate(entry.tenant, entry.name, entry.family, entry.kind, "", entry.owner, entry.status, facts=source)


def _default_delegation(request: AgentRegistrationRequest, vendor: bool) -> str:
    """Returns the default delegation. Vendors cannot use hop tokens, and any holder of one can act for the person."""
    if vendor:
        return "none"
    return "header" if request.terms.upstream.keys() & {"headers", "auth", AWS_OPTION} else "bearer"


def _check_same_host(blank: Candidate, called_url: str) -> None:
    """Checks that a card does not direct the operator's credentials to another host than the registered one. Raises BadRequest."""
    source = str(blank.facts.get("source", ""))
    if blank.upstream.keys() & {AWS_OPTION} and source and _host_of(source) != _host_of(called_url):
        raise BadRequest(
            f"upstream.{AWS_OPTION}", "is for the host that was named, but the card names another host: register that host's URL"
        )
    if blank.upstream.get("headers") and source and _host_of(source) != _host_of(called_url):
        raise BadRequest("upstream.headers", "are for the host that was named, but the card names another host: register that host's URL")


def _host_of(url: str) -> str | None:
    return urlsplit(url if "//" in url else f"//{url}").hostname


def _derive_name(card: AgentCard) -> str:
    try:
        return derive_name(card.name)
    except BadName as error:
        raise BadRequest("name", f"is needed: {error}") from error


@asynccontextmanager
async def _registration_deadline() -> AsyncIterator[None]:
    """Bounds all upstream requests of one registration to REGISTRATION_SECONDS. Raises UpstreamFault."""
    try:
        async with asyncio.timeout(REGISTRATION_SECONDS):
            yield
    except TimeoutError as error:
        raise UpstreamFault("the upstream did not answer in time") from error

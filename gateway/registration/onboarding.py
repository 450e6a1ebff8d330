"""Onboarding: looks at an agent or a server that somebody names, vets what it says of itself, and registers it."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Any, Protocol
from urllib.parse import urlsplit

from adapters.contract import Challenged, UpstreamFault
from adapters.openapi.tools import KIND as OPENAPI
from adapters.openapi.tools import DocumentUnchanged
from adapters.tool_servers import STDIO
from adapters.upstream.aws_access import AWS
from adapters.upstream.egress import EgressRefused
from gateway.calls.limits.limits import TooManyCalls
from gateway.fair_shares import Capacity
from gateway.registration.card_source import CardSource, Read, Unverified
from gateway.registration.requests import AgentOffer, BadRequest, OperatorTerms, Registrant, ServerOffer, UrlRefused
from gateway.registration.same_agent import Endpoints
from gateway.registration.server_source import Servers, ServerSource
from gateway.registration.vendor_source import NoVendors, Vendors, VendorSource
from policies.delegation.rulings import Grant
from policies.keys.jwks import BadKeySet
from registry.cards.card import AgentCard, BadCard, Family, Registration, Status
from registry.cards.reader import callable_interface
from registry.drift.pins import first_seen, unchanged
from registry.drift.suspicions import suspicions
from registry.health.checks import Health
from registry.names import BadName, check_name, derived_name
from registry.rows import made
from registry.seeds import OPERATOR, TENANT, AgentSeed, NotReached, Surveyed
from registry.store import WAITING_MAX, Candidate, Registry

LOOK_SECONDS = 30.0  # for all that one registration asks of others
LOOKS_MAX = 64  # registrations at once in one process, in fair shares


class KeyCheck(Protocol):
    """policies/keys/pinned.py."""

    def check(self, keys: Sequence[Mapping[str, Any]]) -> None: ...


@dataclass(frozen=True, slots=True)
class Sources:
    """Whom onboarding asks. `credentials` turns an entry's `upstream` into the headers that the operator lets us send.

    `vendors` speak to agents that have no card.
    """

    cards: CardSource
    mcp: Servers
    keys: KeyCheck
    credentials: Callable[[Mapping[str, Any]], Mapping[str, str]]
    vendors: Vendors = field(default_factory=NoVendors)


class Onboarding:
    """`kinds`: whom adapters speak to."""

    def __init__(self, registry: Registry, outside: Sources, kinds: Sequence[str] = ("a2a",)) -> None:
        self._registry = registry
        self._cards = outside.cards
        self._servers = ServerSource(outside.cards, outside.mcp, outside.credentials)
        self._vendors = VendorSource(outside.vendors, outside.cards, outside.credentials)
        self.endpoints = Endpoints(outside.cards, self._vendors)
        self._keys = outside.keys
        self._kinds = kinds
        self._looks = Capacity(LOOKS_MAX)

    async def agent(self, by: Registrant, offer: AgentOffer) -> tuple[Registration, str]:
        """The new entry and its client secret. Raises BadRequest, BadCard, BadName, NameTaken, TooManyPending, UpstreamFault."""
        offer.terms.check(by)
        await self.check_upstream(offer.kind, offer.terms.upstream)
        with _look(self._looks, by):
            return await self._registry.add(await self._agent(by, offer), by.deed, _room(by))

    async def server(self, by: Registrant, offer: ServerOffer) -> tuple[Registration, str]:
        """Raises BadRequest, BadName, NameTaken, TooManyPending, UpstreamFault, and ConsentNeeded of the operator who registers."""
        offer.terms.check(by)
        self._vendors.check("mcp", offer.terms.upstream)
        with _look(self._looks, by):
            try:
                found = await self._server(by, offer)
            except Challenged:  # a server that wants OAuth says so itself
                if by.grant is None or offer.terms.upstream:
                    raise
                found = await self._server(by, replace(offer, terms=replace(offer.terms, upstream={"auth": {}})))
        return await self._registry.add(first_seen(found), by.deed, _room(by))

    async def survey(self, seed: Surveyed) -> Candidate:
        """What to register for a seed of the configuration file. Raises NotReached, and BadName."""
        check_name(seed.name)
        by = Registrant(TENANT, OPERATOR, operator=True)
        terms = OperatorTerms(seed.ceiling, "", seed.upstream)
        if isinstance(seed, AgentSeed):
            keys, calls = seed.trusted_keys, (seed.contracts, seed.context, seed.endpoints)
            terms = OperatorTerms(seed.ceiling, seed.delegation, seed.upstream, keys, seed.rank, None, None, None, *calls)
        try:
            if isinstance(seed, AgentSeed):
                return await self._agent(by, AgentOffer(seed.url, seed.card, seed.name, seed.kind, terms))
            offer = ServerOffer(seed.name, STDIO if seed.command else seed.url, terms, seed.openapi or None)
            return await self._server(by, offer, command=bool(seed.command))
        except (BadRequest, BadCard) as error:
            raise NotReached(str(error)) from error
        except (UpstreamFault, EgressRefused) as fault:
            raise NotReached(fault.public, fault.cause if isinstance(fault, UpstreamFault) else seed.url) from fault

    async def look(self, entry: Registration, known: Health, fetch: bool = True) -> tuple[Candidate, Health]:
        """What an agent's card says now; without `fetch`, what the one says that is in force.

        Raises Unverified, BadRequest, BadCard and UpstreamFault.
        """
        source = str(entry.facts.get("source", ""))
        if self._vendors.speaks(entry.kind):
            return await self._vendors.told(replace(_blank(entry), upstream=entry.upstream), source or entry.url), Health()
        async with _in_time():
            read: Read | None = None
            if source and fetch:
                read = await self._cards.fetched(source, entry.upstream, known if known.hash == entry.card_hash else None)
            elif fetch:
                await self._cards.alive(entry.url, entry.upstream)
            if read is None:
                if entry.card is None:
                    raise BadCard("card", "is missing")
                read = Read(entry.card, entry.card_text, known)
            try:
                return await self._assessed(_blank(entry), read, entry.trusted_keys), read.health
            except (BadCard, UrlRefused) as error:
                raise Unverified(read.text, str(error)) from error

    async def elsewhere(self, entry: Registration, url: str) -> Candidate:
        """What is found of an entry at another address. Raises Unverified, BadRequest, BadCard and UpstreamFault."""
        if entry.family is Family.SERVER:
            return await self.tools(replace(entry, url=url))
        facts = {**entry.facts, "source": url}
        return (await self.look(replace(entry, facts=facts), Health()))[0]

    async def tools(self, entry: Registration, grant: Grant | None = None) -> Candidate:
        """What a server offers now, to the person of the Grant where it knows users. Raises BadRequest, UpstreamFault, ConsentNeeded."""
        by = Registrant(entry.tenant, entry.owner, operator=True, grant=grant)
        source = str(entry.facts.get("source", "")) or None
        offer = ServerOffer(entry.name, entry.url, OperatorTerms(upstream=entry.upstream), source, str(entry.facts.get("document", "")))
        if entry.kind != OPENAPI or source is not None:  # else the document came with the registration
            with suppress(DocumentUnchanged):
                return await self._server(by, offer, command=entry.url == STDIO)
        return unchanged(entry)

    async def check_upstream(self, kind: str, upstream: Mapping[str, Any]) -> None:
        """Whether its options are of agents of this kind. Raises BadRequest."""
        await self._vendors.load(kind)
        self._vendors.check(kind, upstream)

    def check_keys(self, field: str, keys: object) -> None:
        """Raises BadRequest."""
        try:
            if not isinstance(keys, list | tuple) or not all(isinstance(key, Mapping) for key in keys):
                raise BadKeySet("a list of JWKs is expected")
            self._keys.check(keys)
        except BadKeySet as error:
            raise BadRequest(field, f"can't be used: {error}") from error

    def key_set(self, jwks: Mapping[str, Any] | None) -> str:
        """A JWK Set of public keys as it is kept; empty for none. Raises BadRequest."""
        if jwks is None:
            return ""
        if jwks.keys() != {"keys"} or not jwks["keys"]:
            raise BadRequest("jwks", "must be a JWK Set with at least one key")
        self.check_keys("jwks", jwks["keys"])
        return json.dumps(dict(jwks))

    def _check_room(self, by: Registrant) -> None:
        """Before anybody is asked anything on behalf of somebody who has no place left. Raises TooManyPending."""
        if not by.operator:
            self._registry.check_room(by.tenant, by.owner)

    async def _agent(self, by: Registrant, offer: AgentOffer) -> Candidate:
        self._check_room(by)
        offer.terms.check(by)
        if bool(offer.url) == (offer.card is not None):
            raise BadRequest("url", "or card is needed, and not both")
        if offer.kind not in self._kinds:
            raise BadRequest("kind", f"must be one of: {', '.join(self._kinds)}")
        if offer.name:
            check_name(offer.name)
        vendor = self._vendors.takes(offer)
        keys = tuple(dict(key) for key in offer.terms.trusted_keys)
        self.check_keys("trusted_keys", keys)
        blank = Candidate(
            tenant=by.tenant,
            name=offer.name,
            family=Family.AGENT,
            kind=offer.kind,
            url="",
            owner=by.owner,
            status=Status.ACTIVE if by.operator else Status.PENDING,
            ceiling=("*",) if offer.terms.ceiling is None else offer.terms.ceiling,
            delegation=offer.terms.delegation or _delegation(offer, vendor),
            upstream=offer.terms.upstream,
            facts={"source": offer.url},
            trusted_keys=keys,
            rank=offer.terms.rank,
            jwks=self.key_set(offer.jwks),
            **_labels(offer.terms),
        )
        async with _in_time():
            found = await (self._vendors.told(blank, offer.url) if vendor else self._carded(blank, offer, keys))
            await self.endpoints.check(found)
        return _fit(found, offer, by)

    async def _carded(self, blank: Candidate, offer: AgentOffer, keys: Sequence[Mapping[str, Any]]) -> Candidate:
        read = await self._cards.given(offer.card) if offer.card is not None else await self._cards.fetched(offer.url, offer.terms.upstream)
        assert read is not None  # nothing was known before
        return await self._assessed(blank, read, keys)

    async def _assessed(self, blank: Candidate, read: Read, keys: Sequence[Mapping[str, Any]]) -> Candidate:
        """`blank` with the card and what it says, once it can be believed. Raises BadCard, UrlRefused and UpstreamFault."""
        card = read.card
        interface = callable_interface(card)
        signed = await self._cards.signed(card, keys)
        await self._cards.vet(card)
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
            "warnings": suspicions(card.document),
        }
        return replace(blank, url=interface.url, facts=facts, card=card, card_text=read.text)

    async def _server(self, by: Registrant, offer: ServerOffer, command: bool = False) -> Candidate:
        self._check_room(by)
        offer.terms.check(by)
        check_name(offer.name)
        async with _in_time():
            found = await self._servers.found(by, offer, command)
        return Candidate(
            tenant=by.tenant,
            name=offer.name,
            family=Family.SERVER,
            kind=found.kind,
            url=found.url,
            owner=by.owner,
            status=Status.ACTIVE if by.operator else Status.PENDING,
            ceiling=("*",) if offer.terms.ceiling is None else offer.terms.ceiling,
            delegation="none",
            upstream=offer.terms.upstream,
            facts=found.facts,
            **_labels(offer.terms),
            **made(found.lists),
        )


def _room(by: Registrant) -> int | None:
    """How many registrations of the same person may wait for an operator."""
    return None if by.operator else WAITING_MAX


@contextmanager
def _look(looks: Capacity, by: Registrant) -> Iterator[None]:
    """While an agent or a server that a person names is asked what it is. Raises TooManyCalls."""
    portion = looks.portion(by.owner)
    if portion.binding() is not None:
        raise TooManyCalls("As many of your registrations are looked at as your share allows; wait until some are done.", 1)
    portion.take()
    try:
        yield
    finally:
        portion.free()
        if not looks.whole.count:
            looks.sweep()


def _labels(terms: OperatorTerms) -> dict[str, Any]:
    """How sensitive it is, what it may be told, and how it is called, as far as the operator says."""
    said: dict[str, Any] = {"sensitivity": terms.sensitivity, "clearance": terms.clearance, "sensitivities": terms.sensitivities}
    said |= {"contracts": terms.contracts, "context": terms.context, "endpoints": terms.endpoints}
    return {name: label for name, label in said.items() if label is not None}


def _fit(found: Candidate, offer: AgentOffer, by: Registrant) -> Candidate:
    """Under its name, and for people to look at first where its card is odd. Raises BadRequest for terms that don't go with the card."""
    assert found.card is not None  # it was read
    offer.terms.check_skills(found.card)
    status = Status.PENDING if by.operator and found.facts["warnings"] else found.status
    return replace(found, name=offer.name or _name_of(found.card), status=status)


def _blank(entry: Registration) -> Candidate:
    """An entry before anything is found out about it."""
    source = {"source": entry.facts.get("source", "")}
    return Candidate(entry.tenant, entry.name, entry.family, entry.kind, "", entry.owner, entry.status, facts=source)


def _delegation(offer: AgentOffer, vendor: bool) -> str:
    """No vendor knows our hop tokens, and whoever holds one may act for the person."""
    if vendor:
        return "none"
    return "header" if offer.terms.upstream.keys() & {"headers", "auth", AWS} else "bearer"


def _check_same_host(blank: Candidate, called: str) -> None:
    """The operator's credentials are secrets of the host that was named; a card can't send them elsewhere. Raises BadRequest."""
    source = str(blank.facts.get("source", ""))
    if blank.upstream.keys() & {AWS} and source and _host(source) != _host(called):
        raise BadRequest(f"upstream.{AWS}", "is for the host that was named, but its card is called elsewhere: register that host's URL")
    if blank.upstream.get("headers") and source and _host(source) != _host(called):
        raise BadRequest("upstream.headers", "are for the host that was named, but its card is called elsewhere: register that host's URL")


def _host(url: str) -> str | None:
    return urlsplit(url if "//" in url else f"//{url}").hostname


def _name_of(card: AgentCard) -> str:
    try:
        return derived_name(card.name)
    except BadName as error:
        raise BadRequest("name", f"is needed: {error}") from error


@asynccontextmanager
async def _in_time() -> AsyncIterator[None]:
    """One deadline over everything that is asked of others."""
    try:
        async with asyncio.timeout(LOOK_SECONDS):
            yield
    except TimeoutError as error:
        raise UpstreamFault("the upstream did not answer in time") from error

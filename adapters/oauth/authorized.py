"""Calls to servers that want OAuth: with the caller's own credential, renewed, widened or asked for where the server says so."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple, Protocol, TypeVar

from msgspec import structs

from adapters.contract import Call, Challenged, ConsentNeeded, UpstreamFault
from adapters.oauth.assertions import OPENID_SCOPES, Assertions, Identity, Wanted, check_identity
from adapters.oauth.clients import OwnClients
from adapters.oauth.discovery import AuthorizationServer, Challenge, Resource, challenge_of, covers, resource_of, server_of
from adapters.oauth.grants import OFFLINE, Network, OAuthRefused, OAuthRequests, OwnClient, challenge_for
from adapters.oauth.options import WITH_ASSERTION, AuthTerms
from adapters.oauth.trusted_issuers import at_own_host, check_endpoints, chosen, may_revoke
from adapters.upstream.live_headers import with_more
from policies.cache import BoundedCache
from policies.delegation.rulings import Grant
from policies.vault.credentials import Client, Credential, CredentialKey, Vault, origin_of
from registry.cards.card import Registration

T = TypeVar("T")
ROUNDS_MAX: Final = 4  # requests of one call: without a token, with one, with a fresh one, with a wider one
SITES_KEPT: Final = 4096
SITE_SECONDS: Final = 600.0
EARLY_SECONDS: Final = 30.0  # before its end a token is renewed
JUST_SECONDS: Final = 600.0  # who was given less than asked for so lately is not asked again
REFUSED: Final = "The server refuses what it was given a moment ago"
NOBODY: Final = "The server is opened by people's own accounts, and nobody asks"


class Approach(NamedTuple):
    """Who comes to which door: a call's Grant and server. Without a Grant the gateway itself looks at what a server offers."""

    tenant: str
    server: str
    url: str
    upstream: Mapping[str, Any]
    grant: Grant | None


class Site(NamedTuple):
    resource: Resource
    at: AuthorizationServer


@dataclass(frozen=True, slots=True)
class Consent:
    """What a person is to allow: that the gateway, as `client`, gets a token for them at `at`. `scopes` are those asked for.

    They come back at `redirect` (RFC 6749 s3.1.2.3: the same in every request).
    """

    key: CredentialKey
    server: str
    at: AuthorizationServer
    client: Client
    scopes: frozenset[str]
    redirect: str = ""
    openid: bool = False  # who they are at their identity provider, and no access to anything

    def question(self, state: str, verifier: str) -> dict[str, str]:
        """What the authorization endpoint is asked, beside what is always the same."""
        asked = {"state": state, "code_challenge": challenge_for(verifier)}
        asked |= {"nonce": nonce_for(verifier)} if self.openid else {"resource": self.key.resource}
        return asked | _scope(self.scopes)


class Consents(Protocol):
    """gateway/calls/consent/account_connections.py."""

    async def ask(self, consent: Consent) -> ConsentNeeded:
        """The same page for the same consent, as long as it is good."""
        ...


class McpOAuth:
    """`terms` reads an entry's `upstream`, or gives None where no authorization is set up. `own.now` counts seconds since 1970."""

    def __init__(
        self, network: Network, own: OwnClient, vault: Vault, consents: Consents, terms: Callable[[Mapping[str, Any]], AuthTerms | None]
    ) -> None:
        self._network = network
        self._own = own
        self._requests = OAuthRequests(network, own)
        self._vault = vault
        self.clients = OwnClients(own, self._requests, vault)
        self.consents = consents
        self._terms = terms
        self._assertions = Assertions(network, own, vault, self._ask_identity)
        self._sites: BoundedCache[tuple[str, str], Site] = BoundedCache(SITES_KEPT, own.now)

    async def authorized(self, approach: Approach, send: Callable[[Mapping[str, str]], Awaitable[T]]) -> T:
        """What `send` gives with the headers that open the server. Raises ConsentNeeded, UpstreamFault, EgressRefused, and as `send`."""
        terms = self._terms(approach.upstream)
        if terms is None:
            return await send({})
        visit = _Visit(self, approach, terms)
        shown = await visit.known()
        if shown is None and terms.personal and approach.upstream.get("headers"):  # never with what is everybody's alone
            shown = await visit.answer(Challenged(401, ""), None)
        for _ in range(ROUNDS_MAX):
            try:
                return await send({} if shown is None else {"Authorization": f"Bearer {shown.access_token}"})
            except Challenged as challenged:
                shown = await visit.answer(challenged, shown)
        raise UpstreamFault(REFUSED, "challenged again and again")

    def opens_by_itself(self, upstream: Mapping[str, Any]) -> bool:
        """Whether the gateway has an account of its own there."""
        terms = self._terms(upstream)
        return terms is not None and not terms.personal

    async def complete(self, consent: Consent, verifier: str, answer: Mapping[str, str]) -> None:
        """Takes what the authorization server sent a person back with, and keeps the credential. Raises UpstreamFault.

        RFC 9207: `iss` is compared byte for byte before anything else of the answer means anything.
        """
        at = consent.at
        if consent.redirect != self._own.redirect:
            raise UpstreamFault("The gateway's address has changed since this was asked", "another redirect")
        if ("iss" in answer or at.names_itself) and answer.get("iss") != at.issuer:
            raise UpstreamFault("The answer is of another authorization server than was asked", "iss differs")
        if "error" in answer or not answer.get("code"):
            raise OAuthRefused(answer.get("error", "no_code")[:60])
        form = {"grant_type": "authorization_code", "code": answer["code"], "redirect_uri": self._own.redirect}
        form |= {"code_verifier": verifier} | ({} if consent.openid else {"resource": consent.key.resource})
        given = await self._token(consent.key.tenant, at, consent.client, form, consent.scopes)
        if consent.openid:
            check_identity(given.id_token, Identity(at, consent.client, consent.key), nonce_for(verifier), self.now())
        await self._vault.keep(consent.key, replace(given, redirect=consent.redirect))

    async def site(self, approach: Approach, terms: AuthTerms, told: str = "", fresh: bool = False) -> Site:
        """Where tokens for a server come from. Raises UpstreamFault."""
        place = (approach.url, terms.issuer)
        known = self._sites.get(place)
        if known is not None and not fresh:
            return known
        if told and not at_own_host(approach.url, told):
            raise UpstreamFault("The server's resource metadata is at another host", told[:200])
        resource = await resource_of(self._network.fetch, approach.url, told)
        if resource is None and terms.issuer:  # the operator knows what the server does not say
            resource = Resource(approach.url, (terms.issuer,), frozenset())
        if resource is None:
            raise UpstreamFault("The server wants authorization and does not say whose", told[:200])
        issuer = terms.issuer or chosen(approach.url, resource.issuers, terms.listed)
        if issuer not in resource.issuers:
            raise UpstreamFault("The server names another authorization server than is set up for it", resource.issuers[0][:200])
        found = Site(resource, await server_of(self._network.fetch, issuer))
        check_endpoints(found.at, terms.trusted)
        self._sites.put(place, found, SITE_SECONDS)
        return found

    async def token(self, approach: Approach, terms: AuthTerms, site: Site, form: Mapping[str, str], asked: frozenset[str]) -> Credential:
        client = await self.clients.of(approach.tenant, terms, site.at)
        given = {**form, "resource": site.resource.id}
        return await self._token(approach.tenant, site.at, client, given, asked)

    async def _token(
        self, tenant: str, at: AuthorizationServer, client: Client, form: Mapping[str, str], asked: frozenset[str]
    ) -> Credential:
        try:
            credential = await self._requests.token(at, client, form, asked)
        except OAuthRefused as refused:
            await self.clients.refused(tenant, at, refused)
            raise
        self.clients.was_good(tenant, client)
        return credential

    async def ask(self, approach: Approach, terms: AuthTerms, site: Site, key: CredentialKey, scopes: frozenset[str]) -> ConsentNeeded:
        if not site.at.pkce or not site.at.authorization_endpoint:
            raise UpstreamFault("The authorization server offers no consent that is safe", "no S256, or no authorization endpoint")
        more = frozenset({OFFLINE}) if OFFLINE in site.at.scopes else frozenset()
        client = await self.clients.of(approach.tenant, terms, site.at, lasting=True)
        return await self.consents.ask(Consent(key, approach.server, site.at, client, scopes | more, self._own.redirect))

    async def vouched(self, approach: Approach, terms: AuthTerms, site: Site, scopes: frozenset[str]) -> Credential:
        """By an assertion; the person is asked for nothing here, and nobody else's account is used where it is refused."""
        client = await self.clients.of(approach.tenant, terms, site.at)
        asked = Wanted(approach.server, approach.grant if terms.personal else None, site.at, client, site.resource.id, scopes)
        return await self._assertions.token(terms, asked)

    async def _ask_identity(self, identity: Identity, server: str) -> ConsentNeeded:
        if not identity.at.pkce or not identity.at.authorization_endpoint:
            raise UpstreamFault("The identity provider offers no consent that is safe", "no S256, or no authorization endpoint")
        consent = Consent(identity.key, server, identity.at, identity.client, OPENID_SCOPES, self._own.redirect, openid=True)
        return await self.consents.ask(consent)

    async def forget_registration(self, approach: Approach) -> None:
        """Has the gateway register anew where it registered itself for a server. Raises UpstreamFault and EgressRefused."""
        terms = self._terms(approach.upstream)
        if terms is not None:
            site = await self.site(approach, terms, fresh=True)
            await self.clients.forget(approach.tenant, site.at.issuer)

    async def revoke(self, key: CredentialKey, held: Credential, upstreams: Sequence[Mapping[str, Any]]) -> bool:
        """Tells the authorization server that a credential is not used any more; False where it takes no such word (RFC 7009).

        `upstreams`: of the entries that the credential opens, which may say who the gateway is there. Raises UpstreamFault, EgressRefused.
        """
        at = await server_of(self._network.fetch, key.issuer)
        known = [terms for terms in map(self._terms, upstreams) if terms is not None]
        listed = frozenset().union(*(terms.trusted for terms in known))
        check_endpoints(at, listed)
        if not may_revoke(at, listed) or held.endpoint not in ("", at.token_endpoint):
            return False
        client = await self.clients.of_credential(key, held, known, at)
        tokens = ((held.refresh_token, "refresh_token"), (held.access_token, "access_token"))
        for token, kind in tokens:
            if token:
                await self._requests.revoke(at, client, token, kind)
        return True

    def fits(self, terms: AuthTerms, held: Credential) -> bool:
        """Whether a credential is of the consent that would be asked for now: for this client, who comes back at this address."""
        return (terms.client_id in ("", held.client_id)) and held.redirect in ("", self._own.redirect)

    @property
    def vault(self) -> Vault:
        return self._vault

    def now(self) -> float:
        return self._own.now()


class _Visit:
    """One call, from its first request to its last."""

    def __init__(self, oauth: McpOAuth, approach: Approach, terms: AuthTerms) -> None:
        self._oauth = oauth
        self._approach = approach
        self._terms = terms
        self._refreshed = False

    async def known(self) -> Credential | None:
        """What there is already for this person at this server, renewed where it ends."""
        grant, found = self._approach.grant, None
        if grant is None:
            return None
        for key, held in await self._oauth.vault.find(grant, origin_of(self._approach.url), self._terms.personal):
            ours = self._terms.issuer in ("", key.issuer) and self._oauth.fits(self._terms, held)
            if ours and covers(key.resource, self._approach.url):
                found = (key, held)
        if found is None or not found[1].expires or found[1].expires - EARLY_SECONDS > self._oauth.now():
            return found and found[1]
        key, held = found
        site = await self._oauth.site(self._approach, self._terms)
        async with self._oauth.vault.alone(key.place):
            newer = await self._oauth.vault.read(grant, key)
            return newer if newer != held or key != self._key(site, grant) else await self._renewed(site, key, held)

    async def answer(self, challenged: Challenged, shown: Credential | None) -> Credential:
        """A credential other than the one that was `shown`. Raises ConsentNeeded and UpstreamFault."""
        challenge = challenge_of(challenged.challenge)
        wider = challenged.status == 403
        if wider and challenge.error != "insufficient_scope":
            raise challenged
        grant = self._approach.grant
        if grant is None:
            return await self._own_look(challenge, shown)
        site = await self._oauth.site(self._approach, self._terms, challenge.metadata, fresh=shown is not None and not wider)
        key = self._key(site, grant)
        async with self._oauth.vault.alone(key.place):
            held = await self._oauth.vault.read(grant, key)
            if held is not None and not self._oauth.fits(self._terms, held):
                held = None
            if held is not None and (shown is None or held.access_token != shown.access_token):
                return held  # somebody was faster
            if held is not None and not wider:
                fresh = await self._renewed(site, key, held)
                if fresh is not None:
                    return fresh
            return await self._asked(site, key, challenge, held if wider else None)

    async def _asked(self, site: Site, key: CredentialKey, challenge: Challenge, narrow: Credential | None) -> Credential:
        """A new credential: for what the server says, what the operator added, and what was there already."""
        scopes = (challenge.scopes or (frozenset() if narrow else site.resource.scopes)) | self._terms.scopes
        if narrow is not None:
            if scopes <= narrow.asked and self._oauth.now() - narrow.obtained < JUST_SECONDS:
                raise UpstreamFault(REFUSED, "insufficient_scope, for scopes that were asked for already")
            scopes |= narrow.asked | narrow.scopes
        if self._terms.grant in WITH_ASSERTION:
            credential = await self._oauth.vouched(self._approach, self._terms, site, scopes)
            await self._oauth.vault.keep(key, credential)
            return credential
        if self._terms.personal:
            raise await self._oauth.ask(self._approach, self._terms, site, key, scopes)
        credential = await self._service(site, scopes)
        await self._oauth.vault.keep(key, credential)
        return credential

    async def _service(self, site: Site, scopes: frozenset[str]) -> Credential:
        """The gateway's own account."""
        if self._terms.grant in WITH_ASSERTION:
            return await self._oauth.vouched(self._approach, self._terms, site, scopes)
        form = {"grant_type": "client_credentials", **_scope(scopes)}
        return await self._oauth.token(self._approach, self._terms, site, form, scopes)

    async def _own_look(self, challenge: Challenge, shown: Credential | None) -> Credential:
        """For a look at what a server offers, which is nobody's call: only by the gateway's own account, and kept nowhere."""
        if self._terms.personal or shown is not None:
            raise UpstreamFault(NOBODY if self._terms.personal else REFUSED)
        site = await self._oauth.site(self._approach, self._terms, challenge.metadata)
        return await self._service(site, (challenge.scopes or site.resource.scopes) | self._terms.scopes)

    async def _renewed(self, site: Site, key: CredentialKey, held: Credential) -> Credential | None:
        """By its refresh token, once in a call; what can't be renewed is forgotten."""
        if self._refreshed or not held.refresh_token:
            await self._oauth.vault.forget(key)
            return None
        self._refreshed = True
        client = await self._oauth.clients.of(self._approach.tenant, self._terms, site.at)
        same = client.client_id == held.client_id and held.endpoint in ("", site.at.token_endpoint)
        if not same:  # RFC 6749 s10.4: the token is bound to whom it was given to, and goes nowhere but whence it came
            await self._oauth.vault.forget(key)
            return None
        form = {"grant_type": "refresh_token", "refresh_token": held.refresh_token}
        try:
            fresh = await self._oauth.token(self._approach, self._terms, site, form, held.scopes)
        except OAuthRefused:
            await self._oauth.vault.forget(key)
            return None
        fresh = replace(fresh, asked=held.asked, refresh_token=fresh.refresh_token or held.refresh_token, redirect=held.redirect)
        await self._oauth.vault.keep(key, fresh)
        return fresh

    def _key(self, site: Site, grant: Grant) -> CredentialKey:
        """Raises UpstreamFault where the token would go to another origin than it is for."""
        if origin_of(site.resource.id) != origin_of(self._approach.url):
            raise UpstreamFault("The server's resource metadata is of another resource")
        principal = grant.delegation.principal
        owner = principal.owner if self._terms.personal else ""
        return CredentialKey(principal.tenant, owner, site.at.issuer, site.resource.id)


def approach_of(call: Call) -> Approach:
    target = call.target
    return Approach(target.tenant, target.name, target.url, target.upstream, call.grant)


def approach_to(target: Registration) -> Approach:
    """The gateway's own, on nobody's behalf."""
    return Approach(target.tenant, target.name, target.url, target.upstream, None)


def with_headers(call: Call, headers: Mapping[str, str]) -> Call:
    return structs.replace(call, headers=with_more(call.headers, headers)) if headers else call


def _scope(scopes: frozenset[str]) -> dict[str, str]:
    return {"scope": " ".join(sorted(scopes))} if scopes else {}


def nonce_for(verifier: str) -> str:
    """Binds an ID token to our question; it can be told by whoever holds the verifier alone."""
    return challenge_for(f"nonce {verifier}")

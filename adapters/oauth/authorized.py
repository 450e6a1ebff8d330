"""Calls to servers with OAuth: with the caller's credential, which is refreshed, extended or requested by the server's challenge."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple, Protocol, TypeVar

from msgspec import structs

from adapters.contract import Call, Challenged, ConsentNeeded, UpstreamFault
from adapters.oauth.assertions import OPENID_SCOPES, AssertionTokenRequest, AssertionTokens, ProviderIdentity, check_identity
from adapters.oauth.clients import OwnClients
from adapters.oauth.discovery import (
    AuthorizationServer,
    Challenge,
    ProtectedResource,
    covers,
    discover_authorization_server,
    discover_resource,
    parse_challenge,
)
from adapters.oauth.grants import OFFLINE_ACCESS, OAuthRefused, OAuthRequests, OwnClient, challenge_for
from adapters.oauth.options import ASSERTION_GRANT_KINDS, AuthOptions
from adapters.oauth.trusted_issuers import check_endpoints, choose_issuer, is_at_own_host, may_revoke
from adapters.upstream.egress import Egress
from adapters.upstream.live_headers import with_more
from policies.cache import BoundedCache
from policies.delegation.rulings import Grant
from policies.vault.credentials import ClientRegistration, Credential, CredentialKey, CredentialVault, origin_of
from registry.cards.card import Registration

T = TypeVar("T")
ROUNDS_MAX: Final = 4  # requests of one call: without a token, with one, with a fresh one, with a wider one
SITES_MAX: Final = 4096
SITE_SECONDS: Final = 600.0
REFRESH_EARLY_SECONDS: Final = 30.0  # a token is refreshed this long before its end
ASK_AGAIN_SECONDS: Final = 600.0  # a person who granted less than requested is not asked again for this long
REFUSED_TEXT: Final = "The server refused the credential that was just issued"
NO_PERSON_TEXT: Final = "The server requires a person's own account, and this call has no person"


class CredentialRequest(NamedTuple):
    """The server and Grant of a call that needs a credential. Without a Grant, the gateway itself probes the server."""

    tenant: str
    server: str
    url: str
    upstream: Mapping[str, Any]
    grant: Grant | None


class OAuthSite(NamedTuple):
    resource: ProtectedResource
    authorization_server: AuthorizationServer


@dataclass(frozen=True, slots=True)
class Consent:
    """A consent that a person is asked for: that the gateway, as `client`, gets a token at `at`. `scopes` are requested.

    The person returns to `redirect` (RFC 6749 s3.1.2.3: the same in every request).
    """

    key: CredentialKey
    server: str
    at: AuthorizationServer
    client: ClientRegistration
    scopes: frozenset[str]
    redirect: str = ""
    openid: bool = False  # an ID token of their identity provider, without access to anything

    def authorization_params(self, state: str, verifier: str) -> dict[str, str]:
        """The variable parameters of the authorization request."""
        parameters = {"state": state, "code_challenge": challenge_for(verifier)}
        parameters |= {"nonce": nonce_for(verifier)} if self.openid else {"resource": self.key.resource}
        return parameters | _scope_param(self.scopes)


class ConsentRequests(Protocol):
    """Requests consents (gateway/calls/consent/account_connections.py)."""

    async def request_consent(self, consent: Consent) -> ConsentNeeded:
        """The page for a consent; the same one while it is valid."""
        ...


class UpstreamOAuth:
    """Credentials for upstreams. `own_client.now` counts seconds since 1970.

    `auth_options` parses an entry's `upstream`, and returns None where no authorization is set up.
    """

    def __init__(
        self,
        network: Egress,
        own_client: OwnClient,
        vault: CredentialVault,
        consents: ConsentRequests,
        auth_options: Callable[[Mapping[str, Any]], AuthOptions | None],
    ) -> None:
        self._network = network
        self._own_client = own_client
        self._requests = OAuthRequests(network, own_client)
        self._vault = vault
        self.clients = OwnClients(own_client, self._requests, vault)
        self.consents = consents
        self._auth_options = auth_options
        self._assertions = AssertionTokens(network, own_client, vault, self._request_identity_consent)
        self._sites: BoundedCache[tuple[str, str], OAuthSite] = BoundedCache(SITES_MAX, own_client.now)

    async def send_authorized(self, request: CredentialRequest, send: Callable[[Mapping[str, str]], Awaitable[T]]) -> T:
        """Calls `send` with the authorization headers. Raises ConsentNeeded, UpstreamFault, EgressRefused, and what `send` raises."""
        terms = self._auth_options(request.upstream)
        if terms is None:
            return await send({})
        authorized_send = _AuthorizedSend(self, request, terms)
        shown = await authorized_send.find_credential()
        if shown is None and terms.is_personal and request.upstream.get("headers"):  # never with shared credentials only
            shown = await authorized_send.answer_challenge(Challenged(401, ""), None)
        for _ in range(ROUNDS_MAX):
            try:
                return await send({} if shown is None else {"Authorization": f"Bearer {shown.access_token}"})
            except Challenged as challenged:
                shown = await authorized_send.answer_challenge(challenged, shown)
        raise UpstreamFault(REFUSED_TEXT, "challenged again and again")

    def has_own_account(self, upstream: Mapping[str, Any]) -> bool:
        """Whether the gateway uses an account of its own there."""
        terms = self._auth_options(upstream)
        return terms is not None and not terms.is_personal

    async def complete_consent(self, consent: Consent, verifier: str, answer: Mapping[str, str]) -> None:
        """Completes a consent with the authorization server's callback, and stores the credential. Raises UpstreamFault.

        RFC 9207: `iss` is compared byte for byte before anything else is used.
        """
        at = consent.at
        if consent.redirect != self._own_client.redirect_uri:
            raise UpstreamFault("The gateway's address has changed since this was asked", "another redirect")
        if ("iss" in answer or at.names_itself) and answer.get("iss") != at.issuer:
            raise UpstreamFault("The answer is from another authorization server", "iss differs")
        if "error" in answer or not answer.get("code"):
            raise OAuthRefused(answer.get("error", "no_code")[:60])
        form = {"grant_type": "authorization_code", "code": answer["code"], "redirect_uri": self._own_client.redirect_uri}
        form |= {"code_verifier": verifier} | ({} if consent.openid else {"resource": consent.key.resource})
        credential = await self._request_token(consent.key.tenant, at, consent.client, form, consent.scopes)
        if consent.openid:
            check_identity(credential.id_token, ProviderIdentity(at, consent.client, consent.key), nonce_for(verifier), self.now())
        await self._vault.write(consent.key, replace(credential, redirect=consent.redirect))

    async def find_site(
        self, request: CredentialRequest, auth_options: AuthOptions, metadata_url: str = "", refetch: bool = False
    ) -> OAuthSite:
        """The resource and authorization server of an upstream. Raises UpstreamFault."""
        place = (request.url, auth_options.issuer)
        known = self._sites.get(place)
        if known is not None and not refetch:
            return known
        if metadata_url and not is_at_own_host(request.url, metadata_url):
            raise UpstreamFault("The server's resource metadata is on another host", metadata_url[:200])
        resource = await discover_resource(self._network.fetch, request.url, metadata_url)
        if resource is None and auth_options.issuer:  # the operator configured what the server does not announce
            resource = ProtectedResource(request.url, (auth_options.issuer,), frozenset())
        if resource is None:
            raise UpstreamFault("The server requires authorization and names no authorization server", metadata_url[:200])
        issuer = auth_options.issuer or choose_issuer(request.url, resource.issuers, auth_options.listed_issuers)
        if issuer not in resource.issuers:
            raise UpstreamFault("The server names another authorization server than the configured one", resource.issuers[0][:200])
        found = OAuthSite(resource, await discover_authorization_server(self._network.fetch, issuer))
        check_endpoints(found.authorization_server, auth_options.trusted_issuers)
        self._sites.put(place, found, SITE_SECONDS)
        return found

    async def request_token(
        self, request: CredentialRequest, auth_options: AuthOptions, site: OAuthSite, form: Mapping[str, str], scopes: frozenset[str]
    ) -> Credential:
        client = await self.clients.client_for(request.tenant, auth_options, site.authorization_server)
        parameters = {**form, "resource": site.resource.id}
        return await self._request_token(request.tenant, site.authorization_server, client, parameters, scopes)

    async def _request_token(
        self,
        tenant: str,
        authorization_server: AuthorizationServer,
        client: ClientRegistration,
        form: Mapping[str, str],
        scopes: frozenset[str],
    ) -> Credential:
        try:
            credential = await self._requests.request_token(authorization_server, client, form, scopes)
        except OAuthRefused as refused:
            await self.clients.handle_refusal(tenant, authorization_server, refused)
            raise
        self.clients.mark_good(tenant, client)
        return credential

    async def request_consent(
        self, request: CredentialRequest, auth_options: AuthOptions, site: OAuthSite, key: CredentialKey, scopes: frozenset[str]
    ) -> ConsentNeeded:
        if not site.authorization_server.pkce or not site.authorization_server.authorization_endpoint:
            raise UpstreamFault("The authorization server does not support a secure consent", "no S256, or no authorization endpoint")
        more = frozenset({OFFLINE_ACCESS}) if OFFLINE_ACCESS in site.authorization_server.scopes else frozenset()
        client = await self.clients.client_for(request.tenant, auth_options, site.authorization_server, for_consent=True)
        return await self.consents.request_consent(
            Consent(key, request.server, site.authorization_server, client, scopes | more, self._own_client.redirect_uri)
        )

    async def request_token_by_assertion(
        self, request: CredentialRequest, auth_options: AuthOptions, site: OAuthSite, scopes: frozenset[str]
    ) -> Credential:
        """A token by assertion. The person is not asked, and no other account is used where it is refused."""
        client = await self.clients.client_for(request.tenant, auth_options, site.authorization_server)
        token_request = AssertionTokenRequest(
            request.server, request.grant if auth_options.is_personal else None, site.authorization_server, client, site.resource.id, scopes
        )
        return await self._assertions.request_token(auth_options, token_request)

    async def _request_identity_consent(self, identity: ProviderIdentity, server: str) -> ConsentNeeded:
        if not identity.authorization_server.pkce or not identity.authorization_server.authorization_endpoint:
            raise UpstreamFault("The identity provider does not support a secure consent", "no S256, or no authorization endpoint")
        consent = Consent(
            identity.key, server, identity.authorization_server, identity.client, OPENID_SCOPES, self._own_client.redirect_uri, openid=True
        )
        return await self.consents.request_consent(consent)

    async def delete_registration(self, request: CredentialRequest) -> None:
        """Deletes the gateway's client registration for a server, so that it registers again. Raises UpstreamFault and EgressRefused."""
        terms = self._auth_options(request.upstream)
        if terms is not None:
            site = await self.find_site(request, terms, refetch=True)
            await self.clients.delete_registration(request.tenant, site.authorization_server.issuer)

    async def revoke(self, key: CredentialKey, credential: Credential, upstreams: Sequence[Mapping[str, Any]]) -> bool:
        """Revokes a credential's tokens (RFC 7009); False where the authorization server does not support that.

        `upstreams`: of the entries that use the credential, which may have the client. Raises UpstreamFault and EgressRefused.
        """
        at = await discover_authorization_server(self._network.fetch, key.issuer)
        known = [terms for terms in map(self._auth_options, upstreams) if terms is not None]
        listed = frozenset().union(*(terms.trusted_issuers for terms in known))
        check_endpoints(at, listed)
        if not may_revoke(at, listed) or credential.endpoint not in ("", at.token_endpoint):
            return False
        client = await self.clients.client_of_credential(key, credential, known, at)
        tokens = ((credential.refresh_token, "refresh_token"), (credential.access_token, "access_token"))
        for token, kind in tokens:
            if token:
                await self._requests.revoke(at, client, token, kind)
        return True

    def is_for_current_client(self, auth_options: AuthOptions, credential: Credential) -> bool:
        """Whether a credential fits the consent that would be requested now: the same client and redirect URI."""
        return (auth_options.client_id in ("", credential.client_id)) and credential.redirect in ("", self._own_client.redirect_uri)

    @property
    def vault(self) -> CredentialVault:
        return self._vault

    def now(self) -> float:
        return self._own_client.now()


class _AuthorizedSend:
    """One call, from its first request to its last."""

    def __init__(self, oauth: UpstreamOAuth, request: CredentialRequest, auth_options: AuthOptions) -> None:
        self._oauth = oauth
        self._request = request
        self._auth_options = auth_options
        self._has_refreshed = False

    async def find_credential(self) -> Credential | None:
        """The existing credential of this person for this server, refreshed if it ends soon; None without one."""
        grant, found = self._request.grant, None
        if grant is None:
            return None
        for key, held in await self._oauth.vault.find(grant, origin_of(self._request.url), self._auth_options.is_personal):
            is_own_issuer = self._auth_options.issuer in ("", key.issuer) and self._oauth.is_for_current_client(self._auth_options, held)
            if is_own_issuer and covers(key.resource, self._request.url):
                found = (key, held)
        if found is None or not found[1].expires or found[1].expires - REFRESH_EARLY_SECONDS > self._oauth.now():
            return found and found[1]
        key, held = found
        site = await self._oauth.find_site(self._request, self._auth_options)
        async with self._oauth.vault.lease(key.full_key):
            newer = await self._oauth.vault.read(grant, key)
            return newer if newer != held or key != self._credential_key(site, grant) else await self._refresh(site, key, held)

    async def answer_challenge(self, challenged: Challenged, presented: Credential | None) -> Credential:
        """A credential other than the `presented` one, which was refused. Raises ConsentNeeded and UpstreamFault."""
        challenge = parse_challenge(challenged.challenge)
        wider = challenged.status == 403
        if wider and challenge.error != "insufficient_scope":
            raise challenged
        grant = self._request.grant
        if grant is None:
            return await self._credential_for_probe(challenge, presented)
        site = await self._oauth.find_site(
            self._request, self._auth_options, challenge.metadata_url, refetch=presented is not None and not wider
        )
        key = self._credential_key(site, grant)
        async with self._oauth.vault.lease(key.full_key):
            held = await self._oauth.vault.read(grant, key)
            if held is not None and not self._oauth.is_for_current_client(self._auth_options, held):
                held = None
            if held is not None and (presented is None or held.access_token != presented.access_token):
                return held  # another call was faster
            if held is not None and not wider:
                fresh = await self._refresh(site, key, held)
                if fresh is not None:
                    return fresh
            return await self._obtain_credential(site, key, challenge, held if wider else None)

    async def _obtain_credential(
        self, site: OAuthSite, key: CredentialKey, challenge: Challenge, too_narrow: Credential | None
    ) -> Credential:
        """A new credential, for the scopes of the server, the operator and the previous credential. Raises ConsentNeeded."""
        scopes = (challenge.scopes or (frozenset() if too_narrow else site.resource.scopes)) | self._auth_options.scopes
        if too_narrow is not None:
            if scopes <= too_narrow.asked and self._oauth.now() - too_narrow.obtained < ASK_AGAIN_SECONDS:
                raise UpstreamFault(REFUSED_TEXT, "insufficient_scope, for scopes that were requested before")
            scopes |= too_narrow.asked | too_narrow.scopes
        if self._auth_options.grant_kind in ASSERTION_GRANT_KINDS:
            credential = await self._oauth.request_token_by_assertion(self._request, self._auth_options, site, scopes)
            await self._oauth.vault.write(key, credential)
            return credential
        if self._auth_options.is_personal:
            raise await self._oauth.request_consent(self._request, self._auth_options, site, key, scopes)
        credential = await self._own_credential(site, scopes)
        await self._oauth.vault.write(key, credential)
        return credential

    async def _own_credential(self, site: OAuthSite, scopes: frozenset[str]) -> Credential:
        """A credential of the gateway's own account."""
        if self._auth_options.grant_kind in ASSERTION_GRANT_KINDS:
            return await self._oauth.request_token_by_assertion(self._request, self._auth_options, site, scopes)
        form = {"grant_type": "client_credentials", **_scope_param(scopes)}
        return await self._oauth.request_token(self._request, self._auth_options, site, form, scopes)

    async def _credential_for_probe(self, challenge: Challenge, presented: Credential | None) -> Credential:
        """A credential for a probe, without a person: of the gateway's own account only, and not stored."""
        if self._auth_options.is_personal or presented is not None:
            raise UpstreamFault(NO_PERSON_TEXT if self._auth_options.is_personal else REFUSED_TEXT)
        site = await self._oauth.find_site(self._request, self._auth_options, challenge.metadata_url)
        return await self._own_credential(site, (challenge.scopes or site.resource.scopes) | self._auth_options.scopes)

    async def _refresh(self, site: OAuthSite, key: CredentialKey, credential: Credential) -> Credential | None:
        """Refreshes the credential, at most once in a call; deletes it if that fails."""
        if self._has_refreshed or not credential.refresh_token:
            await self._oauth.vault.delete(key)
            return None
        self._has_refreshed = True
        client = await self._oauth.clients.client_for(self._request.tenant, self._auth_options, site.authorization_server)
        same = client.client_id == credential.client_id and credential.endpoint in ("", site.authorization_server.token_endpoint)
        if not same:  # RFC 6749 s10.4: a refresh token is bound to its client, and only sent to its issuer
            await self._oauth.vault.delete(key)
            return None
        form = {"grant_type": "refresh_token", "refresh_token": credential.refresh_token}
        try:
            fresh = await self._oauth.request_token(self._request, self._auth_options, site, form, credential.scopes)
        except OAuthRefused:
            await self._oauth.vault.delete(key)
            return None
        fresh = replace(
            fresh, asked=credential.asked, refresh_token=fresh.refresh_token or credential.refresh_token, redirect=credential.redirect
        )
        await self._oauth.vault.write(key, fresh)
        return fresh

    def _credential_key(self, site: OAuthSite, grant: Grant) -> CredentialKey:
        """The key of the credential. Raises UpstreamFault where the token is for another origin."""
        if origin_of(site.resource.id) != origin_of(self._request.url):
            raise UpstreamFault("The server's resource metadata is of another resource")
        principal = grant.delegation.principal
        owner = principal.owner_key if self._auth_options.is_personal else ""
        return CredentialKey(principal.tenant, owner, site.authorization_server.issuer, site.resource.id)


def credential_request_of(call: Call) -> CredentialRequest:
    target = call.target
    return CredentialRequest(target.tenant, target.name, target.url, target.upstream, call.grant)


def own_credential_request(target: Registration) -> CredentialRequest:
    """The request of the gateway's own account, without a person."""
    return CredentialRequest(target.tenant, target.name, target.url, target.upstream, None)


def with_headers(call: Call, headers: Mapping[str, str]) -> Call:
    return structs.replace(call, headers=with_more(call.headers, headers)) if headers else call


def _scope_param(scopes: frozenset[str]) -> dict[str, str]:
    return {"scope": " ".join(sorted(scopes))} if scopes else {}


def nonce_for(verifier: str) -> str:
    """A nonce that binds an ID token to the request; it can only be computed from the verifier."""
    return challenge_for(f"nonce {verifier}")

"""Tokens for assertions: the gateway's own statement about a person, or their identity provider's (RFC 8693, RFC 7523, ID-JAG)."""

import base64
import binascii
import secrets
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple, Protocol

from adapters.contract import ConsentNeeded, UpstreamFault
from adapters.oauth.discovery import AuthorizationServer, discover_authorization_server
from adapters.oauth.grants import OAuthRefused, OAuthRequests, OwnClient
from adapters.oauth.options import EXCHANGE_METHOD, ID_JAG, AuthOptions, ProviderOptions
from adapters.upstream.egress import Egress
from policies.cache import BoundedCache
from policies.delegation.chain import Principal
from policies.delegation.rulings import Grant
from policies.strict_json import BadJson, parse
from policies.vault.credentials import ClientRegistration, Credential, CredentialKey, CredentialVault

TYPE_URN_PREFIX: Final = "urn:ietf:params:oauth:token-type:"
EXCHANGE_GRANT: Final = "urn:ietf:params:oauth:grant-type:token-exchange"
BEARER_GRANT: Final = "urn:ietf:params:oauth:grant-type:jwt-bearer"
OPENID_SCOPES: Final = frozenset({"openid", "offline_access"})
ASSERTION_SECONDS: Final = 60
PROVIDER_SECONDS: Final = 600.0
PROVIDERS_MAX: Final = 100
NO_PERSON_TEXT: Final = "The identity provider vouches for people, and this call has no person"


class AssertionTokenRequest(NamedTuple):
    """A token request as `client`, for `resource` with `scopes`. Without a Grant it is for the gateway itself."""

    server: str
    grant: Grant | None
    authorization_server: AuthorizationServer
    client: ClientRegistration
    resource: str
    scopes: frozenset[str]


@dataclass(frozen=True, slots=True)
class ProviderIdentity:
    """A person at their identity provider, and the gateway's client there."""

    authorization_server: AuthorizationServer
    client: ClientRegistration
    key: CredentialKey


class RequestIdentityConsent(Protocol):
    """Asks a person to connect their account at the identity provider."""

    def __call__(self, identity: ProviderIdentity, server: str) -> Awaitable[ConsentNeeded]: ...


class AssertionTokens:
    """Gets tokens by assertion, without a consent for each server."""

    def __init__(self, network: Egress, own_client: OwnClient, vault: CredentialVault, request_consent: RequestIdentityConsent) -> None:
        self._fetch = network.fetch
        self._requests = OAuthRequests(network, own_client)
        self._own_client = own_client
        self._vault = vault
        self._request_consent = request_consent
        self._providers: BoundedCache[str, AuthorizationServer] = BoundedCache(PROVIDERS_MAX, own_client.now)

    async def request_token(self, auth_options: AuthOptions, request: AssertionTokenRequest) -> Credential:
        """Requests a token. Raises ConsentNeeded, OAuthRefused and UpstreamFault."""
        scope = {"scope": " ".join(sorted(request.scopes))} if request.scopes else {}
        if auth_options.grant_kind == EXCHANGE_METHOD:
            subject = {
                "subject_token": self._own_assertion(request),
                "subject_token_type": f"{TYPE_URN_PREFIX}jwt",
                "requested_token_type": f"{TYPE_URN_PREFIX}access_token",
            }
            form = {"grant_type": EXCHANGE_GRANT, **subject}
        elif auth_options.grant_kind == ID_JAG:
            form = {"grant_type": BEARER_GRANT, "assertion": await self._identity_assertion(auth_options.provider, request, scope)}
        else:
            form = {"grant_type": BEARER_GRANT, "assertion": auth_options.assertion or self._own_assertion(request)}
        return await self._requests.request_token(
            request.authorization_server, request.client, {**form, **scope, "resource": request.resource}, request.scopes
        )

    def _own_assertion(self, request: AssertionTokenRequest) -> str:
        """The gateway's own assertion for this authorization server only: about the person of the Grant, or about itself."""
        now, grant = int(self._own_client.now()), request.grant
        who: Mapping[str, Any] = {"sub": request.client.client_id}
        if grant is not None:
            principal = grant.delegation.principal
            who = {"sub": principal.subject, "sub_iss": principal.issuer, "tenant": principal.tenant}
        claims = {
            "iss": self._own_client.issuer,
            "aud": request.authorization_server.issuer,
            "client_id": request.client.client_id,
            "resource": request.resource,
        }
        return self._own_client.sign({**claims, **who, "jti": secrets.token_urlsafe(16), "iat": now, "exp": now + ASSERTION_SECONDS}, "JWT")

    async def _identity_assertion(self, provider: ProviderOptions, request: AssertionTokenRequest, scope: Mapping[str, str]) -> str:
        """An ID-JAG for the person (draft-ietf-oauth-identity-assertion-authz-grant-04 s4). Raises as `request_token`."""
        grant = request.grant
        if grant is None:
            raise UpstreamFault(NO_PERSON_TEXT)
        identity = await self._identity_of(provider, grant.delegation.principal)
        wanted = {
            "requested_token_type": f"{TYPE_URN_PREFIX}id-jag",
            "audience": request.authorization_server.issuer,
            "resource": request.resource,
            **scope,
        }
        held = await self._vault.read(grant, identity.key)
        for renew in (False, True):
            held = await self._current_credential(identity, grant, held, renew)
            if held is None:
                break
            subject = {"subject_token": held.id_token, "subject_token_type": f"{TYPE_URN_PREFIX}id_token"}
            try:
                form = {"grant_type": EXCHANGE_GRANT, **subject, **wanted}
                return await self._requests.exchange_for_assertion(
                    identity.authorization_server, identity.client, form, f"{TYPE_URN_PREFIX}id-jag"
                )
            except OAuthRefused as refused:
                if refused.error != "invalid_grant" or renew:
                    raise
        raise await self._request_consent(identity, request.server)

    async def _current_credential(
        self, identity: ProviderIdentity, grant: Grant, credential: Credential | None, renew: bool
    ) -> Credential | None:
        """The credential if its ID token has not expired; refreshed otherwise, or with `renew`. None if that fails."""
        if credential is None or not credential.id_token:
            return None
        ends = read_claims(credential.id_token).get("exp", 0)
        if not renew and isinstance(ends, int | float) and ends > self._own_client.now():
            return credential
        async with self._vault.lease(identity.key.full_key):
            newer = await self._vault.read(grant, identity.key)
            if newer is not None and newer.id_token != credential.id_token:
                return newer
            return await self._refresh(identity, credential)

    async def _refresh(self, identity: ProviderIdentity, credential: Credential) -> Credential | None:
        if (
            credential.refresh_token
            and credential.endpoint == identity.authorization_server.token_endpoint
            and credential.client_id == identity.client.client_id
        ):
            form = {"grant_type": "refresh_token", "refresh_token": credential.refresh_token}
            try:
                fresh = await self._requests.request_token(identity.authorization_server, identity.client, form, credential.asked)
            except OAuthRefused:
                fresh = None
            if fresh is not None and fresh.id_token and _is_same_person(fresh.id_token, credential.id_token):
                refreshed = replace(fresh, refresh_token=fresh.refresh_token or credential.refresh_token, redirect=credential.redirect)
                await self._vault.write(identity.key, refreshed)
                return refreshed
        await self._vault.delete(identity.key)
        return None

    async def _identity_of(self, provider: ProviderOptions, principal: Principal) -> ProviderIdentity:
        at = self._providers.get(provider.issuer)
        if at is None:
            at = await discover_authorization_server(self._fetch, provider.issuer)
            self._providers.put(provider.issuer, at, PROVIDER_SECONDS)
        method = provider.method or ("client_secret_basic" if provider.secret else "none")
        client = ClientRegistration(at.issuer, provider.client_id, method, provider.secret)
        return ProviderIdentity(at, client, identity_key(principal, client))


def identity_key(principal: Principal, client: ClientRegistration) -> CredentialKey:
    """The key of a person's connection with an identity provider, made for the gateway as `client`.

    It has no origin, so it authorizes calls to no server, not even at the provider's own address.
    """
    return CredentialKey(principal.tenant, principal.owner_key, client.issuer, f"openid:{client.client_id}")


def read_claims(token: str) -> Mapping[str, Any]:
    """The claims of a JWT that was received from its issuer directly, so that its signature need not be verified. Empty if invalid."""
    try:
        part = token.split(".")[1]
        found = parse(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    except (IndexError, binascii.Error, ValueError, BadJson):
        return {}
    return found if isinstance(found, dict) else {}


def check_identity(token: str, expected: ProviderIdentity, nonce: str, now: float) -> None:
    """Checks that an ID token is for this request and person (OpenID Connect Core s3.1.3.7). Raises UpstreamFault."""
    claims = read_claims(token)
    audience = claims.get("aud")
    audiences = audience if isinstance(audience, list) else [audience]
    ends = claims.get("exp", 0)
    if (
        claims.get("iss") != expected.authorization_server.issuer
        or expected.client.client_id not in audiences
        or claims.get("nonce") != nonce
    ):
        raise UpstreamFault("The identity provider's answer belongs to another request", "iss, aud or nonce")
    if not isinstance(ends, int | float) or ends <= now:
        raise UpstreamFault("The identity provider's answer has expired", "exp")
    _, issuer, subject = expected.key.owner.split("|", 2)
    if issuer == expected.authorization_server.issuer and claims.get("sub") != subject:
        raise UpstreamFault("You are signed in there as another person", "sub differs")


def _is_same_person(fresh: str, previous: str) -> bool:
    return all(read_claims(fresh).get(name) == read_claims(previous).get(name) for name in ("iss", "sub"))

"""Tokens for assertions: the gateway's word on who a person is, or that of their identity provider (RFC 8693, RFC 7523, ID-JAG)."""

import base64
import binascii
import secrets
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple, Protocol

from adapters.contract import ConsentNeeded, UpstreamFault
from adapters.oauth.discovery import AuthorizationServer, server_of
from adapters.oauth.grants import Network, OAuthRefused, OAuthRequests, OwnClient
from adapters.oauth.options import EXCHANGE, ID_JAG, AuthTerms, ProviderTerms
from policies.cache import BoundedCache
from policies.delegation.principal import Principal
from policies.delegation.rulings import Grant
from policies.strict_json import BadJson, parse
from policies.vault.credentials import Client, Credential, CredentialKey, Vault

TYPE: Final = "urn:ietf:params:oauth:token-type:"
EXCHANGE_GRANT: Final = "urn:ietf:params:oauth:grant-type:token-exchange"
BEARER_GRANT: Final = "urn:ietf:params:oauth:grant-type:jwt-bearer"
OPENID_SCOPES: Final = frozenset({"openid", "offline_access"})
ASSERTION_SECONDS: Final = 60
SITE_SECONDS: Final = 600.0
PROVIDERS_KEPT: Final = 100
NOBODY: Final = "The identity provider vouches for people, and nobody asks"


class Wanted(NamedTuple):
    """Whom a token is for: at `at`, as `client`, for `resource` with `scopes`. Without a Grant it is for the gateway itself."""

    server: str
    grant: Grant | None
    at: AuthorizationServer
    client: Client
    resource: str
    scopes: frozenset[str]


@dataclass(frozen=True, slots=True)
class Identity:
    """A person at their identity provider, and who the gateway is there."""

    at: AuthorizationServer
    client: Client
    key: CredentialKey


class Invite(Protocol):
    """Has a person connect with their identity provider."""

    def __call__(self, identity: Identity, server: str) -> Awaitable[ConsentNeeded]: ...


class Assertions:
    """What gets tokens without asking the person at each server."""

    def __init__(self, network: Network, own: OwnClient, vault: Vault, ask: Invite) -> None:
        self._fetch = network.fetch
        self._requests = OAuthRequests(network, own)
        self._own = own
        self._vault = vault
        self._ask = ask
        self._providers: BoundedCache[str, AuthorizationServer] = BoundedCache(PROVIDERS_KEPT, own.now)

    async def token(self, terms: AuthTerms, asked: Wanted) -> Credential:
        """Raises ConsentNeeded, OAuthRefused and UpstreamFault."""
        scope = {"scope": " ".join(sorted(asked.scopes))} if asked.scopes else {}
        if terms.grant == EXCHANGE:
            subject = {
                "subject_token": self._word(asked),
                "subject_token_type": f"{TYPE}jwt",
                "requested_token_type": f"{TYPE}access_token",
            }
            form = {"grant_type": EXCHANGE_GRANT, **subject}
        elif terms.grant == ID_JAG:
            form = {"grant_type": BEARER_GRANT, "assertion": await self._vouched(terms.provider, asked, scope)}
        else:
            form = {"grant_type": BEARER_GRANT, "assertion": terms.assertion or self._word(asked)}
        return await self._requests.token(asked.at, asked.client, {**form, **scope, "resource": asked.resource}, asked.scopes)

    def _word(self, asked: Wanted) -> str:
        """The gateway's own, for this authorization server alone: about the person of the Grant, or about itself."""
        now, grant = int(self._own.now()), asked.grant
        who: Mapping[str, Any] = {"sub": asked.client.client_id}
        if grant is not None:
            principal = grant.delegation.principal
            who = {"sub": principal.subject, "sub_iss": principal.issuer, "tenant": principal.tenant}
        claims = {"iss": self._own.issuer, "aud": asked.at.issuer, "client_id": asked.client.client_id, "resource": asked.resource}
        return self._own.sign({**claims, **who, "jti": secrets.token_urlsafe(16), "iat": now, "exp": now + ASSERTION_SECONDS}, "JWT")

    async def _vouched(self, provider: ProviderTerms, asked: Wanted, scope: Mapping[str, str]) -> str:
        """An ID-JAG for the person (draft-ietf-oauth-identity-assertion-authz-grant-04 s4). Raises as `token`."""
        grant = asked.grant
        if grant is None:
            raise UpstreamFault(NOBODY)
        identity = await self._identity(provider, grant.delegation.principal)
        wanted = {"requested_token_type": f"{TYPE}id-jag", "audience": asked.at.issuer, "resource": asked.resource, **scope}
        held = await self._vault.read(grant, identity.key)
        for renew in (False, True):
            held = await self._current(identity, grant, held, renew)
            if held is None:
                break
            subject = {"subject_token": held.id_token, "subject_token_type": f"{TYPE}id_token"}
            try:
                form = {"grant_type": EXCHANGE_GRANT, **subject, **wanted}
                return await self._requests.exchanged(identity.at, identity.client, form, f"{TYPE}id-jag")
            except OAuthRefused as refused:
                if refused.error != "invalid_grant" or renew:
                    raise
        raise await self._ask(identity, asked.server)

    async def _current(self, identity: Identity, grant: Grant, held: Credential | None, renew: bool) -> Credential | None:
        """One whose ID token is good, as far as that tells; renewed where it has ended, or is to be."""
        if held is None or not held.id_token:
            return None
        ends = read_claims(held.id_token).get("exp", 0)
        if not renew and isinstance(ends, int | float) and ends > self._own.now():
            return held
        async with self._vault.alone(identity.key.place):
            newer = await self._vault.read(grant, identity.key)
            if newer is not None and newer.id_token != held.id_token:
                return newer
            return await self._renewed(identity, held)

    async def _renewed(self, identity: Identity, held: Credential) -> Credential | None:
        if held.refresh_token and held.endpoint == identity.at.token_endpoint and held.client_id == identity.client.client_id:
            form = {"grant_type": "refresh_token", "refresh_token": held.refresh_token}
            try:
                fresh = await self._requests.token(identity.at, identity.client, form, held.asked)
            except OAuthRefused:
                fresh = None
            if fresh is not None and fresh.id_token and _same_person(fresh.id_token, held.id_token):
                kept = replace(fresh, refresh_token=fresh.refresh_token or held.refresh_token, redirect=held.redirect)
                await self._vault.keep(identity.key, kept)
                return kept
        await self._vault.forget(identity.key)
        return None

    async def _identity(self, provider: ProviderTerms, principal: Principal) -> Identity:
        at = self._providers.get(provider.issuer)
        if at is None:
            at = await server_of(self._fetch, provider.issuer)
            self._providers.put(provider.issuer, at, SITE_SECONDS)
        method = provider.method or ("client_secret_basic" if provider.secret else "none")
        client = Client(at.issuer, provider.client_id, method, provider.secret)
        return Identity(at, client, identity_key(principal, client))


def identity_key(principal: Principal, client: Client) -> CredentialKey:
    """Where a person's connection with an identity provider is kept. It is for the gateway as `client` there, as its ID tokens say.

    So it opens no server at all: not one at the provider's own address either, since it has no origin.
    """
    return CredentialKey(principal.tenant, principal.owner, client.issuer, f"openid:{client.client_id}")


def read_claims(token: str) -> Mapping[str, Any]:
    """Of a JWT that came from its issuer itself, whose signature says no more than that. Nothing of what is none."""
    try:
        part = token.split(".")[1]
        found = parse(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    except (IndexError, binascii.Error, ValueError, BadJson):
        return {}
    return found if isinstance(found, dict) else {}


def check_identity(token: str, asked: Identity, nonce: str, now: float) -> None:
    """Whether an ID token is the answer to our question, about this very person (OpenID Connect Core s3.1.3.7). Raises UpstreamFault."""
    claims = read_claims(token)
    audience = claims.get("aud")
    audiences = audience if isinstance(audience, list) else [audience]
    ends = claims.get("exp", 0)
    if claims.get("iss") != asked.at.issuer or asked.client.client_id not in audiences or claims.get("nonce") != nonce:
        raise UpstreamFault("The identity provider's answer is not to what was asked", "iss, aud or nonce")
    if not isinstance(ends, int | float) or ends <= now:
        raise UpstreamFault("The identity provider's answer is out of date", "exp")
    _, issuer, subject = asked.key.owner.split("|", 2)
    if issuer == asked.at.issuer and claims.get("sub") != subject:
        raise UpstreamFault("You are signed in there as somebody else", "sub differs")


def _same_person(fresh: str, before: str) -> bool:
    return all(read_claims(fresh).get(name) == read_claims(before).get(name) for name in ("iss", "sub"))

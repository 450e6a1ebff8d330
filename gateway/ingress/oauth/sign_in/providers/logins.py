"""Login at the configured identity providers: codes with PKCE, state, nonce and `iss`, for one browser (OpenID Connect Core s3.1)."""

import base64
import hashlib
import hmac
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol
from urllib.parse import urlencode, urlsplit

import msgspec
import structlog
from sqlalchemy import select

from adapters.contract import UpstreamFault
from adapters.oauth.discovery import AuthorizationServer, FetchDocument, discover_authorization_server
from adapters.oauth.grants import OAuthRefused, OAuthRequests, challenge_for
from adapters.upstream.targets import EgressRefused
from gateway.ingress.oauth.sign_in.requests import Purpose
from gateway.ingress.oauth.sign_in.sessions import Session, SignedInPerson
from gateway.ingress.oauth.sign_in.tables import sign_in_attempts as table
from gateway.storage.database import Batch, Database
from policies.cache import BoundedCache
from policies.delegation.chain import Principal
from policies.keys.strict_jwt import UNKNOWN_KEY, TokenRefused
from policies.vault.credentials import ClientRegistration, Credential

LOGIN_SECONDS: Final = 600.0
METADATA_SECONDS: Final = 600.0
ATTEMPTS_MAX: Final = 10_000
_INSERT: Final = "INSERT INTO sign_in_attempts (state, provider, browser, purpose, until) VALUES (?, ?, ?, ?, ?)"
_DELETE_SURPLUS: Final = (
    "DELETE FROM sign_in_attempts WHERE state IN (SELECT state FROM sign_in_attempts ORDER BY until DESC LIMIT 1000 OFFSET ?)"
)
_encode = msgspec.json.Encoder().encode
_decode_purpose = msgspec.json.Decoder(Purpose).decode
log = structlog.get_logger()


class LoginFailed(Exception):
    """The login did not succeed; the message is safe to show. `purpose` is None where it is not known or not for this browser."""

    def __init__(self, problem: str, purpose: Purpose | None = None) -> None:
        super().__init__(problem)
        self.purpose = purpose


class ProviderAway(Exception):
    """The identity provider can't be asked now."""


class KeysAway(ProviderAway):
    """The identity provider has answered, and its keys can't be read now. `refresh_token` replaces the one that the request has used."""

    def __init__(self, refresh_token: str) -> None:
        super().__init__("the identity provider's keys can't be read")
        self.refresh_token = refresh_token


class RenewalRefused(Exception):
    """The identity provider does not vouch for the person any more."""


@dataclass(frozen=True, slots=True)
class Provider:
    """An identity provider, and the gateway's client there. `secret` returns the client's secret, "" for a public client."""

    name: str
    label: str
    issuer: str
    client_id: str
    secret: Callable[[], str]
    auth_method: str
    scopes: tuple[str, ...]
    has_roles_in_access_token: bool
    prompt: str


class VerifyIdToken(Protocol):
    """Verifies an ID token (policies/tokens/verifier.py)."""

    async def __call__(self, token: str, issuer: str, client_id: str, nonce: str, role_token: str = "") -> Principal: ...


class ProviderLogins:
    """Logins at providers. `now` counts microseconds since 1970, `public_url` has no slash at its end."""

    def __init__(
        self,
        database: Database,
        fetch: FetchDocument,
        requests: OAuthRequests,
        verify_id_token: VerifyIdToken,
        providers: Mapping[str, Provider],
        *,
        public_url: str,
        now: Callable[[], int],
    ) -> None:
        self._database = database
        self._fetch = fetch
        self._requests = requests
        self._verify_id_token = verify_id_token
        self.providers = providers
        self._public_url = public_url
        self._now = now
        self._metadata: BoundedCache[str, AuthorizationServer] = BoundedCache(100, lambda: now() / 1e6)

    async def begin(self, provider: Provider, purpose: Purpose, cookie: str) -> str:
        """The URL at the provider for one login, in the browser that has the cookie. Raises LoginFailed."""
        try:
            at = await self._discover(provider)
        except ProviderAway as error:
            raise LoginFailed(str(error), purpose) from None
        if not at.authorization_endpoint:
            raise LoginFailed("the identity provider has no authorization endpoint", purpose)
        state, now = secrets.token_urlsafe(32), self._now()
        values = (_digest(state), provider.name, _digest(cookie), _encode(purpose).decode(), now + int(LOGIN_SECONDS * 1e6))

        def work(batch: Batch) -> None:
            batch.run("DELETE FROM sign_in_attempts WHERE until < ?", (now,))
            batch.run(_DELETE_SURPLUS, (ATTEMPTS_MAX - 1,))
            batch.run(_INSERT, values)

        await self._database.write(work)
        parameters = {
            "response_type": "code",
            "client_id": provider.client_id,
            "redirect_uri": self._redirect_uri(provider),
            "scope": " ".join(provider.scopes),
            "state": state,
            "nonce": _derive(cookie, "nonce", state),
            "code_challenge": challenge_for(_derive(cookie, "verifier", state)),
            "code_challenge_method": "S256",
            **({"prompt": provider.prompt} if provider.prompt else {}),
        }
        joint = "&" if urlsplit(at.authorization_endpoint).query else "?"
        return f"{at.authorization_endpoint}{joint}{urlencode(parameters)}"

    async def complete(self, name: str, answer: Mapping[str, str], cookie: str) -> tuple[Purpose, SignedInPerson]:
        """Completes a login with what the provider sent to its own redirect URI. Raises LoginFailed.

        Each provider has a redirect URI of its own, and its `iss` is compared first, so that no code of one is sent to another (RFC 9700
        s4.4). The state is used once, by the browser that consented.
        """
        purpose = await self._consume(name, answer.get("state", ""), cookie)
        provider = self.providers[name]
        try:
            at = await self._discover(provider)
            if ("iss" in answer or at.names_itself) and answer.get("iss") != at.issuer:
                raise LoginFailed("the answer is from another identity provider", purpose)
            if "error" in answer or not answer.get("code"):
                raise LoginFailed("the identity provider did not sign you in", purpose)
            form = {"grant_type": "authorization_code", "code": answer["code"], "redirect_uri": self._redirect_uri(provider)}
            form["code_verifier"] = _derive(cookie, "verifier", answer["state"])
            credential = await self._requests.request_token(at, self._client(provider, at), form, frozenset(provider.scopes))
            principal = await self._verify(provider, credential, _derive(cookie, "nonce", answer["state"]))
        except (UpstreamFault, EgressRefused, ProviderAway, TokenRefused) as fault:
            detail = fault.detail if isinstance(fault, UpstreamFault | TokenRefused) else ""
            log.warning("sign_in_failed", provider=name, problem=str(fault), detail=detail)
            raise LoginFailed("the identity provider's answer could not be used; the gateway's log says why", purpose) from None
        return purpose, SignedInPerson(principal, name, credential.refresh_token)

    async def renew(self, session: Session) -> SignedInPerson:
        """The person of a session with the roles of now, by the provider's refresh token. Raises RenewalRefused and ProviderAway."""
        person = session.person
        provider = self.providers.get(person.provider)
        if provider is None:
            raise RenewalRefused("the identity provider is not configured any more")
        at = await self._discover(provider)
        form = {"grant_type": "refresh_token", "refresh_token": person.refresh_token}
        try:
            credential = await self._requests.request_token(at, self._client(provider, at), form, frozenset(provider.scopes))
        except OAuthRefused as refused:
            log.warning("sign_in_not_renewed", provider=provider.name, problem=refused.error)
            if refused.error != "invalid_grant":  # such as a client secret that has expired: no fault of the person
                raise ProviderAway("the identity provider refuses the gateway") from None
            raise RenewalRefused("the identity provider does not vouch for the person any more") from None
        except (UpstreamFault, EgressRefused) as fault:
            raise ProviderAway("the identity provider can't be reached") from fault
        refresh_token = credential.refresh_token or person.refresh_token
        try:
            principal = await self._verify(provider, credential, "")
        except TokenRefused as refused:
            log.warning("sign_in_not_renewed", provider=provider.name, problem=refused.reason)
            if refused.reason == UNKNOWN_KEY:
                raise KeysAway(refresh_token) from None
            raise RenewalRefused("the identity provider's answer can't be used") from None
        if principal.owner_key != person.principal.owner_key:
            raise RenewalRefused("the identity provider answered with another person")
        return SignedInPerson(principal, person.provider, refresh_token)

    async def _consume(self, name: str, state: str, cookie: str) -> Purpose:
        """The purpose of a login under way, once, for the browser and the provider that it began with. Raises LoginFailed."""
        digest = _digest(state)
        wanted = select(table).where(table.c.state == digest, table.c.until > self._now())
        row = await self._database.read(lambda connection: connection.execute(wanted).first())
        is_same = row is not None and row.provider == name and hmac.compare_digest(row.browser, _digest(cookie))
        if row is None or not is_same or name not in self.providers:
            raise LoginFailed("this login has expired, was used before, or was begun in another browser; begin again")
        if await self._database.write(lambda batch: batch.run("DELETE FROM sign_in_attempts WHERE state = ?", (digest,))) != 1:
            raise LoginFailed("this login was used before; begin again")
        return _decode_purpose(row.purpose)

    async def _verify(self, provider: Provider, credential: Credential, nonce: str) -> Principal:
        role_token = credential.access_token if provider.has_roles_in_access_token else ""
        return await self._verify_id_token(credential.id_token, provider.issuer, provider.client_id, nonce, role_token)

    async def _discover(self, provider: Provider) -> AuthorizationServer:
        """The provider's metadata. Raises ProviderAway."""
        known = self._metadata.get(provider.name)
        if known is None:
            try:
                known = await discover_authorization_server(self._fetch, provider.issuer)
            except (UpstreamFault, EgressRefused) as fault:
                detail = fault.detail if isinstance(fault, UpstreamFault) else fault.public
                log.warning("provider_not_reached", provider=provider.name, problem=str(fault), detail=detail)
                raise ProviderAway("the identity provider can't be reached; try again later") from None
            self._metadata.put(provider.name, known, METADATA_SECONDS)
        return known

    def _client(self, provider: Provider, at: AuthorizationServer) -> ClientRegistration:
        secret = provider.secret()
        default = "client_secret_basic" if secret and "client_secret_basic" in at.methods else "client_secret_post" if secret else "none"
        return ClientRegistration(at.issuer, provider.client_id, provider.auth_method or default, secret)

    def _redirect_uri(self, provider: Provider) -> str:
        return f"{self._public_url}/oauth/callback/{provider.name}"


def _derive(cookie: str, use: str, state: str) -> str:
    """A secret of one login that only the browser with the cookie lets the gateway compute, so that it is not stored."""
    return base64.urlsafe_b64encode(hmac.digest(cookie.encode(), f"{use} {state}".encode(), "sha256")).rstrip(b"=").decode()


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()

"""What the gateway asks authorization servers: registration, a person's consent, and tokens (OAuth 2.1, RFC 7591, 7636, 8707)."""

import base64
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol, Unpack
from urllib.parse import quote_plus, urlencode, urlsplit

import msgspec

from adapters.contract import UpstreamFault
from adapters.oauth.discovery import LOOPBACK, AuthorizationServer, scopes_of
from adapters.upstream.egress import Bounds, Fetched
from policies.ids import new_id
from policies.vault.credentials import Client, Credential

ASSERTION: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
ASSERTION_SECONDS: Final = 60.0
REQUEST_SECONDS: Final = 15.0
ANSWER_MAX: Final = 256 << 10
TOKEN_MAX: Final = 16 << 10  # characters
PREFERRED: Final = ("client_secret_basic", "client_secret_post", "none")  # of what a registration may bring
REFUSED: Final = "The authorization server refuses"
OFFLINE: Final = "offline_access"
NO_CODE: Final = "interlock-asks-whether-it-is-still-registered-here"  # no code, and long enough for a verifier (RFC 7636 s4.1)
FORGOTTEN: Final = frozenset({"invalid_client", "unauthorized_client"})  # what is said to a client that is not registered
SINGLE_USE: Final = frozenset({"authorization_code", "refresh_token"})


class OAuthRefused(UpstreamFault):
    """An error of RFC 6749 s5.2; `error` is its code, which is for the log."""

    def __init__(self, error: str) -> None:
        super().__init__(REFUSED, f"error {error}")
        self.error = error


class Network(Protocol):
    """adapters/upstream/egress.py."""

    async def request(
        self, method: str, url: str, *, headers: Mapping[str, str], body: bytes | None, **bounds: Unpack[Bounds]
    ) -> Fetched: ...

    async def fetch(self, url: str, *, limit: int, timeout: float) -> Fetched: ...  # noqa: ASYNC109 (covers reading too)


@dataclass(frozen=True, slots=True)
class OwnClient:
    """The gateway as a client. `document` and `keyed` are addresses of its metadata: as a public client, and as one that proves itself
    with the keys at `jwks`. `redirect` is where people come back to. `sign` makes a JWT of claims and a `typ`. `now` counts seconds.
    """

    document: str
    keyed: str
    jwks: str
    redirect: str
    sign: Callable[[Mapping[str, Any], str], str]
    now: Callable[[], float]
    issuer: str = ""  # of assertions that are signed with those keys

    def metadata(self, keyed: bool) -> dict[str, Any]:
        """A client ID metadata document."""
        how = {"token_endpoint_auth_method": "private_key_jwt", "jwks_uri": self.jwks, "token_endpoint_auth_signing_alg": "ES256"}
        method = how if keyed else {"token_endpoint_auth_method": "none"}
        return {"client_id": self.keyed if keyed else self.document, **self.registration(), **method}

    def registration(self) -> dict[str, Any]:
        """What every registration says."""
        return {
            "client_name": "Interlock",
            "redirect_uris": [self.redirect],
            "grant_types": ["authorization_code", "refresh_token"],
            "response_types": ["code"],
            "application_type": "native" if urlsplit(self.redirect).hostname in LOOPBACK else "web",
        }

    def described(self, at: AuthorizationServer) -> Client:
        """Who we are where addresses of documents are taken as client ids."""
        if "private_key_jwt" in at.methods:
            return Client(at.issuer, self.keyed, "private_key_jwt")
        return Client(at.issuer, self.document)


class _TokenAnswer(msgspec.Struct):
    access_token: str
    token_type: str
    expires_in: float | str | None = None
    refresh_token: str | None = None
    scope: str | None = None
    id_token: str | None = None


class _ExchangeAnswer(msgspec.Struct):
    access_token: str
    issued_token_type: str
    token_type: str


class _ErrorAnswer(msgspec.Struct):
    error: str = ""


class _Registered(msgspec.Struct):
    client_id: str
    client_secret: str | None = None
    token_endpoint_auth_method: str | None = None


_token_answer: Final = msgspec.json.Decoder(_TokenAnswer).decode
_exchange_answer: Final = msgspec.json.Decoder(_ExchangeAnswer).decode
_error_answer: Final = msgspec.json.Decoder(_ErrorAnswer).decode
_registered: Final = msgspec.json.Decoder(_Registered).decode


def consent_url(at: AuthorizationServer, own: OwnClient, client_id: str, asked: Mapping[str, str]) -> str:
    """Where a person is sent to consent. `asked`: resource, state, code_challenge and, where there are any, scope."""
    fixed = {"response_type": "code", "client_id": client_id, "redirect_uri": own.redirect, "code_challenge_method": "S256"}
    prompt = {"prompt": "consent"} if OFFLINE in asked.get("scope", "").split(" ") else {}
    joint = "&" if urlsplit(at.authorization_endpoint).query else "?"
    return f"{at.authorization_endpoint}{joint}{urlencode({**fixed, **asked, **prompt})}"


def challenge_for(verifier: str) -> str:
    """RFC 7636 s4.2, S256."""
    return base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()


class OAuthRequests:
    """Raises UpstreamFault, OAuthRefused and EgressRefused."""

    def __init__(self, network: Network, own: OwnClient) -> None:
        self._network = network
        self._own = own

    async def register(self, at: AuthorizationServer) -> Client:
        """RFC 7591."""
        method = next((each for each in PREFERRED if each in at.methods), "none")
        body = msgspec.json.encode({**self._own.registration(), "token_endpoint_auth_method": method})
        headers = {"content-type": "application/json", "accept": "application/json"}
        answer = await self._post(at.registration_endpoint, headers, body, again=True)
        if answer.status not in (200, 201):
            raise _refusal(answer)
        try:
            said = _registered(answer.body)
        except msgspec.MsgspecError:
            raise UpstreamFault("The authorization server's answer can't be read", "registration") from None
        secret = said.client_secret or ""
        return Client(at.issuer, said.client_id, said.token_endpoint_auth_method or ("client_secret_basic" if secret else "none"), secret)

    async def token(self, at: AuthorizationServer, client: Client, form: Mapping[str, str], asked: frozenset[str]) -> Credential:
        """`form` has the grant and its resource; what proves who we are is added. `asked`: the scopes, given where nothing else is said."""
        try:
            said = _token_answer(await self._answered(at, client, form))
            lasts = float(said.expires_in or 0)
        except (msgspec.MsgspecError, ValueError):
            raise UpstreamFault("The authorization server's answer can't be read", "token") from None
        fit = 0 < len(said.access_token) <= TOKEN_MAX and said.access_token.isascii() and said.access_token.isprintable()
        if said.token_type.lower() != "bearer" or not fit or " " in said.access_token:
            raise UpstreamFault("The authorization server's token can't be used", "no bearer token")
        now = self._own.now()
        given = asked if said.scope is None else scopes_of(said.scope)
        expires = now + lasts if 0 < lasts < 1e9 else 0.0
        kept = Credential(said.access_token, client.client_id, given, asked, expires, now, said.refresh_token or "")
        return replace(kept, endpoint=at.token_endpoint, id_token=said.id_token or "")

    async def knows(self, at: AuthorizationServer, client: Client) -> bool:
        """Whether a registration is still there. An authorization server proves the client before it looks at a code (RFC 6749 s5.2)."""
        form = {"grant_type": "authorization_code", "code": NO_CODE, "redirect_uri": self._own.redirect, "code_verifier": NO_CODE}
        try:
            await self._answered(at, client, form)
        except OAuthRefused as refused:
            return refused.error not in FORGOTTEN
        except UpstreamFault:
            return True  # as far as one can see
        return True

    async def revoke(self, at: AuthorizationServer, client: Client, token: str, kind: str) -> None:
        """RFC 7009 s2.1. Raises UpstreamFault."""
        proof, headers = self._proof(at, client)
        headers |= {"content-type": "application/x-www-form-urlencoded", "accept": "application/json"}
        body = urlencode({"token": token, "token_type_hint": kind, **proof}).encode()
        answer = await self._post(at.revocation_endpoint, headers, body, again=True)
        if answer.status != 200:
            raise _refusal(answer)

    async def exchanged(self, at: AuthorizationServer, client: Client, form: Mapping[str, str], kind: str) -> str:
        """An assertion of the type `kind` for another authorization server, which is no access token (RFC 8693 s2.2.1)."""
        try:
            said = _exchange_answer(await self._answered(at, client, form))
        except msgspec.MsgspecError:
            raise UpstreamFault("The authorization server's answer can't be read", "exchange") from None
        if said.issued_token_type != kind or said.token_type.lower() != "n_a" or not 0 < len(said.access_token) <= TOKEN_MAX:
            raise UpstreamFault("The authorization server's assertion can't be used", said.issued_token_type[:100])
        return said.access_token

    async def _answered(self, at: AuthorizationServer, client: Client, form: Mapping[str, str]) -> bytes:
        """What the token endpoint says. Raises OAuthRefused and UpstreamFault."""
        proof, headers = self._proof(at, client)
        headers |= {"content-type": "application/x-www-form-urlencoded", "accept": "application/json"}
        again = form.get("grant_type") not in SINGLE_USE
        answer = await self._post(at.token_endpoint, headers, urlencode({**form, **proof}).encode(), again=again)
        if answer.status != 200:
            raise _refusal(answer)
        return answer.body

    async def _post(self, url: str, headers: Mapping[str, str], body: bytes, *, again: bool) -> Fetched:
        """`again`: once more where a connection ended without an answer.

        Not with a code or a refresh token: one that is shown twice looks stolen, and ends all that was given for it (RFC 9700 s4.14).
        """
        return await self._network.request(
            "POST", url, headers=headers, body=body, timeout=REQUEST_SECONDS, limit=ANSWER_MAX, idempotent=again, fresh=not again
        )

    def _proof(self, at: AuthorizationServer, client: Client) -> tuple[dict[str, str], dict[str, str]]:
        """Members of the form, and headers."""
        match client.method:
            case "client_secret_basic":
                pair = f"{quote_plus(client.client_id)}:{quote_plus(client.secret)}"  # RFC 6749 s2.3.1
                return {}, {"authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}
            case "client_secret_post":
                return {"client_id": client.client_id, "client_secret": client.secret}, {}
            case "private_key_jwt":
                proof = {"client_assertion_type": ASSERTION, "client_assertion": self._assertion(at, client)}
                return {"client_id": client.client_id, **proof}, {}
            case "none":
                return {"client_id": client.client_id}, {}
        raise UpstreamFault("The authorization server wants another proof of who the gateway is than it has", client.method[:40])

    def _assertion(self, at: AuthorizationServer, client: Client) -> str:
        """RFC 7523 s3, for this issuer alone."""
        now = int(self._own.now())
        claims = {"iss": client.client_id, "sub": client.client_id, "aud": at.issuer, "jti": new_id("a")}
        return self._own.sign({**claims, "iat": now, "exp": now + int(ASSERTION_SECONDS)}, "JWT")


def _refusal(answer: Fetched) -> UpstreamFault:
    try:
        error = _error_answer(answer.body).error
    except msgspec.MsgspecError:
        error = ""
    if not error:
        return UpstreamFault("The authorization server failed", f"status {answer.status}")
    return OAuthRefused("".join(mark for mark in error[:60] if mark.isalnum() or mark == "_"))

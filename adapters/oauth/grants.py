"""Requests to authorization servers: client registration, consents and tokens (OAuth 2.1, RFC 7591, 7636, 8707)."""

import base64
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final
from urllib.parse import quote_plus, urlencode, urlsplit

import msgspec

from adapters.contract import UpstreamFault
from adapters.oauth.discovery import LOOPBACK, AuthorizationServer, parse_scopes
from adapters.upstream.egress import Egress, HttpResponse
from policies.ids import new_id
from policies.vault.credentials import ClientRegistration, Credential

CLIENT_ASSERTION_TYPE: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
ASSERTION_SECONDS: Final = 60.0
REQUEST_SECONDS: Final = 15.0
ANSWER_MAX: Final = 256 << 10
TOKEN_MAX: Final = 16 << 10  # characters
PREFERRED_METHODS: Final = ("client_secret_basic", "client_secret_post", "none")  # for a dynamic registration
REFUSED_TEXT: Final = "The authorization server refused the request"
OFFLINE_ACCESS: Final = "offline_access"
INVALID_CODE: Final = "interlock-asks-whether-it-is-still-registered-here"  # an invalid code, long enough for a verifier (RFC 7636 s4.1)
UNKNOWN_CLIENT_ERRORS: Final = frozenset({"invalid_client", "unauthorized_client"})  # errors for a client that is not registered
SINGLE_USE_GRANTS: Final = frozenset({"authorization_code", "refresh_token"})


class OAuthRefused(UpstreamFault):
    """An error of RFC 6749 s5.2; `error` is its code, for the log."""

    def __init__(self, error: str) -> None:
        super().__init__(REFUSED_TEXT, f"error {error}")
        self.error = error


@dataclass(frozen=True, slots=True)
class OwnClient:
    """The gateway as an OAuth client.

    `document_url` and `keyed_document_url` are its metadata: as a public client, and as one that authenticates with the keys at `jwks`.
    `redirect_uri` is where people return to. `sign` makes a JWT of claims and a `typ`. `now` counts seconds since 1970.
    """

    document_url: str
    keyed_document_url: str
    jwks: str
    redirect_uri: str
    sign: Callable[[Mapping[str, Any], str], str]
    now: Callable[[], float]
    issuer: str = ""  # of assertions signed with those keys

    def metadata(self, keyed: bool) -> dict[str, Any]:
        """A client ID metadata document."""
        key_method = {"token_endpoint_auth_method": "private_key_jwt", "jwks_uri": self.jwks, "token_endpoint_auth_signing_alg": "ES256"}
        method = key_method if keyed else {"token_endpoint_auth_method": "none"}
        return {"client_id": self.keyed_document_url if keyed else self.document_url, **self.registration_metadata(), **method}

    def registration_metadata(self) -> dict[str, Any]:
        """The members of every registration."""
        return {
            "client_name": "Interlock",
            "redirect_uris": [self.redirect_uri],
            "grant_types": ["authorization_code", "refresh_token"],
            "response_types": ["code"],
            "application_type": "native" if urlsplit(self.redirect_uri).hostname in LOOPBACK else "web",
        }

    def client_by_document(self, authorization_server: AuthorizationServer) -> ClientRegistration:
        """The client where client metadata documents are supported."""
        if "private_key_jwt" in authorization_server.methods:
            return ClientRegistration(authorization_server.issuer, self.keyed_document_url, "private_key_jwt")
        return ClientRegistration(authorization_server.issuer, self.document_url)


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


class _RegistrationAnswer(msgspec.Struct):
    client_id: str
    client_secret: str | None = None
    token_endpoint_auth_method: str | None = None


_decode_token_answer: Final = msgspec.json.Decoder(_TokenAnswer).decode
_decode_exchange_answer: Final = msgspec.json.Decoder(_ExchangeAnswer).decode
_decode_error_answer: Final = msgspec.json.Decoder(_ErrorAnswer).decode
_decode_registration_answer: Final = msgspec.json.Decoder(_RegistrationAnswer).decode


def consent_url(
    authorization_server: AuthorizationServer, own_client: OwnClient, client_id: str, authorization_params: Mapping[str, str]
) -> str:
    """The authorization URL for a consent. `authorization_params`: resource, state, code_challenge, and the scope if there is one."""
    fixed = {"response_type": "code", "client_id": client_id, "redirect_uri": own_client.redirect_uri, "code_challenge_method": "S256"}
    prompt = {"prompt": "consent"} if OFFLINE_ACCESS in authorization_params.get("scope", "").split(" ") else {}
    joint = "&" if urlsplit(authorization_server.authorization_endpoint).query else "?"
    return f"{authorization_server.authorization_endpoint}{joint}{urlencode({**fixed, **authorization_params, **prompt})}"


def challenge_for(verifier: str) -> str:
    """The code challenge of a verifier (RFC 7636 s4.2, S256)."""
    return base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()


class OAuthRequests:
    """OAuth requests. Every method raises UpstreamFault, OAuthRefused and EgressRefused."""

    def __init__(self, network: Egress, own_client: OwnClient) -> None:
        self._network = network
        self._own_client = own_client

    async def register(self, authorization_server: AuthorizationServer) -> ClientRegistration:
        """Registers the gateway dynamically (RFC 7591)."""
        method = next((each for each in PREFERRED_METHODS if each in authorization_server.methods), "none")
        body = msgspec.json.encode({**self._own_client.registration_metadata(), "token_endpoint_auth_method": method})
        headers = {"content-type": "application/json", "accept": "application/json"}
        answer = await self._post(authorization_server.registration_endpoint, headers, body, may_repeat=True)
        if answer.status not in (200, 201):
            raise _fault_of_response(answer)
        try:
            registration = _decode_registration_answer(answer.body)
        except msgspec.MsgspecError:
            raise UpstreamFault("The authorization server's answer can't be read", "registration") from None
        secret = registration.client_secret or ""
        return ClientRegistration(
            authorization_server.issuer,
            registration.client_id,
            registration.token_endpoint_auth_method or ("client_secret_basic" if secret else "none"),
            secret,
        )

    async def request_token(
        self, authorization_server: AuthorizationServer, client: ClientRegistration, form: Mapping[str, str], scopes: frozenset[str]
    ) -> Credential:
        """Requests a token. `form` has the grant and its resource; client authentication is added.

        `scopes`: the requested ones, which are granted unless the response says otherwise.
        """
        try:
            token_response = _decode_token_answer(await self._post_to_token_endpoint(authorization_server, client, form))
            lasts = float(token_response.expires_in or 0)
        except (msgspec.MsgspecError, ValueError):
            raise UpstreamFault("The authorization server's answer can't be read", "token") from None
        fit = (
            0 < len(token_response.access_token) <= TOKEN_MAX
            and token_response.access_token.isascii()
            and token_response.access_token.isprintable()
        )
        if token_response.token_type.lower() != "bearer" or not fit or " " in token_response.access_token:
            raise UpstreamFault("The authorization server's token can't be used", "no bearer token")
        now = self._own_client.now()
        granted_scopes = scopes if token_response.scope is None else parse_scopes(token_response.scope)
        expires = now + lasts if 0 < lasts < 1e9 else 0.0
        credential = Credential(
            token_response.access_token, client.client_id, granted_scopes, scopes, expires, now, token_response.refresh_token or ""
        )
        return replace(credential, endpoint=authorization_server.token_endpoint, id_token=token_response.id_token or "")

    async def is_registered(self, authorization_server: AuthorizationServer, client: ClientRegistration) -> bool:
        """Whether a registration still exists: an authorization server authenticates the client before it checks a code (RFC 6749 s5.2)."""
        form = {
            "grant_type": "authorization_code",
            "code": INVALID_CODE,
            "redirect_uri": self._own_client.redirect_uri,
            "code_verifier": INVALID_CODE,
        }
        try:
            await self._post_to_token_endpoint(authorization_server, client, form)
        except OAuthRefused as refused:
            return refused.error not in UNKNOWN_CLIENT_ERRORS
        except UpstreamFault:
            return True  # assumed, if it can't be checked
        return True

    async def revoke(self, authorization_server: AuthorizationServer, client: ClientRegistration, token: str, kind: str) -> None:
        """Revokes a token (RFC 7009 s2.1). Raises UpstreamFault."""
        proof, headers = self._client_proof(authorization_server, client)
        headers |= {"content-type": "application/x-www-form-urlencoded", "accept": "application/json"}
        body = urlencode({"token": token, "token_type_hint": kind, **proof}).encode()
        answer = await self._post(authorization_server.revocation_endpoint, headers, body, may_repeat=True)
        if answer.status != 200:
            raise _fault_of_response(answer)

    async def exchange_for_assertion(
        self, authorization_server: AuthorizationServer, client: ClientRegistration, form: Mapping[str, str], kind: str
    ) -> str:
        """Exchanges for an assertion of type `kind` for another authorization server, which is no access token (RFC 8693 s2.2.1)."""
        try:
            token_response = _decode_exchange_answer(await self._post_to_token_endpoint(authorization_server, client, form))
        except msgspec.MsgspecError:
            raise UpstreamFault("The authorization server's answer can't be read", "exchange") from None
        if (
            token_response.issued_token_type != kind
            or token_response.token_type.lower() != "n_a"
            or not 0 < len(token_response.access_token) <= TOKEN_MAX
        ):
            raise UpstreamFault("The authorization server's assertion can't be used", token_response.issued_token_type[:100])
        return token_response.access_token

    async def _post_to_token_endpoint(
        self, authorization_server: AuthorizationServer, client: ClientRegistration, form: Mapping[str, str]
    ) -> bytes:
        """The body of the token endpoint's response. Raises OAuthRefused and UpstreamFault."""
        proof, headers = self._client_proof(authorization_server, client)
        headers |= {"content-type": "application/x-www-form-urlencoded", "accept": "application/json"}
        may_repeat = form.get("grant_type") not in SINGLE_USE_GRANTS
        answer = await self._post(
            authorization_server.token_endpoint, headers, urlencode({**form, **proof}).encode(), may_repeat=may_repeat
        )
        if answer.status != 200:
            raise _fault_of_response(answer)
        return answer.body

    async def _post(self, url: str, headers: Mapping[str, str], body: bytes, *, may_repeat: bool) -> HttpResponse:
        """Sends a POST. `may_repeat`: once more if the connection ended without a response.

        A code or refresh token is not repeated: one that is used twice looks stolen, and everything granted for it is revoked (RFC 9700
        s4.14).
        """
        return await self._network.request(
            "POST", url, headers=headers, body=body, timeout=REQUEST_SECONDS, limit=ANSWER_MAX, idempotent=may_repeat, fresh=not may_repeat
        )

    def _client_proof(self, authorization_server: AuthorizationServer, client: ClientRegistration) -> tuple[dict[str, str], dict[str, str]]:
        """The client authentication: form members, and headers. Raises UpstreamFault for an unsupported method."""
        match client.method:
            case "client_secret_basic":
                pair = f"{quote_plus(client.client_id)}:{quote_plus(client.secret)}"  # RFC 6749 s2.3.1
                return {}, {"authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}
            case "client_secret_post":
                return {"client_id": client.client_id, "client_secret": client.secret}, {}
            case "private_key_jwt":
                proof = {
                    "client_assertion_type": CLIENT_ASSERTION_TYPE,
                    "client_assertion": self._client_assertion(authorization_server, client),
                }
                return {"client_id": client.client_id, **proof}, {}
            case "none":
                return {"client_id": client.client_id}, {}
        raise UpstreamFault("The authorization server requires an unsupported client authentication method", client.method[:40])

    def _client_assertion(self, authorization_server: AuthorizationServer, client: ClientRegistration) -> str:
        """A client assertion (RFC 7523 s3) for this issuer only."""
        now = int(self._own_client.now())
        claims = {"iss": client.client_id, "sub": client.client_id, "aud": authorization_server.issuer, "jti": new_id("a")}
        return self._own_client.sign({**claims, "iat": now, "exp": now + int(ASSERTION_SECONDS)}, "JWT")


def _fault_of_response(answer: HttpResponse) -> UpstreamFault:
    try:
        error = _decode_error_answer(answer.body).error
    except msgspec.MsgspecError:
        error = ""
    if not error:
        return UpstreamFault("The authorization server failed", f"status {answer.status}")
    return OAuthRefused("".join(mark for mark in error[:60] if mark.isalnum() or mark == "_"))

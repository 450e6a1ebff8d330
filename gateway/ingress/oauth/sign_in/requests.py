"""Authorization requests: what a client asks a person for, checked before the person sees anything (RFC 6749 s4.1.1, OAuth 2.1)."""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from msgspec import Struct

from gateway.ingress.oauth.sign_in.clients.redirects import Redirect, find_registered
from gateway.ingress.oauth.sign_in.clients.store import AUTHORIZATION_CODE, SignInClient
from gateway.ingress.oauth.sign_in.scopes import BadScope, parse_scope

STATE_MAX: Final = 2048  # characters
_CHALLENGE: Final = re.compile(r"[A-Za-z0-9_-]{43}")  # S256 of anything
_STATE: Final = re.compile(r"[ -~]*")
_NAME: Final = "[a-z0-9-]{1,64}"
UNSUPPORTED: Final = {"request": "request_not_supported", "request_uri": "request_uri_not_supported", "registration": "invalid_request"}

PurposeKind = Literal["code", "device", "page"]


class BadAuthorization(Exception):
    """A request whose client or redirect URI is not known: the person reads why, and there is no redirect (RFC 6749 s4.1.2.1)."""


class AuthorizationRefused(Exception):
    """A request that is refused to the client, by a redirect. `error` is a code of RFC 6749 s4.1.2.1 or RFC 8707 s2."""

    def __init__(self, error: str, description: str) -> None:
        super().__init__(description)
        self.error = error


class Purpose(Struct, frozen=True, omit_defaults=True):
    """What a person signs in for: a client that gets a code, a device, or a page of the gateway.

    `place` is where the answer goes, as people read it. `reference` is the device (a digest), or the page's own data.
    """

    kind: PurposeKind
    client_id: str
    client_name: str
    client_kind: str = ""
    client_host: str = ""
    place: str = ""
    redirect_uri: str = ""
    state: str = ""
    resource: str = ""
    scope: str = ""
    challenge: str = ""
    page: str = ""
    reference: str = ""


@dataclass(frozen=True, slots=True)
class Audiences:
    """The resources that tokens may be for. `public_url` has no slash at its end."""

    public_url: str

    def choose(self, requested: str, client: SignInClient) -> str:
        """The one resource of a client's tokens (RFC 8707); without a request /mcp. Raises AuthorizationRefused."""
        if not requested:
            return f"{self.public_url}/mcp"
        path = requested.removeprefix(self.public_url).removesuffix("/") if requested.startswith(self.public_url) else None
        if path is not None and re.fullmatch(rf"/(mcp(/{_NAME}|/virtual/{_NAME})?|agents/{_NAME})", path):
            return f"{self.public_url}{path}"
        if path in ("", "/api"):
            if client.has_api:
                return f"{self.public_url}{path}"
            raise AuthorizationRefused("invalid_target", f"this client may not ask for the API; ask for {self.public_url}/mcp")
        raise AuthorizationRefused(
            "invalid_target", f"resource has to be {self.public_url}/mcp, or an agent or MCP endpoint of this gateway"
        )


def single_parameters(pairs: Collection[tuple[str, str]]) -> dict[str, str]:
    """The parameters of a request. Raises BadAuthorization for one that occurs twice (RFC 6749 s3.1)."""
    found: dict[str, str] = {}
    for name, value in pairs:
        if name in found:
            raise BadAuthorization("a parameter of the request occurs twice")
        if value:
            found[name] = value
    return found


def find_redirect(parameters: Mapping[str, str], client: SignInClient, private_uris: Collection[str]) -> Redirect:
    """The redirect of the request, which the client has to name and to have registered. Raises BadAuthorization."""
    found = find_registered(parameters.get("redirect_uri", ""), client.redirect_uris, private_uris)
    if found is None:
        raise BadAuthorization("the redirect_uri of the request is not one that this client has registered")
    return found


def read_request(
    parameters: Mapping[str, str], client: SignInClient, redirect: Redirect, audiences: Audiences, default_scope: Collection[str]
) -> Purpose:
    """The purpose of an authorization request. Raises AuthorizationRefused."""
    _check_response(parameters, client)
    challenge = parameters.get("code_challenge", "")
    if parameters.get("code_challenge_method") != "S256" or not _CHALLENGE.fullmatch(challenge):
        raise AuthorizationRefused("invalid_request", "a code_challenge with code_challenge_method=S256 is needed")
    try:
        scope = parse_scope(parameters.get("scope", ""), default_scope)
    except BadScope as error:
        raise AuthorizationRefused("invalid_scope", str(error)) from None
    return Purpose(
        "code",
        client.id,
        client.name,
        client.kind,
        client.host,
        place=redirect.place,
        redirect_uri=redirect.uri,
        state=state_of(parameters),
        resource=audiences.choose(parameters.get("resource", ""), client),
        scope=scope,
        challenge=challenge,
    )


def state_of(parameters: Mapping[str, Any]) -> str:
    """The client's state, which is returned as it is; "" where it is too long or not plain ASCII."""
    state = str(parameters.get("state", ""))
    return state if len(state) <= STATE_MAX and _STATE.fullmatch(state) else ""


def _check_response(parameters: Mapping[str, str], client: SignInClient) -> None:
    if parameters.get("state", "") != state_of(parameters):
        raise AuthorizationRefused("invalid_request", f"state has at most {STATE_MAX} characters of ASCII")
    for name, error in UNSUPPORTED.items():
        if name in parameters:
            raise AuthorizationRefused(error, f"{name} is not supported")
    if parameters.get("response_type") != "code":
        raise AuthorizationRefused("unsupported_response_type", "response_type has to be code")
    if parameters.get("response_mode", "query") != "query":
        raise AuthorizationRefused("invalid_request", "response_mode has to be query")
    if AUTHORIZATION_CODE not in client.grants:
        raise AuthorizationRefused("unauthorized_client", "this client does not use codes")
    if "none" in parameters.get("prompt", "").split(" "):
        raise AuthorizationRefused("consent_required", "a person has to consent each time")

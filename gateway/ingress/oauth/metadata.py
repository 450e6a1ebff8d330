"""Public metadata for clients: the gateway's keys, its token endpoint, and the identity providers of people."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter
from starlette.responses import JSONResponse

from gateway.ingress.http.error_bodies import PROBLEM_MEDIA_TYPE, problem
from gateway.ingress.http.errors import UnknownPath, describe
from gateway.ingress.oauth.token import EXCHANGE_METHOD, JWT_BEARER
from policies.keys.signing import SigningKeys

_CACHE_HEADERS = {"cache-control": "public, max-age=300"}  # gateway/server/router.py lets pages of every origin read them
_CLIENT_ENDPOINTS = ("token", "revocation")  # endpoints where clients authenticate
_NAME_PATTERN = "[a-z0-9-]{1,64}"
_RESOURCE_PATH = re.compile(rf"api|mcp(/{_NAME_PATTERN}|/virtual/{_NAME_PATTERN})?|agents/{_NAME_PATTERN}")


@dataclass(frozen=True, slots=True)
class SignInOffer:
    """What the metadata say about sign-in: the scopes of clients that ask for none, and how clients become known."""

    scopes: tuple[str, ...]
    has_registration: bool
    has_documents: bool


def routes(
    public_url: str, keys: SigningKeys, issuers: Sequence[str], scopes: Sequence[str], *, sign_in: SignInOffer | None = None
) -> APIRouter:
    """Returns the metadata routes.

    `issuers` are the identity providers of people, and `scopes` those that each of them knows. `public_url` has no slash at its end. Where
    people sign in at the gateway, it stands before the issuers, since some clients only look at the first.
    """
    router = APIRouter(tags=["oauth"], prefix="/.well-known")
    servers = [*issuers, public_url] if sign_in is None else [public_url, *issuers]
    known_scopes = scopes if sign_in is None else sign_in.scopes

    @router.get("/jwks.json")
    async def jwks() -> JSONResponse:
        return JSONResponse(keys.jwks(), headers=_CACHE_HEADERS, media_type="application/jwk-set+json")

    @router.get("/oauth-authorization-server")
    async def authorization_server() -> JSONResponse:
        return JSONResponse(_authorization_server_metadata(public_url, sign_in), headers=_CACHE_HEADERS)

    @router.get("/oauth-protected-resource")
    async def gateway_resource() -> JSONResponse:
        return JSONResponse(_protected_resource_metadata(public_url, servers, known_scopes), headers=_CACHE_HEADERS)

    @router.get("/oauth-protected-resource/{path:path}")
    async def resource(path: str) -> JSONResponse:
        if not _RESOURCE_PATH.fullmatch(path):
            return JSONResponse(problem(describe(UnknownPath())), 404, media_type=PROBLEM_MEDIA_TYPE.decode())
        return JSONResponse(_protected_resource_metadata(f"{public_url}/{path}", servers, known_scopes), headers=_CACHE_HEADERS)

    return router


def _authorization_server_metadata(public_url: str, sign_in: SignInOffer | None) -> dict[str, Any]:
    """Returns authorization server metadata (RFC 8414 s2). Without sign-in, there is no authorization endpoint."""
    person_grants = [] if sign_in is None else ["authorization_code", "refresh_token", "urn:ietf:params:oauth:grant-type:device_code"]
    methods = ["client_secret_basic", "private_key_jwt", *(["none"] if sign_in is not None else [])]
    return {
        "issuer": public_url,
        **_sign_in_metadata(public_url, sign_in),
        "token_endpoint": f"{public_url}/oauth/token",
        "jwks_uri": f"{public_url}/.well-known/jwks.json",
        "revocation_endpoint": f"{public_url}/oauth/revoke",
        "response_types_supported": ["code"] if sign_in is not None else [],
        "grant_types_supported": [*person_grants, EXCHANGE_METHOD, JWT_BEARER],
        "authorization_grant_profiles_supported": ["urn:ietf:params:oauth:grant-profile:id-jag"],
        **{f"{endpoint}_endpoint_auth_methods_supported": methods for endpoint in _CLIENT_ENDPOINTS},
        **{f"{endpoint}_endpoint_auth_signing_alg_values_supported": ["ES256", "RS256"] for endpoint in _CLIENT_ENDPOINTS},
        "dpop_signing_alg_values_supported": ["ES256", "RS256"],
    }


def _sign_in_metadata(public_url: str, sign_in: SignInOffer | None) -> dict[str, Any]:
    """Returns what clients of people need: without `S256` they refuse a server, and `iss` tells its answers from others (RFC 9207)."""
    if sign_in is None:
        return {}
    return {
        "authorization_endpoint": f"{public_url}/oauth/authorize",
        "device_authorization_endpoint": f"{public_url}/oauth/device",
        **({"registration_endpoint": f"{public_url}/oauth/register"} if sign_in.has_registration else {}),
        "client_id_metadata_document_supported": sign_in.has_documents,
        "code_challenge_methods_supported": ["S256"],
        "response_modes_supported": ["query"],
        "authorization_response_iss_parameter_supported": True,
        "scopes_supported": [*sign_in.scopes, "offline_access"],
        "service_documentation": f"{public_url}/docs",
    }


def _protected_resource_metadata(resource: str, servers: Sequence[str], scopes: Sequence[str]) -> dict[str, Any]:
    """Returns protected resource metadata (RFC 9728 s2), equal for existing and unknown names, so that it does not reveal names.

    Clients ask the first server for all of `scopes_supported`. External issuers refuse unknown scopes, so the gateway's own ones are only
    listed where the gateway is the first.
    """
    return {
        "resource": resource,
        "authorization_servers": list(servers),
        **({"scopes_supported": list(scopes)} if scopes else {}),
        "bearer_methods_supported": ["header"],
        "dpop_signing_alg_values_supported": ["ES256", "RS256"],
        "resource_name": "Interlock",
    }

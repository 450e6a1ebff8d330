"""Public metadata for clients: the gateway's keys, its token endpoint, and the identity providers of people."""

import re
from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter
from starlette.responses import JSONResponse

from gateway.ingress.http.error_bodies import PROBLEM_MEDIA_TYPE, problem
from gateway.ingress.http.errors import UnknownPath, describe
from gateway.ingress.oauth.token import EXCHANGE_METHOD, JWT_BEARER
from policies.keys.signing import SigningKeys

_CACHE_HEADERS = {"cache-control": "public, max-age=300", "access-control-allow-origin": "*"}
_CLIENT_ENDPOINTS = ("token", "revocation")  # endpoints where clients authenticate
_NAME_PATTERN = "[a-z0-9-]{1,64}"
_RESOURCE_PATH = re.compile(rf"api|mcp(/{_NAME_PATTERN}|/virtual/{_NAME_PATTERN})?|agents/{_NAME_PATTERN}")


def routes(public_url: str, keys: SigningKeys, issuers: Sequence[str], scopes: Sequence[str]) -> APIRouter:
    """Returns the metadata routes.

    `issuers` are the identity providers of people, and `scopes` those that each of them knows. `public_url` has no slash at its end.
    """
    router = APIRouter(tags=["oauth"], prefix="/.well-known")

    @router.get("/jwks.json")
    async def jwks() -> JSONResponse:
        return JSONResponse(keys.jwks(), headers=_CACHE_HEADERS, media_type="application/jwk-set+json")

    @router.get("/oauth-authorization-server")
    async def authorization_server() -> JSONResponse:
        return JSONResponse(_authorization_server_metadata(public_url), headers=_CACHE_HEADERS)

    @router.get("/oauth-protected-resource")
    async def gateway_resource() -> JSONResponse:
        return JSONResponse(_protected_resource_metadata(public_url, public_url, issuers, scopes), headers=_CACHE_HEADERS)

    @router.get("/oauth-protected-resource/{path:path}")
    async def resource(path: str) -> JSONResponse:
        if not _RESOURCE_PATH.fullmatch(path):
            return JSONResponse(problem(describe(UnknownPath())), 404, media_type=PROBLEM_MEDIA_TYPE.decode())
        return JSONResponse(_protected_resource_metadata(public_url, f"{public_url}/{path}", issuers, scopes), headers=_CACHE_HEADERS)

    return router


def _authorization_server_metadata(public_url: str) -> dict[str, Any]:
    """Returns authorization server metadata (RFC 8414 s2).

    There is no authorization endpoint, since people sign in at their own provider.
    """
    return {
        "issuer": public_url,
        "token_endpoint": f"{public_url}/oauth/token",
        "jwks_uri": f"{public_url}/.well-known/jwks.json",
        "revocation_endpoint": f"{public_url}/oauth/revoke",
        "response_types_supported": [],
        "grant_types_supported": [EXCHANGE_METHOD, JWT_BEARER],
        "authorization_grant_profiles_supported": ["urn:ietf:params:oauth:grant-profile:id-jag"],
        **{f"{endpoint}_endpoint_auth_methods_supported": ["client_secret_basic", "private_key_jwt"] for endpoint in _CLIENT_ENDPOINTS},
        **{f"{endpoint}_endpoint_auth_signing_alg_values_supported": ["ES256", "RS256"] for endpoint in _CLIENT_ENDPOINTS},
        "dpop_signing_alg_values_supported": ["ES256", "RS256"],
    }


def _protected_resource_metadata(public_url: str, resource: str, issuers: Sequence[str], scopes: Sequence[str]) -> dict[str, Any]:
    """Returns protected resource metadata (RFC 9728 s2), equal for existing and unknown names, so that it does not reveal names.

    Clients ask an issuer for all of `scopes_supported`, and issuers refuse unknown scopes, so the gateway's own scopes are not listed.
    """
    return {
        "resource": resource,
        "authorization_servers": [*issuers, public_url],
        **({"scopes_supported": list(scopes)} if scopes else {}),
        "bearer_methods_supported": ["header"],
        "dpop_signing_alg_values_supported": ["ES256", "RS256"],
        "resource_name": "Interlock",
    }

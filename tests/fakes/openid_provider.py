"""An OpenID provider on loopback that checks what a client sends, and says what a test wants it to say."""

import base64
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import unquote_plus

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tests.fakes.issuer import FakeIssuer
from tests.fakes.mcp_servers import serving
from tests.fakes.sign_in import challenge_of, parameters_of

CLIENT, SECRET = "gateway", "s3cret:with/odd+signs"


class OpenIdProvider:
    """`claims` are of the person who logs in; `overrides` change ID tokens. `requests` are the forms that its token endpoint got.

    `metadata` are members of its metadata that replace its own.
    """

    def __init__(self) -> None:
        self.issuer = FakeIssuer()
        self.claims: dict[str, Any] = {"sub": "alice", "tid": "acme", "roles": ["sales"]}
        self.overrides: dict[str, Any] = {}
        self.metadata: dict[str, Any] = {}
        self.requests: list[dict[str, str]] = []
        self.gives_refresh_tokens = True
        self.refuses = ""  # the error of the token endpoint
        self.is_down = False
        self._codes: dict[str, dict[str, str]] = {}
        self._refresh_tokens: set[str] = set()
        metadata, jwks = "/.well-known/openid-configuration", "/jwks"
        self.app = Starlette(
            routes=[
                Route(metadata, self._show_metadata),
                Route(jwks, self._show_keys),
                Route("/token", self._answer_token, methods=["POST"]),
            ]
        )

    @property
    def url(self) -> str:
        return self.issuer.url

    def settings(self, name: str = "corp", **more: Any) -> dict[str, Any]:
        """The settings of a gateway whose people log in here."""
        issuer = {"issuer": self.url, "jwks_url": f"{self.url}/jwks", "tenant_claim": "tid"}
        provider = {"issuer": self.url, "label": "Corporate login", "client_id": CLIENT, "client_secret": "env:PROVIDER_SECRET", **more}
        return {
            "identity": {"development": "off", "issuers": [issuer]},
            "egress": {"allow": ["127.0.0.0/8"]},
            "sign_in": {"providers": {name: provider}},
        }

    def log_in(self, url: str) -> dict[str, str]:
        """What the browser brings back from the authorization URL, once the person has logged in."""
        asked = parameters_of(url)
        assert url.startswith(f"{self.url}/auth?"), url
        assert (asked["response_type"], asked["client_id"], asked["code_challenge_method"]) == ("code", CLIENT, "S256")
        code = secrets.token_urlsafe(8)
        self._codes[code] = asked
        return {"code": code, "state": asked["state"], "iss": self.url}

    async def _show_metadata(self, request: Request) -> Response:
        places = {"authorization_endpoint": f"{self.url}/auth", "token_endpoint": f"{self.url}/token", "jwks_uri": f"{self.url}/jwks"}
        return JSONResponse({"issuer": self.url, **places, "authorization_response_iss_parameter_supported": True, **self.metadata})

    async def _show_keys(self, request: Request) -> Response:
        answer = self.issuer.respond("/jwks")
        return Response(answer.body, answer.status, media_type="application/json")

    async def _answer_token(self, request: Request) -> Response:
        if self.is_down:
            return Response("down", 503)
        form = {name: str(value) for name, value in (await request.form()).items()}
        self.requests.append(form)
        shown = base64.b64decode(request.headers["authorization"].removeprefix("Basic ")).decode().split(":")
        if [unquote_plus(each) for each in shown] != [CLIENT, SECRET]:
            return JSONResponse({"error": "invalid_client"}, 401)
        nonce = self._nonce_of(form)
        if self.refuses or nonce is None:
            return JSONResponse({"error": self.refuses or "invalid_grant"}, 400)
        return JSONResponse(self._tokens(nonce))

    def _nonce_of(self, form: dict[str, str]) -> str | None:
        """The nonce of a good request, "" for one of a refresh; None for a bad one."""
        if form["grant_type"] == "refresh_token":
            known = form["refresh_token"] in self._refresh_tokens
            self._refresh_tokens.discard(form["refresh_token"])
            return "" if known else None
        asked = self._codes.pop(form["code"], {})
        is_proved = challenge_of(form["code_verifier"]) == asked.get("code_challenge")
        return asked["nonce"] if is_proved and form["redirect_uri"] == asked["redirect_uri"] else None

    def _tokens(self, nonce: str) -> dict[str, Any]:
        claims = {"aud": CLIENT, **self.claims, **({"nonce": nonce} if nonce else {}), **self.overrides}
        answer = {"access_token": "opaque", "token_type": "Bearer", "id_token": self.issuer.mint({"typ": "JWT"}, **claims)}
        if self.gives_refresh_tokens:
            token = secrets.token_urlsafe(8)
            self._refresh_tokens.add(token)
            answer["refresh_token"] = token
        return answer


@asynccontextmanager
async def openid_provider() -> AsyncIterator[OpenIdProvider]:
    """One on a port of loopback."""
    provider = OpenIdProvider()
    async with serving(provider.app) as provider.issuer.url:
        yield provider

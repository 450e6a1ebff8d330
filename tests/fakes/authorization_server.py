"""An authorization server of OAuth 2.1 on loopback that checks what it is asked, and an MCP server that takes its tokens only."""

import base64
import hashlib
import json
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, unquote_plus, urlencode, urlsplit

import httpx
from jose import jwt
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from tests.fakes.mcp_servers import serving

SERVER, OPENID, RESOURCE = (
    "/.well-known/oauth-authorization-server",
    "/.well-known/openid-configuration",
    "/.well-known/oauth-protected-resource",
)
ASSERTION = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


@dataclass
class Token:
    client_id: str
    resource: str
    scopes: frozenset[str]
    good: bool = True


@dataclass
class Ways:
    """How this one is. `iss`: right, wrong, none or slash. `place`: of its metadata, below its origin."""

    path: str = ""
    place: str = ""
    iss: str = "right"
    tells_iss: bool = True
    issuer: str = ""  # in its metadata, where that is wrong
    methods: list[str] = field(default_factory=lambda: ["none"])
    registers: bool = True
    documents: dict[str, dict[str, Any]] | None = None  # client ID metadata documents by address; None: not taken
    scopes: list[str] | None = None
    pkce: list[str] | None = field(default_factory=lambda: ["S256"])
    gives: frozenset[str] | None = None  # no more scopes than these
    lasts: int | None = 3600
    more: dict[str, Any] = field(default_factory=dict)  # of its metadata
    fails: bool = False  # its token endpoint
    revokes: bool = False  # RFC 7009


class AuthorizationServer:
    """`asked` is every request: (path, parameters). `clients` are those registered: id to (method, secret or JWK Set)."""

    def __init__(self, ways: Ways | None = None) -> None:
        self.ways = ways or Ways()
        self.origin = ""
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.clients: dict[str, tuple[str, Any]] = {}
        self.tokens: dict[str, Token] = {}
        self.refreshing: dict[str, Token] = {}
        self.revoked: list[tuple[str, str, str]] = []  # client, kind, token
        self.subject = "alice"  # who signs in here
        self.identities: dict[str, dict[str, Any]] = {}  # ID tokens that we gave
        self.vouched: dict[str, dict[str, Any]] = {}  # ID-JAGs that we gave
        self.trusts: list[AuthorizationServer] = []
        self.trusted: Any = None  # a JWK Set
        self.about: list[dict[str, Any]] = []  # of whom assertions told
        self.now: Callable[[], float] = time.time
        self._nonces: dict[str, str] = {}
        self._codes: dict[str, dict[str, str]] = {}
        self._number = 0

    @property
    def issuer(self) -> str:
        return f"{self.origin}{self.ways.path}"

    def count(self, path: str) -> int:
        return sum(1 for name, _ in self.asked if name == path)

    def last(self, path: str) -> dict[str, str]:
        return next(given for name, given in reversed(self.asked) if name == path)

    @property
    def app(self) -> ASGIApp:
        place = self.ways.place or f"{SERVER}{self.ways.path}"
        return Starlette(
            routes=[
                Route(place, self._metadata),
                Route(f"{self.ways.path}/authorize", self._authorize),
                Route(f"{self.ways.path}/token", self._token, methods=["POST"]),
                Route(f"{self.ways.path}/register", self._register, methods=["POST"]),
                Route(f"{self.ways.path}/revoke", self._revoke, methods=["POST"]),
            ]
        )

    async def _metadata(self, request: Request) -> Response:
        self.asked.append(("metadata", {}))
        said = {
            "issuer": self.ways.issuer or self.issuer,
            "authorization_endpoint": f"{self.issuer}/authorize",
            "token_endpoint": f"{self.issuer}/token",
            "token_endpoint_auth_methods_supported": self.ways.methods,
            **({"registration_endpoint": f"{self.issuer}/register"} if self.ways.registers else {}),
            **({"code_challenge_methods_supported": self.ways.pkce} if self.ways.pkce is not None else {}),
            **({"authorization_response_iss_parameter_supported": True} if self.ways.tells_iss else {}),
            **({"client_id_metadata_document_supported": True} if self.ways.documents is not None else {}),
            **({"revocation_endpoint": f"{self.issuer}/revoke"} if self.ways.revokes else {}),
            **({"scopes_supported": self.ways.scopes} if self.ways.scopes is not None else {}),
        }
        return JSONResponse({**said, **self.ways.more})

    async def _register(self, request: Request) -> Response:
        body = await request.json()
        self.asked.append(("register", body))
        self._number += 1
        client_id, method = f"client-{self._number}", body["token_endpoint_auth_method"]
        secret = secrets.token_hex(8) if method.startswith("client_secret") else ""
        self.clients[client_id] = (method, secret)
        return JSONResponse(
            {"client_id": client_id, "token_endpoint_auth_method": method, **({"client_secret": secret} if secret else {})}, 201
        )

    async def _revoke(self, request: Request) -> Response:
        form = dict(parse_qsl((await request.body()).decode(), strict_parsing=True))
        client_id = self._client(request.headers.get("authorization", ""), form)
        if client_id is None:
            return JSONResponse({"error": "invalid_client"}, 401)
        self.revoked.append((client_id, form["token_type_hint"], form["token"]))
        return Response("")

    async def _authorize(self, request: Request) -> Response:
        """Everybody consents at once."""
        given = dict(request.query_params)
        self.asked.append(("authorize", given))
        if not self._knows(given.get("client_id", ""), given.get("redirect_uri", "")) or given.get("response_type") != "code":
            return Response("unknown client", 400)
        aimed = given.get("resource") or "openid" in given.get("scope", "")
        if given.get("code_challenge_method") != "S256" or len(given.get("code_challenge", "")) != 43 or not aimed:
            return Response("PKCE and a resource are needed", 400)
        code = secrets.token_urlsafe(16)
        self._codes[code] = given
        iss = {"right": self.issuer, "wrong": "https://evil.example", "slash": f"{self.issuer}/"}.get(self.ways.iss)
        answer = {"code": code, "state": given["state"], **({"iss": iss} if iss else {})}
        return RedirectResponse(f"{given['redirect_uri']}?{urlencode(answer)}", 302)

    def _knows(self, client_id: str, redirect: str) -> bool:
        documents = self.ways.documents or {}
        if client_id in documents:
            document = documents[client_id]
            assert document["client_id"] == client_id
            self.clients.setdefault(client_id, (document["token_endpoint_auth_method"], document.get("jwks")))
            return redirect in document["redirect_uris"]
        return client_id in self.clients

    async def _token(self, request: Request) -> Response:
        if self.ways.fails:
            return Response("down", 503)
        body = (await request.body()).decode()
        form = dict(parse_qsl(body, strict_parsing=True))
        client_id = self._client(request.headers.get("authorization", ""), form)
        self.asked.append(("token", {**form, "client_id": client_id or ""}))
        if client_id is None:
            return JSONResponse({"error": "invalid_client"}, 401)
        match form["grant_type"]:
            case "authorization_code":
                return self._for_code(client_id, form)
            case "refresh_token":
                return self._for_refresh(client_id, form)
            case "urn:ietf:params:oauth:grant-type:token-exchange":
                return self._exchanged(client_id, form)
            case "urn:ietf:params:oauth:grant-type:jwt-bearer":
                return self._for_assertion(client_id, form)
            case "client_credentials":
                return self._given(Token(client_id, form.get("resource", ""), frozenset(form.get("scope", "").split())), refreshes=False)
        return JSONResponse({"error": "unsupported_grant_type"}, 400)

    def _client(self, header: str, form: dict[str, str]) -> str | None:
        """RFC 6749 s2.3, RFC 7523 s2.2."""
        client_id, secret = form.get("client_id", ""), form.get("client_secret", "")
        how = "client_secret_post" if secret else "none"
        if header.startswith("Basic "):
            client_id, _, secret = (unquote_plus(part) for part in base64.b64decode(header[6:]).decode().partition(":"))
            how = "client_secret_basic"
        method, known = self.clients.get(client_id, ("", ""))
        if method == "private_key_jwt" and form.get("client_assertion_type") == ASSERTION:
            claims = jwt.decode(form["client_assertion"], known, algorithms=["ES256"], audience=self.issuer)
            return client_id if claims["iss"] == claims["sub"] == client_id and claims["jti"] else None
        return client_id if how == method and secret == (known or "") else None

    def _for_code(self, client_id: str, form: dict[str, str]) -> Response:
        given = self._codes.pop(form["code"], None)
        challenge = base64.urlsafe_b64encode(hashlib.sha256(form["code_verifier"].encode()).digest()).rstrip(b"=").decode()
        same = given is not None and all(given.get(name) == form.get(name) for name in ("redirect_uri", "resource"))
        if given is None or not same or given["code_challenge"] != challenge or given["client_id"] != client_id:
            return JSONResponse({"error": "invalid_grant"}, 400)
        scopes = frozenset(given.get("scope", "").split())
        self._nonces[client_id] = given.get("nonce", "")
        return self._given(Token(client_id, form.get("resource", ""), scopes))

    def _exchanged(self, client_id: str, form: dict[str, str]) -> Response:
        """RFC 8693: an ID-JAG for an ID token of ours, or an access token for the word of whom we trust."""
        if form["requested_token_type"].endswith(":access_token"):
            return self._for_assertion(client_id, {**form, "assertion": form["subject_token"]})
        claims = self.identities.get(form["subject_token"])
        if claims is None or claims["exp"] <= self.now():
            return JSONResponse({"error": "invalid_grant"}, 400)
        vouched = {"iss": self.issuer, "sub": claims["sub"], "aud": form["audience"], "resource": form["resource"]}
        jag = unsigned(vouched | {"jti": secrets.token_hex(8)})
        self.vouched[jag] = vouched
        return JSONResponse({"access_token": jag, "issued_token_type": form["requested_token_type"], "token_type": "N_A"})

    def _for_assertion(self, client_id: str, form: dict[str, str]) -> Response:
        """RFC 7523, of an identity provider in `trusts` or of those whose keys are `trusted`."""
        said = next((issuer.vouched[form["assertion"]] for issuer in self.trusts if form["assertion"] in issuer.vouched), None)
        if said is None and self.trusted is not None:
            said = jwt.decode(form["assertion"], self.trusted, algorithms=["ES256"], audience=self.issuer)
        if said is None or said["aud"] != self.issuer or said.get("resource", form["resource"]) != form["resource"]:
            return JSONResponse({"error": "invalid_grant"}, 400)
        self.about.append(said)
        return self._given(Token(client_id, form["resource"], frozenset(form.get("scope", "").split())), refreshes=False)

    def _for_refresh(self, client_id: str, form: dict[str, str]) -> Response:
        """Each refresh token is good for once."""
        token = self.refreshing.pop(form["refresh_token"], None)
        if token is None or token.client_id != client_id or token.resource != form.get("resource", ""):
            return JSONResponse({"error": "invalid_grant"}, 400)
        return self._given(token)

    def _given(self, token: Token, refreshes: bool = True) -> Response:
        access, refresh = f"at-{secrets.token_urlsafe(12)}", f"rt-{secrets.token_urlsafe(12)}"
        scopes = token.scopes if self.ways.gives is None else token.scopes & self.ways.gives
        self.tokens[access] = Token(token.client_id, token.resource, scopes)
        answer: dict[str, Any] = {"access_token": access, "token_type": "bearer", "scope": " ".join(sorted(scopes))}
        if "openid" in token.scopes:
            claims = {"iss": self.issuer, "aud": token.client_id, "sub": self.subject, "exp": self.now() + 300, "jti": secrets.token_hex(8)}
            claims = claimed(claims | {"nonce": self._nonces[token.client_id]})
            answer["id_token"] = unsigned(claims)
            self.identities[answer["id_token"]] = claims
        if refreshes:
            self.refreshing[refresh] = token
            answer["refresh_token"] = refresh
        return JSONResponse(answer | ({"expires_in": self.ways.lasts} if self.ways.lasts else {}))


def claimed(claims: dict[str, Any]) -> dict[str, Any]:
    """What an ID token says; tests make it say something else."""
    return claims


def unsigned(claims: dict[str, Any]) -> str:
    """A JWT whose signature nobody looks at."""
    return ".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in ({"alg": "none"}, claims, "x"))


class Protected:
    """An MCP server that takes tokens for itself alone. `needs`: the scope of each tool, and of all else under the empty name."""

    def __init__(self, app: ASGIApp, issuer: Callable[[], AuthorizationServer]) -> None:
        self._app = app
        self._issuer = issuer
        self.origin = ""
        self.needs: dict[str, str] = {}
        self.shown: list[str] = []  # the credentials, as they came
        self.place = f"{RESOURCE}/mcp"
        self.told = True  # the challenge says where the metadata is
        self.names: dict[str, Any] = {}  # of its metadata, where that is odd

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
        elif scope["path"] == self.place:
            said = {"resource": f"{self.origin}/mcp", "authorization_servers": [self._issuer().issuer], **self.names}
            await JSONResponse(said)(scope, receive, send)
        elif not scope["path"].startswith("/mcp"):
            await Response("nothing", 404)(scope, receive, send)
        else:
            await self._guarded(scope, receive, send)

    async def _guarded(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        given = headers.get("authorization", "")
        self.shown.append(given)
        token = self._issuer().tokens.get(given.removeprefix("Bearer "))
        needed = self.needs.get(headers.get("mcp-name", ""), self.needs.get("", ""))
        if token is None or not token.good or not f"{self.origin}/mcp".startswith(token.resource):
            await self._refuse(401, needed, "invalid_token" if given else "")(scope, receive, send)
        elif needed and needed not in token.scopes:
            await self._refuse(403, needed, "insufficient_scope")(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _refuse(self, status: int, scope: str, error: str) -> Response:
        told = {"error": error, "scope": scope, "resource_metadata": f"{self.origin}{self.place}" if self.told else ""}
        challenge = "Bearer " + ", ".join(f'{name}="{value}"' for name, value in told.items() if value)
        return JSONResponse({"error": error}, status, {"www-authenticate": challenge})


@asynccontextmanager
async def authorization_server(ways: Ways | None = None) -> AsyncIterator[AuthorizationServer]:
    """On a port of loopback."""
    server = AuthorizationServer(ways)
    async with serving(server.app) as server.origin:
        yield server


@asynccontextmanager
async def protected(app: ASGIApp, issuer: Callable[[], AuthorizationServer]) -> AsyncIterator[Protected]:
    """On a port of loopback; its MCP endpoint is at /mcp."""
    server = Protected(app, issuer)
    async with serving(server, grace=0) as server.origin:
        yield server


async def visited(url: str) -> dict[str, str]:
    """What a person's browser comes back with who consents at `url`."""
    async with httpx.AsyncClient() as browser:
        answer = await browser.get(url)
    assert answer.status_code == 302, answer.text
    return dict(parse_qsl(urlsplit(answer.headers["location"]).query))


class Plain:
    """An MCP server of 2026-07-28: any tool says its name. `calls` are the names, `params` of the last."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.params: dict[str, Any] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        request = await Request(scope, receive).json()
        await self._answer(request)(scope, receive, send)

    def _answer(self, request: dict[str, Any]) -> Callable[[Scope, Receive, Send], Awaitable[None]]:
        result: dict[str, Any] = {"resultType": "complete"}
        match request["method"]:
            case "server/discover":
                result |= {
                    "supportedVersions": ["2026-07-28"],
                    "capabilities": {"tools": {}},
                    "serverInfo": {"name": "plain", "version": "1"},
                }
            case "tools/list":
                tools = [{"name": name, "inputSchema": {"type": "object"}} for name in ("read", "write")]
                result |= {"tools": tools, "ttlMs": 0, "cacheScope": "private"}
            case "tools/call":
                self.calls.append(request["params"]["name"])
                self.params = request["params"]
                result["content"] = [{"type": "text", "text": request["params"]["name"]}]
            case _:
                error = {"code": -32601, "message": "no"}
                return JSONResponse({"jsonrpc": "2.0", "id": request["id"], "error": error}, 404)
        return Response(json.dumps({"jsonrpc": "2.0", "id": request["id"], "result": result}), media_type="application/json")


class Shown(Plain):
    """One whose tools are up to who answers `called`."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        request = await Request(scope, receive).json()
        if request["method"] != "tools/call":
            await self._answer(request)(scope, receive, send)
            return
        shown = dict(scope["headers"]).get(b"authorization", b"").decode()
        answer = {"jsonrpc": "2.0", "id": request["id"], **self.called(request["params"], shown)}
        await JSONResponse(answer)(scope, receive, send)

    def called(self, params: dict[str, Any], shown: str) -> dict[str, Any]:
        """`result` or `error` of a call with this Authorization."""
        return says(params["name"])


def says(words: str) -> dict[str, Any]:
    return {"result": {"resultType": "complete", "content": [{"type": "text", "text": words}]}}

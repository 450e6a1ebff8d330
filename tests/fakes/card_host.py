"""A host of one card, which its owner may change, sign and take down; it answers conditional requests as caches wish."""

import hashlib
import json
from typing import Any

import rfc8785
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from tests.fakes.cards import card
from tests.fakes.issuer import EcKey, b64


def signature_of(document: dict[str, Any], key: EcKey, payload: bytes | None = None, **header: Any) -> dict[str, str]:
    """A2A 1.0 s8.4, or something that only looks like it."""
    plain = {name: value for name, value in document.items() if name != "signatures"}
    protected = b64(json.dumps({"alg": "ES256", "kid": key.kid, "typ": "JOSE", **header}).encode())
    signed = f"{protected}.{b64(payload or rfc8785.dumps(plain))}".encode()
    return {"protected": protected, "signature": b64(key.sign(signed))}


def signed_by(document: dict[str, Any], *keys: EcKey, **header: Any) -> dict[str, Any]:
    return {**document, "signatures": [signature_of(document, key, **header) for key in keys]}


class CardHost:
    """An ASGI application. `changes` are members of the card; `key` signs it; `status` other than 200 answers with nothing."""

    def __init__(self, **changes: Any) -> None:
        self.changes = changes
        self.key: EcKey | None = None
        self.status = 200
        self.keys: list[dict[str, Any]] = []  # at /jwks.json
        self.header: dict[str, Any] = {}
        self.asked: list[dict[str, str]] = []
        self.answered: list[int] = []

    def card(self, url: str) -> dict[str, Any]:
        document = {**card(url, "1.0"), **self.changes}
        header = {name: value.replace("URL", url) for name, value in self.header.items()}
        return signed_by(document, self.key, **header) if self.key else document

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            answer = self._answer(Request(scope))
            await answer(scope, receive, send)

    def _answer(self, request: Request) -> Response:
        if request.url.path == "/jwks.json":
            return JSONResponse({"keys": self.keys})
        if request.url.path != "/.well-known/agent-card.json":
            return Response(status_code=404)
        self.asked.append(dict(request.headers))
        body = json.dumps(self.card(str(request.base_url))).encode()
        tag = f'"{hashlib.sha256(json.dumps(self.changes).encode()).hexdigest()[:16]}"'
        status = 304 if self.status == 200 and request.headers.get("if-none-match") == tag else self.status
        self.answered.append(status)
        return Response(body if status == 200 else b"", status, {"etag": tag, "last-modified": "Wed, 21 Oct 2026 07:28:00 GMT"})

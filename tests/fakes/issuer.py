"""A small identity provider: discovery document, JWKS and tokens to order, in memory or as a real loopback server."""

import base64
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from itertools import count
from typing import Any

from cryptography.hazmat.primitives import hashes, hmac, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from tests.fakes.quiet_server import QuietServer

ABSENT: Any = object()  # as an override: leave this claim or header out


def b64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def number(value: int, size: int = 0) -> str:
    return b64(value.to_bytes(size or (value.bit_length() + 7) // 8))


def merged(defaults: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in {**defaults, **overrides}.items() if value is not ABSENT}


def compact(header: object, claims: object, sign: Callable[[bytes], bytes]) -> str:
    """Any JWS, however wrong. bytes stand for themselves, anything else is written as JSON (with NaN where asked for)."""
    parts = [b64(part if isinstance(part, bytes) else json.dumps(part).encode()) for part in (header, claims)]
    return ".".join([*parts, b64(sign(".".join(parts).encode()))])


def hs256(secret: bytes) -> Callable[[bytes], bytes]:
    def sign(signed: bytes) -> bytes:
        mac = hmac.HMAC(secret, hashes.SHA256())
        mac.update(signed)
        return mac.finalize()

    return sign


class EcKey:
    """A P-256 key, or one of another curve that lies about its algorithm."""

    def __init__(self, kid: str = "k1", curve: ec.EllipticCurve | None = None) -> None:
        self.kid, self.alg = kid, "ES256"
        self.secret = ec.generate_private_key(curve or ec.SECP256R1())
        self._size = (self.secret.key_size + 7) // 8

    def sign(self, signed: bytes) -> bytes:
        r, s = decode_dss_signature(self.secret.sign(signed, ec.ECDSA(hashes.SHA256())))
        return r.to_bytes(self._size) + s.to_bytes(self._size)

    def jwk(self, **overrides: Any) -> dict[str, Any]:
        point = self.secret.public_key().public_numbers()
        curve = {256: "P-256", 384: "P-384"}[self.secret.key_size]
        place = {"x": number(point.x, self._size), "y": number(point.y, self._size)}
        return merged({"kty": "EC", "crv": curve, **place, "kid": self.kid, "use": "sig", "alg": self.alg}, overrides)

    def secret_member(self) -> str:
        return number(self.secret.private_numbers().private_value, self._size)

    def pem(self) -> bytes:
        return self._public(serialization.Encoding.PEM)

    def der(self) -> bytes:
        return self._public(serialization.Encoding.DER)

    def _public(self, encoding: serialization.Encoding) -> bytes:
        return self.secret.public_key().public_bytes(encoding, serialization.PublicFormat.SubjectPublicKeyInfo)


class RsaKey:
    def __init__(self, kid: str = "r1", bits: int = 2048) -> None:
        self.kid, self.alg = kid, "RS256"
        self.secret = rsa.generate_private_key(65537, bits)

    def sign(self, signed: bytes) -> bytes:
        return self.secret.sign(signed, padding.PKCS1v15(), hashes.SHA256())

    def jwk(self, **overrides: Any) -> dict[str, Any]:
        public = self.secret.public_key().public_numbers()
        key = {"kty": "RSA", "n": number(public.n), "e": number(public.e), "kid": self.kid, "use": "sig", "alg": self.alg}
        return merged(key, overrides)


@dataclass
class Answer:
    """What the fake way out returns."""

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


class FakeIssuer:
    """`answer` replaces what the JWKS address says; `requests` counts how often it was asked."""

    def __init__(self, url: str = "https://idp.test", audience: str = "https://gw.test", now: Callable[[], float] = time.time) -> None:
        self.url = url
        self.audience = audience
        self.now = now
        self.key: EcKey | RsaKey = EcKey()
        self.answer: Answer | None = None
        self.requests = 0
        self._ids = count(1)

    @property
    def jwks_url(self) -> str:
        return f"{self.url}/jwks"

    def jwks(self, *members: dict[str, Any]) -> Answer:
        """A key set of `members`, by default of the current key."""
        return Answer(200, json.dumps({"keys": list(members) or [self.key.jwk()]}).encode(), {"content-type": "application/json"})

    def respond(self, path: str) -> Answer:
        if path == "/jwks":
            self.requests += 1
            return self.answer or self.jwks()
        if path == "/.well-known/openid-configuration":
            document = {"issuer": self.url, "jwks_uri": self.jwks_url, "id_token_signing_alg_values_supported": ["ES256", "RS256"]}
            return Answer(200, json.dumps(document).encode(), {"content-type": "application/json"})
        return Answer(404, b"")

    async def fetch(self, url: str, *, limit: int = 1 << 20, timeout: float = 10.0) -> Answer:  # noqa: ASYNC109 - the port's shape
        """The gateway's way out without a network; like the real one it refuses large answers."""
        answer = self.respond(url.removeprefix(self.url))
        if len(answer.body) > limit:
            raise OSError("too large")
        return answer

    def header(self, **overrides: Any) -> dict[str, Any]:
        return merged({"alg": self.key.alg, "kid": self.key.kid, "typ": "at+jwt"}, overrides)

    def claims(self, **overrides: Any) -> dict[str, Any]:
        now = int(self.now())
        defaults = {"iss": self.url, "sub": "alice", "aud": self.audience, "iat": now, "exp": now + 600, "jti": f"t{next(self._ids)}"}
        return merged(defaults, overrides)

    def mint(self, header: Mapping[str, Any] | None = None, **claims: Any) -> str:
        """A token for alice; `claims` and `header` override or, when ABSENT, leave out."""
        return compact(self.header(**(header or {})), self.claims(**claims), self.key.sign)


@contextmanager
def serving(issuer: FakeIssuer) -> Iterator[FakeIssuer]:
    """Puts the issuer on a free loopback port; its `url` becomes that of the server."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer = issuer.respond(self.path)
            self.send_response(answer.status)
            for name, value in {**answer.headers, "content-length": str(len(answer.body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(answer.body)

        def log_message(self, *args: object) -> None:
            pass

    server = QuietServer(("127.0.0.1", 0), Handler)
    issuer.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield issuer
    finally:
        server.shutdown()
        server.server_close()
        thread.join(timeout=5)

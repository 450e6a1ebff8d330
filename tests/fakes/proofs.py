"""A client that holds a key and proves it (DPoP), rightly or wrongly."""

import base64
import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any

from tests.fakes.issuer import EcKey, RsaKey, b64, compact, merged


class Prover:
    """Makes proofs. `now` counts seconds; the header and claims given to `proof` override or, when ABSENT, leave out."""

    def __init__(self, now: Callable[[], float], key: EcKey | RsaKey | None = None) -> None:
        self.key = key or EcKey()
        self.now = now
        self._made = 0

    def jwk(self) -> dict[str, Any]:
        return {name: value for name, value in self.key.jwk().items() if name not in ("kid", "use", "alg")}

    @property
    def thumbprint(self) -> str:
        text = json.dumps(self.jwk(), separators=(",", ":"), sort_keys=True)
        return b64(hashlib.sha256(text.encode()).digest())

    def proof(self, method: str, url: str, token: str = "", header: Mapping[str, Any] | None = None, **claims: Any) -> str:
        self._made += 1
        said = {"jti": f"p{id(self)}-{self._made}", "htm": method, "htu": url, "iat": int(self.now())}
        if token:
            said["ath"] = b64(hashlib.sha256(token.encode()).digest())
        heading = merged({"typ": "dpop+jwt", "alg": self.key.alg, "jwk": self.jwk()}, header or {})
        return compact(heading, merged(said, claims), self.key.sign)


def other_form(proof: str) -> str:
    """The same proof with the other valid form of its ECDSA signature."""
    signed, _, signature = proof.rpartition(".")
    raw = base64.urlsafe_b64decode(signature + "==")
    order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
    other = (order - int.from_bytes(raw[32:])).to_bytes(32)
    return f"{signed}.{b64(raw[:32] + other)}"

"""Tokens to refuse, and the claims of one to accept."""

from typing import Any

import pytest

from policies.delegation.chain import Principal
from policies.keys.signing import SigningKeys
from policies.tokens.verifier import DEVELOPMENT_ISSUER, TokenRefused, TokenVerifier

GW = "https://gw.test"
ALICE = Principal("acme", DEVELOPMENT_ISSUER, "alice")


async def refusal(identity: TokenVerifier, token: str, audiences: tuple[str, ...] = (GW,)) -> str:
    with pytest.raises(TokenRefused) as refused:
        await identity.verify(token, audiences)
    assert identity.find_cached(token, audiences) is None
    return refused.value.reason


def hop_claims(keys: SigningKeys, **overrides: Any) -> dict[str, Any]:
    now = int(keys.now())
    return {
        "iss": GW,
        "sub": "alice",
        "tid": "acme",
        "user_iss": "https://idp.test",
        "aud": GW,
        "client_id": "b",
        "scope": "tool:crm.read",
        "act": {"sub": "b", "act": {"sub": "a"}},
        "txn": "x1",
        "task": "T1",
        "dlg_max": 4,
        "grant": "g1",
        "iat": now,
        "exp": now + 120,
        "jti": "j1",
        **overrides,
    }

"""Access tokens of people who signed in: what they say, and when they end."""

from policies.delegation.chain import Principal
from policies.keys.signing import SigningKeys
from policies.tokens.issued import ACCESS_JWT_TYPE
from policies.tokens.session_tokens import SessionGrant, SessionTokens
from tests.fakes.clock import Clock

GATEWAY = "https://gw.example"
ALICE = Principal("acme", "https://idp.example", "alice", ("sales", "support"))


def minted(keys: SigningKeys, seconds: float, thumbprint: str = "") -> tuple[dict[str, object], int]:
    """The claims and the lifetime of a token of a session that lasts so many seconds more."""
    grant = SessionGrant(ALICE, "s_1", "dyn_1", f"{GATEWAY}/mcp", "agent:* tool:*", keys.now() + seconds, thumbprint)
    token, lifetime = SessionTokens(keys, GATEWAY, 900, lambda prefix: f"{prefix}_1").mint(grant)
    return dict(keys.verify(token, ACCESS_JWT_TYPE)), lifetime


def test_a_token_says_who_for_what_and_in_which_session(keys: SigningKeys, clock: Clock) -> None:
    now = int(keys.now())
    claims, lifetime = minted(keys, 86_400)
    assert lifetime == 900
    assert claims == {
        "iss": GATEWAY,
        "sub": "alice",
        "tid": "acme",
        "user_iss": "https://idp.example",
        "aud": f"{GATEWAY}/mcp",
        "client_id": "dyn_1",
        "scope": "agent:* tool:*",
        "sid": "s_1",
        "roles": ["sales", "support"],
        "iat": now,
        "exp": now + 900,
        "jti": "j_1",
    }
    assert minted(keys, 86_400, "the key")[0]["cnf"] == {"jkt": "the key"}


def test_a_token_ends_with_its_session_at_the_latest(keys: SigningKeys) -> None:
    claims, lifetime = minted(keys, 60)
    assert lifetime == 60 and claims["exp"] == int(keys.now()) + 60
    assert minted(keys, -1)[1] == 0

"""Hop tokens say what is held, and an exchange takes them at their word."""

from collections.abc import Mapping
from typing import Any, cast

from policies.delegation import Delegation
from policies.grant import Act, Decision, Grant
from policies.grants import Grants
from policies.hop_tokens import HopTokens, Minting
from policies.identity import Identity
from policies.permissions import ALL, Permissions
from policies.principal import Principal

ACT = Act("invokeAgent", "Agent", "support", "agent:support", "support")


class Signed:
    """Keeps the claims instead of signing them."""

    claims: Mapping[str, Any]

    def sign(self, claims: Mapping[str, Any], typ: str) -> str:
        self.claims = claims
        return typ


def test_an_agent_is_handed_no_more_than_its_ceiling_leaves() -> None:
    ceiling = Permissions.of(["agent:sales", "tool:inventory.*"])
    person = Delegation(Principal("default", "issuer", "alice"), ALL, not_after=1000.0)
    delegation = person.narrow("support", ceiling, ALL, 1000.0).rooted("g_1", "t_1", "x_1")
    decision = Decision("d_1", 0, True, "allowed", person.principal.owner, (), (), ACT)
    signed = Signed()
    tokens = HopTokens(
        signed, cast(Identity, None), cast(Grants, None), Minting("http://gw", 120, lambda prefix: prefix + "_1", lambda: 900.0)
    )
    tokens.credential(Grant(decision, delegation), "http://agent")
    handed = Permissions.of(signed.claims["scope"].split(" "))
    assert handed == ceiling
    assert delegation.scoped(handed).held() == ceiling  # what an exchange does with it first
    assert signed.claims["exp"] == 1000

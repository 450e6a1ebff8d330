"""Hop tokens say what is held, and an exchange takes them at their word."""

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any, cast

import pytest
from msgspec.structs import replace as with_

from policies.delegation.chain import Delegation, Hop, Principal
from policies.delegation.grants import GrantEnded, Grants
from policies.delegation.kills import Killed
from policies.delegation.permissions import ALL_PERMISSIONS, Permissions
from policies.delegation.rulings import Act, Decision, Grant
from policies.tokens.claims import Claims
from policies.tokens.hop_tokens import (
    ExchangeRefused,
    GrantReference,
    HopTokens,
    MintingParameters,
    TokenExchangeRequest,
    TokenExchangeResponse,
    parse_requested_scope,
    resource_pattern,
)
from policies.tokens.owners import TokenOwners
from policies.tokens.verifier import TokenRefused, TokenVerifier

ACT = Act("invokeAgent", "Agent", "support", "agent:support", "support")


URL, NOW = "https://gw.test", 1_800_000_000
MCP = f"{URL}/mcp/crm"
ALICE = Principal("acme", "https://idp.test", "alice", ("sales",))
CRM = Permissions.parse(["tool:crm.*", "agent:*"])
PATH = (Hop("front"), Hop("desk", Permissions.parse(["tool:*"])))
DELEGATION = Delegation(ALICE, CRM, NOW + 90.5, PATH, 3, "x1", "g1", "t1")
HELD = Permissions.parse(["tool:crm.*"])
CLAIMS = Claims(
    "acme", ALICE.issuer, "alice", (), HELD, "http://desk", "desk", NOW + 60.5, "j0", ("desk", "front"), "g1", "t1", "x1", "hop"
)
ASKED = TokenExchangeRequest("acme", "desk", "http://desk", "the.token", MCP, "tool:crm.read")


class Office:
    """Where tokens are exchanged: `claims` are those of the subject token, or its refusal; `grant` what its row says, or its end."""

    def __init__(self) -> None:
        self.claims: Claims | Exception = CLAIMS
        self.grant: Delegation | Exception = DELEGATION
        self.verified: list[tuple[str, tuple[str, ...]]] = []
        self.found: list[tuple[str, str]] = []
        self.signed: list[tuple[dict[str, Any], str]] = []
        self.now = NOW + 0.75
        self.ceilings: dict[tuple[str, str], Permissions | None] = {}  # of this moment, where it is another than that of the grant
        self.running = {("acme", "t1")}
        self.owners = TokenOwners(lambda: self.now)

        async def is_running(*task: str) -> bool:
            return task in self.running

        ceilings = lambda *agent: self.ceilings.get(agent, ALL_PERMISSIONS)  # noqa: E731 (as the gateway's is given)
        minting = MintingParameters(URL, 120, lambda prefix: f"{prefix}_1", lambda: self.now, ceilings, is_running)
        self.tokens = HopTokens(self, cast(TokenVerifier, self), cast(Grants, self), minting)

    async def verify(self, token: str, audiences: Collection[str]) -> Claims:
        self.verified.append((token, tuple(audiences)))
        if isinstance(self.claims, Exception):
            raise self.claims
        return self.claims

    def read_issued(self, token: str, audience: str) -> Claims:
        self.verified.append((token, (audience,)))
        if isinstance(self.claims, Exception):
            raise self.claims
        return self.claims

    async def find(self, tenant: str, grant_id: str) -> Delegation:
        self.found.append((tenant, grant_id))
        if isinstance(self.grant, Exception):
            raise self.grant
        return self.grant

    def sign(self, claims: Mapping[str, Any], typ: str) -> str:
        self.signed.append((dict(claims), typ))
        return f"signed.{len(self.signed)}"


@pytest.fixture
def office() -> Office:
    return Office()


async def refusal(office: Office, asked: TokenExchangeRequest = ASKED) -> ExchangeRefused:
    with pytest.raises(ExchangeRefused) as refused:
        await office.tokens.exchange(asked)
    assert str(refused.value) == refused.value.description
    assert not office.signed
    return refused.value


async def test_a_new_token_says_who_through_whom_for_what_and_how_long(office: Office) -> None:
    exchanged = await office.tokens.exchange(ASKED)
    narrowed = with_(DELEGATION, scope=Permissions.parse(["tool:crm.read"]))
    assert exchanged == TokenExchangeResponse("signed.1", 60, "tool:crm.read", narrowed, False)
    assert office.verified == [("the.token", ("http://desk",))] and office.found == [("acme", "g1")]
    assert office.signed == [
        (
            {
                "iss": URL,
                "sub": "alice",
                "tid": "acme",
                "user_iss": "https://idp.test",
                "aud": MCP,
                "client_id": "desk",
                "scope": "tool:crm.read",
                "act": {"sub": "desk", "act": {"sub": "front"}},
                "txn": "x1",
                "task": "t1",
                "dlg_max": 3,
                "grant": "g1",
                "iat": NOW,
                "exp": NOW + 60,
                "jti": "j_1",
            },
            "at+jwt",
        )
    ]


async def test_a_token_that_is_bound_to_a_key_says_to_which(office: Office) -> None:
    exchanged = await office.tokens.exchange(replace(ASKED, thumbprint="k" * 43))
    assert exchanged.is_key_bound is True and office.signed[0][0]["cnf"] == {"jkt": "k" * 43}
    assert TokenExchangeResponse("t", 1, "*").is_key_bound is False and ASKED.thumbprint == ""


@pytest.mark.parametrize(
    ("token", "grant", "lives"),
    [(500.0, 500.0, 120), (60.5, 500.0, 60), (500.0, 60.5, 60), (500.0, 1.0, 1), (0.9, 500.0, 0)],
)
async def test_no_token_outlives_the_one_before_it_its_grant_or_two_minutes(office: Office, token: float, grant: float, lives: int) -> None:
    office.claims = replace(CLAIMS, expires=NOW + token)
    office.grant = with_(DELEGATION, not_after=NOW + grant)
    exchanged = await office.tokens.exchange(ASKED)
    assert (exchanged.expires_in, office.signed[0][0]["exp"]) == (lives, NOW + lives)


async def test_a_grant_that_ends_within_this_second_gives_a_token_of_no_use(office: Office) -> None:
    office.grant = with_(DELEGATION, not_after=NOW - 5.0)  # as it was found just before
    assert (await office.tokens.exchange(ASKED)).expires_in == 0
    assert office.signed[0][0]["exp"] == NOW - 5


def test_an_agent_is_handed_all_that_is_held_under_the_ceilings(office: Office) -> None:
    decision = Decision("d_1", 0, True, "allowed", ALICE.owner_key, (), (), ACT)
    assert office.tokens.mint_credential(Grant(decision, DELEGATION), "http://desk") == "signed.1"
    claims = office.signed[0][0]
    assert (claims["scope"], claims["aud"], claims["exp"]) == ("tool:crm.*", "http://desk", NOW + 90)
    assert "cnf" not in claims
    handed = Permissions.parse(claims["scope"].split(" "))
    assert DELEGATION.narrow_scope(handed).effective_permissions() == handed == HELD  # what an exchange does with it first


@pytest.mark.parametrize("expires", [NOW + 0.75, NOW - 1.0])
async def test_a_token_that_has_expired_is_exchanged_for_nothing(office: Office, expires: float) -> None:
    office.claims = replace(CLAIMS, expires=expires)
    refused = await refusal(office)
    assert refused.error == "invalid_grant" and "expired" in refused.description


async def test_a_token_that_is_refused_is_refused_with_its_reason_and_points_nowhere(office: Office) -> None:
    office.claims = TokenRefused("audience")
    refused = await refusal(office)
    assert refused.error == "invalid_grant" and refused.description.endswith("audience") and refused.grant_reference is None


@pytest.mark.parametrize(
    "resource",
    [
        "",
        URL,
        f"{URL}/",
        f"{URL}/mcp/",
        f"{URL}/mcp/crm/",
        f"{URL}/mcp/crm?x=1",
        f"{URL}/mcp/CRM",
        f"{URL}/mcp/a/b",
        f"{URL}/mcp/" + "x" * 65,
        f"{URL}/agents",
        f"{URL}/agents/",
        f"{URL}/api/agents/x",
        f"{URL}/mcpcrm",
        f"{MCP}\n",
        f" {MCP}",
        "https://gwxtest/mcp/crm",
        "https://evil.test/mcp/crm",
        f"https://evil.test/{MCP}",
    ],
)
async def test_what_is_no_resource_of_ours_is_no_target(office: Office, resource: str) -> None:
    refused = await refusal(office, replace(ASKED, resource=resource))
    assert refused.error == "invalid_target" and "resource" in refused.description
    assert refused.grant_reference == GrantReference(ALICE.issuer, "alice", "x1", "t1", "g1")


@pytest.mark.parametrize("path", ["/mcp", "/mcp/crm", "/agents/sales", "/agents/" + "a-1" * 21 + "z", "/mcp/x"])
async def test_agents_servers_and_all_tools_are_targets(office: Office, path: str) -> None:
    await office.tokens.exchange(replace(ASKED, resource=URL + path))
    assert office.signed[0][0]["aud"] == URL + path
    assert resource_pattern(URL).fullmatch(URL + path)


@pytest.mark.parametrize(
    ("changed", "pointed"),
    [({"kind": "user"}, False), ({"tenant": "evil"}, False), ({"client_id": "front"}, True), ({"client_id": ""}, True)],
    ids=str,
)
async def test_only_whom_a_token_was_issued_to_exchanges_it(office: Office, changed: dict[str, Any], pointed: bool) -> None:
    office.claims = replace(CLAIMS, **changed)
    refused = await refusal(office)
    assert refused.error == "invalid_grant" and "not issued to this client" in refused.description
    assert (refused.grant_reference is not None) is pointed and office.found == []


async def test_only_the_last_agent_of_the_grant_exchanges(office: Office) -> None:
    office.grant = with_(DELEGATION, path=PATH[:1])
    refused = await refusal(office)
    assert refused.error == "invalid_grant" and "not issued to this client" in refused.description


@pytest.mark.parametrize(("end", "said"), [(GrantEnded(), "revoked"), (Killed(), "killed")])
async def test_what_has_ended_or_was_stopped_is_exchanged_for_nothing(office: Office, end: Exception, said: str) -> None:
    office.grant = end
    refused = await refusal(office)
    assert refused.error == "invalid_grant" and said in refused.description and refused.grant_reference is not None


@pytest.mark.parametrize(
    ("told", "asked", "missing"),
    [
        (("tool:crm.read",), "tool:crm.write", "tool:crm.write"),
        (("tool:crm.read",), "tool:crm.*", "tool:crm.*"),
        (("tool:crm.*",), "tool:crm.read agent:x", "agent:x"),  # the ceiling of desk
        (("tool:crm.*", "agent:x"), "tool:crm.read", "agent:x"),  # the token says more than its grant
        ((), "tool:crm.read", "anything"),
        (None, "tool:crm.read", "anything"),
    ],
)
async def test_nobody_gets_more_than_grant_and_token_hold(office: Office, told: tuple[str, ...] | None, asked: str, missing: str) -> None:
    office.claims = replace(CLAIMS, scope=None if told is None else Permissions.parse(told))  # attack DLG-03
    refused = await refusal(office, replace(ASKED, scope=asked))
    assert refused.error == "invalid_scope" and refused.description.endswith(f": {missing}")


# attack DLG-17
@pytest.mark.parametrize("agent", ["front", "desk"])
async def test_a_ceiling_that_was_lowered_since_holds_for_new_tokens(office: Office, agent: str) -> None:
    office.ceilings["acme", agent] = Permissions.parse(["tool:crm.read", "tool:mail.*"])
    refused = await refusal(office, replace(ASKED, scope="tool:crm.read tool:crm.write"))
    assert (refused.error, refused.description) == ("invalid_scope", "not held by this delegation: tool:crm.write")
    assert (await office.tokens.exchange(ASKED)).scope == "tool:crm.read"
    office.ceilings["other", agent] = None
    assert await office.tokens.exchange(ASKED)


# attack DLG-17
@pytest.mark.parametrize("agent", ["front", "desk"])
async def test_an_agent_that_may_not_act_now_stops_the_chain(office: Office, agent: str) -> None:
    office.ceilings["acme", agent] = None
    assert (await refusal(office)).error == "invalid_grant"


@pytest.mark.parametrize(
    ("scope", "said"),
    [
        ("", "name each permission"),
        (" ", "name each permission"),
        ("tool:crm.read  tool:crm.write", "name each permission"),
        ("tool:crm.read ", "name each permission"),
        ("openid", "name each permission"),
        ("tool:crm.read tool:crm.read", "twice"),
    ],
)
async def test_a_scope_that_is_not_said_well_is_refused(office: Office, scope: str, said: str) -> None:
    refused = await refusal(office, replace(ASKED, scope=scope))
    assert refused.error == "invalid_scope" and said in refused.description
    with pytest.raises(ExchangeRefused):
        parse_requested_scope(scope)
    assert parse_requested_scope("tool:b.c agent:a") == Permissions.parse(["agent:a", "tool:b.c"])


def test_a_chain_is_told_with_whoever_acts_now_outside(office: Office) -> None:
    decision = Decision("d_1", 0, True, "allowed", ALICE.owner_key, (), (), ACT)
    for path, told in (
        ((), {}),
        (("a",), {"sub": "a"}),
        (("a", "b", "c"), {"sub": "c", "act": {"sub": "b", "act": {"sub": "a"}}}),
    ):
        office.tokens.mint_credential(Grant(decision, with_(DELEGATION, path=tuple(Hop(agent) for agent in path))), "http://desk")
        assert office.signed[-1][0]["act"] == told


OWN = replace(ASKED, resource="http://desk", scope="")


async def refused_renewal(office: Office, asked: TokenExchangeRequest = OWN) -> ExchangeRefused:
    with pytest.raises(ExchangeRefused) as refused:
        await office.tokens.renew(asked)
    assert not office.signed
    return refused.value


def test_an_agent_renews_for_its_own_address_which_is_no_gateway_resource(office: Office) -> None:
    assert office.tokens.is_renewal(OWN) and not office.tokens.is_renewal(ASKED)
    assert not office.tokens.is_renewal(replace(ASKED, agent_audience=MCP))
    assert not office.tokens.is_renewal(replace(OWN, resource="http://desk/"))


async def test_a_renewed_token_says_what_the_old_one_said_and_lives_as_long_as_a_new_one(office: Office) -> None:
    office.claims = replace(CLAIMS, expires=NOW - 5000.0, scope=Permissions.parse(["tool:crm.read"]))
    office.grant = with_(DELEGATION, not_after=NOW + 9000.0)
    renewed = await office.tokens.renew(OWN)
    narrowed = with_(DELEGATION, not_after=NOW + 9000.0, scope=Permissions.parse(["tool:crm.read"]))
    assert renewed == TokenExchangeResponse("signed.1", 120, "tool:crm.read", narrowed, False, renewed=True)
    assert office.verified == [("the.token", ("http://desk",))] and office.found == [("acme", "g1")]
    claims = office.signed[0][0]
    assert (claims["aud"], claims["scope"], claims["grant"], claims["task"], claims["exp"]) == (
        "http://desk",
        "tool:crm.read",
        "g1",
        "t1",
        NOW + 120,
    )


async def test_a_renewed_token_is_bound_to_the_key_that_was_shown(office: Office) -> None:
    assert (await office.tokens.renew(replace(OWN, thumbprint="k" * 43))).is_key_bound is True
    assert office.signed[0][0]["cnf"] == {"jkt": "k" * 43}


async def test_a_renewed_token_does_not_outlive_its_grant(office: Office) -> None:
    office.grant = with_(DELEGATION, not_after=NOW + 30.0)
    assert (await office.tokens.renew(OWN)).expires_in == 30


@pytest.mark.parametrize(
    ("claims", "grant", "why"),
    [
        (TokenRefused("signature"), DELEGATION, "refused: signature"),
        (replace(CLAIMS, kind="user"), DELEGATION, "not issued to this client"),
        (replace(CLAIMS, tenant="rival"), DELEGATION, "not issued to this client"),
        (replace(CLAIMS, client_id="front"), DELEGATION, "not issued to this client"),
        (CLAIMS, with_(DELEGATION, path=PATH[:1]), "not issued to this client"),
        (CLAIMS, GrantEnded(), "has ended or was revoked"),
        (CLAIMS, Killed(), "an operator has stopped"),
        (replace(CLAIMS, task_id="t2"), DELEGATION, "was issued for another task"),
        (replace(CLAIMS, txn="x2"), DELEGATION, "was issued for another task"),
        (replace(CLAIMS, task_id=""), with_(DELEGATION, task_id=""), "which is paused or has ended"),
    ],
)
async def test_who_may_not_go_on_renews_nothing(
    office: Office, claims: Claims | Exception, grant: Delegation | Exception, why: str
) -> None:
    office.claims, office.grant = claims, grant
    refused = await refused_renewal(office)
    assert refused.error == "invalid_grant" and why in refused.description
    assert (refused.grant_reference is None) is (isinstance(claims, Exception) or claims.kind != "hop" or claims.tenant != "acme")


async def test_a_turn_that_is_not_under_way_renews_nothing(office: Office) -> None:
    office.running.clear()
    assert (await refused_renewal(office)).error == "invalid_grant"


async def test_the_ceiling_of_this_moment_holds_for_a_renewed_token(office: Office) -> None:
    office.ceilings["acme", "desk"] = Permissions.parse(["tool:crm.read"])
    assert (await refused_renewal(office)).error == "invalid_scope"
    assert (await office.tokens.renew(replace(OWN, scope="tool:crm.read"))).scope == "tool:crm.read"
    office.ceilings["acme", "desk"] = None
    office.signed.clear()
    assert (await refused_renewal(office, replace(OWN, scope="tool:crm.read"))).error == "invalid_grant"


async def test_a_renewed_token_says_no_more_than_the_old_one(office: Office) -> None:
    office.claims = replace(CLAIMS, scope=Permissions.parse(["tool:crm.read"]))
    assert (await refused_renewal(office, replace(OWN, scope="tool:crm.*"))).error == "invalid_scope"
    office.claims = replace(CLAIMS, scope=None)
    assert (await refused_renewal(office)).error == "invalid_scope"


async def test_without_a_log_of_tasks_nothing_is_renewed() -> None:
    office = Office()
    office.tokens = HopTokens(
        office, cast(TokenVerifier, office), cast(Grants, office), MintingParameters(URL, 120, str, lambda: NOW, lambda *_: ALL_PERMISSIONS)
    )
    assert (await refused_renewal(office)).error == "invalid_grant"

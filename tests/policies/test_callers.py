"""Who stands at a door: a person or an agent that acts for one, with the roles and under the ceilings of this moment."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace as with_

from policies.callers import Caller, HypotheticalCaller, _ruling_key, hypothetical_caller
from policies.delegation.chain import Delegation, Hop, Principal
from policies.delegation.kills import Kill, Killed
from policies.delegation.permissions import ALL_PERMISSIONS, NO_PERMISSIONS, Permissions
from policies.tokens.claims import Claims
from policies.tokens.verifier import TokenRefused
from tests.fakes.authority import ALICE, IDP, Scene, crm

GW = "https://gw.test"
NOW = 1_800_000_000.0
PERSON = Claims("acme", IDP, "alice", ("sales",), None, GW, "c1", NOW + 60, "j1")
VOUCHED = replace(PERSON, agent="front", txn="x9", scope=crm("tool:crm.*"))
HOP = replace(
    PERSON,
    kind="hop",
    roles=(),
    scope=crm("tool:crm.read"),
    client_id="desk",
    actors=("desk", "front"),
    grant_id="g1",
    task_id="t1",
    txn="x1",
)
GRANT = Delegation(ALICE, crm("tool:*"), NOW + 90, (Hop("front"), Hop("desk", crm("tool:crm.*"))), 4, "x1", "g1", "t1")


@pytest.fixture
def scene(scene: Scene) -> Scene:
    scene.claims |= {"person": PERSON, "vouched": VOUCHED, "hop": HOP}
    scene.grants["acme", "g1"] = GRANT
    return scene


async def admitted(scene: Scene, token: str, claims: Claims | None = None) -> Caller:
    if claims is not None:
        scene.claims[token] = claims
    return await scene.callers.authenticate(token, (GW,))


async def refusal(scene: Scene, token: str, claims: Claims | None = None) -> str:
    with pytest.raises(TokenRefused) as refused:
        await admitted(scene, token, claims)
    return refused.value.reason


def kill(kind: Any, name: str) -> Kill:
    return Kill("acme", "k1", kind, name, "", "", 1)


async def stopped_elsewhere(scene: Scene, one: Kill) -> None:
    """In another process, of which this one was not told."""
    scene.rows.keep(lambda batch: scene.kills.write(batch, one))
    scene.fresh = False


# people


async def test_a_person_comes_with_the_roles_of_now_and_what_the_token_left_them(scene: Scene) -> None:
    caller = await admitted(scene, "person")
    assert (caller.principal, caller.client_id, caller.token_id, caller.expires) == (ALICE, "c1", "j1", NOW + 60)
    assert caller.delegation == Delegation(ALICE, ALL_PERMISSIONS, NOW + 60)
    assert caller.thumbprint == ""
    scene.roles["alice"] = ("reader",)
    narrowed = await admitted(scene, "other", replace(PERSON, scope=crm("tool:crm.read"), thumbprint="k" * 43))
    assert narrowed.principal.roles == narrowed.delegation.principal.roles == ("reader",)
    assert (narrowed.delegation.scope, narrowed.thumbprint) == (crm("tool:crm.read"), "k" * 43)
    assert (await admitted(scene, "none", replace(PERSON, scope=NO_PERMISSIONS))).delegation.scope == NO_PERMISSIONS


async def test_a_token_for_somebody_else_is_refused(scene: Scene) -> None:
    with pytest.raises(TokenRefused, match=r"^unknown$"):
        await scene.callers.authenticate("person", ("https://elsewhere.test",))


async def test_a_token_that_was_verified_before_is_believed_as_it_was_then(scene: Scene) -> None:
    assert (await admitted(scene, "person+", PERSON)).principal == ALICE


@pytest.mark.parametrize("claims", [PERSON, VOUCHED, HOP], ids=["person", "vouched", "hop"])
async def test_a_token_ends_at_its_time_whatever_the_clocks_of_others_say(scene: Scene, claims: Claims) -> None:
    scene.clock.now = NOW + 59.999
    assert (await admitted(scene, "token", claims)).expires == NOW + 60
    scene.clock.now = NOW + 60
    assert await refusal(scene, "token") == "expired"


async def test_a_person_is_remembered_for_a_minute_until_things_are_forgotten(scene: Scene) -> None:
    lasting = replace(PERSON, expires=NOW + 600)
    first = await admitted(scene, "person", lasting)
    scene.roles["alice"] = ("reader",)
    scene.clock.now += 59.999
    assert await admitted(scene, "person") is first
    assert (await admitted(scene, "again", replace(lasting, token_id="j2"))).principal.roles == ("reader",)
    scene.clock.now += 0.001
    later = await admitted(scene, "person")
    assert later.principal.roles == ("reader",)
    scene.roles["alice"] = ("admin",)
    assert await admitted(scene, "person") is later
    scene.callers.invalidate()
    assert (await admitted(scene, "person")).principal.roles == ("admin",)
    assert scene.forgotten == [("", "")]


async def test_a_stopped_person_is_not_let_in_though_they_were_before(scene: Scene) -> None:
    assert await admitted(scene, "person")  # and is remembered
    scene.kills.enforce_before_persisted(kill("user", ALICE.owner_key))
    scene.grants["acme", "g1"] = GRANT
    for token in ("person", "vouched"):
        with pytest.raises(Killed):
            await admitted(scene, token)


@pytest.mark.parametrize("token", ["person", "vouched"])
async def test_what_was_stopped_elsewhere_is_read_anew_where_nobody_told_us(scene: Scene, token: str) -> None:
    await stopped_elsewhere(scene, kill("user", ALICE.owner_key))
    scene.fresh = True
    assert await admitted(scene, token)
    scene.fresh = False
    with pytest.raises(Killed):
        await admitted(scene, token)


# agents that an identity provider vouched for


async def test_an_agent_that_was_vouched_for_acts_for_its_person_under_its_ceiling(scene: Scene) -> None:
    scene.ceilings["acme", "front"] = crm("tool:crm.read")
    caller = await admitted(scene, "vouched", replace(VOUCHED, thumbprint="k" * 43))
    delegation = caller.delegation
    assert (caller.principal, delegation.actor, len(delegation.path), delegation.effective_permissions()) == (
        ALICE,
        "front",
        1,
        crm("tool:crm.read"),
    )
    assert (caller.client_id, caller.token_id, caller.expires, caller.thumbprint) == ("c1", "j1", NOW + 60, "k" * 43)
    assert (delegation.grant_id, delegation.txn, delegation.not_after) == ("", "x9", NOW + 60)
    scene.ceilings["acme", "front"] = crm("agent:*")
    assert (await admitted(scene, "vouched")).delegation.effective_permissions() == NO_PERMISSIONS
    scene.ceilings["acme", "front"] = None
    assert await refusal(scene, "vouched") == "agent-not-active"


async def test_what_stands_for_the_task_is_one_for_a_person_and_an_agent(scene: Scene) -> None:
    async def standing(**changed: Any) -> str:
        return (await admitted(scene, "vouched", replace(VOUCHED, **changed))).delegation.task_id

    mine = await standing()
    assert mine.startswith("v_") and len(mine) == 34
    assert await standing(token_id="j2", txn="x8", scope=None) == mine
    assert len({mine, await standing(agent="desk"), await standing(subject="bob"), await standing(issuer="https://other.test")}) == 4
    assert (await admitted(scene, "person")).delegation.task_id == ""


async def test_a_stopped_agent_is_let_in_on_behalf_of_nobody(scene: Scene) -> None:
    scene.kills.enforce_before_persisted(kill("agent", "other"))
    assert await admitted(scene, "vouched")
    scene.kills.enforce_before_persisted(kill("agent", "front"))
    with pytest.raises(Killed):
        await admitted(scene, "vouched")
    assert await admitted(scene, "person")


# agents with a hop token


async def test_an_agent_may_what_its_grant_says_and_its_token_left_as_things_are_now(scene: Scene) -> None:
    scene.roles["alice"] = ("reader",)
    caller = await admitted(scene, "hop", replace(HOP, thumbprint="k" * 43))
    delegation = caller.delegation
    assert (caller.principal, caller.principal.roles) == (delegation.principal, ("reader",))
    assert (delegation.scope, delegation.effective_permissions()) == (crm("tool:crm.read"), crm("tool:crm.read"))
    assert (delegation.grant_id, delegation.task_id, delegation.txn, delegation.actor) == ("g1", "t1", "x1", "desk")
    assert (caller.client_id, caller.token_id, caller.thumbprint) == ("desk", "j1", "k" * 43)


@pytest.mark.parametrize(("token", "grant", "expires"), [(60.0, 90.0, 60.0), (90.0, 60.0, 60.0)])
async def test_an_agents_time_ends_with_its_token_or_its_grant(scene: Scene, token: float, grant: float, expires: float) -> None:
    scene.grants["acme", "g1"] = with_(GRANT, not_after=NOW + grant)
    assert (await admitted(scene, "hop", replace(HOP, expires=NOW + token))).expires == NOW + expires


@pytest.mark.parametrize(
    "changed",
    [
        {"actors": ("desk",)},
        {"actors": ("front", "desk")},
        {"actors": ("desk", "front", "first")},
        {"task_id": "t2"},
        {"txn": "x2"},
        {"subject": "bob"},
        {"issuer": "https://other.test"},
    ],
    ids=str,
)
async def test_a_token_that_says_other_things_than_its_grant_is_a_splice(scene: Scene, changed: dict[str, Any]) -> None:  # attack DLG-06
    assert await refusal(scene, "hop", replace(HOP, **changed)) == "chain"


@pytest.mark.parametrize(
    "scope",
    [
        None,
        NO_PERMISSIONS,
        Permissions.parse(["tool:mail.send"]),
        Permissions.parse(["tool:*"]),
        Permissions.parse(["tool:crm.read", "agent:x"]),
    ],
)
async def test_a_token_that_says_more_than_its_grant_is_refused(scene: Scene, scope: Permissions | None) -> None:  # attack DLG-03
    assert await refusal(scene, "hop", replace(HOP, scope=scope)) == "scope"


async def test_ceilings_of_now_hold_for_tokens_of_before(scene: Scene) -> None:
    assert await admitted(scene, "hop")
    scene.ceilings["acme", "front"] = crm("tool:mail.*")
    assert await refusal(scene, "hop") == "scope"
    scene.ceilings["acme", "front"] = crm("tool:crm.*")
    assert await admitted(scene, "hop")
    scene.ceilings["acme", "desk"] = None
    assert await refusal(scene, "hop") == "agent-not-active"
    scene.ceilings["acme", "front"] = None
    assert await refusal(scene, "hop") == "agent-not-active"


@pytest.mark.parametrize("changed", [{"grant_id": "g2"}, {"tenant": "evil"}], ids=str)
async def test_a_token_of_no_live_grant_of_its_tenant_is_worth_nothing(scene: Scene, changed: dict[str, Any]) -> None:  # attack TEN-03
    assert await refusal(scene, "hop", replace(HOP, **changed)) == "grant-ended"


async def test_a_grant_is_read_anew_where_nobody_told_us_what_changed(scene: Scene) -> None:
    await admitted(scene, "hop")
    await scene.callers.resolve_agent("acme", "desk", "g1")
    assert scene.forgotten == []
    scene.fresh = False
    await admitted(scene, "hop")
    await scene.callers.resolve_agent("acme", "desk", "g1")
    assert scene.forgotten == [("acme", "g1")] * 2


# agents with a ticket, and tasks that go on


async def test_the_ticket_of_a_grant_is_good_for_its_agent_alone(scene: Scene) -> None:  # attack TOK-11
    scene.roles["alice"] = ("reader",)
    scene.ceilings["acme", "desk"] = crm("tool:crm.read")
    caller = await scene.callers.resolve_agent("acme", "desk", "g1")
    assert (caller.client_id, caller.token_id, caller.expires, caller.thumbprint) == ("desk", "", NOW + 90, "")
    assert (caller.delegation.effective_permissions(), caller.principal.roles) == (crm("tool:crm.read"), ("reader",))
    assert (caller.delegation.grant_id, caller.delegation.task_id) == ("g1", "t1")
    for agent in ("front", "other", ""):
        with pytest.raises(TokenRefused, match=r"^ticket$"):
            await scene.callers.resolve_agent("acme", agent, "g1")
    with pytest.raises(TokenRefused, match=r"^grant-ended$"):
        await scene.callers.resolve_agent("evil", "desk", "g1")
    scene.ceilings["acme", "desk"] = None
    with pytest.raises(TokenRefused, match=r"^agent-not-active$"):
        await scene.callers.resolve_agent("acme", "desk", "g1")


async def test_a_task_goes_on_with_what_is_left_of_its_grant(scene: Scene) -> None:  # attack DLG-10
    scene.roles["alice"] = ("reader",)
    scene.ceilings["acme", "desk"] = crm("tool:crm.read")
    caller = await scene.callers.resolve_resumed("acme", "g1", "t7")
    delegation = caller.delegation
    assert scene.forgotten == [("acme", "g1")]
    assert (caller.client_id, caller.token_id, caller.expires) == ("desk", "", NOW + 90)
    assert (delegation.grant_id, delegation.task_id, delegation.txn, delegation.actor) == ("g1", "t7", "x1", "desk")
    assert (delegation.effective_permissions(), caller.principal.roles) == (crm("tool:crm.read"), ("reader",))
    with pytest.raises(TokenRefused, match=r"^grant-ended$"):
        await scene.callers.resolve_resumed("acme", "g2", "t7")


async def test_whoever_calls_an_agent_again_is_the_one_before_it(scene: Scene) -> None:
    again = await scene.callers.resolve_resumed("acme", "g1", "t7", "desk")
    assert (again.client_id, again.delegation.actor) == ("front", "front")
    assert (await scene.callers.resolve_resumed("acme", "g1", "t7", "front")).delegation.actor == "desk"
    scene.ceilings["acme", "desk"] = None  # it is to be called, so it must be one that may be
    with pytest.raises(TokenRefused, match=r"^agent-not-active$"):
        await scene.callers.resolve_resumed("acme", "g1", "t7", "desk")


@pytest.mark.parametrize("how", ["hop", "ticket", "resumed"])
async def test_whatever_acts_by_a_grant_learns_first_what_was_stopped(scene: Scene, how: str) -> None:
    await stopped_elsewhere(scene, kill("agent", "front"))
    match how:
        case "hop":
            await admitted(scene, "hop")
        case "ticket":
            await scene.callers.resolve_agent("acme", "desk", "g1")
        case _:
            await scene.callers.resolve_resumed("acme", "g1", "t7")
    assert scene.kills.has_any


# keys


def test_no_two_have_one_key_whose_rulings_may_differ() -> None:
    base = GRANT
    others = [
        with_(base, principal=replace(ALICE, tenant="evil")),
        with_(base, principal=replace(ALICE, issuer="https://other.test")),
        with_(base, principal=replace(ALICE, subject="bob")),
        with_(base, principal=replace(ALICE, roles=("sales", "ops"))),
        with_(base, principal=replace(ALICE, roles=("sales,ops",))),
        with_(base, scope=ALL_PERMISSIONS),
        with_(base, path=base.path[:1]),
        with_(base, path=(Hop("front"), Hop("desk"))),
        with_(base, path=(Hop("front"), Hop("other", crm("tool:crm.*")))),
        with_(base, grant_id="g2"),
        with_(base, task_id="t2"),
    ]
    keys = [_ruling_key(one) for one in (base, *others)]
    assert len(set(keys)) == len(keys)
    assert _ruling_key(with_(base, not_after=1.0)) == keys[0]


async def test_who_comes_in_again_has_the_same_key(scene: Scene) -> None:
    first, second = await admitted(scene, "hop"), await admitted(scene, "hop", replace(HOP, token_id="j2"))
    assert first.ruling_key == second.ruling_key != (await admitted(scene, "person")).ruling_key


def test_a_person_who_is_supposed_has_all_time_and_no_token() -> None:
    caller = hypothetical_caller(HypotheticalCaller(ALICE, crm("tool:crm.*"), (Hop("front"),)))
    assert (caller.principal, caller.client_id, caller.token_id, caller.expires) == (ALICE, "", "", float("inf"))
    assert caller.delegation == Delegation(ALICE, crm("tool:crm.*"), float("inf"), (Hop("front"),))
    plain = hypothetical_caller(HypotheticalCaller(Principal("acme", IDP, "bob")))
    assert plain.delegation.scope == ALL_PERMISSIONS and plain.delegation.path == () and plain.ruling_key != caller.ruling_key


async def test_what_a_person_begins_ends_with_their_token(scene: Scene) -> None:
    caller = await admitted(scene, "person")
    assert caller.expires == caller.delegation.not_after == PERSON.expires


async def test_a_persons_tasks_may_outlive_their_token_where_configured(tmp_path: Path) -> None:
    """The token itself does not."""
    lasting = Scene(tmp_path, task_ttl=7200)
    lasting.clock.now = NOW
    lasting.claims |= {"person": PERSON, "vouched": VOUCHED, "long": replace(PERSON, expires=NOW + 9000)}
    caller = await lasting.callers.authenticate("person", (GW,))
    assert (caller.expires, caller.delegation.not_after) == (PERSON.expires, NOW + 7200)
    assert (await lasting.callers.authenticate("long", (GW,))).delegation.not_after == NOW + 9000
    assert (
        await lasting.callers.authenticate("vouched", (GW,))
    ).delegation.not_after == VOUCHED.expires  # an agent's own token for a person

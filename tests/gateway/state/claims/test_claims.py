"""Claims: one holder at any moment, tokens that grow, priorities, leases and cool-downs."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.state.claims.claim import Claim, ClaimRequest, Holder, claim_id_of
from gateway.state.claims.problems import ClaimDenied, ClaimLost, CoolingDown, UnknownClaim
from gateway.state.claims.rows import take_claim
from gateway.state.claims.store import SECOND, SubjectClaims
from gateway.state.subjects.clock import SubjectClock
from gateway.storage.database import Database, engine_for
from policies.ids import new_id, now_us
from tests.fakes.timeouts import LONG_TIMEOUTS

SUPPORT, SALES = Holder("t|i|ann", ("support",), "t1", "x1"), Holder("t|i|bob", ("sales",), "t2", "x2")
MAIL = "outbound-email"


@dataclass
class Time:
    """A clock that tests set, for the gateway and for what waits."""

    us: int = 1_000 * SECOND
    waits: list[float] = field(default_factory=list)

    def __call__(self) -> int:
        return self.us

    async def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.us += int(seconds * SECOND)


class TestClock(SubjectClock):
    """The same time on both databases."""

    __test__ = False

    def __init__(self, time: Time) -> None:
        super().__init__(time)
        self._time = time

    def read(self, connection: object) -> int:
        return self._time()


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def claims(database: Database, time: Time) -> SubjectClaims:
    return SubjectClaims(database, TestClock(time), new_id, time.sleep)


def wanted(holder: Holder, effect: str = MAIL, *, priority: int = 100, lease: int = 60, cool_down: int = 0) -> ClaimRequest:
    return ClaimRequest("t", "customer:42", effect, holder, "a reason", priority, lease * SECOND, cool_down * SECOND)


async def test_another_holder_of_the_same_priority_is_refused_with_the_end(claims: SubjectClaims, time: Time) -> None:
    first = await claims.take(wanted(SUPPORT))
    with pytest.raises(
        ClaimDenied, match=r"has claimed customer:42 \(outbound-email\), for: a reason, until .* priority above 100"
    ) as refused:
        await claims.take(wanted(SALES))
    assert (refused.value.claim.id, refused.value.retry_after) == (first.id, 60)


@pytest.mark.parametrize("effects", [("*", MAIL), (MAIL, "*"), ("*", "*")])
async def test_a_claim_for_all_effects_excludes_each_of_them(claims: SubjectClaims, effects: tuple[str, str]) -> None:
    await claims.take(wanted(SUPPORT, effects[0]))
    with pytest.raises(ClaimDenied):
        await claims.take(wanted(SALES, effects[1]))


async def test_claims_for_different_effects_stand_beside_each_other(claims: SubjectClaims) -> None:
    tokens = [(await claims.take(wanted(SUPPORT))).token, (await claims.take(wanted(SALES, "refund"))).token]
    assert tokens[0] < tokens[1]


async def test_a_higher_priority_pre_empts_and_the_old_holder_reads_why(claims: SubjectClaims) -> None:
    old = await claims.take(wanted(SALES))
    new = await claims.take(wanted(SUPPORT, priority=101))
    assert new.token > old.token
    for late in (claims.renew("t", old.id, SALES, old.token, SECOND), claims.release("t", old.id, SALES, old.token)):
        with pytest.raises(ClaimLost, match=f"pre-empted by a claim of a higher priority .* token {old.token} is stale"):
            await late
    assert (await claims.renew("t", new.id, SUPPORT, new.token, SECOND)).is_held(1_000 * SECOND)


async def test_a_claim_whose_lease_is_over_is_free_and_its_token_stale(claims: SubjectClaims, time: Time) -> None:
    old = await claims.take(wanted(SALES, lease=60))
    time.us += 60 * SECOND
    new = await claims.take(wanted(SUPPORT))
    with pytest.raises(ClaimLost, match="expired"):
        await claims.renew("t", old.id, SALES, old.token, SECOND)
    assert new.token > old.token


async def test_renewing_keeps_the_claim_and_its_token(claims: SubjectClaims, time: Time) -> None:
    claim = await claims.take(wanted(SUPPORT, lease=60))
    time.us += 59 * SECOND
    renewed = await claims.renew("t", claim.id, SUPPORT, claim.token, 60 * SECOND)
    time.us += 59 * SECOND
    assert renewed.is_held(time()) and renewed.token == claim.token


async def test_a_cool_down_outlives_the_release_and_binds_everybody(claims: SubjectClaims, time: Time) -> None:
    claim = await claims.take(wanted(SUPPORT, cool_down=3600))
    await claims.release("t", claim.id, SUPPORT, claim.token)
    time.us += 3599 * SECOND
    for holder in (SUPPORT, SALES):
        with pytest.raises(CoolingDown, match="rests after work"):
            await claims.take(wanted(holder))
    time.us += SECOND
    assert (await claims.take(wanted(SALES))).token > claim.token


async def test_a_cool_down_follows_a_lease_that_nobody_renewed(claims: SubjectClaims, time: Time) -> None:
    await claims.take(wanted(SUPPORT, lease=60, cool_down=3600))
    time.us += 61 * SECOND
    with pytest.raises(CoolingDown):
        await claims.take(wanted(SALES))
    assert (await claims.take(wanted(SALES, priority=101))).holder == SALES


async def test_who_waits_gets_the_claim_when_it_is_free(claims: SubjectClaims, time: Time) -> None:
    await claims.take(wanted(SUPPORT, lease=5))
    assert (await claims.take(wanted(SALES), wait_seconds=10)).holder == SALES
    assert 5 <= sum(time.waits) < 6


async def test_who_waits_gives_up_at_the_bound(claims: SubjectClaims, time: Time) -> None:
    await claims.take(wanted(SUPPORT, lease=60))
    with pytest.raises(ClaimDenied):
        await claims.take(wanted(SALES), wait_seconds=3)
    assert sum(time.waits) == pytest.approx(3)


async def test_an_agent_below_the_holder_uses_the_claim_and_cannot_end_it(claims: SubjectClaims) -> None:
    claim = await claims.take(wanted(SUPPORT))
    below = Holder(SUPPORT.owner, ("support", "mailer"), "t9", "x1")
    assert (await claims.take(wanted(below))).token == claim.token
    with pytest.raises(UnknownClaim):
        await claims.release("t", claim.id, below, claim.token)


async def test_a_person_is_another_holder_than_the_agents_that_act_for_them(claims: SubjectClaims) -> None:
    await claims.take(wanted(Holder(SUPPORT.owner)))
    with pytest.raises(ClaimDenied):
        await claims.take(wanted(SUPPORT))


async def test_a_closed_claim_says_that_it_expired(claims: SubjectClaims, time: Time) -> None:
    own = await claims.take(wanted(SUPPORT))
    time.us += 61 * SECOND
    await claims.prune()
    with pytest.raises(ClaimLost, match=r"has ended \(expired\)"):
        await claims.renew("t", own.id, SUPPORT, own.token, SECOND)


async def test_closed_claims_are_pruned_and_tokens_still_grow(claims: SubjectClaims, time: Time) -> None:
    old = await claims.take(wanted(SUPPORT))
    time.us += 40 * 86_400 * SECOND
    assert await claims.prune() == 1
    with pytest.raises(UnknownClaim):
        await claims.find("t", old.id)
    assert (await claims.take(wanted(SALES))).token > old.token


@dataclass
class History:
    """Checks what holders saw: each moment has one holder of an effect, and each claim a higher token than those before it."""

    held: dict[str, Claim] = field(default_factory=dict)
    token: int = 0

    def took(self, claim: Claim, now: int) -> None:
        others = [one for one in self.held.values() if one.id != claim.id and one.concerns(claim.effect) and now < one.until]
        assert [one for one in others if one.priority >= claim.priority and not one.holder.covers(claim.holder)] == []
        if claim.id not in self.held:
            assert claim.token > self.token
            self.token = claim.token
        self.held = {one.id: one for one in self.held.values() if one not in others or one.holder.covers(claim.holder)} | {claim.id: claim}


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["take", "take", "renew", "release", "pass"]),
        st.integers(0, 2),
        st.sampled_from(["*", MAIL, "refund"]),
        st.sampled_from([100, 200]),
        st.integers(0, 90),
    ),
    min_size=5,
    max_size=25,
)


@given(steps=STEPS)
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
async def test_there_is_one_holder_at_any_moment_and_tokens_grow(database: Database, steps: list[tuple[str, int, str, int, int]]) -> None:
    time, history = Time(), History()
    store, tenant = SubjectClaims(database, TestClock(time), new_id, time.sleep), new_id("t")
    holders = [SUPPORT, SALES, Holder("t|i|eve")]
    for act, who, effect, priority, seconds in steps:
        holder = holders[who]
        request = ClaimRequest(tenant, "customer:42", effect, holder, "", priority, 60 * SECOND, seconds * SECOND)
        own = next((one for one in history.held.values() if one.holder == holder), None)
        if act == "take":
            with contextlib.suppress(ClaimDenied, CoolingDown):
                history.took(await store.take(request), time())
        elif act == "pass":
            time.us += seconds * SECOND
        elif own is not None and act == "renew":
            history.held[own.id] = await store.renew(tenant, own.id, holder, own.token, 60 * SECOND) if time() < own.until else own
        elif own is not None and time() < own.until:
            await store.release(tenant, own.id, holder, own.token)
            del history.held[own.id]


@pytest.fixture
async def elsewhere(database_url: str) -> AsyncIterator[Database]:
    """Another process of the same PostgreSQL."""
    opened = Database(engine_for(database_url), stale_seconds=LONG_TIMEOUTS.stale_epochs)
    opened.start()
    yield opened
    opened.close()


@pytest.fixture
def here(database: Database) -> Database:
    return database


# attack BRD-01
async def test_two_processes_never_both_hold_a_claim(here: Database, elsewhere: Database, tmp_path: Path) -> None:
    """The clock of one process is a minute ahead: to it, every lease seems to be over."""
    clocks = SubjectClock(now_us), SubjectClock(lambda: now_us() + 60 * SECOND)
    stores = [SubjectClaims(database, clock, new_id) for database, clock in zip((here, elsewhere), clocks, strict=True)]
    tokens: list[int] = []
    inside = 0

    async def work(number: int) -> None:
        nonlocal inside
        holder = Holder(f"t|i|{number}", ("agent",), f"t{number}", f"x{number}")
        store = stores[number % 2]
        for _ in range(5):
            try:
                claim = await store.take(wanted(holder, lease=30))
            except ClaimDenied:
                continue
            inside += 1
            assert inside == 1
            tokens.append(claim.token)
            await asyncio.sleep(0)
            inside -= 1
            await store.release("t", claim.id, holder, claim.token)

    await asyncio.gather(*(work(number) for number in range(12)))
    assert len(tokens) > 1 and tokens == sorted(set(tokens))


# attack BRD-01
async def test_a_holder_that_was_paused_comes_back_with_a_stale_token(claims: SubjectClaims, time: Time) -> None:
    paused = await claims.take(wanted(SALES, lease=60))
    time.us += 120 * SECOND
    current = await claims.take(wanted(SUPPORT, lease=60))
    with pytest.raises(ClaimLost):
        await claims.renew("t", paused.id, SALES, paused.token, 60 * SECOND)
    with pytest.raises(ClaimLost):
        await claims.release("t", current.id, SUPPORT, paused.token)
    assert (await claims.find("t", current.id)).is_held(time())


async def test_a_call_under_the_claim_of_its_caller_lowers_no_priority(claims: SubjectClaims, database: Database, time: Time) -> None:
    own = await claims.take(ClaimRequest("default", "customer:42", MAIL, SUPPORT, "ticket", 400, 60 * SECOND))
    call = ClaimRequest("default", "customer:42", MAIL, SUPPORT, "a mail", 100, SECOND, decision_id="d_1")
    await database.write(lambda batch: take_claim(batch, call, claim_id_of("d_1"), claims.clock))
    assert (await claims.find("default", own.id)).priority == 400

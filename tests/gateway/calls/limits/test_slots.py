"""Slots of calls: fair shares per person, tenant and upstream, a queue with turns, and refusals that say when to come back."""

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from adapters.mcp_client.duplex.channel import CALLS_MAX
from adapters.sandbox.calculation import SANDBOX_KIND as SANDBOX
from gateway.calls.limits.meters import LimitReached
from gateway.calls.limits.slots import Lane, Overloaded, ShareUsed, SlotLimits, Slots
from gateway.concurrency.fair_shares import Capacity
from policies.callers import Caller
from policies.delegation.chain import Delegation, Hop, Principal
from policies.delegation.history import VERB_STOP_TASK
from policies.delegation.permissions import ALL_PERMISSIONS
from policies.delegation.rulings import act_of_invoking_agent
from registry.cards.card import Family, Registration, RegistrationStatus
from tests.fakes.clock import Clock, leap
from tests.fakes.waiting import until

SALES = "http://sales.example:9000/a2a"
ACT = act_of_invoking_agent("sales")


def caller(user: str = "alice", tenant: str = "acme", causing: str = "") -> Caller:
    principal = Principal(tenant, "idp", user)
    delegation = Delegation(principal, ALL_PERMISSIONS, 2e9, (Hop("a"),) if causing else (), task_id=causing)
    return Caller(principal, delegation, "", "t", 2e9, f"{tenant} {user}")


def target(name: str = "sales", url: str = SALES, kind: str = "a2a", tenant: str = "acme") -> Registration:
    values: dict[str, Any] = {"owner": "", "ceiling": ("*",), "delegation": "none", "upstream": {}, "facts": {}, "client_id": ""}
    rest: dict[str, Any] = {"card": None, "card_text": "", "tools": (), "card_hash": "", "created": 0, "updated": 0}
    return Registration(tenant, name, Family.AGENT, kind, RegistrationStatus.ACTIVE, url, **values, **rest)


def slots(clock: Callable[[], float] | None = None, workers: dict[str, int] | None = None, **limits: Any) -> Slots:
    return Slots(SlotLimits(**limits), clock or asyncio.get_running_loop().time, workers)


def taken(made: Slots, who: Caller, where: Registration) -> list[Lane]:
    """All slots that they can have at once."""
    lanes = []
    while (lane := made.try_acquire(who, where)) is not None:
        lanes.append(lane)
    return lanes


def test_a_person_alone_takes_half_and_a_tenant_three_quarters() -> None:
    made = slots(Clock(), calls_max=1000, per_upstream_max=400)
    assert len(taken(made, caller(), target())) == 200
    assert len(taken(made, caller("bob"), target())) == 80
    assert sum(len(taken(made, caller(f"user{number}"), target())) for number in range(60)) == 20  # the tenant has 300 of 400
    assert len(taken(made, caller("mallory", "other"), target())) == 50


def test_one_person_can_not_begin_ten_thousand_things_at_once_though_nothing_is_set() -> None:  # attack PRO-12
    made = slots(Clock())
    assert sum(len(taken(made, caller(), target(f"a{number}", f"http://a{number}.example/"))) for number in range(50)) == 500
    assert made.try_acquire(caller("bob"), target())


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3)), max_size=800))
def test_whoever_holds_nothing_finds_one_free_however_much_others_take(takers: Sequence[tuple[int, int]]) -> None:
    capacity = Capacity(100)
    for tenant, user in takers:
        portion = capacity.portion_of(f"t{tenant}|idp|{user}")
        if portion.exhausted_share() is None:
            portion.take()
    for newcomer in ("fresh|idp|nobody", "t0|idp|nobody"):
        assert capacity.portion_of(newcomer).exhausted_share() is None


def test_agents_at_one_host_share_its_slots_and_ports_are_hosts_of_their_own() -> None:
    made = slots(Clock(), per_upstream_max=8)
    for number in range(4):
        assert made.try_acquire(caller(), target(f"agent{number}", f"http://sales.example:9000/{number}"))
    assert made.try_acquire(caller(), target("more", "http://SALES.example:9000/x")) is None
    assert made.try_acquire(caller(), target("other", "http://sales.example:9001/x"))
    for same in ("https://crm.example/a", "https://crm.example:443/b", "https://user@crm.example/c", "https://crm.example/d"):
        assert made.try_acquire(caller(), target(same, same))
    assert made.try_acquire(caller(), target("bare", "crm.example:443")) is None


def test_commands_have_slots_of_their_own_within_what_their_channel_takes() -> None:
    made = slots(Clock())
    assert len(taken(made, caller(), target("files", "stdio:"))) == CALLS_MAX // 2
    assert made.try_acquire(caller(), target("notes", "stdio:"))


def test_workers_that_end_soon_are_all_for_one_person_as_long_as_nobody_else_asks() -> None:
    made = slots(Clock(), workers={SANDBOX: 4})
    assert len(taken(made, caller(), target(SANDBOX, "", SANDBOX))) == 4
    assert made.try_acquire(caller("bob", "other"), target(SANDBOX, "", SANDBOX, "other")) is None


def test_a_call_that_a_task_causes_finds_a_slot_where_its_own_task_left_none() -> None:
    made = slots(Clock(), per_upstream_max=12)
    assert len(taken(made, caller(), target())) == 6
    assert len(taken(made, caller(causing="t_1"), target())) == 2


async def _queue(made: Slots, *who: Caller, where: Registration | None = None) -> tuple[list["asyncio.Task[Any]"], list[str]]:
    """Calls that wait, in this order, and whose begin, in the order in which they do."""
    begun: list[str] = []

    async def wait(one: Caller) -> Any:
        lane = await made.wait_for_slot(one, where or target(), ACT)
        begun.append(one.principal.subject)
        return lane

    tasks = [asyncio.create_task(wait(one)) for one in who]
    await until(lambda: made.waiting_count == len(who))
    return tasks, begun


async def test_people_and_tenants_take_turns_whoever_came_first() -> None:
    made = slots(workers={SANDBOX: 1})
    place = target(SANDBOX, "", SANDBOX)
    held = made.try_acquire(caller("first"), place)
    greedy, carol, dave = caller("greedy"), caller("carol"), caller("dave", "other")
    tasks, begun = await _queue(made, greedy, greedy, greedy, greedy, carol, carol, dave, where=place)
    while held is not None:
        held.free()
        running = [task for task in tasks if not task.done()]
        if not running:
            break
        done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
        (held,) = (task.result() for task in done)
    assert begun == ["greedy", "dave", "carol", "greedy", "carol", "greedy", "greedy"]
    assert made.waiting_count == 0 and len(taken(made, greedy, place)) == 1


async def test_whoever_has_used_their_share_keeps_nobody_behind_them_waiting() -> None:
    made = slots(per_upstream_max=2)
    mine, theirs = made.try_acquire(caller(), target()), made.try_acquire(caller("bob", "other"), target())
    tasks, begun = await _queue(made, caller(), caller("carol", "third"))
    assert mine is not None and theirs is not None
    theirs.free()
    await until(lambda: begun == ["carol"])
    mine.free()
    await asyncio.gather(*tasks)


async def test_a_place_in_the_queue_is_free_again_after_each_wait() -> None:
    made = slots(per_upstream_max=2, waiting_max=2)
    held = made.try_acquire(caller(), target())
    for _ in range(3):
        assert held is not None
        tasks, _ = await _queue(made, caller())
        held.free()
        held = await tasks[0]


async def test_a_call_waiting_for_a_busy_host_does_not_block_the_persons_other_calls() -> None:
    made = slots(per_upstream_max=2)
    held = made.try_acquire(caller(), target())
    tasks, _ = await _queue(made, caller())
    assert made.try_acquire(caller(), target("crm", "http://crm.example/")) is not None
    assert held is not None
    held.free()
    (await tasks[0]).free()


async def test_a_greedy_person_is_told_429_after_a_while_and_how_long_to_stay_away() -> None:
    clock = Clock()
    made = slots(clock, per_upstream_max=2, wait_seconds=10.0)
    assert made.try_acquire(caller(), target()) is not None
    assert made.try_acquire(caller("bob", "other"), target()) is not None
    tasks, _ = await _queue(made, caller(), caller(), caller("carol", "third"))
    clock.now += 10
    leap(10)
    alice, _, carol = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(alice, ShareUsed) and alice.retry_after == 10
    assert isinstance(carol, Overloaded) and carol.retry_after == 10
    assert made.waiting_count == 0


async def test_who_holds_nothing_while_others_hold_all_is_told_503() -> None:
    made = slots(wait_seconds=0.0, workers={SANDBOX: 1})
    place = target(SANDBOX, "", SANDBOX)
    assert made.try_acquire(caller(), place) is not None
    with pytest.raises(Overloaded):
        await made.wait_for_slot(caller("bob"), place, ACT)
    with pytest.raises(ShareUsed):
        await made.wait_for_slot(caller(), place, ACT)


async def test_the_queue_has_shares_too_and_who_has_used_theirs_is_refused_at_once() -> None:
    made = slots(per_upstream_max=2, waiting_max=8)
    held = made.try_acquire(caller(), target())
    tasks, _ = await _queue(made, *[caller()] * 4)
    with pytest.raises(ShareUsed):
        await made.wait_for_slot(caller(), target(), ACT)
    others, _ = asyncio.create_task(made.wait_for_slot(caller("zoe", "other"), target("x", "http://x.example/"), ACT)), held
    (await others).free()
    for task in tasks:
        task.cancel()
    assert {type(each) for each in await asyncio.gather(*tasks, return_exceptions=True)} == {asyncio.CancelledError}
    assert made.waiting_count == 0


async def test_a_client_that_goes_away_as_its_turn_comes_gives_the_slot_back() -> None:
    made = slots(per_upstream_max=2)
    held = made.try_acquire(caller(), target())
    assert held is not None
    tasks, _ = await _queue(made, caller())
    held.free()  # the slot is its own from here on
    tasks[0].cancel()
    await asyncio.wait(tasks)
    assert len(taken(made, caller(), target())) == 1


async def test_a_caller_with_less_time_waits_no_longer_than_that() -> None:
    made = slots(per_upstream_max=2)
    assert made.try_acquire(caller(), target()) is not None
    with pytest.raises(ShareUsed):
        await made.wait_for_slot(caller(), target(), ACT, asyncio.get_running_loop().time())


async def test_a_call_that_stops_another_may_use_twice_the_share() -> None:
    made = slots(per_upstream_max=12, wait_seconds=0.0)
    assert len(taken(made, caller(), target())) == 6
    assert (await made.wait_for_slot(caller(), target(), replace(ACT, verb=VERB_STOP_TASK))) is not None


async def test_what_a_caller_may_not_know_of_is_not_queued_for() -> None:
    made = Slots(SlotLimits(per_upstream_max=2, wait_seconds=0.0), Clock(), can_see=lambda caller, act: caller.principal.subject == "alice")
    assert made.try_acquire(caller(), target()) and made.try_acquire(caller("bob"), target())
    (await made.wait_for_slot(caller("carol"), target(), ACT)).free()
    with pytest.raises(ShareUsed):
        await made.wait_for_slot(caller(), target(), ACT)


def test_people_without_calls_are_forgotten_and_those_with_some_are_not() -> None:
    made = slots(Clock())
    held, gone = made.try_acquire(caller(), target()), made.try_acquire(caller("bob"), target("crm", "http://crm.example/"))
    assert held is not None and gone is not None
    gone.free()
    made.sweep()
    assert set(made._lanes.values()) == {held}
    assert made.try_acquire(caller(), target()) is held
    assert len(taken(made, caller(), target())) == 198


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("xy"), st.booleans()), max_size=120))
def test_slots_given_back_are_all_there_again_and_nobody_is_forgotten(script: Sequence[tuple[str, str, bool]]) -> None:
    asyncio.run(_play(script))


async def _play(script: Sequence[tuple[str, str, bool]]) -> None:
    """Calls come and end; at the end every call that waited has had its turn."""
    made = slots(calls_max=6, per_upstream_max=4)
    tasks: list[asyncio.Task[None]] = []
    gates: list[asyncio.Event] = []
    outcomes: Counter[str] = Counter()

    async def call(who: Caller, where: Registration, gate: asyncio.Event) -> None:
        try:
            lane = made.try_acquire(who, where) or await made.wait_for_slot(who, where, ACT)
        except LimitReached:
            outcomes["refused"] += 1
            return
        await gate.wait()
        lane.free()
        outcomes["served"] += 1

    for user, host, comes in script:
        if comes or not gates:
            gates.append(asyncio.Event())
            tasks.append(asyncio.create_task(call(caller(user, f"tenant-{user}"), target(host, f"http://{host}.example/"), gates[-1])))
        else:
            gates.pop(0).set()
        await asyncio.sleep(0)
    for gate in gates:
        gate.set()
    await asyncio.gather(*tasks)
    assert outcomes["served"] == len(tasks) and made.waiting_count == 0
    made.sweep()
    assert len(taken(made, caller(), target())) == 2  # half of 4: nothing is held any more

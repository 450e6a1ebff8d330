"""The queue of calls that wait for a slot: whose turn is next, and who is passed over."""

import asyncio
from dataclasses import dataclass, field

from gateway.calls.limits.fair_queue import FairQueue, Waiter
from gateway.concurrency.fair_shares import ShareCount


@dataclass(eq=False)
class Lane:
    """The calls of one person to one upstream. `full` is the share that keeps them out."""

    tenant: str
    owner: str
    full: ShareCount | None = None
    counted: set[ShareCount] = field(default_factory=set)
    asked: int = 0

    def exhausted_share(self, share_multiple: int) -> ShareCount | None:
        self.asked += 1
        return self.full

    def counts_towards(self, shares: set[ShareCount]) -> bool:
        return bool(self.counted & shares)


def waiter(share_multiple: int = 1) -> Waiter:
    return Waiter(asyncio.get_running_loop().create_future(), share_multiple)


def queue(*lanes: Lane) -> FairQueue[Lane]:
    """A call for each."""
    made: FairQueue[Lane] = FairQueue()
    for lane in lanes:
        made.add(lane, waiter())
    return made


def order(made: FairQueue[Lane]) -> list[Lane]:
    """The lanes of all calls, as they begin."""
    found = []
    while (popped := made.pop()) is not None:
        found.append(popped[0])
    return found


async def test_calls_of_one_lane_begin_in_the_order_in_which_they_came() -> None:
    made, lane, calls = queue(), Lane("acme", "alice"), [waiter(), waiter(), waiter()]
    for call in calls:
        made.add(lane, call)
    assert [made.pop() for _ in calls] == [(lane, call) for call in calls]


async def test_tenants_take_turns_however_many_calls_one_has() -> None:
    many, few = Lane("acme", "alice"), Lane("globex", "gina")
    assert order(queue(many, many, many, few)) == [many, few, many, many]


async def test_people_of_one_tenant_take_turns() -> None:
    alice, bob = Lane("acme", "alice"), Lane("acme", "bob")
    assert order(queue(alice, alice, alice, bob)) == [alice, bob, alice, alice]


async def test_upstreams_of_one_person_take_turns() -> None:
    sales, travel = Lane("acme", "alice"), Lane("acme", "alice")
    assert order(queue(sales, sales, sales, travel)) == [sales, travel, sales, sales]


async def test_a_call_beyond_its_share_keeps_nobody_behind_it_waiting() -> None:
    greedy, other = Lane("acme", "alice", full=ShareCount()), Lane("globex", "gina")
    made = queue(greedy, other)
    assert order(made) == [other]
    assert len(made) == 1


async def test_a_share_that_is_full_is_looked_at_once_for_all_lanes_that_count_towards_it() -> None:
    share = ShareCount()
    first, second = Lane("acme", "alice", share, {share}), Lane("acme", "bob", share, {share})
    assert queue(first, second).pop() is None
    assert (first.asked, second.asked) == (1, 0)


async def test_a_call_that_left_the_queue_is_not_popped() -> None:
    lane, gone = Lane("acme", "alice"), waiter()
    made = queue()
    made.add(lane, gone)
    made.remove(lane, gone)
    made.remove(lane, gone)  # does nothing
    assert (len(made), made.pop()) == (0, None)


async def test_a_slot_is_granted_once_and_to_nobody_who_has_left() -> None:
    waiting, left = waiter(), waiter()
    left.outcome.cancel()
    assert (waiting.grant(), waiting.grant(), waiting.has_slot) == (True, False, True)
    assert (left.grant(), left.has_slot) == (False, False)


async def test_a_call_whose_time_is_over_has_no_slot() -> None:
    waiting = waiter()
    waiting.expire()
    assert (waiting.grant(), waiting.has_slot) == (False, False)

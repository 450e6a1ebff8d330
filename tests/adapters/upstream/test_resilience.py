"""Claims about agents that fail: what is safe is tried again, never much; who can't be reached is left alone; a task stays where it is."""

import asyncio
import itertools
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace as changed

from msgspec.structs import replace

from adapters.contract import (
    ENDPOINT_KEY,
    AgentFault,
    Call,
    Done,
    Event,
    Failed,
    NotSent,
    RefLearned,
    Turn,
    Unreachable,
    UpstreamFault,
    VendorRef,
)
from adapters.upstream.breaker import FAILURES_MAX, PAUSE_SECONDS
from adapters.upstream.guarded import guard
from adapters.upstream.resilience import OPEN_TEXT, RETRY_RESERVE, RETRY_SHARE, Resilience, weights_of
from registry.cards.card import AgentEndpoint
from tests.fakes.a2a_calls import call_to, turn
from tests.fakes.clock import Clock

A, B, C = "http://a.example/", "http://b.example/", "http://c.example/"


class Acting:
    """An agent at several addresses; `broken` says what is wrong at each."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.broken: dict[str, UpstreamFault] = {}

    async def run(self, turn: Turn, call: Call) -> AsyncIterator[Event]:
        url = str(call.target.facts.get("interface") or call.target.url)
        self.asked.append(url)
        if url in self.broken:
            raise self.broken[url]
        yield RefLearned(VendorRef("context", "task", turn.ref.extra if turn.ref else {}))
        yield Done()

    async def cancel(self, ref: VendorRef, call: Call) -> bool:
        self.asked.append(str(call.target.facts.get("interface") or call.target.url))
        return True


class Tried:
    """The adapter, its agent, and time as the test has it."""

    def __init__(self, *endpoints: AgentEndpoint) -> None:
        self.clock = Clock(0.0)
        self.pauses: list[float] = []
        self.resilience = Resilience(self.clock, self.clock, self._pause)
        self.agent = Acting()
        self.adapter = guard(self.agent, self.resilience)
        call = call_to(A, seconds=30)
        facts = {key: value for key, value in call.target.facts.items() if key != "interface"}
        self.call = replace(call, target=changed(call.target, url=A, facts=facts, endpoints=endpoints))

    async def _pause(self, seconds: float) -> None:
        self.pauses.append(seconds)

    async def run(self, ref: VendorRef | None = None) -> list[Event]:
        return [event async for event in self.adapter.run(replace(turn("hi"), ref=ref), self.call)]


def unconnected() -> UpstreamFault:
    fault = Unreachable("the upstream can't be reached")
    fault.is_unsent = True
    return fault


async def test_what_was_not_sent_goes_elsewhere_and_the_task_stays_there() -> None:
    tried = Tried(AgentEndpoint(B))
    tried.agent.broken[A] = unconnected()
    events = await tried.run()
    assert isinstance(events[-1], Done) and tried.agent.asked[-1] == B
    [ref] = [event.ref for event in events if isinstance(event, RefLearned)]
    assert ref.extra == {ENDPOINT_KEY: B}
    tried.agent.broken = {}
    tried.agent.asked.clear()
    for _ in range(4):
        await tried.run(ref)
    await tried.adapter.cancel(ref, tried.call)
    assert tried.agent.asked == [B] * 5


async def test_a_task_that_goes_on_is_never_taken_elsewhere() -> None:
    tried = Tried(AgentEndpoint(B))
    tried.agent.broken[A] = unconnected()
    [event] = await tried.run(VendorRef("context", "task"))
    assert isinstance(event, Failed) and set(tried.agent.asked) == {A}


async def test_what_may_have_been_sent_is_never_tried_again() -> None:
    for fault in (Unreachable("broke off"), UpstreamFault("failed"), AgentFault("AGENT_BUSY", "busy", retryable=True)):
        tried = Tried(AgentEndpoint(B))
        tried.agent.broken = {A: fault, B: fault}
        [event] = await tried.run()
        assert isinstance(event, Failed) and len(tried.agent.asked) == 1


async def test_an_agent_that_did_nothing_is_asked_again_when_it_says_so() -> None:
    tried = Tried()
    tried.agent.broken[A] = AgentFault("AGENT_BUSY", "busy", retryable=True, retry_after=2.0)
    [event] = await tried.run()
    assert isinstance(event, Failed) and event.retryable and tried.pauses == [2.0, 2.0]
    tried.agent.broken[A] = AgentFault("AGENT_BUSY", "busy", retryable=True, retry_after=600.0)
    await tried.run()
    assert tried.pauses == [2.0, 2.0]


async def test_tries_are_a_fifth_of_all_calls_and_what_was_saved_up() -> None:
    tried = Tried()
    tried.agent.broken[A] = AgentFault("AGENT_BUSY", "busy", retryable=True, retry_after=0.0)
    calls = 100
    for _ in range(calls):
        await tried.run()
    assert len(tried.agent.asked) - calls <= RETRY_RESERVE + RETRY_SHARE * calls
    assert (
        tried.resilience.describe_agent(tried.call.target)["retries"]["used"]
        == tried.resilience.retry_count
        == len(tried.agent.asked) - calls
    )


async def test_who_cannot_be_reached_is_left_alone_then_tried_once_and_shown() -> None:
    tried = Tried()
    tried.agent.broken[A] = Unreachable("the upstream can't be reached")
    for _ in range(FAILURES_MAX):
        await tried.run()
    [event] = await tried.run()
    assert isinstance(event, Failed) and (event.reason, event.retryable) == (OPEN_TEXT, True) and len(tried.agent.asked) == FAILURES_MAX
    [shown] = tried.resilience.describe_agent(tried.call.target)["endpoints"]
    assert (
        shown == {"url": A, "weight": 1, "state": "ejected", "faults": FAILURES_MAX, "since": 0.0} and tried.resilience.ejected_count == 1
    )
    tried.clock.now += PAUSE_SECONDS
    await tried.run()  # the one that tries
    await tried.run()
    assert len(tried.agent.asked) == FAILURES_MAX + 1
    tried.agent.broken = {}
    tried.clock.now += 2 * PAUSE_SECONDS
    assert isinstance((await tried.run())[-1], Done) and isinstance((await tried.run())[-1], Done)
    state = tried.resilience.describe_agent(tried.call.target)
    assert state["endpoints"][0]["state"] == "up" and state["last_fault"]["problem"] == "the upstream can't be reached"
    assert state["under_way"] == 0


async def test_an_agent_that_answers_badly_or_that_we_had_no_room_for_is_not_left_alone() -> None:
    for fault in (UpstreamFault("failed"), NotSent("no room")):
        tried = Tried()
        tried.agent.broken[A] = fault
        for _ in range(3 * FAILURES_MAX):
            await tried.run()
        assert tried.resilience.ejected_count == 0


class Breaking(Acting):
    """Begins each answer, and breaks off once all of them have begun."""

    def __init__(self, answers: int) -> None:
        super().__init__()
        self._all_began = asyncio.Barrier(answers)

    async def run(self, turn: Turn, call: Call) -> AsyncIterator[Event]:
        yield RefLearned(VendorRef("context", "task"))
        await self._all_began.wait()
        raise Unreachable("broke off")


async def test_an_agent_that_breaks_off_many_answers_at_once_is_left_alone() -> None:
    tried = Tried()
    tried.adapter = guard(Breaking(FAILURES_MAX), tried.resilience)

    async def read_to_the_ending() -> None:  # and no further, as those who record turns do
        async for event in tried.adapter.run(turn("hi"), tried.call):
            if isinstance(event, Failed):
                return

    await asyncio.gather(*(read_to_the_ending() for _ in range(FAILURES_MAX)))
    assert tried.resilience.ejected_count == 1


async def test_new_tasks_are_shared_by_weight_and_spares_come_last() -> None:
    tried = Tried(AgentEndpoint(B, 3), AgentEndpoint(C, 0))
    assert weights_of(tried.call.target) == {A: 1, B: 3, C: 0}
    for _ in range(40):
        await tried.run()
    assert Counter(tried.agent.asked) == {A: 10, B: 30}
    tried.agent.broken = {A: Unreachable("gone"), B: Unreachable("gone")}
    for _ in range(4 * FAILURES_MAX):
        await tried.run()
    tried.agent.asked.clear()
    await tried.run()
    assert tried.agent.asked == [C]


async def test_an_endpoint_that_breaks_down_costs_no_call_once_it_is_known() -> None:
    tried = Tried(AgentEndpoint(B))
    tried.agent.broken[A] = unconnected()
    ended = list(itertools.chain.from_iterable([await tried.run() for _ in range(30)]))
    assert sum(isinstance(event, Done) for event in ended) == 30 and tried.agent.asked.count(A) == FAILURES_MAX


async def test_an_endpoint_that_was_taken_away_is_called_no_more_for_no_task() -> None:
    tried = Tried(AgentEndpoint(C))
    ref = VendorRef("context", "task", {ENDPOINT_KEY: B})
    await tried.run(ref)
    await tried.adapter.cancel(ref, tried.call)
    assert tried.agent.asked == [A, A]

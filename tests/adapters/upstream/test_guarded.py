"""Whatever an adapter does, a turn has one ending, in time."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence

import pytest
from msgspec.structs import replace
from structlog.testing import capture_logs

from adapters.contract import (
    ENDINGS,
    AnswerRefused,
    Call,
    ConsentNeeded,
    Done,
    Event,
    Failed,
    Failure,
    InvalidAnswer,
    Progress,
    RefLearned,
    RunningTurn,
    Turn,
    Unreachable,
    UpstreamFault,
    VendorRef,
    Watcher,
)
from adapters.task import Task, TaskState, TaskStatus
from adapters.upstream import guarded
from adapters.upstream.egress import EgressRefused
from adapters.upstream.guarded import LATE_TEXT, NO_ENDING_TEXT, QUIET, GuardedAdapter, GuardedWatcher, guard
from adapters.upstream.pending_consent import PENDING_KEY
from tests.fakes.a2a_calls import YieldedBatches, call_to, turn


class Acting:
    """An adapter that does what it is made with, and notes that it was closed."""

    def __init__(self, act: Callable[[], AsyncIterator[Event]]) -> None:
        self._act = act
        self.closed = False

    async def run(self, turn: Turn, call: Call) -> AsyncIterator[Event]:
        try:
            async for event in self._act():
                yield event
        finally:
            self.closed = True

    async def cancel(self, ref: VendorRef, call: Call) -> bool:
        await anext(aiter(self._act()))
        return True


async def ends_twice() -> AsyncIterator[Event]:
    yield Progress()
    yield Done()
    yield Failed("too late")


async def never_ends() -> AsyncIterator[Event]:
    yield Progress()


async def breaks() -> AsyncIterator[Event]:
    yield Progress()
    raise UpstreamFault("it broke", "secret")


async def goes_where_it_may_not() -> AsyncIterator[Event]:
    raise EgressRefused("the target is private")
    yield


async def unreachable() -> AsyncIterator[Event]:
    raise UpstreamFault("it broke", "secret")
    yield


async def hangs() -> AsyncIterator[Event]:
    yield Progress()
    await asyncio.Event().wait()


async def hangs_at_once() -> AsyncIterator[Event]:
    await asyncio.Event().wait()
    yield


async def talks() -> AsyncIterator[Event]:
    yield Progress()
    yield Done()


@pytest.mark.parametrize(
    ("act", "ending"),
    [
        (ends_twice, Done()),
        (never_ends, Failed(NO_ENDING_TEXT, detail="the adapter yielded no ending", kind="INVALID_AGENT_RESPONSE")),
        (breaks, Failed("it broke", detail="secret", kind="UPSTREAM")),
        (goes_where_it_may_not, Failed("the target is private", kind="UPSTREAM", had_no_effect=True)),
        (hangs, Failed(LATE_TEXT, kind="AGENT_LATE")),
    ],
)
async def test_exactly_one_ending_ends_a_turn(act: Callable[[], AsyncIterator[Event]], ending: Event) -> None:
    adapter = Acting(act)
    events = [event async for event in GuardedAdapter(adapter).run(turn("hi"), call_to("http://a.example/", seconds=0.05))]
    assert events[-1] == ending
    assert sum(type(event) in ENDINGS for event in events) == 1
    assert adapter.closed


async def test_a_consumer_that_leaves_closes_the_adapter() -> None:
    adapter = Acting(hangs)
    events = GuardedAdapter(adapter).run(turn("hi"), call_to("http://a.example/"))
    await anext(events)
    await events.aclose()  # type: ignore[attr-defined]  # every run is an async generator
    assert adapter.closed


@pytest.mark.parametrize(
    ("act", "why"), [(hangs_at_once, LATE_TEXT), (goes_where_it_may_not, "the target is private"), (unreachable, "it broke")]
)
async def test_who_can_not_be_reached_has_neither_confirmed_nor_refused_to_stop(act: Callable[[], AsyncIterator[Event]], why: str) -> None:
    with pytest.raises(UpstreamFault) as fault:
        await GuardedAdapter(Acting(act)).cancel(VendorRef(), call_to("http://a.example/", seconds=0.05))
    assert fault.value.public == why


class Watching(Acting):
    def watch(self, ref: VendorRef, call: Call) -> AsyncIterator[Event]:
        return self._act()


@pytest.mark.parametrize(
    ("act", "heard"),
    [
        (hangs_at_once, []),
        (unreachable, []),
        (hangs, [Progress(), Failed(LATE_TEXT, kind="AGENT_LATE")]),
        (breaks, [Progress(), Failed("it broke", detail="secret", kind="UPSTREAM")]),
        (ends_twice, [Progress(), Done()]),
    ],
)
async def test_a_task_that_is_watched_fails_only_once_it_has_moved(act: Callable[[], AsyncIterator[Event]], heard: list[Event]) -> None:
    watching = guard(Watching(act))
    assert isinstance(watching, Watcher)
    watched = watching.watch(VendorRef(), call_to("http://a.example/", seconds=0.05))
    assert [event async for event in watched] == heard
    assert not isinstance(guard(Acting(act)), Watcher)  # or it would be asked without end


async def test_an_answer_confirms_a_cancellation() -> None:
    assert await GuardedAdapter(Acting(never_ends)).cancel(VendorRef(), call_to("http://a.example/", seconds=0.05))


async def test_the_deadline_cuts_the_adapter_off_and_never_who_reads_its_events() -> None:
    events = GuardedAdapter(Acting(hangs)).run(turn("hi"), call_to("http://a.example/", seconds=0.05))
    assert await anext(events) == Progress()
    await asyncio.sleep(0.1)  # the reader takes its time, past the deadline
    assert await anext(events) == Failed(LATE_TEXT, kind="AGENT_LATE")


async def test_a_cancellation_from_outside_is_not_taken_for_the_deadline() -> None:
    adapter = Acting(hangs_at_once)
    running = asyncio.create_task(anext(GuardedAdapter(adapter).run(turn("hi"), call_to("http://a.example/", seconds=5))))
    await asyncio.sleep(0)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert adapter.closed


def fault(undone: bool = True, unfit: bool = False) -> UpstreamFault:
    made = UpstreamFault("not taken", "status 422")
    made.had_no_effect, made.is_callers_mistake = undone, unfit
    return made


@pytest.mark.parametrize(
    ("ref", "before", "problem", "ending"),
    [
        (VendorRef("c", "t"), (), fault(unfit=True), AnswerRefused("not taken", "status 422")),
        (VendorRef("c", "t"), (RefLearned(VendorRef("c")),), fault(), AnswerRefused("not taken", "status 422", "UPSTREAM")),
        (VendorRef("c", "t"), (Progress(),), fault(), Failed("not taken", detail="status 422", kind="UPSTREAM")),
        (VendorRef("c", "t"), (), fault(undone=False), Failed("not taken", detail="status 422", kind="UPSTREAM")),
        (VendorRef("c"), (), fault(), Failed("not taken", detail="status 422", kind="UPSTREAM", had_no_effect=True)),
        (
            VendorRef("c", "k", {PENDING_KEY: {}}),
            (),
            fault(),
            Failed("not taken", detail="status 422", kind="UPSTREAM", had_no_effect=True),
        ),
    ],
    ids=["unfit", "untaken", "begun", "unknown", "new", "consent"],
)
async def test_an_answer_that_surely_did_nothing_leaves_its_task_waiting(
    ref: VendorRef, before: tuple[Event, ...], problem: UpstreamFault, ending: Event
) -> None:
    async def act() -> AsyncIterator[Event]:
        for event in before:
            yield event
        raise problem

    asked = replace(turn("yes"), ref=ref)
    events = [event async for event in GuardedAdapter(Acting(act)).run(asked, call_to("http://a.example/"))]
    assert events[-1] == ending


async def test_an_agent_that_is_silent_for_too_long_is_cut_off_long_before_its_deadline() -> None:
    call = replace(call_to("http://a.example/", seconds=60), idle=0.05)
    events = [event async for event in GuardedAdapter(Acting(hangs)).run(turn("hi"), call)]
    assert events == [Progress(), Failed(QUIET, kind="AGENT_LATE")]


class Stopping(Acting):
    """An adapter whose agent can be told to stop. `stopped` has the tasks that were."""

    def __init__(self, act: Callable[[], AsyncIterator[Event]], confirms: Callable[[], Awaitable[bool]]) -> None:
        super().__init__(act)
        self._confirms = confirms
        self.stopped: list[str] = []

    async def stop(self, ref: VendorRef, call: Call) -> bool:
        self.stopped.append(ref.task_id)
        return await self._confirms()

    async def reattach(self, turn: Turn, known: Task, call: Call) -> AsyncIterator[Event]:
        async for event in self._act():
            yield event

    def watch(self, ref: VendorRef, call: Call) -> AsyncIterator[Event]:
        return self._act()


async def confirms() -> bool:
    return True


async def names_its_task_and_hangs() -> AsyncIterator[Event]:
    yield RefLearned(VendorRef("c", "t-new"))
    await asyncio.Event().wait()


async def is_late_by_its_own_clock() -> AsyncIterator[Event]:
    yield RefLearned(VendorRef("c", "t-new"))
    raise Unreachable("the upstream did not answer in time", failure=Failure.LATE)


async def was_never_reached() -> AsyncIterator[Event]:
    fault = Unreachable("the upstream did not answer in time", failure=Failure.LATE)
    fault.is_unsent = fault.had_no_effect = True
    raise fault
    yield


async def fails_early() -> AsyncIterator[Event]:
    yield RefLearned(VendorRef("c", "t-new"))
    raise InvalidAnswer("no JSON")


@pytest.mark.parametrize(
    ("act", "ref", "stopped"),
    [
        (names_its_task_and_hangs, None, ["t-new"]),
        (is_late_by_its_own_clock, None, ["t-new"]),
        (hangs_at_once, VendorRef("c", "t-asked"), ["t-asked"]),
        (hangs_at_once, VendorRef("c"), []),
        (hangs_at_once, VendorRef("c", "consent", {PENDING_KEY: {}}), []),
        (was_never_reached, VendorRef("c", "t-asked"), []),
        (fails_early, None, []),
        (talks, None, []),
    ],
    ids=["named", "client's clock", "continued", "unnamed", "consent", "unsent", "early", "done"],
)
async def test_only_a_late_turn_that_the_agent_got_is_stopped(
    act: Callable[[], AsyncIterator[Event]], ref: VendorRef | None, stopped: list[str]
) -> None:
    adapter = Stopping(act, confirms)
    late = replace(turn("hi"), ref=ref)
    events = [event async for event in GuardedAdapter(adapter).run(late, call_to("http://a.example/", seconds=0.2))]
    assert type(events[-1]) in ENDINGS
    assert adapter.stopped == stopped


async def test_a_late_turn_is_stopped_after_a_takeover_or_a_wait_too() -> None:
    adapter, call = Stopping(names_its_task_and_hangs, confirms), call_to("http://a.example/", seconds=0.1)
    known = Task("t", "c", TaskStatus(TaskState.WORKING))
    agent = guard(adapter)
    assert isinstance(agent, GuardedWatcher)
    for events in (agent.reattach(turn("hi", VendorRef("c", "t")), known, call), agent.watch(VendorRef("c", "t"), call)):
        assert [event async for event in events][-1] == Failed(LATE_TEXT, kind="AGENT_LATE")
    assert adapter.stopped == ["t-new", "t-new"]


async def refuses_to_stop() -> bool:
    raise UpstreamFault("no")


async def asks_for_consent() -> bool:
    raise ConsentNeeded("https://gateway.example/consent", "id", "sales")


async def is_silent() -> bool:
    await asyncio.Event().wait()
    return True


@pytest.mark.parametrize("answer", [refuses_to_stop, asks_for_consent, is_silent])
async def test_a_late_turn_fails_as_late_whatever_the_agent_says(
    answer: Callable[[], Awaitable[bool]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guarded, "STOP_SECONDS", 0.05)
    adapter = Stopping(names_its_task_and_hangs, answer)
    with capture_logs() as lines:
        async with asyncio.timeout(60):
            events = [event async for event in GuardedAdapter(adapter).run(turn("hi"), call_to("http://a.example/", seconds=0.05))]
    assert events[-1] == Failed(LATE_TEXT, kind="AGENT_LATE")
    assert adapter.stopped == ["t-new"]
    assert [line["event"] for line in lines] == ["late_turn_not_stopped"]


class Lively:
    """An adapter that waits for a while in which it notes signs of life, or none."""

    def __init__(self, lives: bool) -> None:
        self.lives = lives

    async def run(self, turn: Turn, call: Call) -> AsyncIterator[Event]:
        for _ in range(8):
            await asyncio.sleep(0.05)
            if self.lives:
                call.on_activity()
        yield Done()

    async def cancel(self, ref: VendorRef, call: Call) -> bool:
        return False


@pytest.mark.parametrize(("lives", "ending"), [(True, Done()), (False, Failed(QUIET, kind="AGENT_LATE"))])
async def test_a_sign_of_life_that_is_no_event_counts(lives: bool, ending: Event) -> None:
    call = replace(call_to("http://a.example/", seconds=60), idle=0.2)
    assert [event async for event in GuardedAdapter(Lively(lives)).run(turn("hi"), call)] == [ending]


async def test_time_that_the_reader_of_events_takes_is_not_the_agents_silence() -> None:
    call = replace(call_to("http://a.example/", seconds=60), idle=0.1)
    events = GuardedAdapter(Acting(talks)).run(turn("hi"), call)
    assert await anext(events) == Progress()
    await asyncio.sleep(0.3)
    assert await anext(events) == Done()


class Batching(Acting):
    """An adapter whose events all arrive in one batch after an empty one; then it breaks."""

    def __init__(self, *events: Event) -> None:
        super().__init__(breaks)
        self._events = events

    def begin_turn(self, turn: Turn, call: Call) -> RunningTurn:
        return YieldedBatches(self._yield_batches(call))

    async def _yield_batches(self, call: Call) -> AsyncGenerator[Sequence[Event], None]:
        yield ()
        yield self._events
        raise UpstreamFault("it broke", f"secret {call.headers['Authorization']}")


async def batches_of(*events: Event) -> list[Sequence[Event]]:
    running = GuardedAdapter(Batching(*events)).begin_turn(turn("hi"), call_to("http://a.example/"))
    batches = list[Sequence[Event]]()
    while (batch := await running.next_events()) is not None:
        batches.append(batch)
    await running.aclose()
    return batches


async def test_events_that_arrive_together_stay_together_up_to_the_first_ending() -> None:
    learned = RefLearned(VendorRef("c", "t"))
    assert await batches_of(learned, Progress(), Done(), Failed("too late")) == [[learned, Progress(), Done()]]


async def test_a_fault_after_a_batch_ends_the_turn_without_the_credential_of_the_call() -> None:
    (batch, (failed,)) = await batches_of(Progress(), Progress(detail="sent Bearer hop"))
    assert batch[0] == Progress() and isinstance(batch[1], Progress) and isinstance(failed, Failed)
    assert "hop" not in batch[1].detail + failed.detail and failed.reason == "it broke"

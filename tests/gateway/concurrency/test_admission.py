"""How many requests start, by the time that iterations of the event loop take. The test moves the clock."""

from collections.abc import Callable

import pytest

from gateway.concurrency.admission import (
    QUEUE_SECONDS,
    RESERVE_SECONDS,
    STARTS_MAX,
    WAIT_SECONDS,
    WRITER_SECONDS,
    Admission,
    AdmissionLimits,
)

TARGET = 0.01
ANN, BOB = "t|i|ann", "t|i|bob"


class Loop:
    """An event loop whose iterations take as long as the test says."""

    def __init__(self) -> None:
        self.now = 100.0
        self.due: list[Callable[[], None]] = []
        self.later_due: list[tuple[float, Callable[[], None]]] = []

    def clock(self) -> float:
        return self.now

    def soon(self, act: Callable[[], None]) -> None:
        self.due.append(act)

    def later(self, seconds: float, act: Callable[[], None]) -> None:
        self.later_due.append((self.now + seconds, act))

    def iterate(self, seconds: float) -> None:
        """Ends an iteration that took `seconds`."""
        self.now += seconds
        ready = [act for at, act in self.later_due if at <= self.now]
        self.later_due = [(at, act) for at, act in self.later_due if at > self.now]
        due, self.due = self.due, []
        for act in (*due, *ready):
            act()


class Request:
    def __init__(self, gone: bool = False) -> None:
        self.gone = gone
        self.outcome = ""

    def start(self) -> bool:
        self.outcome = "" if self.gone else "started"
        return not self.gone

    def refuse(self) -> None:
        self.outcome = "refused"


class FailingRequest(Request):
    def start(self) -> bool:
        raise RuntimeError("can't start")


class Bench:
    """An admission, and what came of the requests that were offered to it."""

    def __init__(self, waiting_max: int = 1000) -> None:
        self.loop = Loop()
        self.writer_wait = 0.0
        self.admission = Admission(AdmissionLimits(TARGET, waiting_max), lambda: self.writer_wait, self.loop.clock, self.loop)
        self.waiting: list[Request] = []
        self.refused = 0

    def offer(self, count: int, owner: str = ANN, *, is_reserved: bool = False) -> int:
        """Returns how many start at once."""
        started = 0
        for _ in range(count):
            request = Request()
            if self.admission.try_start():
                started += 1
            elif self.admission.wait(owner, request, is_reserved=is_reserved):
                self.waiting.append(request)
            else:
                self.refused += 1
        return started

    def overload(self) -> None:
        """Has requests wait."""
        for _ in range(6):
            self.offer(1)
            self.loop.iterate(TARGET * 8)
        self.offer(50)

    @property
    def outcomes(self) -> list[str]:
        return [request.outcome for request in self.waiting]


def test_every_request_starts_at_once_while_iterations_are_short() -> None:
    bench = Bench()
    for _ in range(200):
        assert bench.offer(50) == 50
        bench.loop.iterate(TARGET / 2)
    assert not bench.waiting and not bench.refused


def test_requests_that_wait_for_slow_agents_make_no_other_wait() -> None:
    bench = Bench()
    for _ in range(1000):  # none of them ends
        assert bench.offer(20) == 20
        bench.loop.iterate(TARGET / 20)
    assert not bench.waiting and not bench.refused


def test_nothing_is_measured_while_no_request_comes() -> None:
    bench = Bench()
    bench.offer(1)
    bench.loop.iterate(TARGET / 100)
    assert not bench.loop.due and not bench.loop.later_due


def test_fewer_requests_start_after_a_long_iteration_and_the_others_wait() -> None:
    bench = Bench()
    assert bench.offer(60) == 60
    bench.loop.iterate(TARGET * 10)
    assert bench.offer(100) == 6
    assert len(bench.waiting) == 94 and not bench.refused


def test_waiting_requests_start_before_new_ones() -> None:
    bench = Bench()
    bench.overload()
    assert bench.offer(1) == 0
    bench.loop.iterate(TARGET)
    assert "started" in bench.outcomes and bench.offer(1) == 0


def test_all_requests_start_at_once_again_when_iterations_are_short_again() -> None:
    bench = Bench()
    bench.overload()
    for _ in range(100):
        bench.loop.iterate(TARGET / 20)
    assert set(bench.outcomes) == {"started"} and bench.offer(STARTS_MAX) == STARTS_MAX


def test_the_queue_is_as_long_as_what_starts_in_a_quarter_of_a_second() -> None:
    bench = Bench(waiting_max=5000)
    bench.offer(STARTS_MAX)
    bench.loop.iterate(TARGET * 10)
    for _ in range(200):  # three requests take ten milliseconds
        bench.offer(200, ANN)
        bench.offer(200, BOB)
        before = bench.outcomes.count("started")
        bench.loop.iterate(TARGET / 4)
        bench.loop.iterate(TARGET * max(1, bench.outcomes.count("started") - before) / 3)
    rate = bench.outcomes.count("started") / (200 * TARGET)
    assert bench.refused and bench.admission.waiting_count <= 2 * max(100, rate * QUEUE_SECONDS)


def test_no_iteration_starts_more_than_its_time_allows() -> None:
    bench = Bench()
    bench.offer(STARTS_MAX)
    bench.loop.iterate(TARGET * 10)
    longest = 0.0
    for _ in range(500):  # each start costs a millisecond of the next iteration
        bench.offer(40)
        before = bench.outcomes.count("started")
        bench.loop.iterate(0.0001)
        cost = 0.001 * (bench.outcomes.count("started") - before)
        longest = max(longest, cost)
        bench.loop.iterate(cost)
    assert 0 < longest <= TARGET * 3


def test_a_user_who_comes_during_a_flood_of_another_is_served_next() -> None:
    bench = Bench()
    bench.overload()
    bench.offer(5000, ANN)
    assert bench.refused
    bench.waiting.clear()
    bench.refused = 0
    bench.offer(1, BOB)
    bench.loop.iterate(TARGET)
    bench.loop.iterate(TARGET)
    assert bench.outcomes == ["started"] and not bench.refused


def test_nothing_starts_while_the_writer_is_behind_and_all_when_it_is_not() -> None:
    bench = Bench()
    bench.writer_wait = WRITER_SECONDS + 0.1
    bench.offer(1)
    bench.loop.iterate(TARGET / 100)
    assert bench.offer(5) == 0
    for _ in range(20):
        bench.loop.iterate(TARGET / 2)
    assert bench.outcomes == [""] * 5
    bench.writer_wait = 0.0
    bench.loop.iterate(TARGET)
    bench.loop.iterate(TARGET / 100)
    assert bench.outcomes == ["started"] * 5 and bench.offer(1) == 1


def test_the_loop_is_idle_while_the_writer_is_behind() -> None:
    bench = Bench()
    bench.writer_wait = WRITER_SECONDS + 0.1
    bench.offer(1)
    bench.loop.iterate(TARGET / 100)
    bench.offer(5)
    assert not bench.loop.due and len(bench.loop.later_due) == 1


def test_a_request_that_has_waited_too_long_is_refused() -> None:
    bench = Bench()
    bench.writer_wait = WRITER_SECONDS + 0.1
    bench.offer(1)
    bench.loop.iterate(TARGET / 100)
    bench.offer(3)
    bench.loop.iterate(WAIT_SECONDS / 2)
    assert bench.outcomes == [""] * 3
    bench.loop.iterate(WAIT_SECONDS)
    assert bench.outcomes == ["refused"] * 3


def test_the_reserve_starts_one_request_after_the_other_while_nothing_else_does() -> None:
    bench = Bench()
    bench.writer_wait = WRITER_SECONDS + 0.1
    bench.offer(1)
    bench.loop.iterate(TARGET / 100)
    bench.offer(3)
    bench.offer(2, BOB, is_reserved=True)
    for expected in (1, 2):
        bench.loop.iterate(RESERVE_SECONDS * 1.1)
        assert bench.outcomes == [""] * 3 + ["started"] * expected + [""] * (2 - expected)


def test_a_flood_of_the_reserve_leaves_most_starts_to_others() -> None:
    """Anyone may ask for a page of the console, without a token."""
    bench = Bench()
    bench.overload()
    started = {ANN: 0, BOB: 0}
    for _ in range(40):
        for owner, requests in ((BOB, 40), (ANN, 40)):
            before = bench.admission.waiting_count
            bench.offer(requests, owner, is_reserved=owner == BOB)
            assert bench.admission.waiting_count >= before
        queued = len(bench.admission._queue), len(bench.admission._reserve)
        bench.loop.iterate(TARGET / 2)
        started[ANN] += queued[0] - len(bench.admission._queue)
        started[BOB] += queued[1] - len(bench.admission._reserve)
    assert started[BOB] > 40 and started[ANN] > 2 * started[BOB]


def test_a_request_that_fails_to_start_keeps_no_other_waiting() -> None:
    class Broken(Request):
        def start(self) -> bool:
            raise RuntimeError("the connection is in no state to start")

    bench = Bench()
    bench.overload()
    assert bench.admission.wait(BOB, Broken())
    with pytest.raises(RuntimeError):
        for _ in range(3):
            bench.loop.iterate(TARGET / 20)
    for _ in range(30):
        bench.loop.iterate(TARGET / 20)
    assert set(bench.outcomes) == {"started"} and bench.offer(STARTS_MAX) == STARTS_MAX


def test_a_client_that_has_gone_does_not_use_up_a_start() -> None:
    bench = Bench()
    bench.overload()
    for request in bench.waiting[:40]:
        request.gone = True
    bench.loop.iterate(TARGET / 2)
    assert bench.outcomes.count("started") >= 1


def test_a_request_that_fails_to_start_stops_no_other() -> None:
    bench = Bench()
    bench.overload()
    assert bench.admission.wait(BOB, FailingRequest())
    with pytest.raises(RuntimeError, match="can't start"):
        for _ in range(10):
            bench.loop.iterate(TARGET)
    for _ in range(100):
        bench.loop.iterate(TARGET / 20)
    assert set(bench.outcomes) == {"started"} and bench.offer(1) == 1

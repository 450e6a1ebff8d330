"""Tasks that people allowed: which failures end them, which wait for the next round, and how often a failing one is tried."""

from functools import partial

from adapters.catalog import UnknownKind
from gateway.calls.resumption.rounds import WAIT_MAX, Rounds, find_end_reason
from registry.health.reachability import NotReachable


async def fail(error: Exception, tried: list[str], task_id: str) -> None:
    tried.append(task_id)
    raise error


async def succeed(tried: list[str], task_id: str) -> None:
    tried.append(task_id)


async def test_a_task_whose_agent_is_down_waits_for_the_next_round() -> None:
    assert await find_end_reason(fail(NotReachable(2), [], "t_1")) == ""


async def test_a_task_that_fails_is_tried_less_and_less_often_and_holds_up_no_other() -> None:
    tried: list[str] = []
    clock = iter(range(100_000))
    rounds = Rounds(lambda: float(next(clock)))  # a second for each look at the clock
    for _ in range(1000):
        due = [("t_1", partial(fail, UnknownKind("x"), tried, "t_1")), ("t_2", partial(succeed, tried, "t_2"))]
        await rounds.each_by_itself(due)
    assert tried.count("t_2") == 1000
    assert 2000 / WAIT_MAX <= tried.count("t_1") <= 9 + 2100 / WAIT_MAX


async def test_a_task_that_goes_on_again_is_tried_at_once_the_next_time() -> None:
    tried: list[str] = []
    seconds = 0.0
    rounds = Rounds(lambda: seconds)
    await rounds.each_by_itself([("t_1", partial(fail, UnknownKind("x"), tried, "t_1"))])
    assert await rounds.each_by_itself([("t_1", partial(succeed, tried, "t_1"))]) == 0
    seconds = 2.0
    assert [await rounds.each_by_itself([("t_1", partial(succeed, tried, "t_1"))]) for _ in range(2)] == [1, 1]

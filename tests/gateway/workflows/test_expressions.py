"""Expressions are evaluated by processes without rights, within limits."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from gateway.workflows.expressions.evaluator import WORKER, Evaluator, ExpressionFailed, _Worker
from gateway.workflows.expressions.templates import bare_expression, expression_in, expressions_of, fill
from gateway.workflows.expressions.turns import FairTurns
from tests.fakes.waiting import until


async def value_of(evaluator: Evaluator, expression: str, input: object = None, **variables: object) -> object:
    return (await evaluator.evaluate([expression], input, variables))[0]


async def test_an_expression_sees_its_input_and_variables(evaluator: Evaluator) -> None:
    assert await evaluator.evaluate([".a + $context.b", "$input"], {"a": 1}, {"context": {"b": 2}, "input": "x"}) == [3, "x"]


async def test_the_first_result_counts_and_none_is_null(evaluator: Evaluator) -> None:
    assert await evaluator.evaluate(["1, 2", "empty"], None) == [1, None]


@pytest.mark.parametrize(
    "expression",
    # attack WFL-01
    ["env", "env.HOME", "now", "input", "[inputs]", "debug", "stderr", "halt", "halt_error", "localtime", "get_search_list",
     "input_filename", 'import "a" as a; 1', 'include "a"; 1', "1) | env | (1", '"2020" | strflocaltime("%Y")', '"a" | modulemeta'],
)  # fmt: skip
async def test_an_expression_reaches_nothing_outside_its_data(evaluator: Evaluator, expression: str) -> None:
    with pytest.raises(ExpressionFailed):
        await value_of(evaluator, expression)


async def test_the_environment_of_the_worker_is_empty(evaluator: Evaluator) -> None:
    """attack WFL-01"""
    os.environ["INTERLOCK_TEST_SECRET"] = "x"
    try:
        assert await value_of(evaluator, "$ENV") == {}
        assert await value_of(evaluator, "1) | $ENV | (.") == {}
    finally:
        del os.environ["INTERLOCK_TEST_SECRET"]


@pytest.mark.parametrize("expression", ["def f: f; f", "[limit(1e9; repeat(1))] | length", "last(range(1e12))"])
async def test_an_expression_without_end_costs_its_worker_alone(expression: str) -> None:
    """attack WFL-01"""
    evaluator = Evaluator(workers=1, seconds=0.3)
    try:
        with pytest.raises(ExpressionFailed):
            await value_of(evaluator, expression)
    finally:
        await evaluator.close()
    evaluator = Evaluator(workers=1, seconds=20.0)
    try:
        assert await value_of(evaluator, ".a", {"a": 1}) == 1
    finally:
        await evaluator.close()


async def test_an_expression_that_eats_memory_ends_its_worker() -> None:
    """attack WFL-01"""
    evaluator = Evaluator(workers=1, seconds=60.0)
    try:
        with pytest.raises(ExpressionFailed, match=r"memory|seconds"):
            await value_of(evaluator, '"x" * 400000000 | [., ., .] | tojson')
        assert await value_of(evaluator, "1") == 1
    finally:
        await evaluator.close()


def workers() -> list[int]:
    """The processes of all evaluators of this process."""
    children = Path(f"/proc/{os.getpid()}/task/{threading.get_native_id()}/children").read_text().split()
    return [int(child) for child in children if is_worker(child)]


def kill_workers() -> None:
    for pid in workers():
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def is_worker(pid: str) -> bool:
    try:
        return WORKER.name.encode() in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:  # it has just ended
        return False


async def test_an_expression_whose_worker_is_killed_has_its_value() -> None:
    evaluator = Evaluator(workers=1, seconds=20.0)
    try:
        assert await value_of(evaluator, "1") == 1
        kill_workers()
        assert await value_of(evaluator, ". + 1", 1) == 2
        asked = asyncio.ensure_future(value_of(evaluator, "[range(300000)] | length"))
        await until(lambda: bool(workers()))
        kill_workers()
        assert await asked == 300000
    finally:
        await evaluator.close()


async def test_an_expression_whose_workers_are_all_killed_fails() -> None:
    evaluator = Evaluator(workers=1, seconds=20.0)
    asked = asyncio.ensure_future(value_of(evaluator, "last(range(1e9))"))

    def kill_and_see() -> bool:
        kill_workers()
        return asked.done()

    await until(kill_and_see)
    with pytest.raises(ExpressionFailed, match="were killed"):
        await asked
    await evaluator.close()


async def test_workers_are_no_more_than_allowed() -> None:
    evaluator = Evaluator(workers=2, seconds=20.0)
    try:
        values = await asyncio.gather(*(value_of(evaluator, ". + 1", number) for number in range(20)))
    finally:
        await evaluator.close()
    assert values == list(range(1, 21))


async def test_a_canceled_evaluation_leaves_no_answer_for_the_next(evaluator: Evaluator) -> None:
    one = asyncio.ensure_future(value_of(evaluator, "[range(200000)] | length"))
    await asyncio.sleep(0)
    one.cancel()
    await asyncio.gather(one, return_exceptions=True)
    assert await value_of(evaluator, '"mine"') == "mine"


async def test_compiling_names_what_is_no_jq_and_unknown_variables(evaluator: Evaluator) -> None:
    await evaluator.compile([".a", "$context.b"], ["context"])
    for wrong in (".a ==", "$nothing", "nothing(1)"):
        with pytest.raises(ExpressionFailed) as caught:
            await evaluator.compile([".a", wrong], ["context"])
        assert caught.value.expression == wrong


def test_the_worker_needs_nothing_of_the_gateway() -> None:
    line = '{"expressions": [".a"], "input": {"a": 5}, "variables": {}, "seconds": 9}\n'
    done = subprocess.run([sys.executable, "-I", str(WORKER)], input=line, capture_output=True, text=True, env={}, cwd="/", check=True)
    assert done.stdout == '{"values": [5]}\n'


def test_a_worker_ends_by_the_processor_time_that_it_used() -> None:
    """Not by the clock: on a busy machine an expression has the value that it has elsewhere."""
    line = '{"expressions": ["def f: f; f"], "input": null, "variables": {}, "seconds": 0.1}\n'
    ended = subprocess.run([sys.executable, "-I", str(WORKER)], input=line, capture_output=True, text=True, env={}, cwd="/", check=False)
    assert ended.returncode == -signal.SIGPROF


def test_only_a_whole_text_is_an_expression() -> None:
    assert expression_in(" ${ .a } ") == ".a"
    assert expression_in("a ${ .b }") is None
    assert bare_expression(".a") == bare_expression("${ .a }") == ".a"
    assert list(expressions_of({"a": ["${ 1 }", "x"], "b": "${ 2 }"})) == ["1", "2"]


async def test_what_an_expression_gives_is_data_and_no_template(evaluator: Evaluator) -> None:
    """attack WFL-01: input data that looks like an expression is not evaluated"""
    assert await fill(evaluator, {"a": "${ .x }", "b": "plain"}, {"x": "${ env }"}, {}) == {"a": "${ env }", "b": "plain"}


async def test_an_expression_is_evaluated_again_where_its_worker_was_killed(evaluator: Evaluator) -> None:
    assert await evaluator.evaluate(["1"], None) == [1]
    evaluator._pool._free._queue[0].kill()
    assert await evaluator.evaluate([".x"], {"x": 2}) == [2]


async def test_a_worker_that_is_killed_at_work_harms_no_expression(evaluator: Evaluator) -> None:
    started = _Worker.start
    workers: list[_Worker] = []

    async def start() -> _Worker:
        workers.append(await started())
        workers[-1]._process.send_signal(signal.SIGSTOP if len(workers) == 1 else signal.SIGCONT)
        return workers[-1]

    evaluator._pool._take_worker = start  # type: ignore[method-assign]  # so that the first worker is killed while it works
    asked = asyncio.ensure_future(evaluator.evaluate([".x"], {"x": 2}))
    await until(lambda: bool(workers))
    workers[0].kill()
    assert await asked == [2] and len(workers) == 2


async def test_a_worker_that_is_killed_each_time_is_an_error(evaluator: Evaluator) -> None:
    started = _Worker.start

    async def start() -> _Worker:
        worker = await started()
        worker.kill()
        return worker

    evaluator._pool._take_worker = start  # type: ignore[method-assign]  # so that each worker is killed
    with pytest.raises(ExpressionFailed, match="were killed"):
        await evaluator.evaluate([".x"], {"x": 2})


async def test_slow_expressions_of_one_tenant_delay_another_by_one_request() -> None:
    """Five requests wait for no more than as many of the twenty that were there before."""
    evaluator, done = Evaluator(workers=1, seconds=20.0), list[str]()

    async def ask(owner: str) -> None:
        await value_of(evaluator.for_owner(owner), "[range(1000)] | length")
        done.append(owner)

    try:
        many = [asyncio.ensure_future(ask("first|issuer|ann")) for _ in range(20)]
        await asyncio.sleep(0)
        await asyncio.gather(*(ask("second|issuer|ben") for _ in range(3)), *(ask("first|issuer|cid") for _ in range(2)))
        assert len(done) <= 12
        await asyncio.gather(*many)
        assert done.count("first|issuer|ann") == 20
    finally:
        await evaluator.close()


async def test_a_request_that_is_canceled_in_the_queue_leaves_its_turn() -> None:
    turns, order = FairTurns(1), list[str]()

    async def hold(owner: str) -> None:
        async with turns.turn_of(owner):
            order.append(owner)

    async with turns.turn_of("a|x"):
        waiting = [asyncio.ensure_future(hold(owner)) for owner in ("b|x", "c|x", "d|x")]
        await asyncio.sleep(0)
        waiting[0].cancel()
    waiting[1].cancel()  # it has its turn already, and does not know
    await asyncio.gather(*waiting, return_exceptions=True)
    await hold("e|x")
    assert order == ["d|x", "e|x"] and not turns._lanes

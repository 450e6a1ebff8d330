"""What each kind of task of the DSL does."""

import asyncio
import random
from collections.abc import Mapping, Sequence
from typing import Any, Final

from gateway.workflows.dsl.constructs import Consumption, Error, EventFilter, RetryPolicy
from gateway.workflows.dsl.document import (
    CallA2a,
    CallFunction,
    CallHttp,
    CallMcp,
    CallOpenApi,
    Catch,
    DoTask,
    EmitTask,
    ForkTask,
    ForTask,
    ListenTask,
    RaiseTask,
    RunTask,
    SetTask,
    SwitchCase,
    SwitchTask,
    TryTask,
    WaitTask,
)
from gateway.workflows.interpreter.effects import PreparedCall, RunSuspended, StepKey, SubRun, Wanted, WantedEvent
from gateway.workflows.interpreter.errors import OUTCOME_UNKNOWN, Fault, WorkflowError, matches, standard_error
from gateway.workflows.interpreter.evaluation import Evaluation, TaskAtWork
from gateway.workflows.interpreter.interpreter import EXIT, Interpreter, TaskFunction, pointer_step
from gateway.workflows.interpreter.retries import delay_before, limit_of
from gateway.workflows.interpreter.scope import Scope

ITERATIONS_MAX: Final = 10_000
Done = tuple[Any, str | None]


async def run_do(run: Interpreter, task: DoTask, at: TaskAtWork, scope: Scope) -> Done:
    output, _ = await run.run_list(task.do, at.input, scope.enter("do"))
    return output, None


async def run_set(run: Interpreter, task: SetTask, at: TaskAtWork, scope: Scope) -> Done:
    value = await run.evaluation.value(task.set, at.input, scope, at)
    run.effects.hold(StepKey(scope.pointer), value)
    return value, None


async def run_switch(run: Interpreter, task: SwitchTask, at: TaskAtWork, scope: Scope) -> Done:
    """The first case whose condition is met decides where to go on; one without a condition stands in for the others."""
    otherwise: str | None = None
    for item in task.switch:
        case: SwitchCase = next(iter(item.values()))
        if case.when is None:
            otherwise = case.then
        elif await run.evaluation.holds(case.when, at.input, scope, at):
            return at.input, case.then
    return at.input, otherwise


async def run_for(run: Interpreter, task: ForTask, at: TaskAtWork, scope: Scope) -> Done:
    """Runs its tasks for each item, each time on the output of the time before."""
    loop, evaluation = task.for_, run.evaluation
    items = loop.in_ if isinstance(loop.in_, list) else await evaluation.bare(loop.in_, at.input, scope, at)
    if not isinstance(items, list):
        raise standard_error("expression", "the value of `in` is no list", scope.pointer)
    if len(items) > ITERATIONS_MAX:
        raise standard_error("runtime", f"the list of `in` has {len(items)} items, more than {ITERATIONS_MAX}", scope.pointer)
    data = at.input
    for index, item in enumerate(items):
        within = scope.bind({loop.each: item, loop.at: index}).visit(index)
        if task.while_ is not None and not await evaluation.holds(task.while_, data, within, at):
            break
        data, then = await run.run_list(task.do, data, within.enter("do"))
        if then == EXIT:
            break
    return data, None


async def run_fork(run: Interpreter, task: ForkTask, at: TaskAtWork, scope: Scope) -> Done:
    """Runs its branches at once: the list of their outputs, or with `compete` the output of the first that completes."""
    branches = [next(iter(item.items())) for item in task.fork.branches]
    places = [scope.enter("fork", "branches", index, pointer_step(name)) for index, (name, _) in enumerate(branches)]
    winner = await run.effects.recorded(scope.key) if task.fork.compete else None
    started = [
        asyncio.ensure_future(run.run_task(name, branch, at.input, place))
        for index, ((name, branch), place) in enumerate(zip(branches, places, strict=True))
        if winner is None or index == winner
    ]
    is_over = True
    try:
        if task.fork.compete and winner is None:
            output = await _first_output(run, started, scope)
            await _settle_losers(run, started, scope)
            return output, None
        outputs = [output for output, _ in await every_output(started)]
        return (outputs[0] if task.fork.compete else outputs), None
    except RunSuspended:
        is_over = False
        raise
    finally:
        for each in started:
            each.cancel()
        await asyncio.gather(*started, return_exceptions=True)
        for place in places if is_over else ():
            run.effects.abandon(place.key)


async def _settle_losers(run: Interpreter, branches: Sequence["asyncio.Future[tuple[Any, str]]"], scope: Scope) -> None:
    """Ends the branches that have lost, and what they have claimed."""
    for each in branches:
        each.cancel()
    await asyncio.gather(*branches, return_exceptions=True)
    await run.effects.settle(scope.enter("fork", "branches").key)


async def every_output(branches: Sequence["asyncio.Future[Any]"]) -> list[Any]:
    """Waits for all branches, unless one fails. A branch that waits without a process does not keep the others from going on."""
    waiting: RunSuspended | None = None
    pending = set(branches)
    while pending:
        done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
        for each in done:
            error = each.exception()
            if isinstance(error, RunSuspended):
                waiting = error
            elif error is not None:
                raise error
    if waiting is not None:
        raise waiting
    return [each.result() for each in branches]


async def _first_output(run: Interpreter, branches: Sequence["asyncio.Future[tuple[Any, str]]"], scope: Scope) -> Any:
    """The output of the branch that completes first. A branch that fails has lost; when all do, the run gets the first one's error."""
    waiting: RunSuspended | None = None
    failed: WorkflowError | None = None
    pending = set(branches)
    while pending:
        done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
        for each in sorted(done, key=branches.index):
            error = each.exception()
            if error is None:
                winner = await run.effects.record(scope.key, branches.index(each))
                return (await branches[winner])[0]
            if isinstance(error, RunSuspended):
                waiting = error
            elif isinstance(error, WorkflowError):
                failed = failed or error
            else:
                raise error
    error = waiting or failed
    assert error is not None
    raise error


async def run_try(run: Interpreter, task: TryTask, at: TaskAtWork, scope: Scope) -> Done:
    """Runs its tasks, again as the retry policy says, and handles the error that is left when it is one of those to catch."""
    attempt, waited = 0, 0
    while True:
        try:
            output, _ = await run.run_list(task.try_, at.input, scope.attempt(attempt).enter("try"))
        except WorkflowError as error:
            bound = scope.bind({task.catch.as_: _shown(error.fault)})
            if not await _is_caught(run, task.catch, error.fault, at, bound):
                raise
            await run.effects.settle(scope.attempt(attempt).enter("try").key)
            delay = None  # a step whose outcome is unknown may have had its effect, and is not repeated
            if error.fault.type != OUTCOME_UNKNOWN:
                delay = await _retry_delay(run, task.catch, attempt + 1, waited, at=at, scope=bound)
            if delay is None:
                if task.catch.retry is not None and not task.catch.do:  # nothing handles what the retries left
                    raise
                return await _handle(run, task.catch, at, bound.attempt(attempt))
            attempt, waited = attempt + 1, waited + delay
            if delay:
                await run.effects.sleep(scope.enter("catch", "retry").attempt(attempt).key, delay)
        else:
            return output, None


async def _is_caught(run: Interpreter, catch: Catch, fault: Fault, at: TaskAtWork, scope: Scope) -> bool:
    if not matches(fault, catch.errors.with_.model_dump(exclude_none=True)):
        return False
    if catch.when is not None and not await run.evaluation.holds(catch.when, at.input, scope, at):
        return False
    return catch.except_when is None or not await run.evaluation.holds(catch.except_when, at.input, scope, at)


async def _retry_delay(run: Interpreter, catch: Catch, attempt: int, waited: int, *, at: TaskAtWork, scope: Scope) -> int | None:
    """Milliseconds before the next attempt, or None when there is none."""
    policy = run.document.use.retries[catch.retry] if isinstance(catch.retry, str) else catch.retry
    if policy is None or attempt > limit_of(policy):
        return None
    evaluation = run.evaluation
    if policy.when is not None and not await evaluation.holds(policy.when, at.input, scope, at):
        return None
    if policy.except_when is not None and await evaluation.holds(policy.except_when, at.input, scope, at):
        return None
    delay = 0 if policy.delay is None else await evaluation.duration(policy.delay, at.input, scope, at)
    delay = delay_before(attempt, delay, policy.backoff) + await _jitter(run, policy, at, scope.attempt(attempt))
    if policy.limit.duration is not None and waited + delay > await evaluation.duration(policy.limit.duration, at.input, scope, at):
        return None
    return delay


async def _jitter(run: Interpreter, policy: RetryPolicy, at: TaskAtWork, scope: Scope) -> int:
    if policy.jitter is None:
        return 0
    least = await run.evaluation.duration(policy.jitter.from_, at.input, scope, at)
    most = await run.evaluation.duration(policy.jitter.to, at.input, scope, at)
    key = scope.enter("catch", "retry", "jitter").key
    return least + random.Random(str(key)).randrange(max(1, most - least))  # noqa: S311  # spreads attempts; nobody gains by guessing it


async def _handle(run: Interpreter, catch: Catch, at: TaskAtWork, scope: Scope) -> Done:
    output, _ = await run.run_list(catch.do, at.input, scope.enter("catch", "do"))
    return output, catch.then


def _shown(fault: Fault) -> dict[str, Any]:
    return {name: value for name in Fault.__struct_fields__ if isinstance(value := getattr(fault, name), str | int)}


async def run_raise(run: Interpreter, task: RaiseTask, at: TaskAtWork, scope: Scope) -> Done:
    error = run.document.use.errors[task.raise_.error] if isinstance(task.raise_.error, str) else task.raise_.error
    said = await run.evaluation.value(error.model_dump(exclude_none=True), at.input, scope, at)
    texts = {name: str(value) for name, value in said.items() if name != "status"}
    raise WorkflowError(Fault(**{"instance": scope.pointer, **texts}, status=_status(error, said)))


def _status(error: Error, said: Mapping[str, Any]) -> int:
    return said["status"] if isinstance(said["status"], int) else error.status


async def run_wait(run: Interpreter, task: WaitTask, at: TaskAtWork, scope: Scope) -> Done:
    await run.effects.sleep(scope.key, await run.evaluation.duration(task.wait, at.input, scope, at))
    return at.input, None


async def run_emit(run: Interpreter, task: EmitTask, at: TaskAtWork, scope: Scope) -> Done:
    event = task.emit.event.with_.model_dump(exclude_unset=True)
    written = await run.evaluation.value(event, at.input, scope, at)
    return await run.effects.emit(scope.key, written, task.metadata.gateway.sensitivity), None


async def run_listen(run: Interpreter, task: ListenTask, at: TaskAtWork, scope: Scope) -> Done:
    """The list of the events it waited for, as `read` says, each transformed by `foreach`."""
    events = await run.effects.listen(scope.key, await wanted_events(run, task.listen.to, at, scope))
    read = [event if task.listen.read == "envelope" else event.get("data") for event in events]
    each = task.foreach
    if each is None:
        return read, None
    outputs = []
    for index, item in enumerate(read):
        within = scope.enter("foreach").bind({each.item: item, each.at: index}).visit(index)
        output, _ = await run.run_list(each.do, item, within.enter("do"))
        output = await run.evaluation.transform_output(each.output, output, within, at)
        await run.export(each.export, output, within, at)
        outputs.append(output)
    return outputs, None


async def wanted_events(run: Interpreter, consumption: Consumption, at: TaskAtWork, scope: Scope) -> Wanted:
    """What a listening task waits for, with the values that correlations expect."""
    mode = next(name for name in ("one", "all", "any") if getattr(consumption, name) is not None)
    filters = getattr(consumption, mode)
    until = consumption.until
    return Wanted(
        mode,
        tuple([await _wanted_event(run, each, at, scope) for each in (filters if isinstance(filters, list) else [filters])]),
        await wanted_events(run, until, at, scope) if isinstance(until, Consumption) else until,
    )


async def _wanted_event(run: Interpreter, wanted: EventFilter, at: TaskAtWork, scope: Scope) -> WantedEvent:
    correlations = {name: each.from_ for name, each in wanted.correlate.items()}
    expects = {name: each.expect for name, each in wanted.correlate.items() if each.expect is not None}
    expected = await run.evaluation.value(expects, at.input, scope, at)
    return WantedEvent(wanted.with_.model_dump(exclude_unset=True), correlations, expected)


async def run_workflow(run: Interpreter, task: RunTask, at: TaskAtWork, scope: Scope) -> Done:
    """Runs another workflow; its output, or this task's input when it is not waited for or its output is not wanted."""
    wanted = task.run.workflow
    if wanted is None:
        raise standard_error("configuration", "scripts, shell commands and containers are not run by this gateway", scope.pointer)
    given = await run.evaluation.value(wanted.input, at.input, scope, at)
    output = await run.effects.run_workflow(
        scope.key, SubRun(wanted.namespace, wanted.name, wanted.version, {} if given is None else given, task.run.await_)
    )
    return (at.input if not task.run.await_ or task.run.return_ == "none" else output), None


async def run_call(run: Interpreter, task: CallA2a | CallMcp | CallOpenApi | CallHttp, at: TaskAtWork, scope: Scope) -> Done:
    return await run.effects.call(scope.key, await prepare_call(run.evaluation, task, at, scope)), None


async def prepare_call(evaluation: Evaluation, task: Any, at: TaskAtWork, scope: Scope) -> PreparedCall:
    """A call with the values of its arguments. Raises WorkflowError (expression)."""
    if isinstance(task, CallFunction):
        return _prepared(task.call, await evaluation.value(task.with_, at.input, scope, at), at, scope)
    arguments = task.with_.model_dump(mode="json", exclude_unset=True)
    if isinstance(task, CallHttp):
        endpoint = arguments.pop("endpoint")
        uri = endpoint if isinstance(endpoint, str) else endpoint["uri"]
        arguments["uri"] = await evaluation.uri(uri, at.input, scope, at)
        arguments["template"] = uri
        if not isinstance(endpoint, str) and "authentication" in endpoint:
            arguments["authentication"] = endpoint["authentication"]
    filled = await evaluation.value(arguments, at.input, scope, at)
    return _prepared(task.call, filled, at, scope)


def _prepared(function: str, arguments: Mapping[str, Any], at: TaskAtWork, scope: Scope) -> PreparedCall:
    return PreparedCall(function, arguments, at.input, at.definition.get("metadata", {}), scope.is_deterministic)


async def run_function(run: Interpreter, task: CallFunction, at: TaskAtWork, scope: Scope) -> Done:
    """Calls a function of `use.functions` with its arguments as input, or one of the gateway's own."""
    arguments = await run.evaluation.value(task.with_, at.input, scope, at)
    function = run.document.use.functions.get(task.call)
    if function is not None:
        output, _ = await run.run_task(task.call, function, arguments, scope.enter("function"))
        return output, None
    return await run.effects.call(scope.key, _prepared(task.call, arguments, at, scope)), None


STANDARD_TASKS: Final[Mapping[type, TaskFunction]] = {
    CallA2a: run_call,
    CallFunction: run_function,
    CallHttp: run_call,
    CallMcp: run_call,
    CallOpenApi: run_call,
    DoTask: run_do,
    EmitTask: run_emit,
    ForTask: run_for,
    ForkTask: run_fork,
    ListenTask: run_listen,
    RaiseTask: run_raise,
    RunTask: run_workflow,
    SetTask: run_set,
    SwitchTask: run_switch,
    TryTask: run_try,
    WaitTask: run_wait,
}

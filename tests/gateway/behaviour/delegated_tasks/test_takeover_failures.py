"""Takeover of tasks that can't be taken up: each ends or waits by itself, and the others go on."""

import dataclasses
from collections.abc import Callable
from typing import Any

from msgspec.structs import replace

from adapters.contract import Call, UpstreamFault
from adapters.task import TaskState
from gateway.telemetry.spans import TraceContext, current_trace_id
from gateway.telemetry.upstream_calls import CallTelemetry
from tests.fakes.processes import Process, sending
from tests.fakes.waiting import until
from tests.gateway.behaviour.delegated_tasks.test_takeover import LOST, _has_artifact, at_work, ended, gone, here, reason, there

__all__ = ["here", "there"]  # fixtures


class Spans:
    """A tracer that keeps how each span ended."""

    def __init__(self) -> None:
        self.started: list[str] = []
        self.ended: list[str] = []

    def start(self, name: str, *_: Any, **__: Any) -> Any:
        self.started.append(name)
        return name

    def headers(self, span: Any) -> dict[str, str]:
        return {}

    def finish(self, span: Any, outcome: str, attributes: Any, name: str = "") -> None:
        self.ended.append(outcome)


def before_each_call(there: Process, act: Callable[[], None]) -> None:
    """Runs `act` where a call is built, which looks up credentials."""
    builder = there.calls.parts.authorizer.call_builder
    build = builder.build_call

    def act_and_build(*given: Any, **named: Any) -> Call:
        act()
        return build(*given, **named)

    builder.build_call = act_and_build  # type: ignore[method-assign]  # a failure of this process


def lacks_credential() -> None:
    raise UpstreamFault("the gateway lacks a credential that its settings name")


async def test_a_task_whose_agent_lacks_its_credential_is_ended(here: Process, there: Process) -> None:
    """Its span is finished, too."""
    (task_id,) = await at_work(here)
    await gone(here)
    before_each_call(there, lacks_credential)
    spans = Spans()
    there.takeover._parts = dataclasses.replace(there.calls.parts, telemetry=CallTelemetry(there.gateway.metrics, spans))
    assert await there.takeover.run_once() == 1
    record = await ended(there, task_id)
    assert (record.row.state, reason(record)) == (TaskState.FAILED, LOST)
    assert spans.started == ["invoke_agent sales"] and spans.ended == ["error"]


async def test_one_task_that_fails_does_not_stop_the_others(here: Process, there: Process) -> None:
    tasks = await at_work(here, 3)
    await gone(here)
    faults = [ValueError()]

    def break_once() -> None:
        if faults:
            raise faults.pop()

    before_each_call(there, break_once)
    assert await there.takeover.run_once() == 2
    assert await there.takeover.run_once() == 1
    here.agents.gate.set()
    for task_id in tasks:
        assert (await ended(there, task_id)).row.state is TaskState.COMPLETED


async def test_a_round_leaves_no_trace_of_a_task_in_later_log_lines(here: Process, there: Process) -> None:
    traceparent = f"00-{'a' * 32}-{'b' * 16}-01"
    opened = await here.calls.agents.start(
        await here.caller(), replace(sending("x"), trace_context=TraceContext("a" * 32, {"traceparent": traceparent}))
    )
    await until(lambda: _has_artifact(here, opened.row.id))
    await gone(here)
    seen: list[str] = []

    before_each_call(there, lambda: seen.append(current_trace_id()))
    assert await there.takeover.run_once() == 1
    assert seen == ["a" * 32]
    assert current_trace_id() == ""

"""Takeover of tasks that can't be taken up: each ends or waits by itself, and the others go on."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from msgspec.structs import replace

from adapters.contract import UpstreamFault
from adapters.task import TaskState
from gateway.telemetry.spans import TraceContext, current_trace_id
from gateway.telemetry.upstream_calls import CallTelemetry
from registry.cards.card import Registration
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


def lacks_credential(_: Registration) -> Mapping[str, str]:
    raise UpstreamFault("the gateway lacks a credential that its settings name")


async def test_a_task_whose_agent_lacks_its_credential_is_ended(here: Process, there: Process) -> None:
    """Its span is finished, too."""
    (task_id,) = await at_work(here)
    await gone(here)
    there.headers, spans = lacks_credential, Spans()
    there.takeover._parts = dataclasses.replace(there.calls.parts, telemetry=CallTelemetry(there.gateway.metrics, spans))
    assert await there.takeover.run_once() == 1
    record = await ended(there, task_id)
    assert (record.row.state, reason(record)) == (TaskState.FAILED, LOST)
    assert spans.started == ["invoke_agent sales"] and spans.ended == ["error"]


async def test_one_task_that_fails_does_not_stop_the_others(here: Process, there: Process) -> None:
    tasks = await at_work(here, 3)
    await gone(here)
    faults = [ValueError()]

    def breaks_once(_: Registration) -> Mapping[str, str]:
        if faults:
            raise faults.pop()
        return {}

    there.headers = breaks_once
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

    def notes_trace(_: Registration) -> Mapping[str, str]:
        seen.append(current_trace_id())
        return {}

    there.headers = notes_trace
    assert await there.takeover.run_once() == 1
    assert seen == ["a" * 32]
    assert current_trace_id() == ""

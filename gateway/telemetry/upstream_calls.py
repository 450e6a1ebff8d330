"""Spans and metrics for calls of agents and MCP servers (OpenTelemetry conventions for GenAI agents and for MCP)."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Protocol
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct, field
from msgspec.structs import replace

from adapters.contract import UpstreamFault
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.spans import (
    CURRENT_WORK,
    TRACEPARENT,
    Attribute,
    Resumed,
    TraceContext,
    current_work,
    trace_id_of,
)
from registry.cards.card import Registration

if TYPE_CHECKING:
    from opentelemetry.trace import Span

    from gateway.telemetry.otlp import OtelTracer

TOOL_ERROR = "tool-error"
TURN = "invoke_agent"  # the operation of a turn (OpenTelemetry conventions for GenAI agents)


class TracedTask(Protocol):
    """A row of gateway/tasks/log.py. `trace` is the `traceparent` that its task began in."""

    @property
    def id(self) -> str: ...

    @property
    def context_id(self) -> str: ...

    @property
    def trace(self) -> str: ...


@contextmanager
def resume_trace_context(traceparent: str) -> Iterator[TraceContext]:
    """Yields the trace context of a task that continues without a request. Log lines of the block carry the task's trace id."""
    if not traceparent:
        yield TraceContext()
        return
    entered = CURRENT_WORK.set(Resumed(trace_id_of(traceparent)))
    try:
        yield TraceContext(trace_id_of(traceparent), {TRACEPARENT: traceparent})
    finally:
        CURRENT_WORK.reset(entered)


class _Result(Struct):
    is_error: bool = field(default=False, name="isError")
    result_type: str = field(default="complete", name="resultType")


_result = msgspec.json.Decoder(_Result).decode


def is_tool_error(result: bytes) -> bool:
    """Returns whether a result of tools/call says that the tool failed (MCP, `isError`)."""
    if b'"isError"' not in result:
        return False
    try:
        return _result(result).is_error
    except msgspec.DecodeError:
        return False


def asks_for_input(result: bytes) -> bool:
    """Returns whether a result of tools/call asks the client for input before the tool goes on (MCP 2026-07-28, `input_required`)."""
    if b'"input_required"' not in result:
        return False
    try:
        return _result(result).result_type == "input_required"
    except msgspec.DecodeError:
        return False


@dataclass(frozen=True, slots=True)
class CallTelemetry:
    """Starts spans if a tracer is configured, and always counts calls by agent and server."""

    metrics: Metrics
    tracer: "OtelTracer | None" = None

    def begin_turn(self, trace_context: TraceContext, target: Registration, row: TracedTask) -> "tuple[TraceContext, Span | None]":
        """Starts the span `invoke_agent NAME` of an agent's turn and returns the trace context for the agent with it.

        A later turn of a task links to the trace in which the task began. Without a tracer, the span is None.
        """
        if self.tracer is None:
            return trace_context, None
        attributes: dict[str, Attribute] = {
            "gen_ai.operation.name": "invoke_agent",
            "gen_ai.provider.name": target.kind,
            "gen_ai.agent.name": target.name,
            "gen_ai.conversation.id": row.context_id,
            "interlock.task.id": row.id,
            **address_of(target),
        }
        parent = trace_context.headers.get("traceparent", "")
        link = row.trace if trace_id_of(row.trace) != trace_id_of(parent) else ""
        span = self.tracer.start(f"invoke_agent {target.name}", "CLIENT", parent, attributes, link=link)
        return replace(trace_context, headers={**trace_context.headers, **self.tracer.headers(span)}), span

    def prepared_turn(self, trace_context: TraceContext, target: Registration, row: TracedTask) -> "TurnPreparation":
        """Returns a context with what `begin_turn` returns. Its span ends as an error if the block raises, because the turn never runs."""
        return TurnPreparation(self, *self.begin_turn(trace_context, target, row))

    def finish(self, span: "Span | None", outcome: str) -> None:
        """Ends the span, if there is one, with `outcome`."""
        if self.tracer is not None and span is not None:
            self.tracer.finish(span, outcome, {})

    @contextmanager
    def request_span(
        self, trace_context: TraceContext, method: str, target: Registration, name: Mapping[str, Attribute]
    ) -> Iterator[TraceContext]:
        """Yields the trace context for one request to an MCP server, within its span `METHOD NAME`. Requires a tracer."""
        assert self.tracer is not None
        attributes: dict[str, Attribute] = {"mcp.method.name": method, "interlock.server": target.name, **name, **address_of(target)}
        if method == "tools/call":
            attributes["gen_ai.operation.name"] = "execute_tool"
        title = " ".join([method, *(str(value) for value in name.values())])
        span = self.tracer.start(title, "CLIENT", trace_context.headers.get("traceparent", ""), attributes)
        outcome = "error"
        try:
            yield replace(trace_context, headers={**trace_context.headers, **self.tracer.headers(span)})
            work = current_work()
            outcome = TOOL_ERROR if work is not None and work.outcome == TOOL_ERROR else "ok"
        except UpstreamFault as fault:
            outcome = fault.kind.lower() or "upstream"
            raise
        finally:
            self.tracer.finish(span, outcome, {})

    def count(self, target: Registration, method: str, outcome: str, began: float) -> None:
        """Counts a call that began at `began` on time.perf_counter. `method` is `invoke_agent`, or the method of MCP."""
        self.metrics.upstream((target.family, target.tenant, target.name), method, outcome, time.perf_counter() - began)


class TurnPreparation:
    """The context in which a turn is prepared. A generator would cost each turn three times as much."""

    __slots__ = ("_span", "_telemetry", "_trace_context")

    def __init__(self, telemetry: CallTelemetry, trace_context: TraceContext, span: "Span | None") -> None:
        self._telemetry = telemetry
        self._trace_context = trace_context
        self._span = span

    def __enter__(self) -> "tuple[TraceContext, Span | None]":
        return self._trace_context, self._span

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is not None:
            self._telemetry.finish(self._span, "error")


def address_of(target: Registration) -> dict[str, Attribute]:
    """Returns `server.address` and `server.port` of a target with an HTTP address, else nothing."""
    try:
        parts = urlsplit(target.url)
        host, port = parts.hostname, parts.port
    except ValueError:
        return {}
    if parts.scheme not in ("http", "https") or not host:
        return {}
    return {"server.address": host, "server.port": port or (443 if parts.scheme == "https" else 80)}

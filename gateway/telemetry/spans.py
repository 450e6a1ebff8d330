"""Trace context (W3C Trace Context 1) of the current work.

gateway/telemetry/otlp.py makes spans with the OpenTelemetry SDK. Without an exporter, the gateway creates no spans and only propagates
the trace context (docs/decisions/spans.md).
"""

import math
import random
import re
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Final, Literal, Protocol

from msgspec import Struct, field

Attribute = str | int | float | bool
SpanRole = Literal["SERVER", "CLIENT"]  # names of opentelemetry.trace.SpanKind, which is only imported with an exporter
TRACEPARENT: Final = "traceparent"
ORDINARY_OUTCOMES: Final = frozenset({"ok", "question", "asks", "canceled", "suspended"})  # outcomes that are not failures

_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")
_NO_TRACE, _NO_SPAN = "0" * 32, "0" * 16


class TraceContext(Struct, frozen=True):
    """The trace of a call and the headers that propagate it. `deadline`, in seconds since 1970, is until when the caller waits."""

    trace_id: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    deadline: float = math.inf


class Work(Protocol):
    """What the current asyncio task works for: a request, or a resumed task of an agent."""

    trace_id: str
    outcome: str
    tenant: str


@dataclass(slots=True)
class Resumed:
    """Work without a request, in the trace of its task."""

    trace_id: str
    outcome: str = "ok"
    tenant: str = ""


TRACE_ID = slice(3, 35)  # of a valid traceparent
# Of this asyncio task and the tasks that it starts. Each request sets it, so it is not behind a function.
CURRENT_WORK: ContextVar[Work | None] = ContextVar("work", default=None)


def current_work() -> Work | None:
    return CURRENT_WORK.get()


def current_trace_id() -> str:
    """Returns the trace id of the current work, 32 hex digits, or an empty text."""
    work = CURRENT_WORK.get()
    return "" if work is None else work.trace_id


def note_outcome(outcome: str) -> None:
    """Records the outcome of the current request if its response does not show it, such as a tool's `isError`."""
    work = CURRENT_WORK.get()
    if work is not None:
        work.outcome = outcome


def note_tenant(tenant: str) -> None:
    """Records whose caller the current request has, for the metrics by tenant."""
    work = CURRENT_WORK.get()
    if work is not None:
        work.tenant = tenant


def valid_traceparent(traceparent: Any) -> str:
    """Returns a `traceparent` unchanged if it is valid (W3C Trace Context 1 s3.2), else an empty text."""
    if not isinstance(traceparent, str) or len(traceparent) != 55:
        return ""
    match = _TRACEPARENT.fullmatch(traceparent)
    if match is None or match[1] == "ff" or match[2] == _NO_TRACE or match[3] == _NO_SPAN:
        return ""
    return traceparent


def trace_id_of(traceparent: str) -> str:
    """Returns the trace id of a valid `traceparent`, or an empty text."""
    return traceparent[TRACE_ID]


def new_trace_id() -> str:
    return (random.getrandbits(128) or 1).to_bytes(16, "big").hex()


def unsampled_traceparent(trace_id: str) -> str:
    """Returns a `traceparent` for a trace of which the gateway records nothing."""
    return f"00-{trace_id}-{(random.getrandbits(64) or 1).to_bytes(8, 'big').hex()}-00"

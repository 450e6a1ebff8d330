"""Trace context (W3C Trace Context 1) of the request that a task works for, and what the gateway needs of a tracer.

The tracer is gateway/telemetry/otlp.py, on the OpenTelemetry SDK.
Without one no span is made: the gateway then only passes trace context on.
"""

import random
import re
from collections.abc import Mapping
from contextvars import ContextVar, Token
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Final, Protocol

if TYPE_CHECKING:
    from opentelemetry.trace import Span

Attribute = str | int | float | bool
TRACEPARENT: Final = "traceparent"
ORDINARY_OUTCOMES: Final = frozenset({"ok", "question", "asks", "canceled"})  # outcomes that are no failure

_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")
_NO_TRACE, _NO_SPAN = "0" * 32, "0" * 16


class Work(Protocol):
    """What a task works for: a request at a door, or a task of an agent that is taken up again."""

    trace_id: str
    outcome: str


@dataclass(slots=True)
class Resumed:
    """Work that goes on without a request, in the trace of its task."""

    trace_id: str
    outcome: str = "ok"


_work: ContextVar[Work | None] = ContextVar("work", default=None)


def enter_work(work: Work) -> "Token[Work | None]":
    """Makes `work` the current one of this asyncio task and of those that it starts, until `leave_work` gets the token."""
    return _work.set(work)


def leave_work(entered: "Token[Work | None]") -> None:
    """Makes the work current again that was so before `enter_work`."""
    _work.reset(entered)


def current_work() -> Work | None:
    return _work.get()


def current_trace_id() -> str:
    """The trace of the request that this task works for, 32 hex digits, or empty."""
    work = _work.get()
    return "" if work is None else work.trace_id


def note_outcome(outcome: str) -> None:
    """Records how the current request ends, where its answer does not say so: a tool's `isError` rides on a success."""
    work = _work.get()
    if work is not None:
        work.outcome = outcome


class OtelSpanKind(IntEnum):
    """Span kinds, as the OpenTelemetry SDK numbers them."""

    INTERNAL = 0
    SERVER = 1
    CLIENT = 2


def valid_traceparent(given: Any) -> str:
    """A `traceparent` as its sender wrote it (W3C Trace Context 1 s3.2), or empty where it is not valid."""
    if not isinstance(given, str) or len(given) != 55:
        return ""
    match = _TRACEPARENT.fullmatch(given)
    if match is None or match[1] == "ff" or match[2] == _NO_TRACE or match[3] == _NO_SPAN:
        return ""
    return given


def trace_id_of(traceparent: str) -> str:
    """The trace id in a valid `traceparent`; empty where there is none."""
    return traceparent[3:35]


def new_trace_id() -> str:
    return f"{random.getrandbits(128) or 1:032x}"


def unsampled_traceparent(trace_id: str) -> str:
    """A `traceparent` for a trace of which the gateway records nothing."""
    return f"00-{trace_id}-{random.getrandbits(64) or 1:016x}-00"


class Tracer(Protocol):
    """gateway/telemetry/otlp.py."""

    def start(
        self, name: str, kind: OtelSpanKind, parent: str, attributes: Mapping[str, Attribute], *, began: int | None = None, link: str = ""
    ) -> "Span":
        """Starts a span. `parent` and `link` are `traceparent` values or empty; `began` is in nanoseconds since 1970."""
        ...

    def headers(self, span: "Span") -> dict[str, str]:
        """Trace context for the next hop."""
        ...

    def finish(self, span: "Span", outcome: str, attributes: Mapping[str, Attribute], name: str = "") -> None:
        """Ends a span. An outcome outside of ORDINARY makes it an error; `name` replaces its name."""
        ...

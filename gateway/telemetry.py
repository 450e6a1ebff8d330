"""Spans with W3C trace context: one in ten is kept, and every one around an error or a refusal."""

import random
import re
import time
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from enum import IntEnum
from types import TracebackType
from typing import Final, Self

Attribute = str | int | float | bool
PENDING_MAX: Final = 64  # finished spans that wait for the end of their root; more are dropped
TEXT_MAX: Final = 256  # characters of one attribute
ORDINARY: Final = frozenset({"ok", "question", "canceled"})

# Semantic conventions 0.66b2 (gen_ai, mcp) and our own. What stands here is exported, and nothing else: an argument, a prompt
# or a token can't slip in under a name of its own.
ATTRIBUTES: Final = frozenset(
    {
        "error.type",
        "gen_ai.agent.id",
        "gen_ai.agent.name",
        "gen_ai.agent.version",
        "gen_ai.conversation.id",
        "gen_ai.operation.name",
        "gen_ai.tool.name",
        "gen_ai.usage.input_tokens",
        "gen_ai.usage.output_tokens",
        "http.request.method",
        "http.response.status_code",
        "http.route",
        "interlock.decision",
        "interlock.delegation.depth",
        "interlock.door",
        "interlock.outcome",
        "interlock.policy.id",
        "interlock.task.id",
        "interlock.user.hash",
        "jsonrpc.request.id",
        "mcp.method.name",
        "mcp.protocol.version",
        "mcp.session.id",
        "rpc.response.status_code",
        "server.address",
    }
)

_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")
_NO_TRACE, _NO_SPAN = "0" * 32, "0" * 16
_trace_id: ContextVar[str] = ContextVar("trace_id", default="")


def current_trace_id() -> str:
    """The trace of the request that this task works for, 32 hex digits, or empty."""
    return _trace_id.get()


class Kind(IntEnum):
    """As OpenTelemetry numbers them."""

    INTERNAL = 0
    SERVER = 1
    CLIENT = 2


@dataclass(frozen=True, slots=True)
class Origin:
    """A trace and a span of somebody: 32 and 16 hex digits."""

    trace_id: str
    span_id: str


def origin(traceparent: str | None) -> Origin | None:
    """What a caller's `traceparent` says (W3C Trace Context 1 s3.2), or None when it says nothing valid."""
    match = _TRACEPARENT.fullmatch(traceparent) if traceparent is not None and len(traceparent) == 55 else None
    if match is None or match[1] == "ff" or match[2] == _NO_TRACE or match[3] == _NO_SPAN:
        return None
    return Origin(match[2], match[3])


@dataclass(frozen=True, slots=True)
class Finished:
    """A span that is over, for exporters. Times in nanoseconds since 1970; `link` is what the caller claimed to come from."""

    name: str
    kind: Kind
    trace_id: str
    span_id: str
    parent_id: str
    link: Origin | None
    started: int
    ended: int
    outcome: str
    attributes: Mapping[str, Attribute] = field(default_factory=dict)


Export = Callable[[Finished], None]


class Span:
    """One piece of work. `with` finishes it: `error` after an exception, else `ok`, unless `finish` was called before."""

    __slots__ = (
        "_export",
        "_now",
        "_root",
        "_waiting",
        "kept",
        "kind",
        "link",
        "name",
        "parent_id",
        "span_id",
        "started",
        "trace_id",
        "under_way",
    )

    def __init__(self, tracing: "Tracing", name: str, kind: Kind, parent: "Span | None") -> None:
        self._export = tracing.export
        self._now = tracing.now
        self.name = name
        self.kind = kind
        self.span_id = f"{random.getrandbits(64):016x}"
        self.link: Origin | None = None
        self.under_way = True
        self.kept = False
        self.started = self._now()
        self._waiting: list[Finished] = []
        if parent is None:
            self._root: Span = self
            self.trace_id = f"{random.getrandbits(128):032x}"
            self.parent_id = ""
        else:
            self._root = parent._root
            self.trace_id = parent.trace_id
            self.parent_id = parent.span_id

    @property
    def traceparent(self) -> str:
        """For the next hop. Whether it samples is ours to say, and never copied from our caller."""
        return f"00-{self.trace_id}-{self.span_id}-0{int(self._root.kept)}"

    @property
    def headers(self) -> dict[str, str]:
        """Trace context for an outgoing request or `_meta`. `baggage` is never forwarded."""
        return {"traceparent": self.traceparent}

    def finish(self, outcome: str = "ok", attributes: Mapping[str, Attribute] | None = None) -> None:
        """Ends it; later calls do nothing. Any outcome but ORDINARY ones keeps the whole trace."""
        if not self.under_way:
            return
        self.under_way = False
        root = self._root
        if outcome not in ORDINARY:
            root.kept = True
        if self._export is None or (self is root and not self.kept):
            self._waiting.clear()
            return
        if root.kept or (root.under_way and len(root._waiting) < PENDING_MAX):
            root._waiting.append(self._finished(outcome, attributes or {}))
        if root.kept:
            for finished in root._waiting:
                self._export(finished)
            root._waiting.clear()

    def _finished(self, outcome: str, attributes: Mapping[str, Attribute]) -> Finished:
        clean = {name: _short(value) for name, value in attributes.items() if name in ATTRIBUTES}
        clean["interlock.outcome"] = outcome
        ended = self._now()
        return Finished(self.name, self.kind, self.trace_id, self.span_id, self.parent_id, self.link, self.started, ended, outcome, clean)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is None:
            self.finish()
        else:
            self.finish("error", {"error.type": kind.__name__})


def _short(value: Attribute) -> Attribute:
    return value[:TEXT_MAX] if isinstance(value, str) else value


class Tracing:
    """Starts spans. `sample` is the share of ordinary traces kept; `export` None keeps nothing but makes ids all the same."""

    def __init__(
        self,
        sample: float,
        export: Export | None = None,
        now: Callable[[], int] = time.time_ns,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.export = export
        self.now = now
        self._sample = sample
        self._chance = chance

    def start(self, name: str, kind: Kind = Kind.SERVER, traceparent: str | None = None) -> Span:
        """The root of a trace of our own. A caller's `traceparent` becomes a link: it joins no trace and decides no sampling."""
        span = Span(self, name, kind, None)
        span.kept = self._chance() < self._sample
        if traceparent is not None:
            span.link = origin(traceparent)
        _trace_id.set(span.trace_id)
        return span

    def child(self, parent: Span, name: str, kind: Kind = Kind.INTERNAL) -> Span:
        return Span(self, name, kind, parent)

"""Whom the gateway calls, what may be sent along, and how much there may be at once."""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import msgspec
from msgspec import Struct

from adapters.contract import Adapter, Call
from adapters.mcp_client.wire.messages import McpAnswer, McpRequest
from adapters.mcp_client.wire.peer import ListenFilter, McpListener
from gateway.calls.limits.limits import CallLimits
from gateway.calls.limits.slots import LISTENING_LIMITS, SlotLimits, Slots
from registry.cards.card import Registration
from registry.health.reachability import Absences


class TraceContext(Struct, frozen=True):
    """The trace this call belongs to, and the headers that carry it on. `last`: until when the caller waits, in seconds since 1970."""

    trace_id: str = ""
    headers: Mapping[str, str] = msgspec.field(default_factory=dict)
    deadline: float = math.inf


class Adapters(Protocol):
    """adapters/catalog.py."""

    async def load(self, kind: str) -> None: ...

    def adapter(self, kind: str, upstream: Mapping[str, Any] = ...) -> Adapter: ...


class ToolServers(Protocol):
    """adapters/mcp_client/pool.py."""

    async def call(self, call: Call, request: McpRequest) -> McpAnswer: ...

    async def listen(self, call: Call, wanted: ListenFilter, listener: McpListener, session: str = "") -> None: ...


@dataclass(frozen=True, slots=True)
class Upstreams:
    """Whom we call: one adapter per kind of agent, the MCP upstreams, what may be sent along, and how much there may be."""

    adapters: Adapters
    tool_servers: ToolServers
    headers_for: Callable[[Registration], Mapping[str, str]]
    agent_timeout: float
    tool_timeout: float
    limits: CallLimits = field(default_factory=lambda: CallLimits((), time.monotonic, time.time))
    slots: Slots = field(default_factory=lambda: Slots(SlotLimits(), time.monotonic))
    absences: Absences = field(default_factory=lambda: Absences(time.monotonic))
    listening_slots: Slots = field(
        default_factory=lambda: Slots(LISTENING_LIMITS, time.monotonic)
    )  # streams of what servers say by themselves
    idle_timeout: float = math.inf  # seconds that an agent may be silent for

    async def sweep(self) -> None:
        """Forgets whoever has not called anything for a while."""
        for each in (self.limits, self.slots, self.listening_slots):
            each.sweep()

"""The agents and servers that the gateway calls: their adapters, headers, timeouts, limits and slots."""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from adapters.catalog import AdapterCatalog
from adapters.tool_servers import ToolServerClient
from gateway.calls.limits.meters import CallLimits
from gateway.calls.limits.slots import LISTENING_LIMITS, SlotLimits, Slots
from registry.health.reachability import Absences


@dataclass(frozen=True, slots=True)
class Upstreams:
    """What calls need: an adapter per kind of agent, the MCP client, credentials of the operator, timeouts, limits and slots."""

    adapters: AdapterCatalog
    tool_servers: ToolServerClient
    resolve_headers: Callable[[Mapping[str, Any]], Mapping[str, str]]  # the headers that an entry's `upstream` sets, with their secrets
    agent_timeout: float
    tool_timeout: float
    limits: CallLimits = field(default_factory=lambda: CallLimits((), time.monotonic, time.time))
    slots: Slots = field(default_factory=lambda: Slots(SlotLimits(), time.monotonic))
    absences: Absences = field(default_factory=lambda: Absences(time.monotonic))
    listening_slots: Slots = field(default_factory=lambda: Slots(LISTENING_LIMITS, time.monotonic))  # streams of server notifications
    idle_timeout: float = math.inf  # seconds for which an agent may send nothing

    async def sweep(self) -> None:
        """Deletes idle entries of limits and slots."""
        for each in (self.limits, self.slots, self.listening_slots):
            each.sweep()

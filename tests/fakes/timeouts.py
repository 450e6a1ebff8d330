"""Timeouts for tests: a slow machine changes no answer. A test about a timeout passes a shorter one."""

from adapters.mcp_client.stdio import StartTimeouts
from gateway.timeouts import Timeouts

LONG_TIMEOUTS = Timeouts(
    stale_epochs=60.0,
    configured_entries=60.0,
    stopped_turns=60.0,
    legacy_stream=3600.0,
    first_question=60.0,
    initialize_probe=60.0,
    discover_probe=60.0,
    command_start=120.0,
)
LONG_START = StartTimeouts(LONG_TIMEOUTS.command_start, LONG_TIMEOUTS.discover_probe)

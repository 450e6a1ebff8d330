"""How long the gateway waits where neither a setting nor the deadline of a call says so."""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Durations in seconds. Tests construct gateways with longer ones, so that a slow machine changes no answer."""

    stale_epochs: float = 1.0  # since the epochs were read: after that, no cache is used and /readyz reports the database
    configured_entries: float = 2.0  # by which unreachable entries of interlock.yaml may delay the start
    stopped_turns: float = 0.5  # for writing the endings of stopped turns, before the turns are abandoned
    legacy_stream: float = 2.0  # until a request of an older MCP client becomes a stream, which the client can resume
    first_question: float = 2.0  # that tasks/get waits for the first question of an older server's task
    initialize_probe: float = 5.0  # for the answer of a modern MCP server to `initialize`
    discover_probe: float = 5.0  # for the answer of an MCP server that is a command to `server/discover`
    command_start: float = 15.0  # for the handshake with such a command, and for each page of its lists


DEFAULT_TIMEOUTS: Final = Timeouts()

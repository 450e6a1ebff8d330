"""The closed sets of label values: protocols, methods and outcomes, and which outcomes are failures of the gateway or its upstreams."""

from collections.abc import Iterable
from typing import Final, Literal

from gateway.telemetry.spans import ORDINARY_OUTCOMES

Result = Literal["ok", "refused", "overloaded", "failed"]

DOORS: Final = frozenset({"a2a", "admin", "console", "mcp", "oauth"})
METHODS: Final = frozenset(
    {
        # A2A 1.0 s9.4
        "SendMessage",
        "SendStreamingMessage",
        "GetTask",
        "ListTasks",
        "CancelTask",
        "SubscribeToTask",
        "CreateTaskPushNotificationConfig",
        "GetTaskPushNotificationConfig",
        "ListTaskPushNotificationConfigs",
        "DeleteTaskPushNotificationConfig",
        "GetExtendedAgentCard",
        # MCP
        "initialize",
        "ping",
        "logging/setLevel",
        "subscriptions/listen",
        "resources/subscribe",
        "resources/unsubscribe",
        "tasks/update",
        "server/discover",
        "tools/list",
        "tools/call",
        "resources/list",
        "resources/read",
        "resources/templates/list",
        "prompts/list",
        "prompts/get",
        "completion/complete",
        "tasks/get",
        "tasks/result",
        "tasks/list",
        "tasks/cancel",
        # turns of agents
        "invoke_agent",
        # HTTP, on /api and /oauth
        "GET",
        "POST",
        "PUT",
        "PATCH",
        "DELETE",
    }
)
OUTCOMES: Final = frozenset({"ok", "asks", "canceled", "denied", "error", "failed", "question", "rejected", "timeout", "tool-error"})
FAMILIES: Final = frozenset({"agent", "server"})
FAULTS: Final = frozenset({"error", "failed", "timeout", "tool-error", "upstream"})  # outcomes that are failures, in any table of reasons
OVERLOADED: Final = "overloaded"  # the outcome of a request that the gateway has no room for, and its result
OTHER: Final = "other"


class OutcomeLabels:
    """The outcomes that count by their name, and what each of them means for the caller."""

    def __init__(self, reasons: Iterable[str] = (), faults: Iterable[str] = ()) -> None:
        """`reasons` are outcomes beside OUTCOMES; those in `faults` are failures of the gateway or of what it calls."""
        self._names = OUTCOMES | frozenset(reasons)
        self._faults = FAULTS | frozenset(faults)

    def name_of(self, outcome: str) -> str:
        """Returns the outcome, or `other` for one outside the closed set."""
        return outcome if outcome in self._names else OTHER

    def result_of(self, outcome: str) -> Result:
        """Returns `ok`, `overloaded`, `failed` where the gateway, an agent or a server failed, and `refused` for every other outcome.

        A gateway that refuses what it can't serve in time works as it should, so that this counts for no alert of failures.
        """
        if outcome in ORDINARY_OUTCOMES:
            return "ok"
        if outcome == OVERLOADED:
            return "overloaded"
        return "failed" if outcome in self._faults or self.name_of(outcome) == OTHER else "refused"

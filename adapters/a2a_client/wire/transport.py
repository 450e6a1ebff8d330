"""The Transport interface for A2A agents, one implementation per protocol binding, each for 1.0 and 0.3."""

import asyncio
from collections.abc import AsyncGenerator, Iterable, Mapping
from typing import Any, Final, Protocol

from msgspec import Struct

from adapters.a2a_client.wire.tolerant import PeerEvent
from adapters.contract import Call, UpstreamFault
from adapters.task import Message, Task

JSONRPC: Final = "JSONRPC"
HTTP_JSON: Final = "HTTP+JSON"
GRPC: Final = "GRPC"
ANSWER_LIMIT: Final = 32 << 20  # maximum bytes of one response or stream event, by default
METHOD_NOT_FOUND: Final = -32601
TASK_NOT_FOUND: Final = -32001
TASK_NOT_CANCELABLE: Final = -32002
UNSUPPORTED_OPERATION: Final = -32004
ERROR_MEANINGS: Final = {
    -32700: "not JSON",
    -32600: "invalid request",
    METHOD_NOT_FOUND: "unknown method",
    -32602: "invalid parameters",
    -32603: "internal error",
    TASK_NOT_FOUND: "unknown task",
    TASK_NOT_CANCELABLE: "task not cancelable",
    -32003: "push notifications not supported",
    UNSUPPORTED_OPERATION: "unsupported operation",
    -32005: "content type not supported",
    -32006: "invalid agent response",
    -32007: "no extended card",
    -32008: "extension required",
    -32009: "version not supported",
}
CODES_BY_REASON: Final = {  # reasons of google.rpc.ErrorInfo (A2A 1.0 s5.4), by which the other bindings identify the same errors
    "TASK_NOT_FOUND": TASK_NOT_FOUND,
    "TASK_NOT_CANCELABLE": TASK_NOT_CANCELABLE,
    "PUSH_NOTIFICATION_NOT_SUPPORTED": -32003,
    "UNSUPPORTED_OPERATION": UNSUPPORTED_OPERATION,
    "CONTENT_TYPE_NOT_SUPPORTED": -32005,
    "INVALID_AGENT_RESPONSE": -32006,
    "EXTENDED_AGENT_CARD_NOT_CONFIGURED": -32007,
    "EXTENSION_SUPPORT_REQUIRED": -32008,
    "VERSION_NOT_SUPPORTED": -32009,
}


PeerEvents = Iterable[PeerEvent]
"""The events of a stream that arrived together, at least one. Iterating decodes each, so that it raises what Transport does."""


class PeerError(UpstreamFault):
    """The agent responded with an error of the protocol. `code` is JSON-RPC's in every binding; the agent's text is not public."""

    def __init__(self, code: int, status_text: str, detail: str = "") -> None:
        meaning = f" ({ERROR_MEANINGS[code]})" if code in ERROR_MEANINGS else ""
        super().__init__(f"The agent answered with {status_text}{meaning}", detail)
        self.code = code


class NotCarried(UpstreamFault):
    """The content can't be written as protobuf: nested too deeply, or with a number that a double can't hold exactly."""

    kind = "NOT_CARRIED"
    is_unsent = True
    had_no_effect = True
    is_callers_mistake = True

    def __init__(self, detail: str) -> None:
        super().__init__(
            "The content can't be carried over gRPC: it is nested too deeply, or has a number that a double can't hold exactly", detail
        )


class A2APeer(Struct, frozen=True):
    """The agent's side of one call. `is_v03`: in A2A 0.3, else in 1.0. `push_url`: where the agent may push; it then responds at once.

    `metadata`: of the request that sends a message.
    """

    url: str
    tenant: str
    is_v03: bool
    can_stream: bool
    push_url: str = ""
    metadata: Mapping[str, Any] | None = None


class Transport(Protocol):
    """Sends requests and reads responses, without logic.

    Each method raises PeerError for an error of the protocol, UpstreamFault for an invalid response, and UnknownState with the known ids.
    """

    async def send(self, peer: A2APeer, call: Call, message: Message, modes: tuple[str, ...]) -> PeerEvent:
        """SendMessage, blocking. `modes`: the accepted output modes; empty: any."""
        ...

    def stream(self, peer: A2APeer, call: Call, message: Message, modes: tuple[str, ...]) -> AsyncGenerator[PeerEvents, None]:
        """SendStreamingMessage. The events just end where the connection breaks: the task may continue without a listener."""
        ...

    def subscribe(self, peer: A2APeer, call: Call, task_id: str) -> AsyncGenerator[PeerEvents, None]:
        """SubscribeToTask. The events just end where the connection breaks."""
        ...

    async def get_task(self, peer: A2APeer, call: Call, task_id: str) -> Task:
        """GetTask."""
        ...

    async def cancel_task(self, peer: A2APeer, call: Call, task_id: str) -> Task:
        """CancelTask."""
        ...


def seconds_left(call: Call) -> float:
    """The seconds until the call's deadline, always more than zero."""
    return max(call.deadline - asyncio.get_running_loop().time(), 0.001)

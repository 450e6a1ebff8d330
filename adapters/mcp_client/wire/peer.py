"""The client behind a request to an MCP server, which gets the server's messages and answers its questions."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from msgspec import Raw


class PeerRefused(Exception):
    """The client responded with a JSON-RPC error, or can't be asked. `code` and `message` may be sent to the server."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class McpPeer(Protocol):
    """The client behind a request: gets a server's messages and questions before the response.

    `params` are checked JSON objects with the server's own names and URIs; progressToken and subscriptionId are the client's.
    """

    @property
    def capabilities(self) -> Mapping[str, Any]:
        """The declared capabilities (elicitation, sampling, roots, extensions) as JSON. They are the same for all of a session."""
        ...

    async def notify(self, method: str, params: Raw) -> None:
        """Handles notifications/progress, notifications/message and others of this request. Does not raise."""
        ...

    async def ask(self, method: str, params: Raw) -> Raw:
        """Returns the result of elicitation/create, sampling/createMessage or roots/list. Raises PeerRefused. Canceled with the call."""
        ...


@dataclass(frozen=True, slots=True)
class ListenFilter:
    """Wanted notifications: changed lists, and changed resources (`uris`) and tasks (ids)."""

    tools: bool = False
    prompts: bool = False
    resources: bool = False
    uris: frozenset[str] = frozenset()
    tasks: frozenset[str] = frozenset()


class McpListener(McpPeer, Protocol):
    """A client that listens outside of any request; a server of the legacy era may also ask it there."""

    async def on_acknowledged(self, granted: ListenFilter) -> None:
        """Called first and once, with the notifications that the server will send: at most the wanted ones."""
        ...

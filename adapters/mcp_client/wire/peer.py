"""Who stands behind a request to an MCP server: the client that hears what the server says, and answers what it asks."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from msgspec import Raw


class PeerRefused(Exception):
    """The client answered with a JSON-RPC error, or can't be asked. `code` and `message` may be shown to the server that asked."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class McpPeer(Protocol):
    """The client behind a request: for what a server says or asks before it answers.

    `params` are checked JSON objects with the server's own names and URIs; progressToken and subscriptionId are the client's.
    """

    @property
    def capabilities(self) -> Mapping[str, Any]:
        """What the client declared (elicitation, sampling, roots, extensions), never more; JSON. It is the same for all of a session."""
        ...

    async def notify(self, method: str, params: Raw) -> None:
        """Takes notifications/progress, notifications/message and others of this request. Does not raise."""
        ...

    async def ask(self, method: str, params: Raw) -> Raw:
        """Gives the result of elicitation/create, sampling/createMessage or roots/list. Raises PeerRefused; is cancelled with the call."""
        ...


@dataclass(frozen=True, slots=True)
class ListenFilter:
    """What to be told of: changed lists, and resources (`uris`) and tasks (ids) that change."""

    tools: bool = False
    prompts: bool = False
    resources: bool = False
    uris: frozenset[str] = frozenset()
    tasks: frozenset[str] = frozenset()


class McpListener(McpPeer, Protocol):
    """A client that listens outside of any request; a server of the initialize era may ask it things there too."""

    async def on_acknowledged(self, granted: ListenFilter) -> None:
        """Comes first, once: what the server will tell of, at most what was wanted."""
        ...

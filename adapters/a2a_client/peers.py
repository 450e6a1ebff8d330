"""Selects the A2A version and binding for an agent, by its card and by what it turned out to support."""

from collections.abc import Callable, Mapping
from typing import Any, Final

from adapters.a2a_client.jsonrpc import JsonRpcTransport
from adapters.a2a_client.rest import RestTransport
from adapters.a2a_client.wire.transport import (
    ANSWER_LIMIT,
    GRPC,
    HTTP_JSON,
    JSONRPC,
    METHOD_NOT_FOUND,
    UNSUPPORTED_OPERATION,
    A2APeer,
    PeerError,
    Transport,
)
from adapters.contract import Call, InvalidAnswer, UpstreamFault
from adapters.task import Task
from adapters.upstream.egress import Egress
from adapters.upstream.request_signing import Signer

_NO_GRPC_TEXT: Final = "The agent is called over gRPC, and this gateway was started without gRPC"


class A2APeers:
    """The A2A agents by the facts of their entries: binding, version, streaming, interface (its URL) and tenant."""

    def __init__(
        self, egress: Egress, grpc: Callable[[], Transport] | None, signer: Signer | None = None, limit: int = ANSWER_LIMIT
    ) -> None:
        """`limit`: maximum bytes of one response, or of one event of a stream."""
        self._transports: dict[str, Transport] = {
            JSONRPC: JsonRpcTransport(egress, signer, limit),
            HTTP_JSON: RestTransport(egress, signer, limit),
        }
        self._grpc = grpc
        self._v03_urls: set[str] = set()  # URLs that turned out to support 0.3 only

    def should_retry_downgraded(self, peer: A2APeer, error: PeerError, for_stream: bool) -> bool:
        """Whether to retry a refused method, in the older version or without streaming: the agent has done nothing yet."""
        streamed = for_stream and peer.can_stream
        if error.code == METHOD_NOT_FOUND and not peer.is_v03:
            self._v03_urls.add(peer.url)
            return True
        if error.code == METHOD_NOT_FOUND and not streamed:
            self._v03_urls.discard(peer.url)
        return streamed and error.code in (METHOD_NOT_FOUND, UNSUPPORTED_OPERATION)

    async def task(self, call: Call, task_id: str, cancel: bool = False) -> Task:
        """Calls GetTask, or CancelTask, in the agent's version. Raises PeerError, and InvalidAnswer for another task."""
        peer, transport = self.peer(call), self.transport(call)
        try:
            task = await (transport.cancel_task if cancel else transport.get_task)(peer, call, task_id)
        except PeerError as error:
            if not self.should_retry_downgraded(peer, error, for_stream=False):
                raise
            return await self.task(call, task_id, cancel)
        call.on_activity()
        if task.id != task_id:
            raise InvalidAnswer("The agent answered about another task")
        return task

    def peer(self, call: Call, push_url: str = "", metadata: Mapping[str, Any] | None = None) -> A2APeer:
        """The address, version and capabilities for a call."""
        facts, url = call.target.facts, url_of(call)
        older = str(facts.get("version", "1.0")).startswith("0.") or url in self._v03_urls
        return A2APeer(url, "" if older else facts.get("tenant", ""), older, bool(facts.get("streaming")), push_url, metadata)

    def transport(self, call: Call) -> Transport:
        """The transport of a call. Raises UpstreamFault for an unavailable binding."""
        binding = call.target.facts.get("binding") or JSONRPC
        found = self._transports.get(binding)
        if found is None:
            if binding != GRPC or self._grpc is None:
                raise UpstreamFault(_NO_GRPC_TEXT if binding == GRPC else "The agent's protocol binding is not supported")
            found = self._transports[GRPC] = self._grpc()
        return found


def url_of(call: Call) -> str:
    """The URL of the agent's interface."""
    return call.target.facts.get("interface") or call.target.url

"""A loopback shim before the gateway for programs that know no tokens: adds the bearer and, to gRPC, the agent's name."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

import grpc.aio
from a2a.types import a2a_pb2
from google.protobuf.message import Message

HOST = "127.0.0.1"
HEAD_LIMIT = 1 << 16  # bytes
GRPC_PACKAGE, GRPC_PACKAGE_03 = "/lf.a2a.v1.", "/a2a.v1."
ROOT_CARD = b"GET /.well-known/agent-card.json "
OWN_METADATA = ("grpc-", ":", "user-agent", "content-type", "te")  # the transport's own: the next hop writes them anew


@dataclass(frozen=True, slots=True)
class Front:
    """Where the shim stands and whom it stands before. Without `grpc` (listening port, target port) it is HTTP only.

    The kit for A2A 0.3 looks for a card at the root only, and names no version: it gets the card of the agent named `at_root`, and
    reaches the same agent over gRPC, whose requests have no tenant in 0.3.
    """

    port: int
    target: int
    token: str
    tenant: str = ""
    grpc: tuple[int, int] | None = None
    at_root: str = ""

    def head(self, given: bytes) -> bytes:
        """The head of a request, as it is passed on."""
        line, _, rest = given.partition(b"\r\n")
        if self.at_root and line.startswith(ROOT_CARD):
            line = line.replace(b" ", b" /agents/" + self.at_root.encode(), 1)
        return with_header(line + b"\r\n" + rest, b"Authorization: Bearer %s\r\n" % self.token.encode())


@asynccontextmanager
async def shim(front: Front) -> AsyncIterator[None]:
    """Both listen until the block ends."""
    server = await asyncio.start_server(_http(front), HOST, front.port, limit=HEAD_LIMIT)
    remote, channel = grpc.aio.server(), grpc.aio.insecure_channel(f"{HOST}:{front.grpc[1] if front.grpc else 0}")
    try:
        if front.grpc:
            remote.add_generic_rpc_handlers((AnyMethod(channel, front),))
            remote.add_insecure_port(f"{HOST}:{front.grpc[0]}")
            await remote.start()
        yield
    finally:
        await remote.stop(0)
        await channel.close()
        server.close()


def _http(front: Front) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Any]:
    """HTTP/1.1 byte for byte, but for one header in each request's head. Answers flow back as they come, streams included."""

    async def connected(client: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        gateway, forth = await asyncio.open_connection(HOST, front.target)
        ways = [asyncio.create_task(_requests(client, forth, front)), asyncio.create_task(_bytes(gateway, back))]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            forth.close()
            back.close()

    return connected


async def _requests(client: asyncio.StreamReader, forth: asyncio.StreamWriter, front: Front) -> None:
    """Until the client hangs up."""
    with suppress(asyncio.IncompleteReadError, ConnectionError):
        while True:
            head = await client.readuntil(b"\r\n\r\n")
            forth.write(front.head(head) + await client.readexactly(content_length(head)))
            await forth.drain()


async def _bytes(gateway: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while data := await gateway.read(HEAD_LIMIT):
            back.write(data)
            await back.drain()


def with_header(head: bytes, addition: bytes) -> bytes:
    """The head of a request with one more header, unless the client sent one of that name itself."""
    name = addition.partition(b":")[0].lower() + b":"
    lines = head.split(b"\r\n")
    if any(line.lower().startswith(name) for line in lines[1:]):
        return head
    return lines[0] + b"\r\n" + addition + b"\r\n".join(lines[1:])


def content_length(head: bytes) -> int:
    """Bytes of the body. Chunked requests are none of this shim's: it reads them as empty, and the gateway then waits in vain."""
    for line in head.lower().split(b"\r\n")[1:]:
        if line.startswith(b"content-length:"):
            return int(line.partition(b":")[2])
    return 0


class AnyMethod(grpc.GenericRpcHandler):  # type: ignore[misc]  # grpcio has no types
    """Hands every method on, requests and answers as bytes: on the wire one message is a stream of one."""

    def __init__(self, channel: Any, front: Front) -> None:
        self._channel = channel
        self._front = front

    def service(self, call: Any) -> Any:
        """The handler of one call."""

        async def relay(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
            named = (named_tenant(call.method, one, self._front.tenant) async for one in requests)
            onward = self._channel.stream_stream(call.method)(named, metadata=self._metadata(call), timeout=context.time_remaining())
            try:
                async for answer in onward:
                    yield answer
            except grpc.aio.AioRpcError as error:
                await context.abort(error.code(), error.details() or "", tuple(error.trailing_metadata() or ()))
            finally:
                onward.cancel()

        return grpc.stream_stream_rpc_method_handler(relay)

    def _metadata(self, call: Any) -> list[tuple[str, str | bytes]]:
        given = call.invocation_metadata or ()
        added = {"authorization": f"Bearer {self._front.token}"}
        if call.method.startswith(GRPC_PACKAGE_03):
            added["a2a-tenant"] = self._front.at_root
        added = {key: value for key, value in added.items() if key not in dict(given)}
        return [*((key, value) for key, value in given if not key.startswith(OWN_METADATA)), *added.items()]


def named_tenant(method: str, request: bytes, tenant: str) -> bytes:
    """A request of A2A 1.0 that names `tenant` unless it names one itself; of other services as it is."""
    service = a2a_pb2.DESCRIPTOR.services_by_name["A2AService"]
    known = service.methods_by_name.get(method.rpartition("/")[2]) if method.startswith(GRPC_PACKAGE) else None
    if known is None:
        return request
    made: Message = getattr(a2a_pb2, known.input_type.name)(tenant=tenant)
    made.MergeFromString(request)
    return made.SerializeToString()

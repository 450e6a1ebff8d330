"""A gateway of production: TLS ends before it, and all that its cards lead to is reached over TLS, gRPC over HTTP/2 too."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import grpc
import httpx
import pytest
from a2a.client.client import ClientCallContext
from a2a.client.transports.grpc import GrpcTransport
from a2a.client.transports.jsonrpc import JsonRpcTransport
from a2a.client.transports.rest import RestTransport
from a2a.types import AgentCard
from google.protobuf.json_format import ParseDict

from tests.fakes.a2a_agents import loopback, serving
from tests.fakes.certificates import TlsFront, certificate, showing, tls_front, trusting
from tests.fakes.house import CallbackAgent, House, house
from tests.fakes.ports import free_port
from tests.fakes.reference_clients import Client, sent, texts

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
CARD = "/agents/sales/.well-known/agent-card.json"


@dataclass
class Behind:
    """The gateway, the two fronts that end TLS, and the certificate of both."""

    home: House
    http: TlsFront
    grpc: TlsFront
    pem: bytes


@pytest.fixture
async def behind(tmp_path: Path, database_url: str) -> AsyncIterator[Behind]:
    pem, key = certificate("127.0.0.1")
    with loopback() as listener:
        ports = listener.getsockname()[1], free_port()
        async with AsyncExitStack() as stack:
            http = await stack.enter_async_context(tls_front(showing(tmp_path, pem, key, "http/1.1"), ports[0]))
            over_grpc = await stack.enter_async_context(tls_front(showing(tmp_path, pem, key, "h2"), ports[1]))
            server = {"public_url": f"https://127.0.0.1:{http.port}", "public_grpc": f"127.0.0.1:{over_grpc.port}"}
            home = await stack.enter_async_context(house(tmp_path / "home", database_url, server=server, grpc_port=ports[1]))
            await stack.enter_async_context(serving(home.app, listener))
            home.gateway.lifecycle.start()
            await home.gateway.lifecycle.wait_until_started()
            await home.agent(CallbackAgent("sales"))
            yield Behind(home, http, over_grpc, pem)


async def test_every_address_of_the_card_is_reached_over_tls(behind: Behind) -> None:
    home = behind.home
    said = {"authorization": f"Bearer {home.token('alice')}"}
    async with httpx.AsyncClient(verify=trusting(behind.pem), headers=said) as http:
        document = (await http.get(home.url + CARD, headers={"A2A-Version": "1.0"})).json()
        card = ParseDict(document, AgentCard())
        for each in card.supported_interfaces:
            context = ClientCallContext(timeout=60)
            if each.protocol_binding == "GRPC":
                channel = grpc.aio.secure_channel(each.url, grpc.ssl_channel_credentials(behind.pem))
                context = ClientCallContext(timeout=60, service_parameters={**said, "a2a-tenant": each.tenant})
                async with channel:
                    task = await sent(Client(GrpcTransport(channel, card), context), "hello")
            else:
                assert urlsplit(each.url).scheme == "https"
                kind = JsonRpcTransport if each.protocol_binding == "JSONRPC" else RestTransport
                task = await sent(Client(kind(http, card, each.url), context), "hello")
            assert texts(task) == ["sales got: hello"], each.protocol_binding
    assert document["signatures"] and len(card.supported_interfaces) == 3
    assert {*behind.http.versions, *behind.grpc.versions} == {"TLSv1.3"}
    assert behind.grpc.protocols == ["h2"]  # gRPC is spoken over HTTP/2


async def test_who_speaks_in_the_clear_is_not_heard(behind: Behind) -> None:
    async with httpx.AsyncClient() as http:
        with pytest.raises(httpx.TransportError):
            await http.get(behind.home.url.replace("https", "http") + CARD)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{behind.grpc.port}") as channel:
        with pytest.raises(grpc.aio.AioRpcError):
            await channel.unary_unary("/lf.a2a.v1.A2AService/GetTask")(b"", timeout=1)

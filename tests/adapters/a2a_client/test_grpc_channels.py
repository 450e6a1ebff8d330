"""Channels go to vetted addresses only, are kept, looked up again, and are not many."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import grpc
import pytest

from adapters.a2a_client import grpc_channels as a2a_channels
from adapters.a2a_client.grpc_channels import GrpcChannels
from adapters.contract import UpstreamFault
from adapters.upstream.egress import Egress, EgressRefused
from adapters.upstream.targets import grpc_url
from tests.fakes.certificates import certificate


class Names:
    """A resolver that says what the test wants, and a clock."""

    def __init__(self, *addresses: str) -> None:
        self.addresses: Sequence[str] = addresses
        self.asked = 0
        self.time = 1000.0

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        self.asked += 1
        return self.addresses

    def now(self) -> float:
        return self.time


@asynccontextmanager
async def channels(names: Names, *allow: str, roots: bytes | None = None) -> AsyncIterator[GrpcChannels]:
    made = GrpcChannels(Egress(allow, lookup=names), names.now, roots)
    try:
        yield made
    finally:
        await made.close()


async def test_a_target_has_one_channel_and_one_look_up_while_it_is_fresh() -> None:
    names = Names("93.184.215.14")
    async with channels(names) as made:
        first = await made.channel_to("agent.example:443", None)
        assert await made.channel_to("agent.example:443", None) is first
        assert names.asked == 1
        names.time += a2a_channels.REVET_SECONDS
        assert await made.channel_to("agent.example:443", None) is first
        assert names.asked == 2


async def test_a_name_that_moves_gets_a_channel_to_its_new_address() -> None:
    names = Names("93.184.215.14")
    async with channels(names) as made:
        first = await made.channel_to("agent.example:443", None)
        names.addresses = ["93.184.215.15"]
        names.time += a2a_channels.REVET_SECONDS
        second = await made.channel_to("agent.example:443", None)
        assert second is not first
        assert second.addresses == ("93.184.215.15",)


async def test_a_name_that_moves_into_our_network_is_refused() -> None:
    names = Names("93.184.215.14")
    async with channels(names) as made:
        await made.channel_to("agent.example:443", None)
        names.addresses = ["10.0.0.1"]
        names.time += a2a_channels.REVET_SECONDS
        with pytest.raises(EgressRefused):
            await made.channel_to("agent.example:443", None)


@pytest.mark.parametrize(
    "target", ["127.0.0.1:8443", "169.254.169.254:443", "[::1]:443", "agent.example:5432", "unix:/tmp/x", "user@h:443"]
)
async def test_a_target_that_the_guard_refuses_gets_no_channel(target: str) -> None:
    async with channels(Names("127.0.0.1")) as made:
        with pytest.raises(EgressRefused):
            await made.channel_to(target, None)


async def test_a_name_without_an_address_is_not_reached() -> None:
    async with channels(Names()) as made:
        with pytest.raises(UpstreamFault):
            await made.channel_to("agent.example:443", None)


async def test_there_are_not_many_channels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(a2a_channels, "CHANNELS_MAX", 2)
    async with channels(Names("93.184.215.14")) as made:
        first = await made.channel_to("a.example:443", None)
        await made.channel_to("b.example:443", None)
        await made.channel_to("c.example:443", None)
        assert await made.channel_to("a.example:443", None) is not first


@pytest.mark.parametrize(
    ("target", "url"),
    [
        ("agent.example:50051", "https://agent.example:50051"),
        ("agent.example", "https://agent.example"),
        ("dns:///agent.example:443", "https://agent.example:443"),
        ("grpc://agent.example:1", "http://agent.example:1"),
        ("grpcs://agent.example:1", "https://agent.example:1"),
        ("http://agent.example:1", "http://agent.example:1"),
        ("file:///etc/passwd", "file:///etc/passwd"),
        ("[2001:db8::1]:443", "https://[2001:db8::1]:443"),
        ("unix:/run/x", "unix:/run/x"),
        ("unix-abstract:x", "unix-abstract:x"),
        ("ipv4:1.2.3.4:5,6.7.8.9:5", "ipv4:1.2.3.4:5,6.7.8.9:5"),
        ("agent.example:443/path", "agent.example:443/path"),
    ],
)
def test_a_target_is_vetted_as_a_url(target: str, url: str) -> None:
    assert grpc_url(target) == url


@asynccontextmanager
async def secure_server(pem: bytes, key: bytes) -> AsyncIterator[int]:
    server = grpc.aio.server()
    port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([(key, pem)]))
    await server.start()
    try:
        yield port
    finally:
        await server.stop(None)


@pytest.mark.parametrize(
    ("name", "trusted", "reached"), [("agent.example", True, True), ("other.example", True, False), ("agent.example", False, False)]
)
async def test_tls_is_spoken_to_the_name_and_not_to_the_address(name: str, trusted: bool, reached: bool) -> None:
    pem, key = certificate(name)
    async with (
        secure_server(pem, key) as port,
        channels(Names("127.0.0.1"), "127.0.0.1", roots=pem if trusted else certificate(name)[0]) as made,
    ):
        line = await made.channel_to(f"grpcs://agent.example:{port}", None)
        call = line.channel.unary_unary("/a/B", request_serializer=bytes, response_deserializer=bytes)
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await call(b"", timeout=60)
        assert (raised.value.code() is grpc.StatusCode.UNIMPLEMENTED) is reached  # an answer of the server: it has no such method


@pytest.mark.parametrize(
    ("target", "address", "tls"),
    [
        ("agent.example:443", "93.184.215.14", True),
        ("agent.example:443", "10.0.0.1", True),
        ("agent.example:8500", "93.184.215.14", True),
        ("agent.example:8500", "10.0.0.1", False),
        ("grpcs://agent.example:8500", "10.0.0.1", True),
        ("grpc://agent.example:8500", "93.184.215.14", False),
    ],
)
async def test_without_a_scheme_only_networks_of_our_own_are_spoken_to_in_the_clear(target: str, address: str, tls: bool) -> None:
    egress = Egress(["agent.example"], lookup=Names(address))
    assert a2a_channels._wants_tls(target, await egress.resolve_target(grpc_url(target))) is tls

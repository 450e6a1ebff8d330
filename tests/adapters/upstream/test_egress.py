"""Outgoing requests, on loopback: what is refused before a byte leaves, what is bounded, what is never followed."""

import asyncio
import gzip
from collections.abc import AsyncIterator, Sequence

import pytest

from adapters.contract import UpstreamFault
from adapters.upstream.egress import Egress, EgressRefused
from tests.fakes.upstream import Upstream, answer


async def _hello(_head: bytes, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(answer(b"hello", "200 OK", "X-Seen: yes"))


async def _silent(_head: bytes, _reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    await asyncio.Event().wait()


def names(**known: Sequence[str]) -> Egress:
    async def lookup(host: str, _port: int) -> Sequence[str]:
        return known[host.split(".")[0]]

    return Egress(["127.0.0.1"], lookup=lookup)


@pytest.fixture
async def egress() -> AsyncIterator[Egress]:
    opened = Egress(["127.0.0.0/8"])
    yield opened
    await opened.close()


async def test_an_answer_comes_whole_with_status_and_headers(egress: Egress) -> None:
    async with Upstream(_hello) as upstream:
        fetched = await egress.fetch(upstream.url)
    assert (fetched.status, fetched.body, fetched.headers.get("x-seen")) == (200, b"hello", "yes")


async def test_requests_share_one_connection(egress: Egress) -> None:
    async with Upstream(_hello) as upstream:
        for _ in range(5):
            await egress.request("POST", upstream.url, headers={}, body=b"{}", timeout=60, limit=100)
        assert upstream.connections == 1


async def test_a_canary_on_loopback_hears_nothing_unless_it_is_allowed() -> None:  # attack SSR-01
    async def loopback(_host: str, _port: int) -> Sequence[str]:
        return ["127.0.0.1"]

    guard = Egress(lookup=loopback)
    async with Upstream(_hello) as canary:
        for host in ("127.0.0.1", "localhost", "localhost.", "0", "2130706433", "0x7f000001", "127.1", "[::ffff:127.0.0.1]"):
            url = f"http://{host}:{canary.port}/"
            with pytest.raises(EgressRefused):
                await guard.fetch(url)
            with pytest.raises(EgressRefused):
                await guard.vet(url)
            with pytest.raises(EgressRefused):
                async with guard.stream("GET", url, headers={}, body=None, timeout=60):
                    pass
        assert canary.connections == 0
    await guard.close()


async def test_a_name_with_one_inner_address_is_refused_at_connect() -> None:  # attack SSR-01
    guard = names(mixed=["127.0.0.1", "::1"], good=["127.0.0.1"])
    async with Upstream(_hello) as canary:
        with pytest.raises(EgressRefused):
            await guard.fetch(f"http://mixed.example:{canary.port}/")
        assert canary.connections == 0
        assert (await guard.fetch(f"http://good.example:{canary.port}/")).body == b"hello"
        assert b"host: good.example" in canary.requests[0].lower()
    await guard.close()


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "307 Temporary", "308 Permanent"])
async def test_a_redirect_is_an_answer_and_is_not_followed(egress: Egress, status: str) -> None:  # attack SSR-03
    async with Upstream(_hello) as canary:

        async def away(_head: bytes, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(answer(b"", status, f"Location: {canary.url}/latest/meta-data"))

        async with Upstream(away) as upstream:
            fetched = await egress.request("POST", upstream.url, headers={"Authorization": "Bearer x"}, body=b"{}", timeout=60, limit=100)
        assert (fetched.status, canary.connections) == (int(status[:3]), 0)


async def test_cookies_are_not_kept(egress: Egress) -> None:
    async def baking(_head: bytes, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer(b"", "200 OK", "Set-Cookie: session=of-another-user"))

    async with Upstream(baking) as upstream:
        await egress.fetch(upstream.url)
        await egress.fetch(upstream.url)
        assert b"cookie" not in upstream.requests[1].lower()


async def test_a_large_answer_is_cut_and_its_connection_is_not_used_again(egress: Egress) -> None:
    async def large(_head: bytes, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer(b"x" * 5000))

    async with Upstream(large) as upstream:
        for _ in range(2):
            with pytest.raises(UpstreamFault, match="too large"):
                await egress.request("GET", upstream.url, headers={}, body=None, timeout=60, limit=4999)
        assert len((await egress.request("GET", upstream.url, headers={}, body=None, timeout=60, limit=5000)).body) == 5000


async def test_a_small_answer_that_unpacks_to_a_large_one_is_cut(egress: Egress) -> None:
    async def bomb(_head: bytes, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer(gzip.compress(b"\0" * (20 << 20)), "200 OK", "Content-Encoding: gzip"))

    async with Upstream(bomb) as upstream:
        with pytest.raises(UpstreamFault, match="too large"):
            await egress.request("GET", upstream.url, headers={}, body=None, timeout=60, limit=1 << 20)


async def test_a_silent_upstream_ends_in_time(egress: Egress) -> None:
    async with Upstream(_silent) as upstream:
        with pytest.raises(UpstreamFault, match="did not answer in time"):
            await egress.request("GET", upstream.url, headers={}, body=None, timeout=0.05, limit=100)


async def test_a_closed_port_is_a_fault_with_a_safe_text(egress: Egress) -> None:
    async with Upstream(_hello) as upstream:
        url = upstream.url
    with pytest.raises(UpstreamFault) as caught:
        await egress.fetch(url)
    assert caught.value.public == "the upstream can't be reached"


@pytest.mark.parametrize(
    "noise", [b"SSH-2.0-OpenSSH_9.6\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", b"HTTP/1.1 999999 No\r\n\r\n"]
)
async def test_what_is_not_http_is_a_fault(egress: Egress, noise: bytes) -> None:
    async def babble(_head: bytes, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(noise)
        writer.close()

    async with Upstream(babble) as upstream:
        with pytest.raises(UpstreamFault):
            await egress.fetch(upstream.url)


async def test_only_a_repeatable_request_is_tried_again_on_a_connection_that_died(egress: Egress) -> None:
    seen = 0

    async def dying(_head: bytes, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal seen
        seen += 1
        if seen in (2, 4):
            writer.transport.abort()  # as a server does that lets a kept connection go while the next request is under way
        else:
            writer.write(answer(b"ok"))

    async with Upstream(dying) as upstream:
        for body, idempotent in ((b"ok", False), (None, False), (b"ok", False), (b"ok", True)):
            sent = egress.request("POST", upstream.url, headers={}, body=b"{}", timeout=60, limit=100, idempotent=idempotent)
            if body is None:
                with pytest.raises(UpstreamFault):
                    await sent
            else:
                assert (await sent).body == body
    assert seen == 5


async def test_a_header_that_breaks_out_of_its_line_is_never_sent(egress: Egress) -> None:  # attack SSR-04
    async with Upstream(_hello) as upstream:
        with pytest.raises(UpstreamFault):
            await egress.request("GET", upstream.url, headers={"X": "a\r\nY: b"}, body=None, timeout=60, limit=100)
        assert not any(b"Y: b" in request for request in upstream.requests)


async def test_a_stream_arrives_piece_by_piece(egress: Egress) -> None:
    more = asyncio.Event()

    async def dripping(_head: bytes, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Type: text/event-stream\r\n\r\n3\r\none\r\n")
        await more.wait()
        writer.write(b"3\r\ntwo\r\n0\r\n\r\n")

    async with Upstream(dripping) as upstream:
        async with egress.stream("POST", upstream.url, headers={}, body=b"{}", timeout=60) as streamed:
            pieces = []
            async for piece in streamed:
                pieces.append(piece)
                more.set()
        assert (streamed.status, streamed.headers.get("content-type"), b"".join(pieces), len(pieces)) == (
            200,
            "text/event-stream",
            b"onetwo",
            2,
        )


async def test_a_stream_that_breaks_off_is_a_fault(egress: Egress) -> None:
    async def broken(_head: bytes, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n")
        await writer.drain()
        writer.transport.abort()

    async with Upstream(broken) as upstream:
        with pytest.raises(UpstreamFault):
            async with egress.stream("GET", upstream.url, headers={}, body=None, timeout=60) as streamed:
                async for _piece in streamed:
                    pass

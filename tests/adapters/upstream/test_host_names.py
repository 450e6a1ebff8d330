"""Names are looked up side by side: those whose name server hangs hold up nobody else's."""

import asyncio
import socket
from collections.abc import Iterator
from threading import Event
from typing import Any

import pytest

from adapters.upstream.egress import Egress
from adapters.upstream.host_names import SystemResolver
from tests.fakes.upstream import Upstream, answer
from tests.fakes.waiting import until


class Slow:
    """A resolver that hangs on names that begin with `slow`, until the test ends it."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.gate = Event()

    def __call__(self, host: str, port: int) -> list[Any]:
        self.asked.append(host)
        if host.startswith("slow"):
            self.gate.wait()
        if host.startswith("none"):
            raise socket.gaierror(socket.EAI_NONAME, "no such name")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]


@pytest.fixture
def slow() -> Iterator[Slow]:
    made = Slow()
    yield made
    made.gate.set()


async def test_names_that_hang_keep_no_other_name_waiting(slow: Slow) -> None:  # attack AVL-03
    names = SystemResolver(slow)
    hanging = [asyncio.create_task(names(f"slow{number}.example", 443)) for number in range(100)]
    await until(lambda: len(slow.asked) == 100)
    assert await names("fast.example", 443) == ["127.0.0.1"]
    slow.gate.set()
    assert await asyncio.gather(*hanging) == [["127.0.0.1"]] * 100


async def test_a_name_is_looked_up_once_for_all_who_ask_meanwhile(slow: Slow) -> None:
    names = SystemResolver(slow)
    first, second, third = [asyncio.create_task(names("slow.example", 443)) for _ in range(3)]
    await until(lambda: len(slow.asked) == 1)
    first.cancel()
    await asyncio.wait([first])
    slow.gate.set()
    assert await second == await third == ["127.0.0.1"]
    assert slow.asked == ["slow.example"]
    await names("slow.example", 443)
    assert len(slow.asked) == 2


async def test_a_name_without_an_address_is_an_error_each_time(slow: Slow) -> None:
    names = SystemResolver(slow)
    for _ in range(2):
        with pytest.raises(socket.gaierror):
            await names("none.example", 443)
    with pytest.raises(OSError, match=r"[Nn]ame|[Aa]ddress"):
        await SystemResolver()("no-such-name.invalid", 443)


async def test_a_queued_lookup_ends_with_its_last_request(slow: Slow) -> None:  # attack AVL-03
    names = SystemResolver(slow, threads=1)
    running = asyncio.create_task(names("slow.example", 443))
    await until(lambda: slow.asked == ["slow.example"])
    queued = [asyncio.create_task(names(f"slow{number // 2}.example", 443)) for number in range(100)]
    await asyncio.sleep(0)
    for each in queued[1:]:
        each.cancel()
    await asyncio.wait(queued[1:])
    slow.gate.set()
    assert await running == await queued[0] == ["127.0.0.1"]
    assert slow.asked == ["slow.example", "slow0.example"]


async def test_a_full_queue_refuses_new_names_and_serves_again_later(slow: Slow) -> None:  # attack AVL-03
    names = SystemResolver(slow, threads=1, queue=1)
    taken = [asyncio.create_task(names(f"slow{number}.example", 443)) for number in range(2)]
    await until(lambda: bool(slow.asked))
    with pytest.raises(OSError, match="too many host names"):
        await names("fast.example", 443)
    slow.gate.set()
    await asyncio.gather(*taken)
    assert await names("fast.example", 443) == ["127.0.0.1"]


async def test_the_guard_of_requests_uses_it(slow: Slow) -> None:
    async def handler(head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer(b"hello"))

    egress = Egress(["127.0.0.1"], lookup=SystemResolver(slow))
    async with Upstream(handler) as upstream:
        assert (await egress.fetch(upstream.url.replace("127.0.0.1", "fast.example"))).body == b"hello"
    await egress.close()

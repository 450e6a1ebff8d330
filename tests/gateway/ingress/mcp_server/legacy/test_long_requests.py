"""Which requests count as long, and when."""

import asyncio
from collections.abc import Callable

from gateway.ingress.mcp_server.legacy.long_requests import LongRequests

SECONDS = 0.02


class Request:
    """A request, which notes when it has become a long one."""

    def __init__(self, long: list["Request"], then: Callable[[], None] = lambda: None) -> None:
        self._long = long
        self._then = then
        self.seconds = 0.0
        self._began = asyncio.get_running_loop().time()

    def become_long(self) -> None:
        self.seconds = asyncio.get_running_loop().time() - self._began
        self._long.append(self)
        self._then()


async def test_each_request_becomes_long_in_its_own_time_and_in_order() -> None:
    long: list[Request] = []
    ended, requests = asyncio.Event(), LongRequests(SECONDS)
    first = Request(long)
    requests.add(first.become_long)
    second_added = asyncio.Event()
    asyncio.get_running_loop().call_later(SECONDS / 2, second_added.set)
    await second_added.wait()
    second = Request(long, ended.set)
    requests.add(second.become_long)
    await asyncio.wait_for(ended.wait(), 5)
    assert long == [first, second]
    assert min(first.seconds, second.seconds) >= SECONDS - 0.005


async def test_a_request_that_has_ended_does_not_become_long() -> None:
    long: list[Request] = []
    ended, requests = asyncio.Event(), LongRequests(SECONDS)
    short, lasting = Request(long), Request(long, ended.set)
    requests.add(short.become_long)
    requests.add(lasting.become_long)
    requests.remove(short.become_long)
    await asyncio.wait_for(ended.wait(), 5)
    requests.remove(lasting.become_long)  # it was called, which does no harm
    assert long == [lasting]


async def test_a_failure_of_one_request_keeps_no_other_from_becoming_long() -> None:
    def fail() -> None:
        raise ValueError

    failures: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(type(context["exception"]).__name__))
    long: list[Request] = []
    ended, requests = asyncio.Event(), LongRequests(SECONDS)
    requests.add(Request([], fail).become_long)
    last = Request(long, ended.set)
    requests.add(last.become_long)
    await asyncio.wait_for(ended.wait(), 5)
    assert (long, failures) == ([last], ["ValueError"])


async def test_requests_after_a_quiet_time_become_long_too() -> None:
    long: list[Request] = []
    requests = LongRequests(SECONDS)
    for _ in range(2):
        ended = asyncio.Event()
        requests.add(Request(long, ended.set).become_long)
        await asyncio.wait_for(ended.wait(), 5)
    assert len(long) == 2

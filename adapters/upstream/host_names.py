"""Host names, looked up by the system's resolver: a name server that hangs holds up its own names, and no others."""

import asyncio
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from threading import Thread
from typing import Any, Final

THREADS_MAX: Final = 256
Resolve = Callable[[str, int], Sequence[Any]]


def _resolve(host: str, port: int) -> Sequence[Any]:
    return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)


class SystemNames:
    """Looks each name up once at a time, in a thread of its own: the threads that event loops have for this are four to six."""

    def __init__(self, resolve: Resolve = _resolve) -> None:
        """`resolve` is socket.getaddrinfo, or answers like it."""
        self._resolve = resolve
        self._room = asyncio.Semaphore(THREADS_MAX)
        self._under_way: dict[tuple[str, int], asyncio.Task[Sequence[str]]] = {}

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        """The addresses of a name. Raises OSError."""
        key = (host, port)
        looking = self._under_way.get(key)
        if looking is None:
            looking = self._under_way[key] = asyncio.create_task(self._look_up(host, port))
            looking.add_done_callback(lambda done: self._over(key, done))
        return await asyncio.shield(looking)

    async def _look_up(self, host: str, port: int) -> Sequence[str]:
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Sequence[str]] = loop.create_future()
        async with self._room:
            Thread(target=self._run, args=(loop, answer, host, port), daemon=True).start()
            return await answer

    def _run(self, loop: asyncio.AbstractEventLoop, answer: "asyncio.Future[Sequence[str]]", host: str, port: int) -> None:
        """The thread's root."""
        addresses: Sequence[str] | Exception
        try:
            addresses = [str(entry[4][0]) for entry in self._resolve(host, port)]
        except (OSError, ValueError) as error:
            addresses = error
        with suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(_settle, answer, addresses)

    def _over(self, key: tuple[str, int], done: "asyncio.Task[Sequence[str]]") -> None:
        del self._under_way[key]
        if not done.cancelled():
            done.exception()  # nobody may be waiting for it any more


def _settle(answer: "asyncio.Future[Sequence[str]]", addresses: Sequence[str] | Exception) -> None:
    if answer.done():
        return
    if isinstance(addresses, Exception):
        answer.set_exception(addresses)
    else:
        answer.set_result(addresses)

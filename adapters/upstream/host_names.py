"""Resolves host names by the system's resolver, so that a hanging name server delays only its own names."""

import asyncio
import socket
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from threading import Thread
from typing import Any, Final

THREADS_MAX: Final = 256
QUEUE_MAX: Final = 1024  # lookups waiting for a thread
Resolve = Callable[[str, int], Sequence[Any]]


def _resolve(host: str, port: int) -> Sequence[Any]:
    return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)


class SystemResolver:
    """Resolves each name once at a time, in a separate thread: event loops only have four to six threads for this."""

    def __init__(self, resolve: Resolve = _resolve, threads: int = THREADS_MAX, queue: int = QUEUE_MAX) -> None:
        """`resolve` is socket.getaddrinfo, or a function like it. At most `threads` lookups run at once, and at most `queue` wait."""
        self._resolve = resolve
        self._thread_slots = asyncio.Semaphore(threads)
        self._most = threads + queue
        self._in_flight: dict[tuple[str, int], asyncio.Task[Sequence[str]]] = {}
        self._waiters: Counter[tuple[str, int]] = Counter()  # requests that await each lookup
        self._running: set[tuple[str, int]] = set()  # lookups with a thread, which can't be stopped

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        """The addresses of a name. Raises OSError, also when too many other lookups wait.

        A lookup that still waits for a thread is dropped when its last request is canceled.
        """
        key = (host, port)
        looking = self._in_flight.get(key)
        if looking is None:
            if len(self._in_flight) >= self._most:
                raise OSError("too many host names are being looked up")
            looking = self._in_flight[key] = asyncio.create_task(self._look_up(host, port))
            looking.add_done_callback(lambda done: self._remove_lookup(key, done))
        self._waiters[key] += 1
        try:
            return await asyncio.shield(looking)
        finally:
            self._leave(key, looking)

    def _leave(self, key: tuple[str, int], looking: "asyncio.Task[Sequence[str]]") -> None:
        self._waiters[key] -= 1
        if self._waiters[key]:
            return
        del self._waiters[key]
        if key not in self._running and self._in_flight.get(key) is looking:
            del self._in_flight[key]  # a later request begins another lookup
            looking.cancel()

    async def _look_up(self, host: str, port: int) -> Sequence[str]:
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Sequence[str]] = loop.create_future()
        async with self._thread_slots:
            self._running.add((host, port))
            try:
                Thread(target=self._resolve_in_thread, args=(loop, answer, host, port), daemon=True).start()
                return await answer
            finally:
                self._running.discard((host, port))

    def _resolve_in_thread(self, loop: asyncio.AbstractEventLoop, answer: "asyncio.Future[Sequence[str]]", host: str, port: int) -> None:
        """The root of a lookup's thread."""
        addresses: Sequence[str] | Exception
        try:
            addresses = [str(entry[4][0]) for entry in self._resolve(host, port)]
        except (OSError, ValueError) as error:
            addresses = error
        with suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(_complete_lookup, answer, addresses)

    def _remove_lookup(self, key: tuple[str, int], done: "asyncio.Task[Sequence[str]]") -> None:
        if self._in_flight.get(key) is done:
            del self._in_flight[key]
        if not done.cancelled():
            done.exception()  # there may be no waiter left


def _complete_lookup(answer: "asyncio.Future[Sequence[str]]", addresses: Sequence[str] | Exception) -> None:
    if answer.done():
        return
    if isinstance(addresses, Exception):
        answer.set_exception(addresses)
    else:
        answer.set_result(addresses)

"""The end of one process: it says that it is not ready, stops accepting requests, lets work end, and hands over the rest."""

import asyncio
import signal
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from types import FrameType
from typing import Any, Final

import structlog

from gateway.background import run_in_background
from gateway.calls.turns.runner import TurnRunner
from gateway.ingress.http.asgi import Send

SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
ANSWER_SECONDS: Final = 1.0  # for requests to answer by themselves after their turns and calls were handed over
SPARE_SECONDS: Final = 10.0  # after the grace, for answers to be read before the server cuts its connections
Handler = Callable[[int, FrameType | None], Any]
log = structlog.get_logger()


async def take_steps(*steps: Awaitable[object]) -> None:
    """Takes steps of a shutdown at once and waits until all are over. Logs each that fails, so that later steps follow all the same."""
    for outcome in await asyncio.gather(*steps, return_exceptions=True):
        if isinstance(outcome, Exception):
            log.error("stop_step_failed", exc_info=outcome)


@dataclass(frozen=True, slots=True)
class DrainTimes:
    """Seconds: `grace` for work under way, and before that `delay` between the end of readiness and the end of the listener."""

    grace: float
    delay: float


class Drain:
    """Drains one process. It takes signals where `takes_signals` is set before the start.

    `begun`: readiness is off. `closed`: new requests are refused. `end_streams` are called then; they end streams that have no end of
    their own, and get the seconds that other work still has.
    """

    def __init__(self, times: DrainTimes, running: TurnRunner) -> None:
        self._times = times
        self._running = running
        self._requests: set[asyncio.Task[Any]] = set()
        self._cut: set[asyncio.Task[Any]] = set()
        self._deadline = 0.0  # on the event loop's clock
        self._closing: asyncio.TimerHandle | None = None
        self._ending: asyncio.TimerHandle | None = None
        self.takes_signals = False
        self.begun = False
        self.closed = False
        self.end_streams: list[Callable[[float], Awaitable[None]]] = []

    def take_signals(self) -> None:
        """Puts itself before the server's own handlers, which are called once requests are refused."""
        if not self.takes_signals:
            return
        loop = asyncio.get_running_loop()
        for number in SIGNALS:
            server = signal.getsignal(number)
            if not callable(server):
                continue

            def handle(number: int, frame: FrameType | None, server: Handler = server) -> None:
                loop.call_soon_threadsafe(self._handle_signal, number, server)

            signal.signal(number, handle)

    def begin(self, then: Callable[[], None], delay: float | None = None) -> None:
        """Turns readiness off, and after `delay` seconds refuses requests and calls `then`, which closes the listener."""
        self.begun = True
        seconds = self._times.delay if delay is None else delay
        log.info("drain_begun", delay=seconds, grace=self._times.grace, requests=len(self._requests), turns=self._running.in_flight_count)
        self._closing = asyncio.get_running_loop().call_later(seconds, self._close, then)

    def until_begun(self, act: Callable[[], Awaitable[int]]) -> Callable[[], Awaitable[int]]:
        """The act, which does nothing from the begin of the drain on: a process that is about to end takes up no turns."""

        async def act_until_begun() -> int:
            return 0 if self.begun else await act()

        return act_until_begun

    def enter(self) -> asyncio.Task[Any]:
        """Notes the current task as a request under way."""
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a request is answered in a task")
        self._requests.add(task)
        return task

    def leave(self, task: asyncio.Task[Any]) -> None:
        self._requests.discard(task)
        self._cut.discard(task)

    def has_cut(self, task: asyncio.Task[Any]) -> bool:
        """Whether a CancelledError in this request came from here; if so, it is dealt with."""
        if task not in self._cut:
            return False
        task.uncancel()
        return True

    async def finish(self) -> None:
        """Waits until no turn is under way, or the grace is over; hands over what is left. Returns at once where no drain was begun."""
        if not self.closed:
            return
        await self._running.wait_until_idle(self._deadline)
        self._hand_over()
        if self._ending is not None:
            self._ending.cancel()

    def _handle_signal(self, number: int, server: Handler) -> None:
        """The first signal begins the drain, without a delay for SIGINT, which comes from a terminal. A second one ends the delay.

        The server gets later signals itself.
        """
        if self.closed:
            server(number, None)
        elif self._closing is None:
            self.begin(lambda: server(number, None), 0.0 if number == signal.SIGINT else None)
        else:
            self._closing.cancel()
            self._close(lambda: server(number, None))

    def _close(self, then: Callable[[], None]) -> None:
        loop, grace = asyncio.get_running_loop(), self._times.grace
        self.closed = True
        self._deadline = loop.time() + grace
        self._ending = loop.call_at(self._deadline, self._end)
        for end in self.end_streams:
            run_in_background(_end_stream(end, grace), "drain_stream_not_ended")
        then()

    def _end(self) -> None:
        self._hand_over()
        self._ending = asyncio.get_running_loop().call_later(ANSWER_SECONDS, self._cut_requests)

    def _hand_over(self) -> None:
        count = self._running.hand_over()
        if count:
            log.warning("drain_handed_over", count=count)

    def _cut_requests(self) -> None:
        """Ends requests that do not answer by themselves, such as streams of tasks that go on elsewhere."""
        if self._requests:
            log.info("drain_cut", requests=len(self._requests))
        for task in self._requests:
            self._cut.add(task)
            task.cancel()


async def _end_stream(end: Callable[[float], Awaitable[None]], seconds: float) -> None:
    await end(seconds)


def with_connection_close(send: Send) -> Send:
    """Tells the client of each answer that its connection is not used again."""

    async def send_with_close(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message["headers"], (b"connection", b"close")]}
        await send(message)

    return send_with_close

"""The end of one process: readiness turns off, new requests are refused, work ends, and the rest is handed over.

`Lifecycle` runs the steps that the parts of the process add to its start and its end.
"""

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable, Coroutine, MutableMapping
from dataclasses import dataclass
from types import FrameType
from typing import Any, Final

import structlog

from gateway.calls.limits.open_streams import OpenStreams
from gateway.calls.turns.runner import TurnRunner
from gateway.concurrency.background import run_in_background
from gateway.ingress.http.asgi import Send

SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
ANSWER_SECONDS: Final = 1.0  # how long requests may still answer after their turns and calls were handed over
LATE_SECONDS: Final = 0.25  # how long requests are served on connections that the listener accepted last: the server needs 0.1
SPARE_SECONDS: Final = 10.0  # after the grace, so that clients read answers before the server closes connections
Handler = Callable[[int, FrameType | None], Any]
Step = Callable[[], Coroutine[Any, Any, None]]
log = structlog.get_logger()


async def take_steps(*steps: Awaitable[object]) -> None:
    """Runs steps of a shutdown concurrently and waits for all. Logs each failure, so that later steps still run."""
    for outcome in await asyncio.gather(*steps, return_exceptions=True):
        if isinstance(outcome, Exception):
            log.error("stop_step_failed", exc_info=outcome)


class Lifecycle:
    """The steps that the parts of one process add to its start, its drain and its stop. They may be added at any time before."""

    def __init__(self) -> None:
        self._start_steps: list[Step] = []
        self._drain_steps: list[Callable[[float], Coroutine[Any, Any, None]]] = []
        self._stop_steps: list[Step] = []
        self._last_steps: list[Step] = []
        self._starting: list[asyncio.Task[None]] = []

    def on_start(self, step: Step) -> None:
        """Adds a step that runs in the background once the process has started. The stop waits for its end."""
        self._start_steps.append(step)

    def on_drain(self, step: Callable[[float], Coroutine[Any, Any, None]]) -> None:
        """Adds a step that ends streams which would not end, when new requests are refused. It gets the grace in seconds."""
        self._drain_steps.append(step)

    def on_stop(self, step: Step, *, after_turns: bool = False) -> None:
        """Adds a step that closes a part, before the turns end: protocol servers; or after: connections to agents."""
        (self._last_steps if after_turns else self._stop_steps).append(step)

    def start(self) -> None:
        self._starting += [asyncio.create_task(step()) for step in self._start_steps]

    async def wait_until_started(self) -> None:
        """Waits for the steps of the start, and logs their failures."""
        await take_steps(*self._starting)

    def drain(self, grace: float) -> None:
        for step in self._drain_steps:
            run_in_background(step(grace), "drain_stream_not_ended")

    async def stop(self) -> None:
        """Closes the parts that close before the turns end."""
        await take_steps(*(step() for step in self._stop_steps))

    async def stop_after_turns(self) -> None:
        await take_steps(*(step() for step in self._last_steps))


@dataclass(frozen=True, slots=True)
class DrainTimes:
    """Seconds: `grace` for work in flight, and `delay` between the end of readiness and the end of the listener."""

    grace: float
    delay: float


class Drain:
    """Drains one process.

    `begun`: readiness is off. `closed`: the listener closes. `refuses`: a moment later, new requests are refused and `lifecycle` ends
    streams.
    """

    def __init__(
        self, times: DrainTimes, running: TurnRunner, lifecycle: Lifecycle, streams: OpenStreams, *, takes_signals: bool = False
    ) -> None:
        """`takes_signals`: the drain handles SIGTERM and SIGINT."""
        self._times = times
        self._running = running
        self._lifecycle = lifecycle
        self._streams = streams
        self._takes_signals = takes_signals
        self._requests: set[asyncio.Task[Any]] = set()
        self._canceled: set[asyncio.Task[Any]] = set()
        self._deadline = 0.0  # by the event loop's clock
        self._closing: asyncio.TimerHandle | None = None
        self._ending: asyncio.TimerHandle | None = None
        self._began = 0.0  # by the monotonic clock
        self.begun = False
        self.closed = False
        self.refuses = False

    def take_signals(self) -> None:
        """Installs handlers before the server's own, which are called once the listener closes."""
        if not self._takes_signals:
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
        """Turns readiness off, and after `delay` seconds calls `then`, which closes the listener, and then refuses requests."""
        self.begun, self._began = True, time.monotonic()
        seconds = self._times.delay if delay is None else delay
        log.info("drain_begun", delay=seconds, grace=self._times.grace, requests=len(self._requests), turns=self._running.in_flight_count)
        self._closing = asyncio.get_running_loop().call_later(seconds, self._close, then)

    @property
    def seconds(self) -> float:
        """How long the drain has lasted; 0 before it begins."""
        return time.monotonic() - self._began if self.begun else 0.0

    def until_begun(self, act: Callable[[], Awaitable[int]]) -> Callable[[], Awaitable[int]]:
        """Wraps `act` so that it does nothing once the drain has begun, since an ending process must not resume turns."""

        async def act_until_begun() -> int:
            return 0 if self.begun else await act()

        return act_until_begun

    def enter(self) -> asyncio.Task[Any]:
        """Registers the current task as a request in flight."""
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a request must run in a task")
        self._requests.add(task)
        return task

    def leave(self, task: asyncio.Task[Any]) -> None:
        self._requests.discard(task)
        self._canceled.discard(task)

    def has_cut(self, task: asyncio.Task[Any]) -> bool:
        """Returns whether the drain caused a CancelledError in this request, and clears the cancellation."""
        if task not in self._canceled:
            return False
        task.uncancel()
        return True

    async def finish(self) -> None:
        """Waits until no turn is in flight or the grace is over, then hands over the rest. Returns at once without a drain."""
        if not self.closed:
            return
        await self._running.wait_until_idle(self._deadline)
        self._hand_over()
        if self._ending is not None:
            self._ending.cancel()

    def _handle_signal(self, number: int, server: Handler) -> None:
        """Handles a signal. The first one begins the drain, for SIGINT without delay. The second one ends the delay.

        The server itself handles later signals.
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
        then()
        loop.call_later(LATE_SECONDS, self._refuse)

    def _refuse(self) -> None:
        self.refuses = True
        self._cut(self._streams.close_endless() & self._requests)
        self._lifecycle.drain(max(0.0, self._deadline - asyncio.get_running_loop().time()))  # what is left of the grace

    def _end(self) -> None:
        self._hand_over()
        self._ending = asyncio.get_running_loop().call_later(ANSWER_SECONDS, self._cut_requests)

    def _hand_over(self) -> None:
        count = self._running.hand_over()
        if count:
            log.warning("drain_handed_over", count=count)

    def _cut_requests(self) -> None:
        """Cancels requests that did not answer, such as streams of tasks that continue elsewhere."""
        if self._requests:
            log.info("drain_requests_canceled", requests=len(self._requests))
        self._cut(self._requests)

    def _cut(self, requests: set[asyncio.Task[Any]]) -> None:
        for task in requests - self._canceled:
            self._canceled.add(task)
            task.cancel()


def with_connection_close(send: Send) -> Send:
    """Adds `Connection: close` to each answer, so that clients open a new connection."""

    async def send_with_close(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message["headers"], (b"connection", b"close")]}
        await send(message)

    return send_with_close

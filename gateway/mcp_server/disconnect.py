"""A client that leaves while it waits: with 2026-07-28 that cancels its request (Streamable HTTP, Cancellation)."""

import asyncio

from gateway.asgi import Receive, left

PATIENCE_SECONDS = 0.25  # a request that is answered sooner is not watched at all


class ClientLeft(Exception):
    """Nobody waits for the answer any more."""


class Disconnect:
    """Cancels the current task when the client leaves, once that takes longer than a moment."""

    __slots__ = ("_receive", "_task", "_timer", "_watching", "happened")

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._task = asyncio.current_task()
        self._watching: asyncio.Task[None] | None = None
        self._timer = asyncio.get_running_loop().call_later(PATIENCE_SECONDS, self._begin)
        self.happened = False

    def tell(self) -> None:
        """To be called on CancelledError: raises ClientLeft where it is the client's doing."""
        if self.happened and self._task is not None and not self._task.uncancel():
            raise ClientLeft

    def end(self) -> None:
        self._timer.cancel()
        if self._watching is not None:
            self._watching.cancel()

    def _begin(self) -> None:
        self._watching = asyncio.create_task(self._watch())

    async def _watch(self) -> None:
        await left(self._receive)
        if self._task is not None:
            self.happened = True
            self._task.cancel()

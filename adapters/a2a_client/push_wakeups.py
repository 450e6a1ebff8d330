"""Doorbells: an agent that was asked to push rings, and the turn that waits for it asks for the task at once."""

import asyncio
import hashlib
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Bell:
    """Of one turn. `url` is known to the gateway and the agent only, and works as long as the turn waits."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._rung = asyncio.Event()

    def ring(self) -> None:
        self._rung.set()

    async def pause(self, seconds: float) -> None:
        """Until it is rung, or was since the last pause, and at most so long."""
        try:
            async with asyncio.timeout(seconds):
                await self._rung.wait()
        except TimeoutError:
            return
        self._rung.clear()


class Doorbells:
    """Those of this process. A ring that reaches another one finds nobody: what it tells is then asked for a little later."""

    def __init__(self, public_url: str, draw: Callable[[], str] = lambda: secrets.token_urlsafe(32)) -> None:
        self._public_url = public_url
        self._draw = draw
        self._bells: dict[tuple[str, bytes], Bell] = {}

    @contextmanager
    def hang(self, agent: str) -> Iterator[Bell]:
        """A bell for `agent` alone."""
        secret = self._draw()
        key = (agent, _digest(secret))
        bell = self._bells[key] = Bell(f"{self._public_url}/agents/{agent}/notifications/{secret}")
        try:
            yield bell
        finally:
            del self._bells[key]

    def find(self, agent: str, secret: str) -> Bell | None:
        """By digest, so that no comparison tells how close a guess was."""
        return self._bells.get((agent, _digest(secret)))


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()

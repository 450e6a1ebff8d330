"""Doorbells: an agent that was asked to push rings, and the turn that waits for it asks for the task at once."""

import asyncio
import hashlib
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class PushWakeup:
    """Of one turn. `url` is known to the gateway and the agent only, and works as long as the turn waits."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._woken = asyncio.Event()

    def wake(self) -> None:
        self._woken.set()

    async def wait(self, seconds: float) -> None:
        """Until it is rung, or was since the last pause, and at most so long."""
        try:
            async with asyncio.timeout(seconds):
                await self._woken.wait()
        except TimeoutError:
            return
        self._woken.clear()


class PushWakeups:
    """Those of this process. A ring that reaches another one finds nobody: what it tells is then asked for a little later."""

    def __init__(self, public_url: str, new_secret: Callable[[], str] = lambda: secrets.token_urlsafe(32)) -> None:
        self._public_url = public_url
        self._new_secret = new_secret
        self._wakeups: dict[tuple[str, bytes], PushWakeup] = {}

    @contextmanager
    def register(self, agent: str) -> Iterator[PushWakeup]:
        """A bell for `agent` alone."""
        secret = self._new_secret()
        key = (agent, _digest(secret))
        bell = self._wakeups[key] = PushWakeup(f"{self._public_url}/agents/{agent}/notifications/{secret}")
        try:
            yield bell
        finally:
            del self._wakeups[key]

    def find(self, agent: str, secret: str) -> PushWakeup | None:
        """By digest, so that no comparison tells how close a guess was."""
        return self._wakeups.get((agent, _digest(secret)))


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()

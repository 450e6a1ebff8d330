"""Wakeups by push: when an agent pushes to a turn's URL, the turn polls its task at once."""

import asyncio
import hashlib
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class PushWakeup:
    """The wakeup of one turn. Only the gateway and the agent know `url`, which is valid while the turn waits."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._woken = asyncio.Event()

    def wake(self) -> None:
        self._woken.set()

    async def wait(self, seconds: float) -> None:
        """Waits until the agent pushes, or has pushed since the last wait, at most `seconds`."""
        try:
            async with asyncio.timeout(seconds):
                await self._woken.wait()
        except TimeoutError:
            return
        self._woken.clear()


class PushWakeups:
    """The wakeups of this process. A push that reaches another process is ignored: polling finds the change a little later."""

    def __init__(self, public_url: str, new_secret: Callable[[], str] = lambda: secrets.token_urlsafe(32)) -> None:
        self._public_url = public_url
        self._new_secret = new_secret
        self._wakeups: dict[tuple[str, bytes], PushWakeup] = {}

    @contextmanager
    def register(self, agent: str) -> Iterator[PushWakeup]:
        """Registers a wakeup for `agent` only."""
        secret = self._new_secret()
        key = (agent, _digest(secret))
        wakeup = self._wakeups[key] = PushWakeup(f"{self._public_url}/agents/{agent}/notifications/{secret}")
        try:
            yield wakeup
        finally:
            del self._wakeups[key]

    def find(self, agent: str, secret: str) -> PushWakeup | None:
        """Finds a wakeup by the digest of its secret, so that no comparison leaks how close a guess was."""
        return self._wakeups.get((agent, _digest(secret)))


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()

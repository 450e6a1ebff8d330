"""Which subscriptions of an older client's stream hold, as far as the servers have answered, for requests that wait for that."""

import asyncio
from collections.abc import Callable, Iterable, Mapping

HOLD_SECONDS = 10.0  # for which an acknowledgement waits for a server
Publish = Callable[[Mapping[str, bool]], None]


class Holding:
    """Of one stream. A URI is known when its server has said whether it tells of its changes. `publish` tells other processes."""

    def __init__(self, publish: Publish = lambda _: None) -> None:
        self.asked = asyncio.Event()  # set when what is wanted has changed
        self._publish = publish
        self._known: dict[str, bool] = {}
        self._moved = asyncio.Event()

    def settle(self, uris: Iterable[str], held: Iterable[str]) -> None:
        """The server of these resources has answered: it tells of those that are `held`."""
        taken = frozenset(held)
        self._change({**self._known, **{uri: uri in taken for uri in uris}})

    def keep(self, uris: Iterable[str]) -> None:
        """Forgets all resources but these."""
        wanted = frozenset(uris)
        self._change({uri: held for uri, held in self._known.items() if uri in wanted})

    async def known(self, uris: Iterable[str], seconds: float = HOLD_SECONDS) -> Mapping[str, bool]:
        """Whether each holds, when all of them are known or the time is over; without those that are not known."""
        wanted = frozenset(uris)
        try:
            async with asyncio.timeout(seconds):
                while not wanted <= self._known.keys():
                    self._moved.clear()
                    await self._moved.wait()
        except TimeoutError:
            pass
        return {uri: held for uri, held in self._known.items() if uri in wanted}

    async def gone(self, uri: str, seconds: float = HOLD_SECONDS) -> None:
        """Returns when a resource is followed no more, or the time is over."""
        try:
            async with asyncio.timeout(seconds):
                while uri in self._known:
                    self._moved.clear()
                    await self._moved.wait()
        except TimeoutError:
            return

    def _change(self, known: dict[str, bool]) -> None:
        if known != self._known:
            self._known = known
            self._publish(known)
            self._moved.set()

"""Which subscriptions of an older client's stream hold, as far as the servers have answered, for requests that wait for that."""

import asyncio
from collections.abc import Callable, Iterable, Mapping

CONFIRM_SECONDS = 10.0  # for which an acknowledgement waits for a server
Publish = Callable[[Mapping[str, bool]], None]


class Confirmations:
    """Of one stream. A URI is known when its server has said whether it tells of its changes. `publish` tells other processes."""

    def __init__(self, publish: Publish = lambda _: None) -> None:
        self.interest_changed = asyncio.Event()  # set when what is wanted has changed
        self._publish = publish
        self._confirmed: dict[str, bool] = {}
        self._updated = asyncio.Event()

    def confirm(self, uris: Iterable[str], confirmed: Iterable[str]) -> None:
        """The server of these resources has answered: it tells of those that are `held`."""
        taken = frozenset(confirmed)
        self._update({**self._confirmed, **{uri: uri in taken for uri in uris}})

    def retain(self, uris: Iterable[str]) -> None:
        """Forgets all resources but these."""
        wanted = frozenset(uris)
        self._update({uri: held for uri, held in self._confirmed.items() if uri in wanted})

    async def wait_until_known(self, uris: Iterable[str], seconds: float = CONFIRM_SECONDS) -> Mapping[str, bool]:
        """Whether each holds, when all of them are known or the time is over; without those that are not known."""
        wanted = frozenset(uris)
        try:
            async with asyncio.timeout(seconds):
                while not wanted <= self._confirmed.keys():
                    self._updated.clear()
                    await self._updated.wait()
        except TimeoutError:
            pass
        return {uri: held for uri, held in self._confirmed.items() if uri in wanted}

    async def wait_until_gone(self, uri: str, seconds: float = CONFIRM_SECONDS) -> None:
        """Returns when a resource is followed no more, or the time is over."""
        try:
            async with asyncio.timeout(seconds):
                while uri in self._confirmed:
                    self._updated.clear()
                    await self._updated.wait()
        except TimeoutError:
            return

    def _update(self, confirmed: dict[str, bool]) -> None:
        if confirmed != self._confirmed:
            self._confirmed = confirmed
            self._publish(confirmed)
            self._updated.set()

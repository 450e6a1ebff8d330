"""The subscriptions of a legacy client's stream that servers have confirmed or refused."""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress

CONFIRM_SECONDS = 10.0  # how long an acknowledgement waits for a server
Publish = Callable[[Mapping[str, bool]], None]


class Confirmations:
    """The confirmations of one stream.

    A URI is known once its server has accepted or refused the subscription. `publish` reports changes to other processes.
    """

    def __init__(self, publish: Publish = lambda _: None) -> None:
        self.interest_changed = asyncio.Event()  # set when the client's interest has changed
        self.lists_read = asyncio.Event()  # set when each later change of a list will be noticed
        self._publish = publish
        self._confirmed: dict[str, bool] = {}
        self._updated = asyncio.Event()

    def confirm(self, uris: Iterable[str], confirmed: Iterable[str]) -> None:
        """Records a server's answer for these resources: those in `confirmed` are subscribed, the others refused."""
        taken = frozenset(confirmed)
        self._update({**self._confirmed, **{uri: uri in taken for uri in uris}})

    def retain(self, uris: Iterable[str]) -> None:
        """Removes all resources but these."""
        wanted = frozenset(uris)
        self._update({uri: held for uri, held in self._confirmed.items() if uri in wanted})

    async def wait_until_known(self, uris: Iterable[str], seconds: float = CONFIRM_SECONDS) -> Mapping[str, bool]:
        """Returns whether each resource is subscribed, once all are known or the time is over. Unknown ones are left out."""
        wanted = frozenset(uris)
        try:
            async with asyncio.timeout(seconds):
                while not wanted <= self._confirmed.keys():
                    self._updated.clear()
                    await self._updated.wait()
        except TimeoutError:
            pass
        return {uri: held for uri, held in self._confirmed.items() if uri in wanted}

    async def wait_until_lists_read(self, seconds: float = CONFIRM_SECONDS) -> None:
        """Returns when later changes of lists will be noticed, or the time is over."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.lists_read.wait()

    async def wait_until_gone(self, uri: str, seconds: float = CONFIRM_SECONDS) -> None:
        """Returns when the resource is not followed any more, or the time is over."""
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

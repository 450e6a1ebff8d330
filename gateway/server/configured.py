"""Plants what the configuration file names: at start without waiting long for anybody, and again until everything is there."""

import asyncio
from collections.abc import Iterable
from typing import Any

from gateway.background import let_go
from registry.cards.card import Endpoint
from registry.seeds import AgentSeed, Seed, Seeds, ServerSeed, VirtualSeed
from registry.virtual.selection import Selection

AGAIN_SECONDS = 2.0


def seeds_of(agents: Iterable[Any], servers: Iterable[Any], virtual: Iterable[Any] = ()) -> list[Seed]:
    """What to plant for the entries `agents`, `servers` and `virtual` of the configuration file (gateway/server/settings.py)."""
    return [
        *(
            AgentSeed(
                name=each.name,
                url=each.url,
                card=each.card,
                kind=each.kind,
                ceiling=tuple(each.ceiling),
                delegation=each.delegation,
                upstream=each.upstream,
                trusted_keys=tuple(each.trusted_keys),
                rank=each.rank,
                clearance=each.clearance,
                contracts=each.contracts,
                context=each.context,
                endpoints=tuple(Endpoint(one.url, one.weight) for one in each.endpoints),
            )
            for each in agents
        ),
        *(
            ServerSeed(
                name=each.name,
                url=each.url,
                command=each.command,
                args=tuple(each.args),
                env=each.env,
                ceiling=tuple(each.ceiling),
                upstream=each.upstream,
                openapi=each.openapi,
                sensitivity=each.sensitivity,
                clearance=each.clearance,
                sensitivities=each.sensitivities,
            )
            for each in servers
        ),
        *(VirtualSeed(each.name, Selection.of(each.model_dump())) for each in virtual),
    ]


class Planting:
    """Retries each entry that could not be reached, whatever becomes of the others."""

    def __init__(self, seeds: Seeds, wanted: Iterable[Seed]) -> None:
        self._seeds = seeds
        self._left = dict(enumerate(wanted))
        self._trying: dict[int, asyncio.Task[None]] = {}

    async def begin(self) -> None:
        """The first round; a silent host delays the start for two seconds at most."""
        await self.round()
        if self._trying:
            await asyncio.wait(list(self._trying.values()), timeout=AGAIN_SECONDS)

    async def round(self) -> None:
        """Begins a try at each that is left and is not being tried; does not wait for any."""
        for number, seed in self._left.items():
            if number not in self._trying:
                self._trying[number] = let_go(self._try(number, seed), "seed_broke", name=seed.name)

    async def close(self) -> None:
        """Gives up on tries under way."""
        trying = list(self._trying.values())
        for each in trying:
            each.cancel()
        await asyncio.gather(*trying, return_exceptions=True)

    async def _try(self, number: int, seed: Seed) -> None:
        try:
            if await self._seeds.plant(seed):
                del self._left[number]
        finally:
            del self._trying[number]

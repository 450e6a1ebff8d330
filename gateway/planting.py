"""Plants what the configuration file names: at start without waiting long for anybody, and again until everything is there."""

import asyncio
from collections.abc import Iterable
from typing import Any

from registry.card import Endpoint
from registry.seeds import AgentSeed, Seed, Seeds, ServerSeed, VirtualSeed
from registry.selection import Selection

AGAIN_SECONDS = 2.0


def seeds_of(agents: Iterable[Any], servers: Iterable[Any], virtual: Iterable[Any] = ()) -> list[Seed]:
    """What to plant for the entries `agents`, `servers` and `virtual` of the configuration file (gateway/settings.py)."""
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
    """What can't be reached yet is tried again by each round."""

    def __init__(self, seeds: Seeds, wanted: Iterable[Seed]) -> None:
        self._seeds = seeds
        self._left = list(wanted)
        self._busy = asyncio.Lock()

    async def begin(self) -> None:
        """The first round; a silent host delays the start for two seconds at most."""
        self._first = asyncio.create_task(self.round())
        await asyncio.wait([self._first], timeout=AGAIN_SECONDS)

    async def round(self) -> None:
        """One try at all that is left, unless one is under way."""
        if self._busy.locked():
            return
        async with self._busy:
            done = await asyncio.gather(*(self._seeds.plant(seed) for seed in self._left))
            self._left = [seed for seed, planted in zip(self._left, done, strict=True) if not planted]

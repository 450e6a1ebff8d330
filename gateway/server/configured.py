"""Registers the entries of the configuration file at start, and retries those that were unreachable."""

import asyncio
from collections.abc import Iterable
from typing import Any

from gateway.concurrency.background import run_in_background
from registry.cards.card import AgentEndpoint
from registry.cards.effects import parse_effects
from registry.cards.prices import ANY_CALL, parse_prices
from registry.seeds import ConfiguredAgent, ConfiguredEntry, ConfiguredEntryRegistrar, ConfiguredServer, ConfiguredVirtualServer
from registry.virtual.selection import Selection

RETRY_SECONDS = 2.0  # between two attempts for an unreachable entry


def build_configured_entries(agents: Iterable[Any], servers: Iterable[Any], virtual: Iterable[Any] = ()) -> list[ConfiguredEntry]:
    """Returns what to register for the entries `agents`, `servers` and `virtual` of the configuration file (gateway/server/settings.py)."""
    return [
        *(
            ConfiguredAgent(
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
                endpoints=tuple(AgentEndpoint(one.url, one.weight) for one in each.endpoints),
                effects=parse_effects(each.effects),
                prices={} if each.price is None else parse_prices({ANY_CALL: each.price}),
                memory=each.memory,
            )
            for each in agents
        ),
        *(
            ConfiguredServer(
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
                model_free=tuple(each.model_free),
                effects=parse_effects(each.effects),
                prices=parse_prices(each.prices),
            )
            for each in servers
        ),
        *(ConfiguredVirtualServer(each.name, Selection.from_document(each.model_dump())) for each in virtual),
    ]


class ConfiguredEntries:
    """Retries each entry that could not be reached, independently of the others."""

    def __init__(self, seeds: ConfiguredEntryRegistrar, entries: Iterable[ConfiguredEntry], *, start_seconds: float) -> None:
        """`start_seconds`: by which unreachable hosts may delay the start."""
        self._seeds = seeds
        self._start_seconds = start_seconds
        self._unregistered = dict(enumerate(entries))
        self._attempts: dict[int, asyncio.Task[None]] = {}

    async def start(self) -> None:
        """Makes the first attempts, and waits for them for a moment."""
        await self.run_once()
        if self._attempts:
            await asyncio.wait(list(self._attempts.values()), timeout=self._start_seconds)

    async def run_once(self) -> None:
        """Starts an attempt for each unregistered entry without one, and waits for none."""
        for number, seed in self._unregistered.items():
            if number not in self._attempts:
                self._attempts[number] = run_in_background(self._register(number, seed), "configured_entry_failed", name=seed.name)

    async def close(self) -> None:
        """Cancels the attempts in progress."""
        trying = list(self._attempts.values())
        for each in trying:
            each.cancel()
        await asyncio.gather(*trying, return_exceptions=True)

    async def _register(self, number: int, seed: ConfiguredEntry) -> None:
        try:
            if await self._seeds.register(seed):
                del self._unregistered[number]
        finally:
            del self._attempts[number]

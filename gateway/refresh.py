"""Looks at registered agents and servers again: by order, and every minute for agents. Who changed is held back, who is gone is down."""

import asyncio
from dataclasses import replace

import structlog

from adapters.contract import UpstreamFault
from adapters.egress import EgressRefused
from gateway.card_source import Unverified
from gateway.offers import BadRequest
from gateway.onboarding import Onboarding
from registry.card import BadCard, Family, Registration, Status
from registry.health import Health, Key, Probes
from registry.renewal import Renewal
from registry.store import Outdated, Registry, UnknownName

ROUND_SECONDS = 5.0  # how often it is asked whose time has come; see registry/health.py for how often that is
AT_ONCE = 16  # looks of one process at a time
WATCHED = (Status.ACTIVE, Status.DOWN, Status.QUARANTINED)
log = structlog.get_logger()


class Refresh:
    """Nothing is called for the first time here: entries that wait for an operator are left alone by the rounds."""

    def __init__(self, registry: Registry, onboarding: Onboarding, renewal: Renewal, probes: Probes) -> None:
        self._registry = registry
        self._onboarding = onboarding
        self._renewal = renewal
        self._probes = probes

    async def agent(self, entry: Registration) -> Registration:
        """The agent after a look at its card. Raises BadRequest, BadCard and UpstreamFault when there is no card to look at."""
        key = (entry.tenant, entry.name)
        known = await self._probes.health(key)
        try:
            found, health = await self._onboarding.look(entry, known)
        except Unverified as error:
            log.warning("card_refused", agent=entry.name, tenant=entry.tenant, why=str(error))
            await self._probes.seen(key, Health())
            return await self._renewal.refuse(entry, error.text, str(error))
        except (BadRequest, BadCard, UpstreamFault, EgressRefused) as error:
            await self._missed(entry, await self._probes.missed(key, str(error)))
            raise
        taken = await self._renewal.take(entry, found)
        await self._probes.seen(key, health)
        if taken.status is Status.QUARANTINED and entry.status is not Status.QUARANTINED:
            log.warning("card_changed", agent=entry.name, tenant=entry.tenant)
        if taken.status is Status.DOWN:
            taken = await self._registry.update(replace(taken, status=Status.ACTIVE))
        return taken

    async def recheck(self, entry: Registration) -> Registration:
        """The agent after a look at the card that is in force, as after a change of the keys that have to sign it.

        Raises UpstreamFault when the keys of a trusted origin can't be had.
        """
        try:
            found, _ = await self._onboarding.look(entry, Health(), fetch=False)
        except Unverified as error:
            return await self._renewal.refuse(entry, error.text, str(error))
        return await self._renewal.take(entry, found)

    async def health(self, entry: Registration) -> Health:
        return await self._probes.health((entry.tenant, entry.name))

    async def server(self, entry: Registration) -> Registration:
        """The server with the tools that it has now. Raises BadRequest and UpstreamFault."""
        found = await self._onboarding.tools(entry)
        taken = await self._renewal.take(entry, found, trusted=True)
        if taken.status is Status.DOWN:
            taken = await self._registry.update(replace(taken, status=Status.ACTIVE))
        return taken

    async def round(self) -> None:
        """One look at every agent whose time has come; processes share them."""
        agents = {(entry.tenant, entry.name): entry for tenant in self._registry.tenants() for entry in self._watched(tenant)}
        due = await self._probes.due(list(agents), AT_ONCE) if agents else []
        await asyncio.gather(*(self._looked(agents[key], key) for key in due))

    def _watched(self, tenant: str) -> list[Registration]:
        agents = self._registry.list(tenant, Family.AGENT)
        return [entry for entry in agents if entry.status in WATCHED and entry.card is not None]

    async def _looked(self, entry: Registration, key: Key) -> None:
        try:
            await self.agent(entry)
        except (BadRequest, BadCard, UpstreamFault, EgressRefused) as error:
            log.info("agent_missed", agent=key[1], tenant=key[0], why=str(error))
        except (Outdated, UnknownName):
            log.debug("agent_changed_meanwhile", agent=key[1], tenant=key[0])

    async def _missed(self, entry: Registration, health: Health) -> None:
        if health.down and entry.status is Status.ACTIVE:
            log.warning("agent_down", agent=entry.name, tenant=entry.tenant, why=health.note)
            await self._registry.update(replace(entry, status=Status.DOWN))

"""Looks at registered agents and servers again: by order, and every minute. What changed is held back, who is gone is down."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import structlog

from adapters.contract import UpstreamFault
from adapters.upstream.egress import EgressRefused
from gateway.background import let_go
from gateway.registration.card_source import Unverified
from gateway.registration.onboarding import Onboarding
from gateway.registration.requests import BadRequest
from policies.delegation.rulings import Grant
from registry.cards.card import BadCard, Family, Registration, Status
from registry.changes import LOOK, Deed
from registry.drift.pins import waiting
from registry.drift.renewal import Renewal
from registry.health.checks import Health, Key, Probes
from registry.health.reachability import Absences
from registry.store import Outdated, Registry, UnknownName

ROUND_SECONDS = 5.0  # how often it is asked whose time has come; see registry/health/checks.py for how often that is
AT_ONCE = 16  # looks of one process at a time
ASKED_SECONDS = 0.5  # how often it is asked who is down and was asked for
ASKED_LOOK_SECONDS = 5.0  # for one look at one of them, which nobody else waits for
ASKED_AT_ONCE = 64
WATCHED = (Status.ACTIVE, Status.DOWN, Status.QUARANTINED)
SERVICE = {"account": "service"}
log = structlog.get_logger()


class _Sayings(NamedTuple):
    """What the log calls what becomes of a look."""

    missed: str
    overtaken: str
    down: str


SAYINGS = {
    Family.AGENT: _Sayings("agent_missed", "agent_changed_meanwhile", "agent_down"),
    Family.SERVER: _Sayings("server_missed", "server_changed_meanwhile", "server_down"),
}


class Refresh:
    """Nothing is called for the first time here: entries that wait for an operator are left alone by the rounds."""

    def __init__(
        self, registry: Registry, onboarding: Onboarding, renewal: Renewal, probes: Probes, absences: Absences | None = None
    ) -> None:
        self._registry = registry
        self._onboarding = onboarding
        self._renewal = renewal
        self._probes = probes
        self.absences = absences or Absences(time.monotonic)
        self._looks: dict[Key, asyncio.Task[None]] = {}  # at those that were asked for

    async def agent(self, entry: Registration, deed: Deed = LOOK) -> Registration:
        """The agent after a look at its card. Raises BadRequest, BadCard and UpstreamFault when there is no card to look at."""
        key = (entry.tenant, entry.name)
        known = await self._probes.health(key)
        try:
            found, health = await self._onboarding.look(entry, known)
        except Unverified as error:
            log.warning("card_refused", agent=entry.name, tenant=entry.tenant, why=str(error))
            await self._probes.seen(key, Health())
            return await self._renewal.refuse(entry, error.text, str(error), deed)
        except (BadRequest, BadCard, UpstreamFault, EgressRefused) as error:
            await self._missed(entry, await self._probes.missed(key, str(error), _cause(error)))
            raise
        taken = await self._renewal.take(entry, found, deed=deed)
        await self._probes.seen(key, health)
        if taken.status is Status.QUARANTINED and entry.status is not Status.QUARANTINED:
            log.warning("card_changed", agent=entry.name, tenant=entry.tenant)
        if taken.status is Status.DOWN:
            taken = await self._registry.update(replace(taken, status=Status.ACTIVE), deed)
        return taken

    async def recheck(self, entry: Registration, deed: Deed) -> Registration:
        """The agent after a look at the card that is in force, as after a change of the keys that have to sign it.

        Raises UpstreamFault when the keys of a trusted origin can't be had.
        """
        try:
            found, _ = await self._onboarding.look(entry, Health(), fetch=False)
        except Unverified as error:
            return await self._renewal.refuse(entry, error.text, str(error), deed)
        return await self._renewal.take(entry, found, deed=deed)

    async def health(self, entry: Registration) -> Health:
        return await self._probes.health((entry.tenant, entry.name))

    async def healths(self, entries: Sequence[Registration]) -> Mapping[str, Health]:
        """By name, of all that were looked at. The entries are of one tenant."""
        found = await self._probes.healths([(entry.tenant, entry.name) for entry in entries])
        return {name: health for (_, name), health in found.items()}

    async def server(self, entry: Registration, deed: Deed = LOOK, grant: Grant | None = None) -> Registration:
        """The server after a look at what it offers, to the person of the Grant. Raises BadRequest, UpstreamFault and ConsentNeeded."""
        key = (entry.tenant, entry.name)
        try:
            found = await self._onboarding.tools(entry, grant)
        except (BadRequest, UpstreamFault, EgressRefused) as error:
            await self._missed(entry, await self._probes.missed(key, str(error), _cause(error)))
            raise
        first = grant is not None and not entry.facts  # an operator looks at what was never reached
        taken = await self._renewal.take(entry, found, trusted=first, deed=deed)
        await self._probes.seen(key, Health())
        if taken.withheld != entry.withheld and any(waiting(taken)):
            log.warning("definitions_withheld", server=entry.name, tenant=entry.tenant, waiting=len(list(waiting(taken))))
        if taken.status is Status.DOWN:
            taken = await self._registry.update(replace(taken, status=Status.ACTIVE), deed)
        return taken

    async def round(self) -> None:
        """One look at every agent and server whose time has come; processes share them."""
        entries = {(entry.tenant, entry.name): entry for tenant in self._registry.tenants() for entry in self._watched(tenant)}
        due = await self._probes.due(list(entries), AT_ONCE) if entries else []
        await asyncio.gather(*(self._looked(entries[key], key) for key in due))

    async def look_at_asked(self) -> None:
        """Begins a look at each that is down and that a caller asked for, so that it can be called seconds after it is back."""
        for key in self.absences.take():
            try:
                entry = self._registry.find(*key)
            except UnknownName:
                continue
            if entry.status is Status.DOWN and _is_watched(entry) and key not in self._looks and len(self._looks) < ASKED_AT_ONCE:
                look = self._looks[key] = let_go(self._looked_briefly(entry, key), "look_broke", name=entry.name)
                look.add_done_callback(partial(_forget, self._looks, key))

    async def close(self) -> None:
        """Gives up on looks under way."""
        for look in self._looks.values():
            look.cancel()
        await asyncio.gather(*self._looks.values(), return_exceptions=True)

    async def hinted(self, key: Key) -> None:
        """One look at a server that said that something changed; not at one that waits for an operator."""
        entry = self._registry.find(*key)
        if entry.family is Family.SERVER and entry.status in WATCHED and opens_by_itself(entry):
            await self._looked(entry, key)

    def _watched(self, tenant: str) -> list[Registration]:
        return [entry for entry in self._registry.list(tenant) if entry.status in WATCHED and _is_watched(entry)]

    async def _looked_briefly(self, entry: Registration, key: Key) -> None:
        try:
            async with asyncio.timeout(ASKED_LOOK_SECONDS):
                await self._looked(entry, key)
        except TimeoutError:
            log.info(SAYINGS[entry.family].missed, name=key[1], tenant=key[0], why="no answer in time")

    async def _looked(self, entry: Registration, key: Key) -> None:
        try:
            await (self.agent(entry) if entry.family is Family.AGENT else self.server(entry))
        except (BadRequest, BadCard, UpstreamFault, EgressRefused) as error:
            log.info(SAYINGS[entry.family].missed, name=key[1], tenant=key[0], why=str(error), cause=_cause(error))
        except (Outdated, UnknownName):
            log.debug(SAYINGS[entry.family].overtaken, name=key[1], tenant=key[0])

    async def _missed(self, entry: Registration, health: Health) -> None:
        if health.down and entry.status is Status.ACTIVE:
            log.warning(SAYINGS[entry.family].down, name=entry.name, tenant=entry.tenant, why=health.note, cause=health.cause)
            await self._registry.update(replace(entry, status=Status.DOWN))


def _cause(error: Exception) -> str:
    return error.cause if isinstance(error, UpstreamFault) else ""


def _forget(looks: dict[Key, asyncio.Task[None]], key: Key, _done: "asyncio.Task[None]") -> None:
    looks.pop(key, None)


def _is_watched(entry: Registration) -> bool:
    """Whether it was reached before, and can be without a person."""
    return opens_by_itself(entry) and (entry.card is not None or bool(entry.facts.get("era")))


def opens_by_itself(entry: Registration) -> bool:
    """Not a server that people's own accounts open: nobody's is used without them."""
    return entry.family is Family.AGENT or bool(entry.upstream.get("auth", SERVICE).get("account") == "service")

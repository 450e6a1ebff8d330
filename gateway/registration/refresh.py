"""Refreshes registered agents and servers, on request and periodically. Changes are withheld for approval; unreachable entries go down."""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import NamedTuple
from urllib.parse import urlsplit
from weakref import WeakValueDictionary

import structlog

from adapters.contract import UpstreamFault
from adapters.upstream.egress import EgressRefused
from gateway.calls.limits.slices import Slices
from gateway.concurrency.background import run_in_background
from gateway.registration.card_source import CardRejected
from gateway.registration.inspection import EntryInspector
from gateway.registration.requests import BadRequest
from policies.delegation.rulings import Grant
from registry.cards.card import WORKFLOW_KIND, BadCard, Family, Registration, RegistrationStatus
from registry.changes import REFRESHED, RegistryChange
from registry.drift.pins import awaiting_approval
from registry.drift.renewal import DriftApproval
from registry.health.checks import EntryKey, Probes, ProbeState
from registry.health.reachability import Absences
from registry.store import Outdated, Registry, UnknownName

ROUND_SECONDS = 5.0  # seconds between two runs; registry/health/checks.py says how often an entry is due
CHECK_SPACING_SECONDS = 0.025  # between two checks that begin: 10,000 entries take a process four to five minutes
CLAIMS_AT_ONCE = 50  # checks that are claimed in one commit
CONCURRENT_MAX = 256  # checks of one process that have begun or wait for their host
HOST_CONCURRENT_MAX = 8  # concurrent checks of one host
REQUESTED_ROUND_SECONDS = 0.5  # seconds between two runs for requested entries that are down
REQUESTED_REFRESH_SECONDS = 5.0  # for the refresh of one requested entry
REQUESTED_CONCURRENT_MAX = 64
WATCHED_STATUSES = (RegistrationStatus.ACTIVE, RegistrationStatus.DOWN, RegistrationStatus.QUARANTINED)
SERVICE_ACCOUNT = {"account": "service"}
log = structlog.get_logger()


class _LogEvents(NamedTuple):
    """The log events for the outcomes of a refresh."""

    missed: str
    superseded: str
    down: str


LOG_EVENTS = {
    Family.AGENT: _LogEvents("agent_missed", "agent_refresh_superseded", "agent_down"),
    Family.SERVER: _LogEvents("server_missed", "server_refresh_superseded", "server_down"),
}


class EntryRefresher:
    """Refreshes entries. It never makes the first contact: periodic runs skip entries that wait for an operator."""

    def __init__(
        self,
        registry: Registry,
        inspector: EntryInspector,
        drift_approval: DriftApproval,
        probes: Probes,
        absences: Absences | None = None,
        *,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._registry = registry
        self._inspector = inspector
        self._drift_approval = drift_approval
        self._probes = probes
        self.absences = absences or Absences(time.monotonic)
        self._sleep = sleep
        self._refreshes_by_key: dict[EntryKey, asyncio.Task[None]] = {}  # of requested entries
        self._checks: dict[EntryKey, asyncio.Task[None]] = {}  # of due entries
        self._claims_by_host = Counter[str]()  # of these
        self._host_slots: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()
        self._watched: Mapping[EntryKey, str] = {}
        self._watched_generation = -1  # of the registry

    async def refresh_agent(self, entry: Registration, registry_change: RegistryChange = REFRESHED) -> Registration:
        """Fetches the agent's card again and returns the updated agent. Raises BadRequest, BadCard, UpstreamFault and EgressRefused."""
        if entry.kind == WORKFLOW_KIND:  # its card is made from its document
            return entry
        key = (entry.tenant, entry.name)
        known = await self._probes.read_state(key)
        try:
            found, health = await self._inspector.inspect_again(entry, known)
        except CardRejected as error:
            log.warning("card_refused", agent=entry.name, tenant=entry.tenant, why=str(error))
            await self._probes.record_success(key, ProbeState())
            return await self._drift_approval.reject_card(entry, error.card_text, str(error), registry_change)
        except (BadRequest, BadCard, UpstreamFault, EgressRefused) as error:
            await self._mark_down(entry, await self._probes.record_failure(key, str(error), _cause_of(error)))
            raise
        taken = await self._drift_approval.apply_found(entry, found, registry_change=registry_change)
        await self._probes.record_success(key, health)
        if taken.status is RegistrationStatus.QUARANTINED and entry.status is not RegistrationStatus.QUARANTINED:
            log.warning("card_changed", agent=entry.name, tenant=entry.tenant)
        if taken.status is RegistrationStatus.DOWN:
            taken = await self._registry.update(replace(taken, status=RegistrationStatus.ACTIVE), registry_change)
        return taken

    async def recheck_card(self, entry: Registration, registry_change: RegistryChange) -> Registration:
        """Checks the card in force again, for example after a change of the trusted keys, and returns the updated agent.

        Raises UpstreamFault if the keys of a trusted origin cannot be fetched.
        """
        if entry.kind == WORKFLOW_KIND:
            return entry
        try:
            found, _ = await self._inspector.inspect_again(entry, ProbeState(), fetch=False)
        except CardRejected as error:
            return await self._drift_approval.reject_card(entry, error.card_text, str(error), registry_change)
        return await self._drift_approval.apply_found(entry, found, registry_change=registry_change)

    async def probe_state(self, entry: Registration) -> ProbeState:
        return await self._probes.read_state((entry.tenant, entry.name))

    async def probe_states(self, entries: Sequence[Registration]) -> Mapping[str, ProbeState]:
        """Returns the probe states by name. The entries are of one tenant."""
        found = await self._probes.read_states([(entry.tenant, entry.name) for entry in entries])
        return {name: health for (_, name), health in found.items()}

    async def failing_names(self, tenant: str) -> frozenset[str]:
        """Returns the names of the entries whose last probe failed."""
        return await self._probes.failing_names(tenant)

    async def refresh_server(
        self, entry: Registration, registry_change: RegistryChange = REFRESHED, grant: Grant | None = None
    ) -> Registration:
        """Reads what the server offers, under `grant` if given, and returns the updated server.

        Raises BadRequest, UpstreamFault, EgressRefused and ConsentNeeded.
        """
        key = (entry.tenant, entry.name)
        try:
            found = await self._inspector.current_server_state(entry, grant)
        except (BadRequest, UpstreamFault, EgressRefused) as error:
            await self._mark_down(entry, await self._probes.record_failure(key, str(error), _cause_of(error)))
            raise
        first = grant is not None and not entry.facts  # the operator's first contact approves what the server offers
        taken = await self._drift_approval.apply_found(entry, found, approved_by_operator=first, registry_change=registry_change)
        await self._probes.record_success(key, ProbeState())
        if taken.withheld != entry.withheld and any(awaiting_approval(taken)):
            log.warning("definitions_withheld", server=entry.name, tenant=entry.tenant, waiting=len(list(awaiting_approval(taken))))
        if taken.status is RegistrationStatus.DOWN:
            taken = await self._registry.update(replace(taken, status=RegistrationStatus.ACTIVE), registry_change)
        return taken

    async def run_once(self) -> None:
        """Begins the check of each agent and server that is due, one every CHECK_SPACING_SECONDS. The processes of a gateway share them.

        What a round has claimed and not begun when it is canceled is claimed again by any process after CLAIM_SECONDS.
        """
        while due := await self._claim_due():
            for key in due:
                if key not in self._checks:  # else its claim ran out while it waits for its host
                    self._begin_check(key)
                await self._sleep(CHECK_SPACING_SECONDS)

    async def refresh_requested(self) -> None:
        """Starts a refresh of each entry that is down and was requested, so that it is usable seconds after its return."""
        for key in self.absences.take():
            try:
                entry = self._registry.find(*key)
            except UnknownName:
                continue
            if (
                entry.status is RegistrationStatus.DOWN
                and _is_watched(entry)
                and key not in self._refreshes_by_key
                and len(self._refreshes_by_key) < REQUESTED_CONCURRENT_MAX
            ):
                look = self._refreshes_by_key[key] = run_in_background(
                    self._refresh_within_time(entry, key), "refresh_failed", name=entry.name
                )
                look.add_done_callback(partial(_remove_finished, self._refreshes_by_key, key))

    async def wait_for_checks(self) -> None:
        """Waits until each check that has begun has ended."""
        await asyncio.gather(*self._checks.values(), return_exceptions=True)

    async def close(self) -> None:
        """Cancels the running refreshes and checks."""
        for running in (*self._refreshes_by_key.values(), *self._checks.values()):
            running.cancel()
        await asyncio.gather(*self._refreshes_by_key.values(), return_exceptions=True)
        await self.wait_for_checks()

    async def refresh_changed_server(self, key: EntryKey) -> None:
        """Refreshes a server that announced a change, unless it waits for an operator."""
        entry = self._registry.find(*key)
        if entry.family is Family.SERVER and entry.status in WATCHED_STATUSES and needs_no_person(entry):
            await self._refresh_and_log(entry, key)

    async def _claim_due(self) -> list[EntryKey]:
        """Claims checks that are due, at most CLAIMS_AT_ONCE, and as many as there are places for."""
        hosts, limit = await self._watched_hosts(), min(CLAIMS_AT_ONCE, CONCURRENT_MAX - len(self._checks))
        return await self._probes.claim_due(hosts, limit, self._claims_by_host.copy()) if hosts and limit > 0 else []

    async def _watched_hosts(self) -> Mapping[EntryKey, str]:
        """Returns the hosts of the entries that are checked: the same object until the registry changes."""
        if self._watched_generation != (generation := self._registry.generation):
            entries = Slices(entry for tenant in self._registry.tenants() for entry in self._registry.list(tenant))
            self._watched = {(entry.tenant, entry.name): _host_of(entry) async for entry in entries if _is_checked(entry)}
            self._watched_generation = generation
        return self._watched

    def _begin_check(self, key: EntryKey) -> None:
        host = self._watched.get(key, "")
        self._claims_by_host[host] += 1
        check = self._checks[key] = run_in_background(self._check_at_host(key, host), "check_failed", name=key[1])
        check.add_done_callback(lambda _done: self._end_check(key, host))

    def _end_check(self, key: EntryKey, host: str) -> None:
        self._checks.pop(key, None)
        self._claims_by_host[host] -= 1
        if not self._claims_by_host[host]:
            del self._claims_by_host[host]

    async def _check_at_host(self, key: EntryKey, host: str) -> None:
        """Refreshes an entry when its host has a place, unless it was removed or changed its status after it was claimed."""
        async with self._host_slots.setdefault(host, asyncio.Semaphore(HOST_CONCURRENT_MAX)):
            with suppress(UnknownName):
                if _is_checked(entry := self._registry.find(*key)):
                    await self._refresh_and_log(entry, key)

    async def _refresh_within_time(self, entry: Registration, key: EntryKey) -> None:
        try:
            async with asyncio.timeout(REQUESTED_REFRESH_SECONDS):
                await self._refresh_and_log(entry, key)
        except TimeoutError:
            log.info(LOG_EVENTS[entry.family].missed, name=key[1], tenant=key[0], why="no answer in time")

    async def _refresh_and_log(self, entry: Registration, key: EntryKey) -> None:
        try:
            await (self.refresh_agent(entry) if entry.family is Family.AGENT else self.refresh_server(entry))
        except (BadRequest, BadCard, UpstreamFault, EgressRefused) as error:
            log.info(LOG_EVENTS[entry.family].missed, name=key[1], tenant=key[0], why=str(error), cause=_cause_of(error))
        except (Outdated, UnknownName):
            log.debug(LOG_EVENTS[entry.family].superseded, name=key[1], tenant=key[0])

    async def _mark_down(self, entry: Registration, probe_state: ProbeState) -> None:
        if probe_state.is_down and entry.status is RegistrationStatus.ACTIVE:
            log.warning(LOG_EVENTS[entry.family].down, name=entry.name, tenant=entry.tenant, why=probe_state.note, cause=probe_state.cause)
            await self._registry.update(replace(entry, status=RegistrationStatus.DOWN))


def _cause_of(error: Exception) -> str:
    return error.cause if isinstance(error, UpstreamFault) else ""


def _remove_finished(refreshes: dict[EntryKey, asyncio.Task[None]], key: EntryKey, _done: "asyncio.Task[None]") -> None:
    refreshes.pop(key, None)


def _host_of(entry: Registration) -> str:
    """Returns the host and port that a check asks; the whole address where it has none, as that of a command."""
    address = str(entry.facts.get("source") or entry.url)
    return urlsplit(address).netloc or address


def _is_checked(entry: Registration) -> bool:
    return entry.status in WATCHED_STATUSES and _is_watched(entry)


def _is_watched(entry: Registration) -> bool:
    """Returns whether the entry was reached before and can be reached without a user's account."""
    return entry.kind != WORKFLOW_KIND and needs_no_person(entry) and (entry.card is not None or bool(entry.facts.get("era")))


def needs_no_person(entry: Registration) -> bool:
    """Returns whether the gateway can reach the entry without a user's account: those accounts are only used for their users."""
    return entry.family is Family.AGENT or bool(entry.upstream.get("auth", SERVICE_ACCOUNT).get("account") == "service")

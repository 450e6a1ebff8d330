"""A round of checks begins one check after the other, and no slow host keeps the checks of the others waiting."""

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from adapters.contract import UpstreamFault
from gateway.registration.refresh import CHECK_SPACING_SECONDS, HOST_CONCURRENT_MAX, EntryRefresher
from registry.cards.card import Registration
from registry.health.checks import HOST_CLAIMS_MAX, NO_CLAIMS, EntryKey, ProbeState
from registry.store import UnknownName
from tests.fakes.health_checks import check_due
from tests.gateway.ingress.admin.registry.test_long_lists import agent

SLOW, QUICK = "slow.example", "quick.example"


def entries_at(host: str, first: int, count: int) -> list[Registration]:
    source = {"source": f"https://{host}/"}
    return [replace(agent(number), url=f"https://{host}/{number}", facts=source) for number in range(first, first + count)]


class Entries:
    """A registry of given entries, and the checks of them: each entry is due once, unless it is made due again."""

    def __init__(self, entries: Sequence[Registration]) -> None:
        self._entries = {(entry.tenant, entry.name): entry for entry in entries}
        self._due: list[EntryKey] = []
        self.make_due(entries)
        self.claims: list[Mapping[str, int]] = []
        self.generation = 1

    def make_due(self, entries: Sequence[Registration]) -> None:
        self._due = [(entry.tenant, entry.name) for entry in entries]

    def find(self, tenant: str, name: str) -> Registration:
        if (tenant, name) not in self._entries:
            raise UnknownName(name)
        return self._entries[tenant, name]

    async def claim_due(self, hosts: Mapping[EntryKey, str], limit: int, claimed: Mapping[str, int] = NO_CLAIMS) -> list[EntryKey]:
        self.claims.append(claimed)
        taken, per_host = list[EntryKey](), Counter(claimed)
        for key in self._due:
            if len(taken) < limit and per_host[hosts[key]] < HOST_CLAIMS_MAX:
                per_host[hosts[key]] += 1
                taken.append(key)
        self._due = [key for key in self._due if key not in taken]
        return taken

    async def read_state(self, _key: EntryKey) -> ProbeState:
        return ProbeState()

    async def record_failure(self, _key: EntryKey, _note: str, _cause: str = "") -> ProbeState:
        return ProbeState(failures=1)

    def tenants(self) -> Sequence[str]:
        return ["default"]

    def list(self, _tenant: str) -> Sequence[Registration]:
        return tuple(self._entries.values())


class Hosts:
    """Answers each check with a failure, at once; SLOW answers when `answer` is set."""

    def __init__(self) -> None:
        self.answer = asyncio.Event()
        self.asked = Counter[str]()
        self.running = Counter[str]()
        self.most_running = 0

    async def inspect_again(self, entry: Registration, _known: ProbeState) -> Any:
        host = SLOW if SLOW in str(entry.facts["source"]) else QUICK
        self.asked[host] += 1
        self.running[host] += 1
        self.most_running = max(self.most_running, self.running[host])
        try:
            if host == SLOW:
                await self.answer.wait()
        finally:
            self.running[host] -= 1
        raise UpstreamFault("away")


class Pauses:
    """Lets others run in place of a pause, and remembers how many checks had begun."""

    def __init__(self, hosts: Hosts) -> None:
        self._hosts = hosts
        self.seen: list[tuple[float, int]] = []

    async def __call__(self, seconds: float) -> None:
        for _ in range(5):
            await asyncio.sleep(0)
        self.seen.append((seconds, self._hosts.asked.total()))


def refresher(entries: Any, hosts: Any, pauses: Pauses | None = None) -> EntryRefresher:
    unused: Any = None
    return EntryRefresher(entries, hosts, unused, entries, sleep=pauses or Pauses(hosts))


async def test_a_host_that_does_not_answer_keeps_no_others_waiting() -> None:
    entries, hosts = Entries([*entries_at(SLOW, 0, 2 * HOST_CLAIMS_MAX), *entries_at(QUICK, 1000, 2 * HOST_CLAIMS_MAX)]), Hosts()
    refresh = refresher(entries, hosts)
    async with asyncio.timeout(10):
        await refresh.run_once()
    assert hosts.asked == {SLOW: HOST_CONCURRENT_MAX, QUICK: 2 * HOST_CLAIMS_MAX}
    assert entries.claims[-1][SLOW] == HOST_CLAIMS_MAX
    hosts.answer.set()
    for _ in range(2):
        await refresh.wait_for_checks()
        await refresh.run_once()
    assert (hosts.asked[SLOW], hosts.most_running) == (2 * HOST_CLAIMS_MAX, HOST_CONCURRENT_MAX)


async def test_checks_begin_one_after_the_other() -> None:
    hosts = Hosts()
    pauses = Pauses(hosts)
    await refresher(Entries(entries_at(QUICK, 0, 3)), hosts, pauses).run_once()
    assert pauses.seen == [(CHECK_SPACING_SECONDS, number) for number in (1, 2, 3)]


async def test_a_check_whose_claim_runs_out_while_it_waits_is_not_begun_twice() -> None:
    waiting = entries_at(SLOW, 0, HOST_CONCURRENT_MAX + 1)
    entries, hosts = Entries(waiting), Hosts()
    refresh = refresher(entries, hosts)
    await refresh.run_once()
    entries.make_due(waiting)
    await refresh.run_once()
    hosts.answer.set()
    await check_due(refresh)
    assert (hosts.asked, entries.claims[-1]) == ({SLOW: len(waiting)}, {SLOW: len(waiting)})
    await check_due(refresh)
    assert (hosts.asked, entries.claims[-1]) == ({SLOW: len(waiting)}, {})


async def test_ended_checks_are_forgotten_and_closing_cancels_the_others() -> None:
    entries, hosts = Entries([*entries_at(QUICK, 10, 3), *entries_at(SLOW, 0, 3)]), Hosts()
    refresh = refresher(entries, hosts)
    await refresh.run_once()
    assert (entries.claims[-1], hosts.running[SLOW]) == ({SLOW: 3}, 3)
    await refresh.close()
    await refresh.run_once()
    assert (entries.claims[-1], hosts.running[SLOW]) == ({}, 0)

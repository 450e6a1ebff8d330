"""Agents and servers of the configuration file: registered at start, and again whenever one that was down may be back."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from logging import DEBUG, WARNING
from typing import Any

import structlog

from registry.card import Family, Registration, Status
from registry.store import Candidate, NameTaken, Outdated, Registry, UnknownName

OPERATOR = "operator"  # the owner of all that the file names; no person's key looks like it
TENANT = "default"
log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class AgentSeed:
    """Either `url` or `card`."""

    name: str
    url: str = ""
    card: Mapping[str, Any] | None = None
    kind: str = "a2a"
    ceiling: tuple[str, ...] = ("*",)
    delegation: str = ""  # bearer | header | none; empty: what fits `upstream`
    upstream: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ServerSeed:
    """Either `url` or `command`, which is accepted from the file only."""

    name: str
    url: str = ""
    command: str = ""
    args: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    ceiling: tuple[str, ...] = ("*",)
    upstream: Mapping[str, Any] = field(default_factory=dict)


Seed = AgentSeed | ServerSeed
Survey = Callable[[Seed], Awaitable[Candidate]]


class NotReached(Exception):
    """The agent or server of a seed does not answer, or not with anything that can be used; the message is safe to show."""


class Seeds:
    """`survey` looks at what a seed names and says what to register; it raises NotReached."""

    def __init__(self, registry: Registry, survey: Survey) -> None:
        self._registry = registry
        self._survey = survey

    async def plant(self, seed: Seed) -> bool:
        """One attempt, at start or later; never raises for what the other side does. True when nothing is left to try.

        The file wins over who took the name before: their entry goes, and their credentials with it. Raises BadName.
        """
        found = await self._found(seed)
        try:
            candidate = await self._survey(seed)
        except NotReached as missing:
            known = found is not None and found.status is Status.DOWN
            log.log(DEBUG if known else WARNING, "seed_down", name=seed.name, why=str(missing))
            candidate = None
        try:
            await self._settle(seed, found, candidate)
        except (NameTaken, Outdated):
            log.info("seed_planted_elsewhere", name=seed.name)  # another process, from the same file
        return candidate is not None

    async def _found(self, seed: Seed) -> Registration | None:
        try:
            found = self._registry.find(TENANT, seed.name)
        except UnknownName:
            return None
        if found.owner == OPERATOR and found.family is _family(seed):
            return found
        log.warning("seed_takes_name", name=seed.name, owner=found.owner)
        await self._registry.remove(TENANT, seed.name)
        return None

    async def _settle(self, seed: Seed, found: Registration | None, candidate: Candidate | None) -> None:
        if found is None:
            await self._registry.add(candidate or _down(seed))
        elif candidate is None:
            if found.status is Status.ACTIVE:
                await self._registry.update(replace(found, status=Status.DOWN))
        else:
            changed = _changed(found, candidate)
            if changed != found:
                await self._registry.update(changed)


def _changed(found: Registration, candidate: Candidate) -> Registration:
    """What the file and the other side say now. A quarantine outlasts both."""
    return replace(
        found,
        status=found.status if found.status is Status.QUARANTINED else candidate.status,
        kind=candidate.kind,
        url=candidate.url,
        ceiling=candidate.ceiling,
        delegation=candidate.delegation,
        upstream=dict(candidate.upstream),
        facts=dict(candidate.facts),
        card=candidate.card,
        card_text=candidate.card_text,
        tools=candidate.tools,
    )


def _down(seed: Seed) -> Candidate:
    """A place for one that was never reached, so that it is seen to be missing."""
    return Candidate(
        tenant=TENANT,
        name=seed.name,
        family=_family(seed),
        kind=seed.kind if isinstance(seed, AgentSeed) else "mcp",
        url=seed.url,
        owner=OPERATOR,
        status=Status.DOWN,
        ceiling=seed.ceiling,
        upstream=seed.upstream,
    )


def _family(seed: Seed) -> Family:
    return Family.AGENT if isinstance(seed, AgentSeed) else Family.SERVER

"""Agents and servers of the configuration file: registered at start, and again whenever one that was down may be back."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from logging import DEBUG, WARNING
from typing import Any

import structlog

from registry.cards.card import CLEARANCE_MAX, Endpoint, Family, Registration, Status
from registry.changes import Deed
from registry.drift.pins import first_seen
from registry.drift.renewal import Renewal
from registry.health.checks import Health, Probes
from registry.rows import Amendment, amended
from registry.store import Candidate, NameTaken, Outdated, Registry, UnknownName
from registry.virtual.selection import Selection

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
    delegation: str = ""  # bearer | header | ticket | none; empty: what fits `upstream`
    upstream: Mapping[str, Any] = field(default_factory=dict)
    trusted_keys: tuple[Mapping[str, Any], ...] = ()
    rank: int = 0
    clearance: int = CLEARANCE_MAX
    contracts: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    context: str = "none"
    endpoints: tuple[Endpoint, ...] = ()


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
    openapi: str = ""  # where the document of an HTTP API is; `url` may then be empty
    sensitivity: int = 0
    clearance: int = CLEARANCE_MAX
    sensitivities: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class VirtualSeed:
    """A selection, which nobody has to be asked for."""

    name: str
    selection: Selection


Surveyed = AgentSeed | ServerSeed
Seed = Surveyed | VirtualSeed
Survey = Callable[[Surveyed], Awaitable[Candidate]]


class NotReached(Exception):
    """The agent or server of a seed does not answer, or not with anything that can be used; the message is safe to show.

    `cause` is for operators: what was called, and what happened there.
    """

    def __init__(self, problem: str, cause: str = "") -> None:
        super().__init__(problem)
        self.cause = cause


class Seeds:
    """`survey` looks at what a seed names and says what to register; it raises NotReached."""

    def __init__(self, registry: Registry, renewal: Renewal, survey: Survey, probes: Probes | None = None) -> None:
        """`probes` are told of what could not be reached, and that it was, each time that changes."""
        self._probes = probes
        self._missed: dict[str, str] = {}
        self._registry = registry
        self._renewal = renewal
        self._survey = survey

    async def plant(self, seed: Seed) -> bool:
        """One attempt, at start or later; never raises for what the other side does. True when nothing is left to try.

        The file wins over who took the name before: their entry goes, and their credentials with it. Raises BadName.
        """
        found = await self._found(seed)
        if isinstance(seed, VirtualSeed):
            return await self._selected(seed, found)
        try:
            candidate = await self._survey(seed)
        except NotReached as missing:
            known = found is not None and found.status is Status.DOWN
            log.log(DEBUG if known else WARNING, "seed_down", name=seed.name, why=str(missing), cause=missing.cause)
            candidate = None
            await self._note(seed.name, missing)
        try:
            await self._settle(seed, found, candidate)
        except (NameTaken, Outdated):
            log.info("seed_planted_elsewhere", name=seed.name)  # another process, from the same file
        if candidate is not None:
            await self._note(seed.name, None)
        return candidate is not None or _personal(seed)

    async def _note(self, name: str, missing: NotReached | None) -> None:
        """Seeds are tried again every few seconds: only what is new is kept."""
        said = f"{missing}\n{missing.cause}" if missing else ""
        if self._probes is None or self._missed.get(name, "") == said:
            return
        self._missed[name] = said
        key = (TENANT, name)
        await (self._probes.missed(key, str(missing), missing.cause) if missing else self._probes.seen(key, Health()))

    async def _selected(self, seed: VirtualSeed, found: Registration | None) -> bool:
        try:
            if found is None:
                await self._registry.add(virtual(TENANT, OPERATOR, seed.name, seed.selection), Deed("register", OPERATOR))
            elif found.selection != seed.selection:
                await self._registry.update(replace(found, selection=seed.selection), Deed("change", OPERATOR))
        except (NameTaken, Outdated):
            log.info("seed_planted_elsewhere", name=seed.name)
        return True

    async def _found(self, seed: Seed) -> Registration | None:
        try:
            found = self._registry.find(TENANT, seed.name)
        except UnknownName:
            return None
        if found.owner == OPERATOR and found.family is _family(seed):
            return found
        log.warning("seed_takes_name", name=seed.name, owner=found.owner)
        await self._registry.remove(TENANT, seed.name, Deed("remove", OPERATOR))
        return None

    async def _settle(self, seed: Surveyed, found: Registration | None, candidate: Candidate | None) -> None:
        if found is None:
            first = replace(_first(candidate), **_labels(seed)) if candidate else _down(seed)
            await self._registry.add(first, Deed("register", OPERATOR))
            return
        changed = amended(found, _terms(seed, candidate))
        if candidate is None:
            if found.status is Status.ACTIVE and not _personal(seed):
                changed = replace(changed, status=Status.DOWN)
        elif found.status is Status.DOWN:
            changed = replace(changed, status=Status.ACTIVE if _settled(found) else candidate.status)
        if changed != found:
            changed = await self._registry.update(changed, Deed("change", OPERATOR))
        if candidate is not None:
            await self._renewal.take(changed, candidate, trusted=_said_so(seed, found), deed=Deed("change", OPERATOR))


def _personal(seed: Surveyed) -> bool:
    """Whether only people's own accounts open it, so that an operator looks at it with theirs, and nothing else does."""
    auth = seed.upstream.get("auth") if isinstance(seed, ServerSeed) else None
    return isinstance(auth, Mapping) and auth.get("account", "personal") == "personal"


def _first(candidate: Candidate) -> Candidate:
    return first_seen(candidate) if candidate.family is Family.SERVER else candidate


def virtual(tenant: str, owner: str, name: str, selection: Selection) -> Candidate:
    """What to register for a selection."""
    path = f"virtual/{name}"
    return Candidate(tenant, name, Family.VIRTUAL, "virtual", path, owner, Status.ACTIVE, delegation="none", selection=selection)


def _terms(seed: Surveyed, candidate: Candidate | None) -> Amendment:
    """What the file says of an entry counts at once, whether the other side answers or not."""
    labels = _labels(seed)
    if candidate is not None:
        upstream, keys = dict(candidate.upstream), candidate.trusted_keys
        return Amendment(candidate.ceiling, candidate.delegation, upstream, keys, candidate.rank, **labels)
    if isinstance(seed, AgentSeed):
        return Amendment(seed.ceiling, seed.delegation or None, dict(seed.upstream), tuple(seed.trusted_keys), seed.rank, **labels)
    return Amendment(seed.ceiling, upstream=dict(seed.upstream), **labels)


def _labels(seed: Surveyed) -> dict[str, Any]:
    """How sensitive it is, what it may be told, and how agents are called."""
    if isinstance(seed, AgentSeed):
        calls = {"contracts": dict(seed.contracts), "context": seed.context, "endpoints": seed.endpoints}
        return {"clearance": seed.clearance, **calls}
    return {"clearance": seed.clearance, "sensitivity": seed.sensitivity, "sensitivities": dict(seed.sensitivities)}


def _settled(found: Registration) -> bool:
    """Whether it was ever reached."""
    return found.card is not None if found.family is Family.AGENT else bool(found.facts)


def _said_so(seed: Surveyed, found: Registration) -> bool:
    """Whether the operator changed the file: another address, or the card itself."""
    if isinstance(seed, ServerSeed):
        moved = bool(seed.url and seed.url != found.url) or seed.openapi != found.facts.get("source", "")
        return not _settled(found) or moved
    if not _settled(found) or seed.card is not None:
        return True
    return bool(seed.url != found.facts.get("source", seed.url))


def _down(seed: Surveyed) -> Candidate:
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
        trusted_keys=tuple(seed.trusted_keys) if isinstance(seed, AgentSeed) else (),
        rank=seed.rank if isinstance(seed, AgentSeed) else 0,
        **_labels(seed),
    )


def _family(seed: Seed) -> Family:
    if isinstance(seed, VirtualSeed):
        return Family.VIRTUAL
    return Family.AGENT if isinstance(seed, AgentSeed) else Family.SERVER

"""Entries of the configuration file: registered at start, and again while they are not reachable."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from logging import DEBUG, WARNING
from typing import Any

import structlog

from registry.cards.card import CLEARANCE_MAX, AgentEndpoint, Family, Registration, RegistrationStatus
from registry.cards.effects import EffectDeclaration
from registry.changes import RegistryChange
from registry.drift.pins import withhold_suspicious
from registry.drift.renewal import DriftApproval
from registry.health.checks import Probes, ProbeState
from registry.rows import RegistrationPatch, apply_patch
from registry.store import Candidate, NameTaken, Outdated, Registry, UnknownName
from registry.virtual.selection import Selection

OPERATOR = "operator"  # the owner of all entries of the file; no person has this owner key
DEFAULT_TENANT = "default"
log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class ConfiguredAgent:
    """An agent of the configuration file, with either `url` or `card`."""

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
    endpoints: tuple[AgentEndpoint, ...] = ()
    effects: Mapping[str, EffectDeclaration] = field(default_factory=dict)
    prices: Mapping[str, int] = field(default_factory=dict)
    memory: str = "none"


@dataclass(frozen=True, slots=True)
class ConfiguredServer:
    """An MCP server of the configuration file, with either `url` or `command`, which only the file may set."""

    name: str
    url: str = ""
    command: str = ""
    args: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    ceiling: tuple[str, ...] = ("*",)
    upstream: Mapping[str, Any] = field(default_factory=dict)
    openapi: str = ""  # the address of an OpenAPI document; `url` may then be empty
    sensitivity: int = 0
    clearance: int = CLEARANCE_MAX
    sensitivities: Mapping[str, int] = field(default_factory=dict)
    model_free: tuple[str, ...] = ()
    effects: Mapping[str, EffectDeclaration] = field(default_factory=dict)
    prices: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ConfiguredVirtualServer:
    """A virtual server of the configuration file: a selection, which needs no request to an upstream."""

    name: str
    selection: Selection


RemoteEntry = ConfiguredAgent | ConfiguredServer
ConfiguredEntry = RemoteEntry | ConfiguredVirtualServer
CandidateBuilder = Callable[[RemoteEntry], Awaitable[Candidate]]


class EntryUnreachable(Exception):
    """A configured agent or server does not respond, or its response is unusable; the message is safe to show.

    `cause` is for operators: the call and its error.
    """

    def __init__(self, problem: str, cause: str = "") -> None:
        super().__init__(problem)
        self.cause = cause


class ConfiguredEntryRegistrar:
    """Registers configured entries. `build_candidate` fetches an entry's card or definitions; it raises EntryUnreachable."""

    def __init__(
        self, registry: Registry, approval: DriftApproval, build_candidate: CandidateBuilder, probes: Probes | None = None
    ) -> None:
        """`probes` records when an entry becomes unreachable and reachable."""
        self._probes = probes
        self._reported: dict[str, str] = {}
        self._registry = registry
        self._approval = approval
        self._build_candidate = build_candidate

    async def register(self, entry: ConfiguredEntry) -> bool:
        """Makes one attempt to register an entry, and returns whether nothing is left to retry. Never raises for an upstream's fault.

        The file takes precedence: another owner's entry of the same name is removed with its credentials. Raises BadName.
        """
        found = await self._find_or_replace(entry)
        if isinstance(entry, ConfiguredVirtualServer):
            return await self._register_virtual(entry, found)
        try:
            candidate = await self._build_candidate(entry)
        except EntryUnreachable as missing:
            known = found is not None and found.status is RegistrationStatus.DOWN
            log.log(DEBUG if known else WARNING, "configured_entry_unreachable", name=entry.name, why=str(missing), cause=missing.cause)
            candidate = None
            await self._report_reachability(entry.name, missing)
        try:
            await self._write_entry(entry, found, candidate)
        except (NameTaken, Outdated):
            log.info("configured_entry_registered_elsewhere", name=entry.name)  # by another process with the same file
        if candidate is not None:
            await self._report_reachability(entry.name, None)
        return candidate is not None or _needs_personal_account(entry)

    async def _report_reachability(self, name: str, failure: EntryUnreachable | None) -> None:
        """Records a change of reachability. Entries are retried every few seconds, so repetitions are not recorded."""
        failure_text = f"{failure}\n{failure.cause}" if failure else ""
        if self._probes is None or self._reported.get(name, "") == failure_text:
            return
        self._reported[name] = failure_text
        key = (DEFAULT_TENANT, name)
        await (self._probes.record_failure(key, str(failure), failure.cause) if failure else self._probes.record_success(key, ProbeState()))

    async def _register_virtual(self, entry: ConfiguredVirtualServer, found: Registration | None) -> bool:
        try:
            if found is None:
                await self._registry.add(
                    virtual_candidate(DEFAULT_TENANT, OPERATOR, entry.name, entry.selection), RegistryChange("register", OPERATOR)
                )
            elif found.selection != entry.selection:
                await self._registry.update(replace(found, selection=entry.selection), RegistryChange("change", OPERATOR))
        except (NameTaken, Outdated):
            log.info("configured_entry_registered_elsewhere", name=entry.name)
        return True

    async def _find_or_replace(self, entry: ConfiguredEntry) -> Registration | None:
        try:
            found = self._registry.find(DEFAULT_TENANT, entry.name)
        except UnknownName:
            return None
        if found.owner == OPERATOR and found.family is _family_of(entry):
            return found
        log.warning("configured_entry_replaced", name=entry.name, owner=found.owner)
        await self._registry.remove(DEFAULT_TENANT, entry.name, RegistryChange("remove", OPERATOR))
        return None

    async def _write_entry(self, entry: RemoteEntry, found: Registration | None, candidate: Candidate | None) -> None:
        if found is None:
            first = replace(_pin_first(candidate), **_label_fields(entry)) if candidate else _down_candidate(entry)
            await self._registry.add(first, RegistryChange("register", OPERATOR))
            return
        changed = apply_patch(found, _patch_from(entry, candidate))
        if candidate is None:
            if found.status is RegistrationStatus.ACTIVE and not _needs_personal_account(entry):
                changed = replace(changed, status=RegistrationStatus.DOWN)
        elif found.status is RegistrationStatus.DOWN:
            changed = replace(changed, status=RegistrationStatus.ACTIVE if _was_reached(found) else candidate.status)
        if changed != found:
            changed = await self._registry.update(changed, RegistryChange("change", OPERATOR))
        if candidate is not None:
            await self._approval.apply_found(
                changed,
                candidate,
                approved_by_operator=_is_changed_by_operator(entry, found),
                registry_change=RegistryChange("change", OPERATOR),
            )


def _needs_personal_account(entry: RemoteEntry) -> bool:
    """Whether only people's own accounts have access, so that only an operator can inspect the entry with theirs."""
    auth = entry.upstream.get("auth") if isinstance(entry, ConfiguredServer) else None
    return isinstance(auth, Mapping) and auth.get("account", "personal") == "personal"


def _pin_first(candidate: Candidate) -> Candidate:
    return withhold_suspicious(candidate) if candidate.family is Family.SERVER else candidate


def virtual_candidate(tenant: str, owner: str, name: str, selection: Selection) -> Candidate:
    """The candidate of a virtual server with this selection."""
    path = f"virtual/{name}"
    return Candidate(
        tenant, name, Family.VIRTUAL, "virtual", path, owner, RegistrationStatus.ACTIVE, delegation="none", selection=selection
    )


def _patch_from(entry: RemoteEntry, candidate: Candidate | None) -> RegistrationPatch:
    """The patch that applies the file's settings, whether the upstream responds or not."""
    labels = _label_fields(entry)
    if candidate is not None:
        upstream, keys = dict(candidate.upstream), candidate.trusted_keys
        return RegistrationPatch(candidate.ceiling, candidate.delegation, upstream, keys, candidate.rank, **labels)
    if isinstance(entry, ConfiguredAgent):
        return RegistrationPatch(
            entry.ceiling, entry.delegation or None, dict(entry.upstream), tuple(entry.trusted_keys), entry.rank, **labels
        )
    return RegistrationPatch(entry.ceiling, upstream=dict(entry.upstream), **labels)


def _label_fields(entry: RemoteEntry) -> dict[str, Any]:
    """The fields for sensitivity, clearance, and how agents are called."""
    if isinstance(entry, ConfiguredAgent):
        calls = {"contracts": dict(entry.contracts), "context": entry.context, "endpoints": entry.endpoints}
        terms = {"prices": dict(entry.prices), "effects": dict(entry.effects), "memory": entry.memory}
        return {"clearance": entry.clearance, **terms, **calls}
    labels = {"clearance": entry.clearance, "sensitivity": entry.sensitivity, "sensitivities": dict(entry.sensitivities)}
    return {**labels, "model_free": entry.model_free, "prices": dict(entry.prices), "effects": dict(entry.effects)}


def _was_reached(found: Registration) -> bool:
    """Whether the entry was reached at least once."""
    return found.card is not None if found.family is Family.AGENT else bool(found.facts)


def _is_changed_by_operator(entry: RemoteEntry, found: Registration) -> bool:
    """Whether the operator changed the file: another address, or the card itself."""
    if isinstance(entry, ConfiguredServer):
        moved = bool(entry.url and entry.url != found.url) or entry.openapi != found.facts.get("source", "")
        return not _was_reached(found) or moved
    if not _was_reached(found) or entry.card is not None:
        return True
    return bool(entry.url != found.facts.get("source", entry.url))


def _down_candidate(entry: RemoteEntry) -> Candidate:
    """The candidate of an entry that was never reached, registered as down so that operators see it."""
    return Candidate(
        tenant=DEFAULT_TENANT,
        name=entry.name,
        family=_family_of(entry),
        kind=entry.kind if isinstance(entry, ConfiguredAgent) else "mcp",
        url=entry.url,
        owner=OPERATOR,
        status=RegistrationStatus.DOWN,
        ceiling=entry.ceiling,
        upstream=entry.upstream,
        trusted_keys=tuple(entry.trusted_keys) if isinstance(entry, ConfiguredAgent) else (),
        rank=entry.rank if isinstance(entry, ConfiguredAgent) else 0,
        **_label_fields(entry),
    )


def _family_of(entry: ConfiguredEntry) -> Family:
    if isinstance(entry, ConfiguredVirtualServer):
        return Family.VIRTUAL
    return Family.AGENT if isinstance(entry, ConfiguredAgent) else Family.SERVER

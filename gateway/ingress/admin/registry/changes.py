"""Changes of registered agents and servers: on other terms, at another address, looked at again, approved."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from pydantic import Field

from gateway.ingress.admin.bodies import Body, EndpointBody, UpstreamBody, endpoints_of, settings_of
from gateway.ingress.admin.registry.access import Desk, check_changeable, deed_of, registering
from gateway.registration.card_source import Unverified
from gateway.registration.onboarding import Onboarding
from gateway.registration.refresh import Refresh
from gateway.registration.requests import BadRequest, OperatorTerms, PreconditionFailed, PreconditionRequired, Registrant
from gateway.tasks.log import rfc3339
from policies.callers import Caller
from registry.card_history import Version
from registry.cards.card import Endpoint, Family, Registration, Status
from registry.changes import Deed
from registry.drift.comparison import SHOWN_MAX
from registry.drift.pins import shown, waiting
from registry.drift.renewal import Renewal
from registry.health.checks import Health
from registry.rows import Amendment, Candidate, amended
from registry.store import Registry

WAITING = (Status.PENDING, Status.QUARANTINED)
OWNERS = frozenset({"url", "jwks"})  # what who registered an agent may change without an operator


Chosen = Mapping[str, Sequence[str]]  # names of definitions, by kind


class Patch(Body):
    """What may be changed; a member that is left out stays as it is."""

    url: str | None = Field(None, max_length=2048)
    ceiling: list[str] | None = Field(None, max_length=1000)
    upstream: UpstreamBody | None = None
    status: Literal["active", "quarantined", "down"] | None = None
    clearance: int | None = None


class ServerPatch(Patch):
    sensitivity: int | None = None
    sensitivities: dict[str, int] | None = Field(None, max_length=2000)


class AgentPatch(Patch):
    delegation: str | None = None
    trusted_keys: list[dict[str, Any]] | None = Field(None, max_length=50)
    rank: int | None = Field(None, ge=-1000, le=1000)
    jwks: dict[str, Any] | None = None
    contracts: dict[str, dict[str, Any]] | None = None
    context: str | None = None
    endpoints: list[EndpointBody] | None = Field(None, max_length=100)


class Amendments:
    """Who may do what: operators everything; who registered an entry its address while it waits, and its own keys."""

    def __init__(self, desk: Desk, registry: Registry, onboarding: Onboarding, renewal: Renewal, refresh: Refresh) -> None:
        self._desk = desk
        self._registry = registry
        self._onboarding = onboarding
        self._renewal = renewal
        self._refresh = refresh
        self.calls: Callable[[Registration], Mapping[str, Any]] = lambda entry: {}  # how it stands with those of an agent

    async def patch(self, caller: Caller, entry: Registration, patch: Patch, match: str | None = None) -> Registration:
        """`entry` is what the caller may see; `match` the If-Match header. Nothing is changed when any part of it can't be.

        Raises Refused, PreconditionFailed, PreconditionRequired, BadRequest, BadCard, UpstreamFault, Outdated, UnknownName.
        """
        deed = await self._check_right(caller, entry, patch)
        check_changeable(entry)
        check_match(entry, match)
        if patch.status == "active" and patch.url is None and entry.status in WAITING:
            check_seen(match)
        if patch.upstream is not None:
            await self._onboarding.check_upstream(entry.kind, settings_of(patch.upstream))
        found = await self._moved(entry, patch.url) if patch.url is not None else None
        changed, jwks = self._on_terms(entry, patch, found or entry)
        if changed.endpoints != entry.endpoints:
            await self._onboarding.endpoints.check(changed)
        if changed != entry or jwks is not None:
            changed = await self._registry.update(changed, deed, jwks=jwks)
        if found is not None:
            changed = await self._renewal.take(changed, found, trusted=True, deed=deed)
        elif isinstance(patch, AgentPatch) and patch.trusted_keys is not None and changed.card is not None:
            changed = await self._refresh.recheck(changed, deed)
        return await self._with_status(changed, patch, deed)

    async def refresh(self, caller: Caller, entry: Registration) -> Registration:
        """Raises Refused, BadRequest, BadCard, UpstreamFault, Outdated, UnknownName."""
        if entry.family is Family.AGENT:
            return await self._refresh.agent(entry, await self._desk.demand_control(caller, entry, "refresh"))
        grant = await self._desk.granted(caller, registering("refresh", entry.family, entry.name))
        check_changeable(entry)
        return await self._refresh.server(entry, deed_of(grant), grant)

    async def approve(self, caller: Caller, entry: Registration, match: str | None, chosen: Chosen | None = None) -> Registration:
        """What waits is accepted, and the entry can be called; of a server only what is `chosen`, where that is given.

        Raises Refused, PreconditionFailed, PreconditionRequired, BadRequest, BadCard, Outdated, UnknownName.
        """
        deed = await self._desk.demand(caller, registering("approve", entry.family, entry.name))
        check_match(entry, match)
        if chosen is not None:
            check_chosen(entry, chosen)
        if entry.status not in WAITING and not any(waiting(entry)):
            return entry
        check_seen(match)
        return await self._renewal.approve(entry, chosen, deed)

    async def story(self, caller: Caller, entry: Registration) -> dict[str, Any]:
        """How it stands with an entry: its health for everybody, what waits and why for those who may change it."""
        told: dict[str, Any] = {"health": health_json(await self._refresh.health(entry), self._desk.operator(caller))}
        if not self._desk.controls(caller, entry):
            return told
        if entry.family is Family.AGENT:
            told["calls"] = calls_json(self.calls(entry))
        drift = (await self._renewal.drift(entry))[:SHOWN_MAX]
        told["drift"] = [change.shown() for change in drift]
        if entry.family is Family.SERVER:
            told["withheld"] = [shown(one) for one in entry.withheld]
        if entry.status is Status.QUARANTINED and not drift:
            last = await self._renewal.versions(entry, 0, 1)
            told["quarantine"] = last[0].note if last else ""
        return told

    async def healths(self, entries: Sequence[Registration]) -> dict[str, bool | None]:
        """Whether each answered when it was looked at last, by name; None for those that never were."""
        found = await self._refresh.healths(entries)
        return {entry.name: is_well(found[entry.name]) if entry.name in found else None for entry in entries}

    async def history(self, caller: Caller, entry: Registration, before: int, limit: int) -> list[dict[str, Any]]:
        """The newest first. Raises Refused."""
        if not self._desk.controls(caller, entry):
            await self._desk.demand(caller, registering("read", entry.family, entry.name))
        return [version_json(version) for version in await self._renewal.versions(entry, before, limit)]

    async def _check_right(self, caller: Caller, entry: Registration, patch: Patch) -> Deed:
        deed = await self._desk.demand_control(caller, entry, "change")
        if self._desk.operator(caller):
            return deed
        for name in sorted(patch.model_fields_set):
            if name not in OWNERS or (name == "url" and entry.status is not Status.PENDING):
                raise BadRequest(name, "is for operators to change")
        return deed

    def _on_terms(self, entry: Registration, patch: Patch, seen: Registration | Candidate) -> tuple[Registration, str | None]:
        """The entry as it is to be, and its own keys where they change. `seen` has its card as it is now. Raises BadRequest."""
        ceiling = None if patch.ceiling is None else tuple(patch.ceiling)
        upstream = None if patch.upstream is None else settings_of(patch.upstream)
        delegation = keys = rank = jwks = None
        if isinstance(patch, AgentPatch):
            delegation, rank = patch.delegation, patch.rank
            if patch.trusted_keys is not None:
                self._onboarding.check_keys("trusted_keys", patch.trusted_keys)
                keys = tuple(patch.trusted_keys)
            if "jwks" in patch.model_fields_set:
                jwks = self._onboarding.key_set(patch.jwks)
        sensitivity, single = (patch.sensitivity, patch.sensitivities) if isinstance(patch, ServerPatch) else (None, None)
        status = None  # which comes later, by itself
        calls = _calls(patch)
        labels = (sensitivity, patch.clearance, single)
        terms = OperatorTerms(ceiling, delegation or "", upstream or {}, (), 0, *labels, *calls)
        terms.check(Registrant(entry.tenant, entry.owner, operator=True))
        terms.check_skills(seen.card)
        amendment = Amendment(ceiling, delegation, upstream, keys, rank, status, *labels, *calls)
        return amended(entry, amendment), jwks

    async def _moved(self, entry: Registration, url: str) -> Candidate:
        """What is found at another address. Raises BadRequest, BadCard and UpstreamFault."""
        try:
            return await self._onboarding.elsewhere(entry, url)
        except Unverified as error:
            raise BadRequest("url", f"leads to a card that can't be taken: {error}") from error

    async def _with_status(self, entry: Registration, patch: Patch, deed: Deed) -> Registration:
        if patch.status is None or patch.status == entry.status.value:
            return entry
        if patch.status == "active" and entry.status is not Status.DOWN:
            return await self._renewal.approve(entry, deed=deed)
        return await self._registry.set_status(entry.tenant, entry.name, Status(patch.status), deed)


def _calls(patch: Patch) -> tuple[Mapping[str, Mapping[str, Any]] | None, str | None, tuple[Endpoint, ...] | None]:
    """How an agent is to be called from now on, as far as the patch says: contracts, context, endpoints."""
    return (patch.contracts, patch.context, endpoints_of(patch.endpoints)) if isinstance(patch, AgentPatch) else (None, None, None)


def check_match(entry: Registration, match: str | None) -> None:
    """If-Match names the `updated` of what the caller saw, maybe among others (RFC 9110 s13.1.1). Raises PreconditionFailed."""
    if match is not None and match.strip() != "*" and rfc3339(entry.updated) not in (tag.strip().strip('"') for tag in match.split(",")):
        raise PreconditionFailed


def check_seen(match: str | None) -> None:
    """Who approves says what they saw: whoever waits may have changed meanwhile. Raises PreconditionRequired."""
    if match is None or match.strip() == "*":
        raise PreconditionRequired


def check_chosen(entry: Registration, chosen: Chosen) -> None:
    """A selection names something, and only what waits: an answer that says it is done has done it. Raises BadRequest."""
    if not any(chosen.values()):
        raise BadRequest("body", "names nothing to approve: name what is to be approved, or send no body to approve all that waits")
    waits = {(one.kind, one.name) for one in waiting(entry)}
    for kind, names in chosen.items():
        if strange := sorted(name for name in names if (kind, name) not in waits):
            raise BadRequest(kind, f"names {strange[0][:100]!r}, which does not wait for approval")


def health_json(health: Health, operator: bool) -> dict[str, Any]:
    """Never looked at: only when it will be. Operators are told what was called and what happened there."""
    return {
        "ok": is_well(health),
        "checked": rfc3339(health.checked) if health.checked else None,
        "next": rfc3339(health.next_at) if health.next_at else None,
        "failures": health.failures,
        "problem": health.note,
        **({"cause": health.cause} if operator else {}),
    }


def is_well(health: Health) -> bool | None:
    """None: it was never looked at."""
    return None if not health.checked else not health.failures


def calls_json(state: Mapping[str, Any]) -> dict[str, Any]:
    """How calls of an agent go, as this process sees it."""
    if not state:
        return {}
    fault = state["last_fault"]
    endpoints = [{**each, "since": _time(each["since"])} for each in state["endpoints"]]
    return {**state, "last_fault": fault and {**fault, "at": _time(fault["at"])}, "endpoints": endpoints}


def _time(seconds: float | None) -> str | None:
    return None if seconds is None else rfc3339(int(seconds * 1e6))


def version_json(version: Version) -> dict[str, Any]:
    shown = {"seq": version.seq, "at": rfc3339(version.at), "hash": version.hash, "signature": version.signature}
    return shown | {"status": version.status.value, "note": version.note}

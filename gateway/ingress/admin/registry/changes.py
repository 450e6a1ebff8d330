"""Changes of registered agents and servers: new terms, a new address, a refresh, an approval."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

from pydantic import Field

from gateway.ingress.admin.bodies import ApiBody, EndpointBody, UpstreamBody, parse_endpoints, prices_of_agent, upstream_settings
from gateway.ingress.admin.registry.access import (
    RegistryAccess,
    act_of_registry_change,
    check_changeable,
    is_callable,
    match_all,
    registry_change_of,
)
from gateway.ingress.admin.registry.preconditions import check_has_if_match, check_if_match
from gateway.ingress.admin.registry.versions import difference_document, version_document
from gateway.registration.card_source import CardRejected
from gateway.registration.inspection import EntryInspector
from gateway.registration.refresh import EntryRefresher
from gateway.registration.requests import BadRequest, OperatorTerms, Registrant
from gateway.registration.stored_secrets import find_differences, restore_secrets
from gateway.tasks.log import to_rfc3339
from policies.callers import Caller
from registry.cards.card import AgentEndpoint, Family, Registration, RegistrationStatus
from registry.cards.effects import EFFECTS_MAX, parse_effects
from registry.cards.prices import PRICES_MAX, parse_prices
from registry.changes import RegistryChange
from registry.drift.comparison import SHOWN_MAX
from registry.drift.pins import awaiting_approval, describe_withheld
from registry.drift.renewal import DriftApproval
from registry.health.checks import ProbeState
from registry.rows import Candidate, RegistrationPatch, apply_patch
from registry.store import Registry, UnknownName

AWAITING_STATUSES = (RegistrationStatus.PENDING, RegistrationStatus.QUARANTINED)
OWNER_FIELDS = frozenset({"url", "jwks"})  # fields that an owner may change without being an operator


ChosenNames = Mapping[str, Sequence[str]]  # names of definitions, by kind


class EntryPatch(ApiBody):
    """The fields that may be changed. An omitted field stays as it is."""

    url: str | None = Field(None, max_length=2048)
    ceiling: list[str] | None = Field(None, max_length=1000)
    upstream: UpstreamBody | None = None
    status: Literal["active", "quarantined", "down"] | None = None
    clearance: int | None = None
    effects: dict[str, dict[str, Any]] | None = Field(None, max_length=EFFECTS_MAX)
    label: str | None = None


class ServerPatch(EntryPatch):
    sensitivity: int | None = None
    sensitivities: dict[str, int] | None = Field(None, max_length=2000)
    model_free: list[str] | None = Field(None, max_length=2000)
    prices: dict[str, str] | None = Field(None, max_length=PRICES_MAX)


class AgentPatch(EntryPatch):
    delegation: str | None = None
    trusted_keys: list[dict[str, Any]] | None = Field(None, max_length=50)
    rank: int | None = Field(None, ge=-1000, le=1000)
    jwks: dict[str, Any] | None = None
    contracts: dict[str, dict[str, Any]] | None = None
    context: str | None = None
    endpoints: list[EndpointBody] | None = Field(None, max_length=100)
    price: str | None = Field(None, max_length=20)
    memory: str | None = None


class EntryChanges:
    """Applies changes. Operators may change everything; an owner the address of a pending entry, and its own keys."""

    def __init__(
        self,
        registry_access: RegistryAccess,
        registry: Registry,
        inspector: EntryInspector,
        drift_approval: DriftApproval,
        refresher: EntryRefresher,
        *,
        call_state_of: Callable[[Registration], Mapping[str, Any]],
    ) -> None:
        self._registry_access = registry_access
        self._registry = registry
        self._inspector = inspector
        self._drift_approval = drift_approval
        self._refresher = refresher
        self._call_state_of = call_state_of

    async def patch(self, caller: Caller, entry: Registration, patch: EntryPatch, if_match: str | None = None) -> Registration:
        """Applies a patch to an entry that the caller may see, completely or not at all. `if_match` is the If-Match header.

        Raises CallRefused, PreconditionFailed, PreconditionRequired, BadRequest, BadCard, UpstreamFault, Outdated, UnknownName.
        """
        registry_change = await self._check_may_change(caller, entry, patch)
        check_changeable(entry)
        check_if_match(entry, if_match)
        if patch.status == "active" and patch.url is None and entry.status in AWAITING_STATUSES:
            check_has_if_match(if_match)
        await self._check_upstream(entry, patch)
        found = await self._read_at_new_address(entry, patch, patch.url) if patch.url is not None else None
        changed, jwks = self._apply_patch(entry, patch, found or entry)
        if changed.endpoints != entry.endpoints:
            await self._inspector.endpoint_check.check(changed)
        if changed != entry or jwks is not None:
            changed = await self._registry.update(changed, registry_change, jwks=jwks)
        if found is not None:
            changed = await self._drift_approval.apply_found(changed, found, approved_by_operator=True, registry_change=registry_change)
        elif isinstance(patch, AgentPatch) and patch.trusted_keys is not None and changed.card is not None:
            changed = await self._refresher.recheck_card(changed, registry_change)
        return await self._set_status(changed, patch, registry_change)

    async def find_changes(self, caller: Caller, entry: Registration, patch: EntryPatch, if_match: str | None = None) -> list[str]:
        """Returns the paths of the terms that a patch would change, without changing anything. The address is not read.

        Raises CallRefused, PreconditionFailed and BadRequest.
        """
        await self._check_may_change(caller, entry, patch, "preview")
        check_changeable(entry)
        check_if_match(entry, if_match)
        await self._check_upstream(entry, patch)
        changed, jwks = self._apply_patch(entry, patch, entry)
        terms = patch.model_fields_set & set(RegistrationPatch.__slots__) - {"upstream", "status"}
        paths = [name for name in terms if getattr(entry, name, None) != getattr(changed, name, None)]
        paths += ["price"] if isinstance(patch, AgentPatch) and changed.prices != entry.prices else []
        paths += ["jwks"] if jwks is not None and jwks != self._registry.jwks_of_client(entry.client_id) else []
        paths += ["url"] if patch.url is not None and patch.url not in (entry.url, entry.facts.get("source")) else []
        return sorted({*paths, *find_differences(entry.upstream, changed.upstream, "upstream")})

    async def _check_upstream(self, entry: Registration, patch: EntryPatch) -> None:
        """Raises BadRequest for settings of the upstream that an entry of this kind can't have."""
        upstream = _upstream_of(entry, patch)
        if upstream is not None:
            await self._inspector.check_upstream(entry.kind, upstream)

    async def refresh(self, caller: Caller, entry: Registration) -> Registration:
        """Reads the entry at its address again. Raises CallRefused, BadRequest, BadCard, UpstreamFault, Outdated, UnknownName."""
        if entry.family is Family.AGENT:
            return await self._refresher.refresh_agent(entry, await self._registry_access.authorize_owner_change(caller, entry, "refresh"))
        grant = await self._registry_access.require_grant(caller, act_of_registry_change("refresh", entry.family, entry.name))
        check_changeable(entry)
        return await self._refresher.refresh_server(entry, registry_change_of(grant), grant)

    async def approve(self, caller: Caller, entry: Registration, if_match: str | None, chosen: ChosenNames | None = None) -> Registration:
        """Approves what waits, so that the entry can be called. For a server, `chosen` limits it to the named definitions.

        Raises CallRefused, PreconditionFailed, PreconditionRequired, BadRequest, BadCard, Outdated, UnknownName.
        """
        registry_change = await self._registry_access.authorize_change(caller, act_of_registry_change("approve", entry.family, entry.name))
        check_if_match(entry, if_match)
        if chosen is not None:
            check_is_awaiting(entry, chosen)
        if entry.status not in AWAITING_STATUSES and not any(awaiting_approval(entry)):
            return entry
        check_has_if_match(if_match)
        return await self._drift_approval.approve(entry, chosen, registry_change)

    async def state_document(self, caller: Caller, entry: Registration) -> dict[str, Any]:
        """Returns the health of an entry, and for operators and its owner also its calls, its drift and why it is quarantined."""
        document: dict[str, Any] = {
            "health": health_json(await self._refresher.probe_state(entry), self._registry_access.is_operator(caller))
        }
        if not self._registry_access.is_operator_or_owner(caller, entry):
            return document
        if entry.family is Family.AGENT:
            document["calls"] = calls_json(self._call_state_of(entry))
        drift = (await self._drift_approval.read_drift(entry))[:SHOWN_MAX]
        document["drift"] = [change.to_document() for change in drift]
        if entry.family is Family.SERVER:
            document["withheld"] = [describe_withheld(one) for one in entry.withheld]
        if entry.status is RegistrationStatus.QUARANTINED and not drift:
            last = await self._drift_approval.read_versions(entry, 0, 1)
            document["quarantine"] = last[0].note if last else ""
        return document

    async def healthy_by_name(self, entries: Sequence[Registration]) -> dict[str, bool | None]:
        """Returns by name whether each entry passed its last probe; None for entries that were never probed."""
        found = await self._refresher.probe_states(entries)
        return {entry.name: is_healthy(found[entry.name]) if entry.name in found else None for entry in entries}

    async def list_filter(self, caller: Caller, *, failing: bool) -> Callable[[Registration], bool]:
        """Returns the filter of a list: of all entries, or of those that can't be called now or failed their last probe."""
        if not failing:
            return match_all
        names = await self._refresher.failing_names(caller.principal.tenant)
        return lambda entry: entry.name in names or not is_callable(entry, self._registry_access.kills)

    async def history(self, caller: Caller, entry: Registration, before_seq: int, limit: int) -> dict[str, Any]:
        """Returns a page of the versions of the entry, the newest first. Raises CallRefused."""
        if not self._registry_access.is_operator_or_owner(caller, entry):
            await self._registry_access.authorize_change(caller, act_of_registry_change("read", entry.family, entry.name))
        versions = await self._drift_approval.read_versions(entry, before_seq, limit)
        following = str(versions[-1].seq) if len(versions) == limit and versions[-1].seq > 1 else None
        return {"items": [version_document(version) for version in versions], "next": following}

    async def version(self, caller: Caller, entry: Registration, seq: int) -> dict[str, Any]:
        """Returns a version of the entry with what it changed. Raises CallRefused, and UnknownName for one that is not stored."""
        if not self._registry_access.is_operator_or_owner(caller, entry):
            await self._registry_access.authorize_change(caller, act_of_registry_change("read", entry.family, entry.name))
        versions = await self._drift_approval.read_versions(entry, seq + 1, 2)
        if not versions or versions[0].seq != seq:
            raise UnknownName(entry.name)
        return difference_document(versions)

    async def _check_may_change(self, caller: Caller, entry: Registration, patch: EntryPatch, verb: str = "change") -> RegistryChange:
        registry_change = await self._registry_access.authorize_owner_change(caller, entry, verb)
        if self._registry_access.is_operator(caller):
            return registry_change
        for name in sorted(patch.model_fields_set):
            if name not in OWNER_FIELDS or (name == "url" and entry.status is not RegistrationStatus.PENDING):
                raise BadRequest(name, "can be changed by operators only")
        return registry_change

    def _apply_patch(self, entry: Registration, patch: EntryPatch, current: Registration | Candidate) -> tuple[Registration, str | None]:
        """Returns the entry with the patch applied, and its own key set where it changes. `current` has the card to check against.

        Raises BadRequest.
        """
        ceiling = None if patch.ceiling is None else tuple(patch.ceiling)
        upstream = _upstream_of(entry, patch)
        delegation = keys = rank = jwks = None
        if isinstance(patch, AgentPatch):
            delegation, rank = patch.delegation, patch.rank
            if patch.trusted_keys is not None:
                self._inspector.check_keys("trusted_keys", patch.trusted_keys)
                keys = tuple(patch.trusted_keys)
            if "jwks" in patch.model_fields_set:
                jwks = self._inspector.encode_key_set(patch.jwks)
        sensitivity, single = (patch.sensitivity, patch.sensitivities) if isinstance(patch, ServerPatch) else (None, None)
        status = None  # set afterwards by _set_status
        calls = _calling_terms(patch)
        labels = (sensitivity, patch.clearance, single)
        tools = tuple(patch.model_free) if isinstance(patch, ServerPatch) and patch.model_free is not None else None
        prices = _prices_of(patch)
        memory = patch.memory if isinstance(patch, AgentPatch) else None
        terms = OperatorTerms(ceiling, delegation or "", upstream or {}, (), 0, *labels, *calls, model_free=tools, prices=prices)
        terms = replace(terms, effects=patch.effects, memory=memory, label=patch.label)
        terms.check(Registrant(entry.tenant, entry.owner, is_operator=True))
        terms.check_skills(current.card)
        amendment = RegistrationPatch(ceiling, delegation, upstream, keys, rank, status, *labels, *calls, model_free=tools, memory=memory)
        amendment = replace(amendment, label=patch.label)
        if prices is not None:
            amendment = replace(amendment, prices=parse_prices(prices))
        if patch.effects is not None:
            amendment = replace(amendment, effects=parse_effects(patch.effects))
        return apply_patch(entry, amendment), jwks

    async def _read_at_new_address(self, entry: Registration, patch: EntryPatch, url: str) -> Candidate:
        """Reads the entry at another address, with its new settings and keys. Raises BadRequest, BadCard and UpstreamFault."""
        upstream, keys = _upstream_of(entry, patch), patch.trusted_keys if isinstance(patch, AgentPatch) else None
        if upstream is not None:
            entry = replace(entry, upstream=upstream)
        if keys is not None:
            self._inspector.check_keys("trusted_keys", keys)
            entry = replace(entry, trusted_keys=tuple(keys))
        try:
            return await self._inspector.inspect_at_url(entry, url)
        except CardRejected as error:
            raise BadRequest("url", f"has a card that can't be used: {error}") from error

    async def _set_status(self, entry: Registration, patch: EntryPatch, registry_change: RegistryChange) -> Registration:
        if patch.status is None or patch.status == entry.status.value:
            return entry
        if patch.status == "active" and entry.status is not RegistrationStatus.DOWN:
            return await self._drift_approval.approve(entry, registry_change=registry_change)
        return await self._registry.set_status(entry.tenant, entry.name, RegistrationStatus(patch.status), registry_change)


def _upstream_of(entry: Registration, patch: EntryPatch) -> dict[str, Any] | None:
    """Returns the settings of the upstream that a patch has, with the secrets that stay; None where all stay. Raises BadRequest."""
    return None if patch.upstream is None else restore_secrets(upstream_settings(patch.upstream), entry.upstream)


def _prices_of(patch: EntryPatch) -> Mapping[str, str] | None:
    """Returns the prices of a patch as decimal texts; None where they stay."""
    if isinstance(patch, AgentPatch):
        return prices_of_agent(patch.price)
    return patch.prices if isinstance(patch, ServerPatch) else None


def _calling_terms(patch: EntryPatch) -> tuple[Mapping[str, Mapping[str, Any]] | None, str | None, tuple[AgentEndpoint, ...] | None]:
    """Returns the contracts, the context and the endpoints of a patch; None for each that stays."""
    return (patch.contracts, patch.context, parse_endpoints(patch.endpoints)) if isinstance(patch, AgentPatch) else (None, None, None)


def check_is_awaiting(entry: Registration, chosen: ChosenNames) -> None:
    """Raises BadRequest for a selection that is empty, or names a definition that does not wait for approval."""
    if not any(chosen.values()):
        raise BadRequest("body", "names nothing to approve: name definitions, or send no body to approve all that wait")
    waits = {(one.kind, one.name) for one in awaiting_approval(entry)}
    for kind, names in chosen.items():
        if unknown := sorted(name for name in names if (kind, name) not in waits):
            raise BadRequest(kind, f"names {unknown[0][:100]!r}, which does not wait for approval")


def health_json(health: ProbeState, is_operator: bool) -> dict[str, Any]:
    """Returns a probe state as JSON; only operators see `cause`. An entry that was never probed has only the time of its first probe."""
    return {
        "ok": is_healthy(health),
        "checked": to_rfc3339(health.checked) if health.checked else None,
        "next": to_rfc3339(health.next_at) if health.next_at else None,
        "failures": health.failures,
        "problem": health.note,
        **({"cause": health.cause} if is_operator else {}),
    }


def is_healthy(health: ProbeState) -> bool | None:
    """Returns whether the last probe succeeded; None before the first one."""
    return None if not health.checked else not health.failures


def calls_json(state: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the state of an agent's calls in this process as JSON."""
    if not state:
        return {}
    fault = state["last_fault"]
    endpoints = [{**each, "since": _rfc3339_or_none(each["since"])} for each in state["endpoints"]]
    return {**state, "last_fault": fault and {**fault, "at": _rfc3339_or_none(fault["at"])}, "endpoints": endpoints}


def _rfc3339_or_none(seconds: float | None) -> str | None:
    return None if seconds is None else to_rfc3339(int(seconds * 1e6))

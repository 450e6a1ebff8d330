"""Applies newly found cards and definitions: harmless changes at once, all others after an operator's approval."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from sqlalchemy import Connection

from registry import card_history as history
from registry.card_history import CardVersion, NewCardVersion, VersionStatus
from registry.cards.card import Family, Registration, RegistrationStatus
from registry.cards.reader import read_card
from registry.cards.signatures import SignatureState
from registry.changes import APPROVED, REFRESHED, RegistryChange
from registry.drift.comparison import Difference, compare_documents
from registry.drift.pinning import DefinitionPinning
from registry.drift.pins import pinned_differences
from registry.rows import Candidate, apply_candidate, content_text_of, sha256_hex
from registry.store import Registry, RegistryDatabase


class DriftApproval:
    """Keeps the approved card in force until an operator approves another; quarantines an agent whose card changed until then."""

    def __init__(self, database: RegistryDatabase, registry: Registry) -> None:
        self._database = database
        self._registry = registry
        self._pinning = DefinitionPinning(registry)

    async def apply_found(
        self, entry: Registration, found: Candidate, approved_by_operator: bool = False, registry_change: RegistryChange = REFRESHED
    ) -> Registration:
        """Applies a found card or offer. Raises Outdated and UnknownName.

        `approved_by_operator`: an operator approved it, whatever changed.
        """
        if entry.family is Family.SERVER:
            return await self._pinning.apply_found(entry, found, approved_by_operator, registry_change)
        waiting = await self.find_awaiting_approval(entry)
        if content_text_of(found) == content_text_of(entry) and dict(found.facts) == dict(entry.facts) and found.url == entry.url:
            return await self._dismiss_awaiting(entry, waiting, registry_change)
        risky = [change for change in compare_with_found(entry, found) if not change.is_harmless]
        if approved_by_operator or entry.status is RegistrationStatus.PENDING or not risky:
            return await self._put_in_force(entry, found, registry_change)
        return await self._hold_for_approval(entry, found, waiting, registry_change)

    async def reject_card(self, entry: Registration, text: str, problem: str, registry_change: RegistryChange = REFRESHED) -> Registration:
        """Records a card that no approval can make valid, and quarantines the agent. Raises Outdated and UnknownName."""
        versions = await self.read_versions(entry, 0, 1)
        known = bool(versions) and versions[0].hash == sha256_hex(text) and versions[0].note == problem
        if known and entry.status is RegistrationStatus.QUARANTINED:
            return entry
        note = NewCardVersion(text, SignatureState.UNVERIFIED.value, VersionStatus.REJECTED, {}, problem)
        return await self._registry.update(_with_quarantine(entry), registry_change, _version_writer(entry, note))

    async def approve(
        self, entry: Registration, chosen: Mapping[str, Sequence[str]] | None = None, registry_change: RegistryChange = APPROVED
    ) -> Registration:
        """Puts what waits for approval into force and activates the entry; of a server, with `chosen`, only those definitions.

        Raises BadCard, Outdated and UnknownName.
        """
        if entry.family is Family.SERVER:
            return await self._pinning.approve(entry, chosen, registry_change)
        waiting = await self.find_awaiting_approval(entry)
        active = replace(entry, status=RegistrationStatus.ACTIVE)
        if waiting is None:
            return await self._registry.update(active, registry_change)
        seq, changed = waiting.seq, apply_candidate(active, _candidate_from_version(entry, waiting))
        return await self._registry.update(
            changed, registry_change, lambda connection, _at: history.approve_version(connection, _key(entry), seq)
        )

    async def find_awaiting_approval(self, entry: Registration) -> CardVersion | None:
        """The card version that waits for approval, or None."""
        return await self._database.read(lambda connection: history.find_pending(connection, _key(entry)))

    async def read_versions(self, entry: Registration, before: int, limit: int) -> Sequence[CardVersion]:
        """The versions, newest first; with `before`, those with a lower number."""
        return await self._database.read(lambda connection: history.read_versions(connection, _key(entry), before, limit))

    async def read_drift(self, entry: Registration) -> list[Difference]:
        """The differences between what is in force and what waits for approval."""
        if entry.family is Family.SERVER:
            return pinned_differences(entry)
        waiting = await self.find_awaiting_approval(entry)
        return compare_with_found(entry, _candidate_from_version(entry, waiting)) if waiting else []

    async def _dismiss_awaiting(self, entry: Registration, awaiting: CardVersion | None, registry_change: RegistryChange) -> Registration:
        """Drops a waiting card when the agent returned to the approved one. Only an operator ends the quarantine."""
        if awaiting is None or entry.status is RegistrationStatus.PENDING:
            return entry
        return await self._registry.update(entry, registry_change, lambda connection, _at: history.reject_pending(connection, _key(entry)))

    async def _put_in_force(self, entry: Registration, found: Candidate, registry_change: RegistryChange) -> Registration:
        standing = VersionStatus.PENDING if entry.status is RegistrationStatus.PENDING else VersionStatus.APPROVED
        return await self._registry.update(
            apply_candidate(entry, found), registry_change, _version_writer(entry, _new_version(found, standing))
        )

    async def _hold_for_approval(
        self, entry: Registration, found: Candidate, awaiting: CardVersion | None, registry_change: RegistryChange
    ) -> Registration:
        if awaiting is not None and awaiting.hash == sha256_hex(content_text_of(found)) and entry.status is RegistrationStatus.QUARANTINED:
            return entry
        return await self._registry.update(
            _with_quarantine(entry), registry_change, _version_writer(entry, _new_version(found, VersionStatus.PENDING))
        )


def compare_with_found(entry: Registration, found: Candidate) -> list[Difference]:
    """The differences between entry and found card, including signatures and the address of calls."""
    known_document = entry.card.document if entry.card else {}
    differences = compare_documents(known_document, found.card.document if found.card else {})
    if entry.url != found.url:
        differences.append(Difference("interface", entry.url, found.url))
    return differences + _signature_differences(entry, found)


def _signature_differences(entry: Registration, found: Candidate) -> list[Difference]:
    """A lost signature, or one by another key than before while no key is pinned."""
    before, after = ((str(one.facts.get("signature", "none")), str(one.facts.get("signed_by", ""))) for one in (entry, found))
    if before[0] != SignatureState.VERIFIED:
        return []
    if after[0] != SignatureState.VERIFIED:
        return [Difference("signatures", before[0], after[0])]
    return [] if before[1] == after[1] or entry.trusted_keys else [Difference("signatures.kid", before[1], after[1])]


def _with_quarantine(entry: Registration) -> Registration:
    return entry if entry.status is RegistrationStatus.PENDING else replace(entry, status=RegistrationStatus.QUARANTINED)


def _new_version(found: Candidate, standing: VersionStatus) -> NewCardVersion:
    return NewCardVersion(content_text_of(found), str(found.facts.get("signature", "none")), standing, found.facts)


def _version_writer(entry: Registration, note: NewCardVersion) -> Callable[[Connection, int], None]:
    """A function that writes a version within a commit."""
    return lambda connection, at: history.write_version(connection, _key(entry), at, note)


def _candidate_from_version(entry: Registration, version: CardVersion) -> Candidate:
    """The candidate of a stored version. Raises BadCard when the current rules refuse it."""
    return Candidate(
        tenant=entry.tenant,
        name=entry.name,
        family=entry.family,
        kind=entry.kind,
        url=str(version.facts.get("interface") or entry.url),
        owner=entry.owner,
        status=entry.status,
        facts=version.facts,
        card=read_card(json.loads(version.card)),
        card_text=version.card,
    )


def _key(entry: Registration) -> tuple[str, str]:
    return entry.tenant, entry.name

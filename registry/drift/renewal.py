"""What is found anew of an agent or a server: taken where nothing is at stake, held back for an operator where something is."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from sqlalchemy import Connection

from registry import card_history as history
from registry.card_history import Entry, Standing, Version
from registry.cards.card import Family, Registration, Status
from registry.cards.reader import read_card
from registry.cards.signatures import Signature
from registry.changes import APPROVED, LOOK, Deed
from registry.drift.comparison import Change, changes
from registry.drift.pinning import Pinning
from registry.drift.pins import differences
from registry.rows import Candidate, digest, recarded, text_of
from registry.store import Database, Registry


class Renewal:
    """The card in force stays in force until an operator approves another; an agent whose card changed is quarantined until then."""

    def __init__(self, database: Database, registry: Registry) -> None:
        self._database = database
        self._registry = registry
        self._pinning = Pinning(registry)

    async def take(self, entry: Registration, found: Candidate, trusted: bool = False, deed: Deed = LOOK) -> Registration:
        """`trusted`: an operator said so, whatever changed. Raises Outdated and UnknownName."""
        if entry.family is Family.SERVER:
            return await self._pinning.take(entry, found, trusted, deed)
        waiting = await self.waiting(entry)
        if text_of(found) == text_of(entry) and dict(found.facts) == dict(entry.facts) and found.url == entry.url:
            return await self._unchanged(entry, waiting, deed)
        risky = [change for change in compared(entry, found) if not change.harmless]
        if trusted or entry.status is Status.PENDING or not risky:
            return await self._taken(entry, found, deed)
        return await self._held(entry, found, waiting, deed)

    async def refuse(self, entry: Registration, text: str, why: str, deed: Deed = LOOK) -> Registration:
        """A card that no approval can make good: what was in force is not called any more. Raises Outdated and UnknownName."""
        versions = await self.versions(entry, 0, 1)
        known = bool(versions) and versions[0].hash == digest(text) and versions[0].note == why
        if known and entry.status is Status.QUARANTINED:
            return entry
        note = Entry(text, Signature.UNVERIFIED.value, Standing.REJECTED, {}, why)
        return await self._registry.update(_stopped(entry), deed, _noting(entry, note))

    async def approve(self, entry: Registration, chosen: Mapping[str, Sequence[str]] | None = None, deed: Deed = APPROVED) -> Registration:
        """What waits is in force from now on, and the entry can be called; of a server, only what is `chosen`, where that is given.

        Raises BadCard, Outdated and UnknownName.
        """
        if entry.family is Family.SERVER:
            return await self._pinning.approve(entry, chosen, deed)
        waiting = await self.waiting(entry)
        active = replace(entry, status=Status.ACTIVE)
        if waiting is None:
            return await self._registry.update(active, deed)
        seq, changed = waiting.seq, recarded(active, _candidate(entry, waiting))
        return await self._registry.update(changed, deed, lambda connection, _at: history.settle(connection, _key(entry), seq))

    async def waiting(self, entry: Registration) -> Version | None:
        """The card that waits for an operator."""
        return await self._database.read(lambda connection: history.pending(connection, _key(entry)))

    async def versions(self, entry: Registration, before: int, limit: int) -> Sequence[Version]:
        """The newest first."""
        return await self._database.read(lambda connection: history.versions(connection, _key(entry), before, limit))

    async def drift(self, entry: Registration) -> list[Change]:
        """Between what is in force and what waits."""
        if entry.family is Family.SERVER:
            return differences(entry)
        waiting = await self.waiting(entry)
        return compared(entry, _candidate(entry, waiting)) if waiting else []

    async def _unchanged(self, entry: Registration, waiting: Version | None, deed: Deed) -> Registration:
        """A card that went back to what it was needs no approval any more; the quarantine stays for an operator to end."""
        if waiting is None or entry.status is Status.PENDING:
            return entry
        return await self._registry.update(entry, deed, lambda connection, _at: history.dismiss(connection, _key(entry)))

    async def _taken(self, entry: Registration, found: Candidate, deed: Deed) -> Registration:
        standing = Standing.PENDING if entry.status is Status.PENDING else Standing.APPROVED
        return await self._registry.update(recarded(entry, found), deed, _noting(entry, _entry(found, standing)))

    async def _held(self, entry: Registration, found: Candidate, waiting: Version | None, deed: Deed) -> Registration:
        if waiting is not None and waiting.hash == digest(text_of(found)) and entry.status is Status.QUARANTINED:
            return entry
        return await self._registry.update(_stopped(entry), deed, _noting(entry, _entry(found, Standing.PENDING)))


def compared(entry: Registration, found: Candidate) -> list[Change]:
    """What changed, signatures and the place of calls included."""
    before = entry.card.document if entry.card else {}
    differences = changes(before, found.card.document if found.card else {})
    if entry.url != found.url:
        differences.append(Change("interface", entry.url, found.url))
    return differences + _signatures(entry, found)


def _signatures(entry: Registration, found: Candidate) -> list[Change]:
    """A signature that is lost, or made by another key than before while no key is pinned."""
    before, after = ((str(one.facts.get("signature", "none")), str(one.facts.get("signed_by", ""))) for one in (entry, found))
    if before[0] != Signature.VERIFIED:
        return []
    if after[0] != Signature.VERIFIED:
        return [Change("signatures", before[0], after[0])]
    return [] if before[1] == after[1] or entry.trusted_keys else [Change("signatures.kid", before[1], after[1])]


def _stopped(entry: Registration) -> Registration:
    return entry if entry.status is Status.PENDING else replace(entry, status=Status.QUARANTINED)


def _entry(found: Candidate, standing: Standing) -> Entry:
    return Entry(text_of(found), str(found.facts.get("signature", "none")), standing, found.facts)


def _noting(entry: Registration, note: Entry) -> Callable[[Connection, int], None]:
    """Writes one version down within a commit."""
    return lambda connection, at: history.append(connection, _key(entry), at, note)


def _candidate(entry: Registration, version: Version) -> Candidate:
    """A version as it was found. Raises BadCard when today's rules refuse it."""
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

"""Applies what a server offers now to its registration, against the pinned definitions, and approves single definitions."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from sqlalchemy import Connection

from registry import card_history as history
from registry.card_history import NewCardVersion, VersionStatus
from registry.cards.card import Registration, RegistrationStatus
from registry.changes import APPROVED, REFRESHED, RegistryChange
from registry.drift.pins import awaiting_approval, with_approved, withhold_changed, withhold_suspicious
from registry.rows import Candidate, apply_candidate, content_text_of, sha256_hex
from registry.store import Registry


class DefinitionPinning:
    """Pins a server's definitions. The server stays active: only changed definitions are withheld until an operator approves them."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    async def apply_found(
        self, entry: Registration, found: Candidate, approved_by_operator: bool = False, registry_change: RegistryChange = REFRESHED
    ) -> Registration:
        """Applies what the server offers now. Raises Outdated and UnknownName.

        `approved_by_operator`: an operator set the address, so everything except suspicious definitions is pinned again.
        """
        fresh = (
            withhold_suspicious(found)
            if approved_by_operator or entry.status is RegistrationStatus.PENDING
            else withhold_changed(entry, found)
        )
        return await self._write_if_changed(entry, apply_candidate(entry, fresh), registry_change)

    async def approve(
        self, entry: Registration, chosen: Mapping[str, Sequence[str]] | None = None, registry_change: RegistryChange = APPROVED
    ) -> Registration:
        """Puts definitions that wait for approval into force: all of them, and the server too, or those `chosen` by kind and name.

        Raises Outdated and UnknownName.
        """
        changed = with_approved(entry, chosen)
        return await self._write_if_changed(
            entry, replace(changed, status=RegistrationStatus.ACTIVE) if chosen is None else changed, registry_change
        )

    async def _write_if_changed(self, entry: Registration, changed: Registration, registry_change: RegistryChange) -> Registration:
        if changed == entry:
            return entry
        return await self._registry.update(changed, registry_change, lambda connection, at: _write_version(connection, at, changed))


def _write_version(connection: Connection, at: int, changed: Registration) -> None:
    """Writes the version of the definitions: approved if all of it is in force, else pending."""
    key, text = (changed.tenant, changed.name), content_text_of(changed)
    is_approved = changed.status is not RegistrationStatus.PENDING and not any(awaiting_approval(changed))
    last = next(iter(history.read_versions(connection, key, limit=1)), None)
    if last is None or last.hash != sha256_hex(text):
        standing = VersionStatus.APPROVED if is_approved else VersionStatus.PENDING
        history.write_version(connection, key, at, NewCardVersion(text, "none", standing, changed.facts))
    elif is_approved and last.status is VersionStatus.PENDING:
        history.approve_version(connection, key, last.seq)

"""What a server is found to offer now, against what was pinned: written down, and approved definition by definition."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from sqlalchemy import Connection

from registry import card_history as history
from registry.card_history import Entry, Standing
from registry.cards.card import Registration, Status
from registry.changes import APPROVED, LOOK, Deed
from registry.drift.pins import approved, first_seen, renewed, waiting
from registry.rows import Candidate, digest, recarded, text_of
from registry.store import Registry


class Pinning:
    """The server stays up whatever it changes: only what changed is out of sight until an operator approves it."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    async def take(self, entry: Registration, found: Candidate, trusted: bool = False, deed: Deed = LOOK) -> Registration:
        """`trusted`: an operator named the address anew, so all there is pinned as at first. Raises Outdated and UnknownName."""
        fresh = first_seen(found) if trusted or entry.status is Status.PENDING else renewed(entry, found)
        return await self._written(entry, recarded(entry, fresh), deed)

    async def approve(self, entry: Registration, chosen: Mapping[str, Sequence[str]] | None = None, deed: Deed = APPROVED) -> Registration:
        """What waits is in force from now on: all of it, and the server too, or what is `chosen` by kind and name.

        Raises Outdated and UnknownName.
        """
        changed = approved(entry, chosen)
        return await self._written(entry, replace(changed, status=Status.ACTIVE) if chosen is None else changed, deed)

    async def _written(self, entry: Registration, changed: Registration, deed: Deed) -> Registration:
        if changed == entry:
            return entry
        return await self._registry.update(changed, deed, lambda connection, at: _note(connection, at, changed))


def _note(connection: Connection, at: int, changed: Registration) -> None:
    """The version that is in force, or that waits for somebody in part."""
    key, text = (changed.tenant, changed.name), text_of(changed)
    settled = changed.status is not Status.PENDING and not any(waiting(changed))
    last = next(iter(history.versions(connection, key, limit=1)), None)
    if last is None or last.hash != digest(text):
        standing = Standing.APPROVED if settled else Standing.PENDING
        history.append(connection, key, at, Entry(text, "none", standing, changed.facts))
    elif settled and last.status is Standing.PENDING:
        history.settle(connection, key, last.seq)

"""The feed of changes: every process sees the changes of all processes, in the order of their commits, and can go on after any of them."""

import asyncio
from collections.abc import AsyncIterator
from typing import Final

from msgspec import Struct
from sqlalchemy import Connection, select

from gateway.state.board.store import BoardStore, keys_within, read_changes
from gateway.state.board.values import Change
from gateway.state.tables import state_changes, state_counters

POLL_SECONDS: Final = 0.5  # between two looks for changes of other processes
STREAM_ROUNDS: Final = 600  # of POLL_SECONDS, after which a stream ends; the reader's next request is authenticated anew
PAGE: Final = 200


class FeedPage(Struct, frozen=True):
    """Changes after a place. `seq`: the place to go on after. `is_complete`: False where older changes after the place were deleted.

    Of a key that changed very often, the oldest changes may be missing in any case; the newest is always there.
    """

    changes: tuple[Change, ...]
    seq: int
    is_complete: bool = True


class BoardFeed:
    """Follows the changes of tenants."""

    def __init__(self, store: BoardStore) -> None:
        self._store = store
        self._changed = asyncio.Event()

    def announce(self) -> None:
        """Wakes the followers in this process after a change."""
        self._changed.set()
        self._changed = asyncio.Event()

    async def last(self, tenant: str) -> int:
        """The number of the newest change; 0 where there was none."""
        return (await self._store.database.read(lambda connection: _read_counters(connection, tenant)))[0]

    async def after(self, tenant: str, prefix: str, seq: int) -> FeedPage:
        """Changes of a prefix after number `seq`, the oldest first, at most PAGE of them."""
        return await self._store.database.read(lambda connection: _read_page(connection, tenant, prefix, seq))

    async def follow(self, tenant: str, prefix: str, after: int | None) -> AsyncIterator[FeedPage]:
        """Yields the changes after a number, or those from now on for None; an empty page where there was none for POLL_SECONDS."""
        place = await self.last(tenant) if after is None else after
        for _ in range(STREAM_ROUNDS):
            changed = self._changed
            page = await self.after(tenant, prefix, place)
            place = page.seq
            yield page
            if len(page.changes) < PAGE:
                try:
                    await asyncio.wait_for(changed.wait(), POLL_SECONDS)
                except TimeoutError:
                    continue


def _read_counters(connection: Connection, tenant: str) -> tuple[int, int]:
    """The numbers of the newest change, and of the newest one that was deleted for its age."""
    query = select(state_counters.c.seq, state_counters.c.pruned).where(state_counters.c.tenant == tenant)
    found = connection.execute(query).first()
    return (0, 0) if found is None else (found.seq, found.pruned)


def _read_page(connection: Connection, tenant: str, prefix: str, seq: int) -> FeedPage:
    newest, pruned = _read_counters(connection, tenant)
    if newest <= seq:
        return FeedPage((), seq)
    columns = state_changes.c
    query = keys_within(select(state_changes), columns, tenant, prefix).where(columns.seq > seq, columns.seq <= newest)
    changes = tuple(read_changes(connection, query.order_by(columns.seq).limit(PAGE)))
    return FeedPage(changes, changes[-1].seq if len(changes) == PAGE else newest, is_complete=seq >= pruned)

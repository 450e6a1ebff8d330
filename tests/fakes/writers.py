"""Holds up the writer of a database, so that tests act while commits wait."""

import asyncio
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

from gateway.storage.database import Batch, Database
from tests.fakes.waiting import SECONDS


@contextmanager
def held_writer(database: Database) -> Iterator[None]:
    """The writer works on another commit within this block."""
    gate, is_held = threading.Event(), threading.Event()

    def wait(_batch: Batch) -> None:
        is_held.set()
        gate.wait(SECONDS)

    database.post(wait)
    assert is_held.wait(SECONDS)
    try:
        yield
    finally:
        gate.set()


class CommitCounter:
    """Counts what the writer commits and rolls back."""

    def __init__(self) -> None:
        self.commits = self.rollbacks = 0

    def on_commit(self) -> None:
        self.commits += 1

    def on_rollback(self) -> None:
        self.rollbacks += 1

    def resolve_uncertain_commit(self, _connection: object) -> bool:
        return False


async def rollbacks_of_refusal(database: Database, refused: Coroutine[Any, Any, Any], refusal: type[Exception]) -> int:
    """Runs work that is refused in one commit with work of others, and returns how many commits were rolled back."""
    database.enlist(counter := CommitCounter())
    with held_writer(database):
        of_others = [asyncio.create_task(database.write(lambda _batch: None)) for _ in range(3)]
        working = asyncio.create_task(refused)
        await asyncio.sleep(0)
    results = await asyncio.gather(*of_others, working, return_exceptions=True)
    if not isinstance(results[-1], refusal):
        raise AssertionError(f"the work was not refused: {results[-1]!r}")
    return counter.rollbacks

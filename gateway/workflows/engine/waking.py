"""Wakes suspended runs: those whose moment has come, and those that wait for a task that has moved."""

import structlog

from adapters.contract import Failed
from gateway.calls.resumption.takeover import ENDED, RESUMED, Takeover
from gateway.tasks.turns.recorder import GATEWAY_FAILURE
from gateway.workflows.runs.store import RunStore

ENDED_TEXT = "The rights under which the run was started have ended, so it does not go on. Start it again."
log = structlog.get_logger()


class RunWaker:
    """Looks for runs that can go on. Of several processes, the one that claims the run's task has it."""

    def __init__(self, store: RunStore, takeover: Takeover) -> None:
        self._store = store
        self._takeover = takeover

    async def run_once(self) -> int:
        """Resumes what is due and returns how many runs went on or ended."""
        outcomes = [await self._takeover.resume(row, Failed(ENDED_TEXT, kind=GATEWAY_FAILURE)) for row in await self._store.due()]
        moved = [outcome for outcome in outcomes if outcome in (RESUMED, ENDED)]
        if moved:
            log.info("runs_woken", count=len(moved), resumed=moved.count(RESUMED))
        return len(moved)

"""Stops running work in this process whose authority has ended, by a revocation or a kill."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping

import structlog
from sqlalchemy import select

from adapters.contract import Failed
from adapters.task import TaskState
from gateway.storage.database import ReadFailed, WriteFailed
from gateway.storage.tables import WAITING_STATES, tasks
from gateway.tasks.log import TaskRow, UnknownTask, to_task_row
from gateway.tasks.turns.in_flight import InFlight
from gateway.tasks.turns.recorder import TurnRecorder, TurnState
from gateway.tasks.turns.stores import TaskStores
from gateway.tasks.watcher import WaitingTaskWatcher
from policies.delegation.kills import Kill, Killed, Kills
from policies.delegation.rulings import Grant
from policies.tokens.verifier import TokenRefused

POLL_SECONDS = 0.25  # while a kill is in force: the next poll finds work that started just before it
REVOKED_POLL_SECONDS = 2.0  # how long to poll after a revocation
WAITING_MAX = 10_000  # waiting tasks that one kill ends
KILLED, REVOKED = "KILLED", "REVOKED"
PUBLIC_TEXTS = {
    KILLED: "Stopped by an operator of the gateway.",
    REVOKED: "Stopped: the grant of the task was revoked.",
}
log = structlog.get_logger()


class RunningWorkStopper:
    """Ends turns and their tasks, calls of servers, and the watching of paused tasks."""

    def __init__(
        self, stores: TaskStores, turns: TurnRecorder, in_flight: InFlight, watcher: WaitingTaskWatcher, *, ending_seconds: float
    ) -> None:
        """`ending_seconds`: for writing the endings of turns, before the turns are abandoned anyway."""
        self._stores = stores
        self._turns = turns
        self._in_flight = in_flight
        self._watcher = watcher
        self._ending_seconds = ending_seconds
        self._endings: dict[str, asyncio.Task[None]] = {}
        self._poll_revoked_until = 0.0  # on the event loop's clock
        self._kills_version = 0
        self._kill_listeners: list[Callable[[Kills], Awaitable[None]]] = []

    def on_kills_changed(self, listener: Callable[[Kills], Awaitable[None]]) -> None:
        """Adds a listener that is called and awaited with the new kills whenever they change."""
        self._kill_listeners.append(listener)

    @property
    def in_flight_count(self) -> int:
        """Returns the number of turns and calls in flight."""
        return len(self._in_flight.turn_grants) + len(self._in_flight.call_grants)

    async def stop_killed(self, kills: Kills) -> int:
        """Ends work that a kill stops, and returns how many turns and calls it ended."""
        count = self._stop(KILLED, kills.is_grant_stopped)
        if kills.version != self._kills_version:
            self._kills_version = kills.version
            for each in self._kill_listeners:
                await each(kills)
        return count

    def on_revocation(self) -> None:
        """Makes the next polls end work under the revoked grant and the grants derived from it."""
        self._poll_revoked_until = asyncio.get_running_loop().time() + REVOKED_POLL_SECONDS

    async def poll(self, kills: Kills) -> None:
        """Ends work whose authority has ended. The process calls it every quarter of a second; without kills it costs nothing."""
        if kills.has_any:
            await self.stop_killed(kills)
        if self._poll_revoked_until > asyncio.get_running_loop().time():
            await self.stop_revoked()

    async def wait_until_ended(self) -> None:
        """Waits until the endings are written, for at most twice `ending_seconds`."""
        if self._endings:
            await asyncio.wait(list(self._endings.values()), timeout=2 * self._ending_seconds)

    async def end_waiting_tasks(self, kill: Kill) -> int:
        """Ends the waiting tasks of the killed user or agent, and the tasks below them. Returns the number of the former."""
        of_target = tasks.c.owner == kill.name if kill.kind == "user" else tasks.c.agent == kill.name
        is_suspended = (tasks.c.state == TaskState.WORKING.value) & (tasks.c.runner == "")  # a run of a workflow that waits
        waits = tasks.c.state.in_(WAITING_STATES) | is_suspended
        query = select(tasks).where((tasks.c.tenant == kill.tenant) & of_target & waits).limit(WAITING_MAX)
        rows = [to_task_row(found) for found in await self._stores.database.read(lambda connection: connection.execute(query).all())]
        below = [one for each in await asyncio.gather(*(self._stores.tasks.open_descendants(row) for row in rows)) for one in each]
        await asyncio.gather(*(self._end_task(row, KILLED) for row in {row.id: row for row in (*rows, *below)}.values()))
        return len(rows)

    async def close(self) -> None:
        await self.wait_until_ended()

    async def stop_revoked(self) -> int:
        """Ends work whose grant was revoked, and returns how many turns and calls it ended."""
        under = {_grant_key(grant) for grant in self._grants_in_use()} - {None}
        gone = await self._stores.grants.find_revoked([key for key in under if key is not None]) if under else set()
        return self._stop(REVOKED, lambda grant: _grant_key(grant) in gone) if gone else 0

    def _grants_in_use(self) -> Iterable[Grant]:
        return [*self._in_flight.turn_grants.values(), *self._in_flight.call_grants.values(), *self._watcher.watched_grants.values()]

    def _stop(self, kind: str, is_stopped: Callable[[Grant], bool]) -> int:
        calls = [task for task, grant in self._in_flight.call_grants.items() if is_stopped(grant)]
        for call in calls:
            self._in_flight.abandon_call(call, Killed() if kind == KILLED else TokenRefused("grant-ended"))
        for task_id in [task_id for task_id, grant in self._watcher.watched_grants.items() if is_stopped(grant)]:
            self._watcher.stop_watching(task_id)
        turns = {
            task_id: grant for task_id, grant in self._in_flight.turn_grants.items() if is_stopped(grant) and task_id not in self._endings
        }
        if turns:
            ending = asyncio.create_task(self._end_turns(turns, kind))
            self._endings |= dict.fromkeys(turns, ending)
            ending.add_done_callback(lambda _: [self._endings.pop(task_id, None) for task_id in turns])
        if calls or turns:
            log.warning("work_stopped", why=kind.lower(), calls=len(calls), turns=len(turns))
        return len(calls) + len(turns)

    async def _end_turns(self, turns: Mapping[str, Grant], kind: str) -> None:
        """Ends the tasks of these turns, then abandons the turns after at most `ending_seconds`.

        With this order, waiting callers see the ending of the task, and no agent continues with the failure of another turn.
        """
        whose = [(task_id, grant.delegation.principal) for task_id, grant in turns.items()]
        endings = [asyncio.ensure_future(self._find_and_end_task(one.tenant, one.owner_key, task_id, kind)) for task_id, one in whose]
        await asyncio.wait(endings, timeout=self._ending_seconds)
        for task_id in turns:
            self._in_flight.abandon_turn(task_id)
        await asyncio.gather(*endings)

    async def _find_and_end_task(self, tenant: str, owner: str, task_id: str, kind: str) -> None:
        try:
            await self._end_task(await self._stores.tasks.find(tenant, owner, task_id), kind)
        except (UnknownTask, ReadFailed) as error:
            log.warning("stop_not_written", task_id=task_id, error=type(error).__name__)

    async def _end_task(self, row: TaskRow, kind: str) -> None:
        """Ends the task; if the database does not accept the ending, it is written later."""
        self._watcher.stop_watching(row.id)
        try:
            record = await self._stores.tasks.read_record(row.tenant, row.owner, row.id)
            await self._turns.stop_task(TurnState(record.row, record.events), Failed(PUBLIC_TEXTS[kind], kind=kind))
        except (WriteFailed, ReadFailed) as error:
            log.warning("stop_not_written", task_id=row.id, error=type(error).__name__)


def _grant_key(grant: Grant) -> tuple[str, str] | None:
    delegation = grant.delegation
    return (delegation.principal.tenant, delegation.grant_id) if delegation.grant_id else None

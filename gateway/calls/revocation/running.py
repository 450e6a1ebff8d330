"""The halt: ends what goes on in this process by a leave that is no more, since it was revoked or somebody was stopped."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping

import structlog
from sqlalchemy import select

from adapters.contract import Failed
from adapters.task import INTERRUPTED
from gateway.storage.database import NotKept, NotRead
from gateway.storage.tables import tasks
from gateway.tasks.log import TaskRow, UnknownTask, row_of
from gateway.tasks.turns.in_flight import UnderWay
from gateway.tasks.turns.store import Memory, Turned, Turns
from gateway.tasks.watcher import Vigil
from policies.delegation.kills import Kill, Killed, Kills
from policies.delegation.rulings import Grant
from policies.tokens.verifier import TokenRefused

LOOK_SECONDS = 0.25  # while anything is stopped: what began just before is found by the next look
SETTLE_SECONDS = 2.0  # for which that is looked for after a revocation
PATIENCE_SECONDS = 0.5  # for an ending to be kept, before our waiting for the agent ends all the same
WAITING_MAX = 10_000  # tasks that wait and are ended by one kill
KILLED, REVOKED = "KILLED", "REVOKED"
SAYS = {
    KILLED: "Stopped by an operator of the gateway.",
    REVOKED: "Stopped: the authority that the task was worked on with was revoked.",
}
log = structlog.get_logger()


class Halt:
    """Ends turns with their tasks, calls of servers, and the vigils of tasks that wait; `also` end what doors keep of people."""

    def __init__(self, memory: Memory, turns: Turns, under_way: UnderWay, vigil: Vigil) -> None:
        self._memory = memory
        self._turns = turns
        self._under_way = under_way
        self._vigil = vigil
        self._ending: dict[str, asyncio.Task[None]] = {}
        self._settled = 0.0  # when looks for what was revoked may end
        self._version = 0
        self.also: list[Callable[[Kills], Awaitable[None]]] = []

    @property
    def under_way(self) -> int:
        """Turns and calls, of everybody."""
        return len(self._under_way.turns) + len(self._under_way.calls)

    async def killed(self, kills: Kills) -> int:
        """Ends what was begun for or through what is stopped now; returns how many turns and calls those were."""
        count = self._end(KILLED, kills.granted)
        if kills.version != self._version:
            self._version = kills.version
            for each in self.also:
                await each(kills)
        return count

    def revoked(self) -> None:
        """A grant was: what was begun under it, or under those that hang below it, is ended by the next looks."""
        self._settled = asyncio.get_running_loop().time() + SETTLE_SECONDS

    async def look(self, kills: Kills) -> None:
        """To be called every quarter of a second. Costs nothing while nothing is stopped."""
        if kills.active:
            await self.killed(kills)
        if self._settled > asyncio.get_running_loop().time():
            await self.end_revoked()

    async def settled(self) -> None:
        """When the endings that were begun are kept, or some time has passed."""
        if self._ending:
            await asyncio.wait(list(self._ending.values()), timeout=2 * PATIENCE_SECONDS)

    async def waiting(self, kill: Kill) -> int:
        """Ends the tasks that wait for somebody and are the person's or the agent's that was stopped. Returns how many."""
        mine = tasks.c.owner == kill.name if kill.kind == "user" else tasks.c.agent == kill.name
        states = [state.value for state in INTERRUPTED]
        query = select(tasks).where((tasks.c.tenant == kill.tenant) & mine & tasks.c.state.in_(states)).limit(WAITING_MAX)
        rows = [row_of(found) for found in await self._memory.database.read(lambda connection: connection.execute(query).all())]
        below = [one for each in await asyncio.gather(*(self._memory.tasks.caused(row) for row in rows)) for one in each]
        await asyncio.gather(*(self._end_task(row, KILLED) for row in {row.id: row for row in (*rows, *below)}.values()))
        return len(rows)

    async def close(self) -> None:
        await self.settled()

    async def end_revoked(self) -> int:
        under = {_key(grant) for grant in self._grants()} - {None}
        gone = await self._memory.grants.revoked([key for key in under if key is not None]) if under else set()
        return self._end(REVOKED, lambda grant: _key(grant) in gone) if gone else 0

    def _grants(self) -> Iterable[Grant]:
        return [*self._under_way.turns.values(), *self._under_way.calls.values(), *self._vigil.watched.values()]

    def _end(self, why: str, over: Callable[[Grant], bool]) -> int:
        calls = [task for task, grant in self._under_way.calls.items() if over(grant)]
        for call in calls:
            self._under_way.cut(call, Killed() if why == KILLED else TokenRefused("grant-ended"))
        for task_id in [task_id for task_id, grant in self._vigil.watched.items() if over(grant)]:
            self._vigil.end(task_id)
        turns = {task_id: grant for task_id, grant in self._under_way.turns.items() if over(grant) and task_id not in self._ending}
        if turns:
            ending = asyncio.create_task(self._end_turns(turns, why))
            self._ending |= dict.fromkeys(turns, ending)
            ending.add_done_callback(lambda _: [self._ending.pop(task_id, None) for task_id in turns])
        if calls or turns:
            log.warning("halted", why=why.lower(), calls=len(calls), turns=len(turns))
        return len(calls) + len(turns)

    async def _end_turns(self, turns: Mapping[str, Grant], why: str) -> None:
        """Their tasks first, so that whoever waits for a turn is told of its ending, and no agent goes on with what another one of them
        was told; but not for long.
        """
        whose = [(task_id, grant.delegation.principal) for task_id, grant in turns.items()]
        endings = [asyncio.ensure_future(self._end_found(one.tenant, one.owner, task_id, why)) for task_id, one in whose]
        await asyncio.wait(endings, timeout=PATIENCE_SECONDS)
        for task_id in turns:
            self._under_way.abandon(task_id)
        await asyncio.gather(*endings)

    async def _end_found(self, tenant: str, owner: str, task_id: str, why: str) -> None:
        try:
            await self._end_task(await self._memory.tasks.find(tenant, owner, task_id), why)
        except (UnknownTask, NotRead) as error:
            log.warning("halt_not_kept", task_id=task_id, error=type(error).__name__)

    async def _end_task(self, row: TaskRow, why: str) -> None:
        """What can't be kept now is kept later."""
        self._vigil.end(row.id)
        try:
            record = await self._memory.tasks.record(row.tenant, row.owner, row.id)
            await self._turns.stop(Turned(record.row, record.events), Failed(SAYS[why], kind=why))
        except (NotKept, NotRead) as error:
            log.warning("halt_not_kept", task_id=row.id, error=type(error).__name__)


def _key(grant: Grant) -> tuple[str, str] | None:
    delegation = grant.delegation
    return (delegation.principal.tenant, delegation.grant_id) if delegation.grant_id else None

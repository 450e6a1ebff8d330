"""One round: runs are started, something is struck down at a random moment, and all that must hold is looked at when the runs ended."""

import asyncio
import json
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from tests.chaos.effects import read_effects
from tests.chaos.judging import TERMINAL, Ending, Verdict, judge
from tests.chaos.stage import APPROVER, BROKEN_OFF, OWNER, Process, Stage, kill_process, workers_of
from tests.fakes.waiting import until

END_SECONDS = 180.0  # after which a run that has not ended is stuck
LATEST_STRIKE = 5.0  # seconds from the first start of a run; a run takes about four
STAGGER = 1.5  # seconds in which the runs of a round start
LOOK_SECONDS = 0.05
Restart = Callable[[], Awaitable[None]]  # of the database


@dataclass(frozen=True, slots=True)
class Chance:
    """The random choices of one round, all of its seed."""

    runs: tuple[tuple[bool, int, float], ...]  # whether it fails, seconds of its wait, when it starts
    moment: float
    victim: int
    seed: int

    @classmethod
    def of(cls, seed: int, runs: int, processes: int) -> "Chance":
        chosen = random.Random(seed)
        made = tuple((chosen.random() < 0.3, chosen.choice((0, 1, 3)), chosen.uniform(0, STAGGER)) for _ in range(runs))
        return cls(made, chosen.uniform(0.05, LATEST_STRIKE), chosen.randrange(processes), seed)


@dataclass(slots=True)
class Round:
    """What became of one round. `takeover` is None where the process that was killed had no work; times are seconds."""

    kind: str
    seed: int
    runs: int
    seconds: float
    takeover: float | None = None
    interrupted: int = 0  # tasks that the killed process was working on
    verdict: Verdict = field(default_factory=Verdict)


class Rounds:
    """Plays rounds on one stage. `restart_database` is None where the database is a file."""

    def __init__(self, stage: Stage, restart_database: Restart | None = None) -> None:
        self._stage = stage
        self._restart_database = restart_database
        self._strikes: Mapping[str, Callable[[Chance, Round], Awaitable[None]]] = {
            "process": self._kill_process,
            "worker": self._kill_workers,
            "database": self._strike_database,
        }

    async def play(self, kind: str, seed: int, runs: int) -> Round:
        """One round. Raises NotAnswered where no process takes a run."""
        chance = Chance.of(seed, runs, len(self._stage.processes))
        began, played = time.monotonic(), Round(kind, seed, runs, 0.0)
        answering = asyncio.ensure_future(self._answer_checkpoints())
        try:
            starting = [asyncio.ensure_future(self._start(chance, number)) for number in range(runs)]
            await asyncio.sleep(chance.moment)
            await self._strikes[kind](chance, played)
            ids = [await each for each in starting]
            with suppress(TimeoutError):
                await until(lambda: self._have_ended(ids), seconds=END_SECONDS, every=LOOK_SECONDS)
        finally:
            answering.cancel()
            await asyncio.gather(answering, return_exceptions=True)
        endings = [self._ending(run, fails) for run, (fails, _, _) in zip(ids, chance.runs, strict=True)]
        played.verdict = judge([each for each in endings if each is not None], read_effects(self._stage.effects))
        played.verdict.lost += [f"{run} is gone" for run, ending in zip(ids, endings, strict=True) if ending is None]
        played.seconds = time.monotonic() - began
        return played

    async def _start(self, chance: Chance, number: int) -> str:
        """The id of a run, which a client starts with one idempotency key at whatever process answers."""
        fails, seconds, at = chance.runs[number]
        await asyncio.sleep(at)
        body, key = {"workflow": "order", "input": {"fails": fails, "seconds": seconds}}, f"{chance.seed}-{number}"
        return str((await self._stage.insist("POST", "/api/runs", OWNER, body, key=key))["id"])

    async def _kill_process(self, chance: Chance, played: Round) -> None:
        process = self._stage.processes[chance.victim]
        process.gateway.kill()
        struck, dead = time.monotonic(), process.id
        process.gateway.wait()
        played.interrupted = self._stage.left_by(dead)
        taken = asyncio.ensure_future(self._time_takeover(dead, struck))
        if len(self._stage.processes) > 1:  # the other one takes over; this one is back for the next round
            played.takeover = await taken if played.interrupted else None
        await self._stage.start(process)
        seconds = await taken
        played.takeover = seconds if played.interrupted else None

    async def _time_takeover(self, dead: str, struck: float) -> float:
        """Seconds until no task is the dead process's any more."""
        with suppress(TimeoutError):
            await until(lambda: self._stage.left_by(dead) == 0, seconds=END_SECONDS, every=LOOK_SECONDS)
        return time.monotonic() - struck

    async def _kill_workers(self, chance: Chance, played: Round) -> None:
        """Kills the processes that evaluate expressions, a few times."""
        for _ in range(5):
            for process in self._stage.processes:
                for pid in workers_of(process.gateway.pid):
                    kill_process(pid)
                    played.interrupted += 1
            await asyncio.sleep(0.2)

    async def _strike_database(self, chance: Chance, played: Round) -> None:
        assert self._restart_database is not None
        await self._restart_database()

    async def _answer_checkpoints(self) -> None:
        """Approves of all that is asked, at any process, until it is canceled."""
        turn = 0
        while True:
            process = self._stage.processes[turn % len(self._stage.processes)]
            turn += 1
            with suppress(*BROKEN_OFF, ValueError):
                await self._answer_at(process)
            await asyncio.sleep(0.1)

    async def _answer_at(self, process: Process) -> None:
        _, found = await self._stage.ask(process.gateway, "GET", "/api/checkpoints", APPROVER)
        for each in (found or {}).get("items", []):
            await self._stage.ask(process.gateway, "POST", f"/api/checkpoints/{each['id']}/answer", APPROVER, {"value": {"approved": True}})

    def _have_ended(self, ids: list[str]) -> bool:
        names = ", ".join(f"'{each}'" for each in ids)
        return set(self._stage.rows(f"SELECT state FROM tasks WHERE id IN ({names})")) <= TERMINAL

    def _ending(self, run: str, fails: bool) -> Ending | None:
        run_of_task = "LEFT JOIN workflow_runs r ON r.tenant = t.tenant AND r.id = t.id"
        found = self._stage.rows(f"SELECT t.state, t.runner, r.fault FROM tasks t {run_of_task} WHERE t.id = :id", id=run)
        if not found:
            return None
        bodies = self._stage.rows("SELECT body FROM task_events WHERE task_id = :id AND kind = 'status' ORDER BY seq", id=run)
        statuses = tuple(str(json.loads(body)["state"]) for body in bodies)
        state, runner, fault = found[0]
        return Ending(run, fails, state, statuses, json.loads(fault) if fault else _fault_of(bodies[-1]), runner)


def _fault_of(status: str) -> dict[str, Any]:
    """What a run ended with that has no fault of its own: the words of its last status."""
    parsed = json.loads(status)
    if parsed["state"] != "TASK_STATE_FAILED":
        return {}
    return {"type": "no fault", "detail": [part.get("text") for part in parsed.get("message", {}).get("parts", [])]}

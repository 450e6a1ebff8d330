"""One kill, what comes back, and whether it is all there."""

import asyncio
import json
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from tests.fakes.waiting import until
from tests.journeys.kills import CUT, TERMINAL, Clients, Told, Town, decisions_in, tasks_in

RECOVERED_WITHIN = 60.0  # seconds; on Postgres a dead process is known by its silence
Point = Callable[[Town, Clients], Awaitable[None]]


async def while_many_are_sent(town: Town, clients: Clients) -> None:
    """Some are answered, some are on their way in, some on their way out."""
    load = asyncio.ensure_future(clients.run(width=24, each=40))
    await until(lambda: clients.answers >= 60)
    town.gateway.kill()
    await load


async def as_an_effect_begins(town: Town, clients: Clients) -> None:
    """Opened and kept, not closed: the upstream has just got it."""
    _kill_at(town, effects=23)
    await clients.run(width=12, each=40)


async def as_an_effect_ends(town: Town, clients: Clients) -> None:
    """The upstream has just answered; the closing write is on its way."""
    _kill_at(town, answers=17)
    await clients.run(width=12, each=40)


async def while_agents_work(town: Town, clients: Clients) -> None:
    """Every agent has its task, and none has answered."""
    load = asyncio.ensure_future(clients.run(width=20, each=1, slow=True))
    await until(lambda: town.upstream.slow >= 20)
    town.gateway.kill()
    await load


async def at_any_moment(town: Town, clients: Clients) -> None:
    load = asyncio.ensure_future(clients.run(width=16, each=60))
    await asyncio.sleep(random.uniform(0.0, 0.4))
    town.gateway.kill()
    await load


def _kill_at(town: Town, effects: int = 0, answers: int = 0) -> None:
    """Kills when so many effects began, or so many answers of agents went out."""
    left = {"effect": effects, "answer": answers}

    def count(what: str) -> Callable[[str], None]:
        def hook(_: str) -> None:
            left[what] -= 1
            if left[what] == 0:
                town.gateway.kill()

        return hook

    town.upstream.on_effect, town.upstream.on_answer = count("effect"), count("answer")


POINTS: dict[str, Point] = {
    point.__name__: point for point in (while_many_are_sent, as_an_effect_begins, as_an_effect_ends, while_agents_work, at_any_moment)
}


@dataclass(frozen=True, slots=True)
class Round:
    """What came of one kill. Times are seconds."""

    point: str
    told: int
    effects: int
    failed: int
    ready: float
    recovered: float


async def killed(town: Town, point: str, seed: int) -> Round:
    """Kills a gateway that serves at this point, starts it again, and checks all that must hold. Raises AssertionError."""
    upstream, clients = town.upstream, Clients(town.gateway, town.http, seed)
    upstream.gate.clear()
    upstream.slow, before = 0, len(upstream.effects)
    await POINTS[point](town, clients)
    town.gateway.wait()
    upstream.on_effect = upstream.on_answer = lambda _: None
    upstream.gate.set()
    assert clients.refused == []
    verification = town.gateway.verify()
    began = time.monotonic()
    ready = await town.start()
    await until(lambda: _all_ended(town), seconds=RECOVERED_WITHIN, every=0.05)
    recovered = time.monotonic() - began
    said, complaint = await asyncio.to_thread(verification.communicate, timeout=300)
    assert verification.returncode == 0 and json.loads(said)["sound"], said + complaint
    town.told |= clients.told
    await _assert_nothing_is_lost(town, clients)
    _assert_each_ended_once(town)
    _assert_each_effect_was_decided(town)
    failed = sum(state == "TASK_STATE_FAILED" for state, _, _ in tasks_in(town.gateway).values())
    return Round(point, len(clients.told), len(upstream.effects) - before, failed, ready, recovered)


def _all_ended(town: Town) -> bool:
    return all(state in TERMINAL for state, _, _ in tasks_in(town.gateway).values())


async def _assert_nothing_is_lost(town: Town, clients: Clients) -> None:
    """Every task that any client ever heard of is answered, in the state that it was told if that was an ending, with all it was shown."""
    asking = Clients(town.gateway, town.http, 0)
    await asking.run(width=0, each=0)

    async def check(task_id: str, told: Told) -> None:
        task = await asking.get(told.user, task_id)
        assert task is not None, (task_id, told)
        state = task["status"]["state"]
        assert state == told.state if told.state in TERMINAL else state in TERMINAL, (task_id, told, task)
        shown = {part["text"] for artifact in task.get("artifacts", []) for part in artifact["parts"]}
        assert told.artifacts <= shown, (task_id, told, task)
        assert [message["parts"][0]["text"] for message in task["history"]] == [told.text]

    ids = list(town.told.items())
    for start in range(0, len(ids), 50):
        await asyncio.gather(*(check(task_id, told) for task_id, told in ids[start : start + 50]))


def _assert_each_ended_once(town: Town) -> None:
    for task_id, (state, runner, log) in tasks_in(town.gateway).items():
        statuses = [json.loads(body) for _, kind, body in log if kind == "status"]
        assert [seq for seq, _, _ in log] == list(range(1, len(log) + 1)), task_id
        assert [one["state"] for one in statuses if one["state"] in TERMINAL] == [state] == [statuses[-1]["state"]], task_id
        assert log[-1][1] == "status" and runner == "", task_id
        if state == "TASK_STATE_FAILED":
            assert statuses[-1]["message"]["parts"][0]["text"] == CUT, (task_id, statuses[-1])


def _assert_each_effect_was_decided(town: Town) -> None:
    """Earlier, and durably: the record has outlived the process."""
    tasks, digests = decisions_in(town.gateway)
    for effect in town.upstream.effects:
        decided = tasks.get(effect.task_id) if effect.task_id else digests.get(effect.digest)
        assert decided is not None and decided <= effect.at, effect

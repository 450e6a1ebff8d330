"""A canceled task takes with it what it caused, in whatever process; what goes on is named; and no audit that is away keeps one alive."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from msgspec.structs import replace
from sqlalchemy import select

from adapters.contract import Call, CannotCancel, Done, Event, Turn, UpstreamFault, VendorRef
from adapters.task import TaskState
from gateway.calls.revocation.spool import FILE_NAME
from gateway.calls.turns import cancellation
from gateway.calls.turns.cancellation import WITHDRAWN_TEXT, CanceledTask, NotCanceledTask, caused_tasks_metadata
from gateway.storage.database import ReadFailed
from gateway.tasks.log import TaskRow
from gateway.tasks.turns.recorder import EndingNotWritten, TurnState
from gateway.telemetry.spans import TraceContext
from policies.callers import Caller
from policies.delegation.chain import Hop
from policies.delegation.grants import GrantEnded
from policies.tables import audit_records as audit_table
from policies.tokens.verifier import TokenRefused
from registry.cards.card import RegistrationStatus
from tests.fakes.outages import read_only
from tests.fakes.processes import Process, process, sending
from tests.fakes.waiting import until

TRAIL = TraceContext()


@pytest.fixture
async def here(tmp_path: Path, database_url: str) -> AsyncIterator[Process]:
    async with process(tmp_path / "here", database_url) as built:
        built.agents.script = built.agents.at_work
        yield await built.registered()
        built.agents.gate.set()


@pytest.fixture
async def there(here: Process, tmp_path: Path, database_url: str) -> AsyncIterator[Process]:
    """Another process on the same database, which calls the same agents."""
    async with process(tmp_path / "there", database_url, here.agents) as built:
        yield built


async def begun(process: Process, caller: Caller, text: str) -> tuple[TurnState, Caller]:
    """A task at work, and its agent as a caller of others."""
    opened = await process.calls.agents.start(caller, sending(text))
    await until(lambda: _at_work(process, opened))
    delegation = next(call.grant.delegation for said, call in process.agents.calls if said == text)
    path = (*delegation.path[:-1], Hop(f"agent-of-{text}"))  # the one agent there is may be called again
    return opened, replace(caller, delegation=replace(delegation, path=path), ruling_key=text)


async def _at_work(process: Process, opened: TurnState) -> bool:
    return (await process.looked(opened.row.id)).row.state is TaskState.WORKING


async def state(process: Process, opened: TurnState) -> TaskState:
    return (await process.looked(opened.row.id)).row.state


async def canceled(process: Process, opened: TurnState, user: str = "alice") -> CanceledTask:
    return await process.calls.agents.cancel(await process.caller(user), "sales", opened.row.id, TRAIL)


async def chain(here: Process, there: Process) -> list[TurnState]:
    """A task, one that it caused, one that this caused in another process, and a sister of the last."""
    root, agent = await begun(here, await here.caller(), "root")
    child, childs = await begun(there, agent, "child")
    grandchild, _ = await begun(here, childs, "grandchild")
    sister, _ = await begun(there, childs, "sister")
    return [root, child, grandchild, sister]


async def test_what_a_task_caused_is_canceled_with_it_in_whatever_process(here: Process, there: Process) -> None:
    other, _ = await begun(here, await here.caller(), "another errand")
    tasks = await chain(here, there)
    ended = await canceled(here, tasks[0])
    assert (ended.row.state, ended.canceled_count, ended.not_canceled) == (TaskState.CANCELED, 3, ())
    assert {await state(here, one) for one in tasks} == {TaskState.CANCELED}
    assert {ref.task_id for ref in here.agents.cancels} == {"v-2", "v-3", "v-4", "v-5"}
    assert here.agents.cancels[0].task_id == "v-2"  # the one that could cause more goes first
    assert await state(here, other) is TaskState.WORKING


async def test_canceling_what_was_caused_leaves_alone_who_caused_it(here: Process, there: Process) -> None:
    root, child, grandchild, sister = await chain(here, there)
    assert (await canceled(there, child)).canceled_count == 2
    assert [await state(here, one) for one in (root, child, grandchild, sister)] == [TaskState.WORKING, *[TaskState.CANCELED] * 3]


async def test_what_goes_on_is_named_and_why(here: Process, there: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cancellation, "DESCENDANTS_SECONDS", 2.0)
    root, child, grandchild, sister = await chain(here, there)

    async def stop(ref: VendorRef) -> bool:
        if ref.task_id == "v-3":
            raise UpstreamFault("it can't be reached", "secret")
        if ref.task_id == "v-4":
            await asyncio.Event().wait()
        return ref.task_id == "v-1"

    here.agents.stop = stop
    ended = await canceled(here, root)
    assert await state(here, root) is TaskState.CANCELED
    assert set(ended.not_canceled) == {
        NotCanceledTask(child.row.id, "sales", "not-cancelable"),
        NotCanceledTask(grandchild.row.id, "sales", "unreachable"),
        NotCanceledTask(sister.row.id, "sales", "late"),
    }
    assert caused_tasks_metadata(ended, name_tasks=False) == {
        "canceled": 0,
        "not_canceled": [{"reason": one.reason} for one in ended.not_canceled],
    }
    assert {one["agent"] for one in caused_tasks_metadata(ended, name_tasks=True)["not_canceled"]} == {"sales"}  # type: ignore[attr-defined]  # a list


async def test_what_can_not_be_looked_at_any_more_is_named_and_spoils_nothing(
    here: Process, there: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, child, *_ = await chain(here, there)
    find = here.calls.agents._stores.tasks.find

    async def stop(ref: VendorRef) -> bool:
        return ref.task_id != "v-2"

    async def away(tenant: str, owner: str, task_id: str) -> TaskRow:
        if task_id == child.row.id:
            raise ReadFailed
        return await find(tenant, owner, task_id)

    here.agents.stop = stop
    monkeypatch.setattr(here.calls.agents._stores.tasks, "find", away)
    ended = await canceled(here, root)
    assert ended.not_canceled == (NotCanceledTask(child.row.id, "sales", "not-kept"),)


async def test_an_agent_that_does_not_cancel_keeps_its_task_and_its_subtasks(here: Process, there: Process) -> None:
    tasks = await chain(here, there)

    async def unreachable(ref: VendorRef) -> bool:
        raise UpstreamFault("it can't be reached")

    for stop, error in ((unreachable, UpstreamFault), (None, cancellation.NotCancelable)):
        here.agents.stop, here.agents.confirms = stop, False
        with pytest.raises(error):
            await canceled(here, tasks[0])
        assert {await state(here, one) for one in tasks} == {TaskState.WORKING}


async def test_a_task_whose_agent_offers_no_way_to_stop_is_withdrawn_from_it(here: Process) -> None:
    async def stop(ref: VendorRef) -> bool:
        raise CannotCancel

    here.agents.stop = stop
    caller = await here.caller()
    waiting = asyncio.ensure_future(here.calls.agents.send(caller, sending("hello", is_watched=True)))
    await until(lambda: len(here.agents.calls) == 1)
    task_id, delegation = here.agents.calls[0][1].idempotency_key, here.agents.calls[0][1].grant.delegation
    ended = await here.calls.agents.cancel(caller, "sales", task_id, TRAIL)
    assert ended.row.state is TaskState.CANCELED and WITHDRAWN_TEXT in ended.events[-1].body
    async with asyncio.timeout(60):
        assert (await waiting).row.state is TaskState.CANCELED  # nobody waits for the agent any more
    with pytest.raises(GrantEnded):
        await here.gateway.rulings.grants.find("default", delegation.grant_id)


async def test_a_task_that_its_agent_never_named_is_withdrawn_after_a_moment(here: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cancellation, "VENDOR_REF_SECONDS", 0.1)
    entered = asyncio.Event()

    async def silent(turn: Turn, call: Call) -> AsyncIterator[Event]:
        entered.set()
        await asyncio.Event().wait()
        yield Done()

    monkeypatch.setattr(here.agents, "run", silent)
    opened = await here.calls.agents.start(await here.caller(), sending("hello"))
    await entered.wait()
    ended = await canceled(here, opened)
    assert ended.row.state is TaskState.CANCELED and WITHDRAWN_TEXT in ended.events[-1].body
    assert here.agents.cancels == []
    await until(lambda: not here.calls.turn_runner._background_turns)


async def test_a_silent_agents_first_word_is_kept_so_that_it_can_be_told_to_stop(here: Process) -> None:
    async def silent(turn: Turn, call: Call) -> AsyncIterator[Event]:
        await here.agents.gate.wait()
        yield Done()

    here.agents.script = silent
    opened = await here.calls.agents.start(await here.caller(), sending("hello"))

    async def named() -> bool:
        return "v-1" in (await here.looked(opened.row.id)).row.vendor_ref

    await until(named)
    assert (await canceled(here, opened)).row.state is TaskState.CANCELED
    assert [ref.task_id for ref in here.agents.cancels] == ["v-1"]


async def test_an_agent_that_may_not_be_called_any_more_is_not_called_to_stop(here: Process) -> None:
    opened, _ = await begun(here, await here.caller(), "root")
    registry = here.gateway.registry
    await registry.set_status("default", "sales", RegistrationStatus.QUARANTINED)
    assert (await canceled(here, opened)).row.state is TaskState.CANCELED
    assert here.agents.cancels == []


async def test_nothing_is_begun_for_a_task_that_is_over(here: Process, there: Process) -> None:
    """Not even by an agent whose token another process still believes for a moment."""
    root, agent = await begun(here, await here.caller(), "root")
    await canceled(here, root)
    for one in (here, there):
        with pytest.raises(TokenRefused) as refused:
            await one.calls.agents.start(agent, sending("late"))
        assert refused.value.reason == "grant-ended"
    assert [said for said, _ in here.agents.calls] == ["root"]


async def test_whoever_a_task_belongs_to_may_have_it_stopped_whatever_policies_say_now(here: Process) -> None:
    opened, _ = await begun(here, await here.caller(), "root")
    here.gateway.settings.users["alice"].roles[:] = ["nobody"]
    here.gateway.rulings.authority.invalidate()
    assert (await canceled(here, opened)).row.state is TaskState.CANCELED
    records = await _records(here)
    assert records[-1]["reason_id"] == "own-task" and records[-1]["allowed"]
    delegation = here.agents.cancel_calls[0].grant.delegation
    assert delegation.principal.roles == ("nobody",)


async def _records(here: Process) -> list[dict[str, object]]:
    query = select(audit_table.c.body).where(audit_table.c.kind == "decision").order_by(audit_table.c.at)
    rows = await here.gateway.database.read(lambda connection: connection.execute(query).scalars().all())
    return [json.loads(body) for body in rows]


async def test_a_cancellation_goes_on_when_nothing_can_be_kept_and_is_kept_later(here: Process, there: Process) -> None:
    tasks, database = await chain(here, there), here.gateway.database
    async with read_only(database):
        with pytest.raises(EndingNotWritten) as told:
            await canceled(here, tasks[0])
        assert told.value.task_id == tasks[0].row.id
        assert len(here.agents.cancels) == 4  # each agent was told
        spooled = (here.gateway.settings.home / FILE_NAME).read_text().splitlines()
        assert [json.loads(line)["reason_id"] for line in spooled] == ["own-task"] * 4

    async def all_canceled() -> bool:
        return {await state(here, one) for one in tasks} == {TaskState.CANCELED}

    await until(all_canceled, every=0.02)
    await until(lambda: _drained(here), every=0.02)
    records = [record for record in await _records(here) if record.get("spooled")]
    assert len(records) == 4 and not (here.gateway.settings.home / FILE_NAME).exists()


async def _drained(here: Process) -> bool:
    await here.gateway.rulings.spool.drain(here.gateway.database)
    return True

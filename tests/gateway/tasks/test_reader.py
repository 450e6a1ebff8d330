"""Tasks as their owners read them: ended ones from memory, and each time with the rights of the reader."""

from pathlib import Path

import pytest

from adapters.task import TaskState
from gateway.storage.database import Database
from gateway.tasks.log import TaskLog, TaskRecord, UnknownTask
from gateway.tasks.reader import TaskReader
from policies.callers import Caller
from policies.delegation.permissions import Permissions
from tests.fakes.authority import ALICE, Scene
from tests.gateway.tasks.test_log import advanced, opened, status


@pytest.fixture
def log(database: Database) -> TaskLog:
    return TaskLog(database, lambda: 1, "p_1")


async def done_task(database: Database, log: TaskLog, owner: str) -> str:
    new = await opened(database, log, tenant=ALICE.tenant, owner=owner)
    return (await advanced(database, log, new, TaskState.COMPLETED, status(3, TaskState.COMPLETED))).id


async def test_an_ended_task_is_read_from_the_database_once(database: Database, log: TaskLog, tmp_path: Path) -> None:
    alice = Scene(tmp_path).caller()
    task_id, reader = await done_task(database, log, ALICE.owner_key), TaskReader(log)
    first = await reader.read_task(alice, "sales", task_id)
    database.close()
    assert await reader.read_task(alice, "sales", task_id) == first


async def test_a_task_that_is_deleted_while_it_is_read_is_not_remembered(
    database: Database, log: TaskLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice = Scene(tmp_path).caller()
    task_id, reader = await done_task(database, log, ALICE.owner_key), TaskReader(log)
    read_record = log.read_record

    async def read_and_delete(tenant: str, owner: str, wanted: str) -> TaskRecord:
        """The rows are deleted, and all processes are told, between the read and its end."""
        record = await read_record(tenant, owner, wanted)
        await database.write(lambda batch: batch.run("DELETE FROM tasks WHERE id = ?", (wanted,)))
        log.pruning.forget_tasks()
        return record

    monkeypatch.setattr(log, "read_record", read_and_delete)
    await reader.read_task(alice, "sales", task_id)
    monkeypatch.undo()
    with pytest.raises(UnknownTask):
        await reader.read_task(alice, "sales", task_id)


async def test_a_known_task_is_refused_to_who_may_no_longer_see_it(database: Database, log: TaskLog, tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    task_id, reader = await done_task(database, log, ALICE.owner_key), TaskReader(log)
    await reader.read_task(scene.caller(), "sales", task_id)
    narrower: Caller = scene.caller(scope=Permissions.parse(["agent:billing"]))
    for caller, agent in ((narrower, "sales"), (scene.caller(), "billing")):
        with pytest.raises(UnknownTask):
            await reader.read_task(caller, agent, task_id)

"""Pages of tasks: totals and sizes show nothing that the caller may not see, and a page by state is read through an index."""

from typing import Any

import pytest
from sqlalchemy import Connection, delete, insert, text, update

from gateway.audit.retention.pruner import EPOCH
from gateway.storage.database import raise_epoch
from gateway.storage.paging import BadCursor
from gateway.storage.tables import UNUSUAL, task_events, tasks
from gateway.tasks import pages
from gateway.tasks.pages import COUNT_LIFETIME_US, SETTLED_US, TaskCounts, TaskFilter, TaskPages, read_page
from tests.fakes.house import URL, CallbackAgent, House

OTHERS = 3000
NOW = 10 * COUNT_LIFETIME_US
OLD, NEW = NOW - 2 * SETTLED_US, NOW - 1  # when tasks were created


def _row(number: int, owner: str, state: str) -> dict[str, object]:
    given: dict[str, object] = {"tenant": "default", "id": f"t_{number:05}", "owner": owner, "agent": "sales", "state": state}
    given |= {"created": number, "updated": number}
    texts = ("context_id", "parent_id", "txn", "decision_id", "grant_id", "runner", "request_digest")
    return given | dict.fromkeys(texts, "") | {"vendor_ref": "{}", "last_seq": 1}


async def test_tasks_by_state_are_read_through_an_index(home: House) -> None:
    database = home.gateway.database
    alice = await home.gateway.rulings.caller_resolver.authenticate(home.token("alice"), (URL,))
    rows = [_row(number, alice.principal.owner_key, "TASK_STATE_COMPLETED") for number in range(OTHERS)]
    rows += [_row(OTHERS + number, alice.principal.owner_key, "TASK_STATE_FAILED") for number in range(3)]
    with database.engine.begin() as connection:
        connection.execute(insert(tasks), rows)
        connection.execute(text("ANALYZE"))
    page = TaskFilter(agent="sales", state="TASK_STATE_FAILED", limit=2)
    found, cursor, total = await TaskPages(database).read_page_and_total(alice, page)
    assert ([row.id for row in found], total) == ([f"t_{OTHERS + 2:05}", f"t_{OTHERS + 1:05}"], 3)
    rest, _, _ = await TaskPages(database).read_page_and_total(
        alice, TaskFilter(agent="sales", state="TASK_STATE_FAILED", limit=2, cursor=cursor or "")
    )
    assert [row.id for row in rest] == [f"t_{OTHERS:05}"]
    assert "tasks_owner_state" in await database.read(lambda connection: _plan(connection, alice.principal.owner_key))


async def test_a_listed_task_is_listed_anew_when_it_has_moved(home: House) -> None:
    database, token = home.gateway.database, home.token("alice")
    alice = await home.gateway.rulings.caller_resolver.authenticate(token, (URL,))
    row = _row(1, alice.principal.owner_key, "TASK_STATE_WORKING")
    event = {"tenant": "default", "task_id": row["id"], "at": 1, "kind": "status"}
    with database.engine.begin() as connection:
        connection.execute(insert(tasks), [row])
        connection.execute(insert(task_events), [{**event, "seq": 1, "body": '{"state":"TASK_STATE_WORKING"}'}])
        connection.execute(insert(task_events), [{**event, "seq": 2, "body": '{"state":"TASK_STATE_FAILED"}'}])
    for _ in range(2):  # an event that was appended after the row was read belongs to the next list
        assert [task["status"]["state"] for task in (await listed(home, token))["tasks"]] == ["TASK_STATE_WORKING"]
    with database.engine.begin() as connection:
        connection.execute(update(tasks).values(last_seq=2, state="TASK_STATE_FAILED"))
    assert [task["status"]["state"] for task in (await listed(home, token))["tasks"]] == ["TASK_STATE_FAILED"]
    assert (await listed(home, home.token("bob")))["tasks"] == []


async def test_the_page_after_the_last_one_has_the_total(home: House) -> None:
    database = home.gateway.database
    alice = await home.gateway.rulings.caller_resolver.authenticate(home.token("alice"), (URL,))
    with database.engine.begin() as connection:
        connection.execute(insert(tasks), [_row(number, alice.principal.owner_key, "TASK_STATE_COMPLETED") for number in range(1, 4)])
    found = await TaskPages(database).read_page_and_total(alice, TaskFilter(cursor="1.t_00001"))
    assert found == ([], None, 3)


async def test_a_page_looks_through_a_bounded_number_of_tasks_and_goes_on(home: House) -> None:
    database = home.gateway.database
    alice = await home.gateway.rulings.caller_resolver.authenticate(home.token("alice"), (URL,))
    rows = [_row(number, alice.principal.owner_key, "TASK_STATE_COMPLETED") for number in range(30)]
    rare = [{**row, "agent": "rare"} if number % 10 == 0 else row for number, row in enumerate(rows)]
    with database.engine.begin() as connection:
        connection.execute(insert(tasks), rare)
    found, cursor, pages = list[str](), "", 0
    while pages == 0 or cursor:
        page = TaskFilter(agent="rare", limit=5, cursor=cursor, looked_at_max=7)
        rows_of_page, following = await database.read(lambda connection, page=page: read_page(connection, alice, page))
        found += [row.id for row in rows_of_page]
        cursor, pages = following or "", pages + 1
    assert (found, pages) == (["t_00020", "t_00010", "t_00000"], 5)


def _plan(connection: Connection, owner: str) -> str:
    is_sqlite = connection.dialect.name == "sqlite"
    explain, source = ("EXPLAIN QUERY PLAN", "tasks INDEXED BY tasks_owner_state") if is_sqlite else ("EXPLAIN", "tasks")
    query = f"""{explain} SELECT * FROM {source} WHERE tenant = 'default' AND owner = :owner AND agent = 'sales'
        AND state = 'TASK_STATE_FAILED' AND {UNUSUAL} ORDER BY updated DESC, id DESC LIMIT 3"""
    return str(connection.execute(text(query), {"owner": owner}).all())


VERSION = {"A2A-Version": "1.0"}


async def listed(home: House, token: str, **params: Any) -> Any:
    """All tasks of the person, through the front door."""
    return (await home.rpc("/agents/interlock", token, "ListTasks", params, **VERSION)).json()["result"]


# attack LOG-06
async def test_totals_and_pages_count_only_what_the_token_reaches(home: House) -> None:
    for agent in ("sales", "billing"):
        await home.agent(CallbackAgent(agent))
    for agent in ("sales", "billing", "billing", "sales", "billing", "sales"):
        await home.send(home.token("alice"), agent, "hello")
    whole, narrowed = home.token("alice"), home.token("alice", "agent:sales agent:other")
    assert (await listed(home, whole))["totalSize"] == 6
    first = await listed(home, narrowed, pageSize=2)
    assert (first["totalSize"], len(first["tasks"])) == (3, 2)  # a short page would tell of what is left out
    second = await listed(home, narrowed, pageSize=2, pageToken=first["nextPageToken"])
    assert (second["totalSize"], len(second["tasks"]), second["nextPageToken"]) == (3, 1, "")
    for scope in ("tool:*", "agent:sales/quote", "agent:none"):
        nothing = await listed(home, home.token("alice", scope))
        assert (nothing["totalSize"], nothing["tasks"], nothing["nextPageToken"]) == (0, [], "")
    items = await home.http.get("/api/tasks", params={"limit": 2}, headers={"authorization": f"Bearer {narrowed}"})
    assert [item["agent"] for item in items.json()["items"]] == ["sales", "sales"]


# attack LOG-06
async def test_an_agents_totals_count_only_tasks_of_its_own_transaction(home: House) -> None:
    seen: list[Any] = []

    async def desk(token: str, _text: str) -> str:
        for agent in ("sales", "billing"):
            onward = await home.exchanged("desk", token, f"/agents/{agent}", f"agent:{agent}")
            await home.send(onward, agent, "hello")
        onward = await home.exchanged("desk", token, "/agents/interlock", "agent:sales")
        seen.append(await listed(home, onward))
        return "done"

    for agent in ("sales", "billing"):
        await home.agent(CallbackAgent(agent))
    await home.agent(CallbackAgent("desk", desk))
    await home.send(home.token("alice"), "sales", "of another transaction")
    for _ in range(2):  # the agent's tasks of the first transaction are not among those of the second
        await home.send(home.token("alice"), "desk", "go")
    assert [(page["totalSize"], len(page["tasks"])) for page in seen] == [(1, 1)] * 2


class LongList:
    """A person's list of two old tasks and a new one, which counts as long, and is known to be."""

    def __init__(self, home: House) -> None:
        self.home = home
        self.now = NOW
        counts = TaskCounts(home.gateway.stores.tasks.pruning, lambda: self.now)
        self.database, self._pages = home.gateway.database, TaskPages(home.gateway.database, counts)

    async def fill(self) -> None:
        for number, created in enumerate((OLD, OLD, NEW)):
            await self.add(number, created)
        for _ in range(2):
            assert await self.total() == 3

    async def add(self, number: int, created: int) -> None:
        alice = await self.home.gateway.rulings.caller_resolver.authenticate(self.home.token("alice"), (URL,))
        row = _row(number, alice.principal.owner_key, "TASK_STATE_WORKING") | {"created": created, "updated": created}
        with self.database.engine.begin() as connection:
            connection.execute(insert(tasks), [row])

    async def end(self, task_id: str, at: int, state: str = "TASK_STATE_FAILED") -> None:
        with self.database.engine.begin() as connection:
            connection.execute(update(tasks).where(tasks.c.id == task_id).values(state=state, updated=at))

    async def page(self, **filters: Any) -> tuple[list[str], int]:
        """The ids of a page with one task, and the total."""
        alice = await self.home.gateway.rulings.caller_resolver.authenticate(self.home.token("alice"), (URL,))
        rows, _, total = await self._pages.read_page_and_total(alice, TaskFilter(agent="sales", limit=1, **filters))
        return [row.id for row in rows], total

    async def total(self, **filters: Any) -> int:
        return (await self.page(**filters))[1]


@pytest.fixture
async def long_list(home: House, monkeypatch: pytest.MonkeyPatch) -> LongList:
    monkeypatch.setattr(pages, "SLOW_SECONDS", 0.0)
    found = LongList(home)
    await found.fill()
    return found


async def test_the_total_of_a_long_list_counts_new_tasks_and_those_that_move_once(long_list: LongList) -> None:
    await long_list.add(10, NEW)
    with long_list.database.engine.begin() as connection:
        connection.execute(update(tasks).values(updated=NOW))
    assert await long_list.total() == 4
    assert await long_list.total(cursor=f"{NOW}.t_00000") == 4
    assert await long_list.total(state="TASK_STATE_WORKING") == 4
    assert await long_list.total(state="TASK_STATE_FAILED") == 0


async def test_the_total_of_ended_tasks_counts_each_from_its_end_on(long_list: LongList) -> None:
    failed = {"state": "TASK_STATE_FAILED"}
    assert await long_list.total(**failed) == 0
    await long_list.end("t_00000", OLD)
    for _ in range(2):  # the second one is remembered
        assert await long_list.total(**failed) == 1
    await long_list.end("t_00001", NOW - SETTLED_US)  # created long ago, as the first
    assert [await long_list.total(**failed) for _ in range(2)] == [2, 2]
    assert await long_list.total(**failed, cursor=f"{OLD}.t_00000") == 2
    await long_list.end("t_00002", OLD)  # no task ends in the past: it shows what is counted
    assert await long_list.total(**failed) == 2
    long_list.now += COUNT_LIFETIME_US
    assert await long_list.total(**failed) == 3


async def test_a_long_list_that_is_known_to_be_empty_is_not_looked_through(long_list: LongList) -> None:
    rejected = {"state": "TASK_STATE_REJECTED"}
    for _ in range(2):
        assert await long_list.page(**rejected) == ([], 0)
    await long_list.end("t_00000", OLD, "TASK_STATE_REJECTED")  # no task ends in the past: it shows what is looked at
    assert await long_list.page(**rejected) == ([], 0)
    with pytest.raises(BadCursor):
        await long_list.page(**rejected, cursor="no cursor")
    await long_list.end("t_00001", NOW, "TASK_STATE_REJECTED")
    assert await long_list.page(**rejected) == (["t_00001"], 1)


async def test_the_total_of_tasks_that_have_not_ended_is_counted_each_time(long_list: LongList) -> None:
    working = {"state": "TASK_STATE_WORKING"}
    assert [await long_list.total(**working) for _ in range(3)] == [3, 3, 3]
    await long_list.end("t_00000", OLD)
    assert await long_list.total(**working) == 2


async def test_old_tasks_of_a_long_list_are_not_counted_for_each_page(long_list: LongList) -> None:
    await long_list.add(10, OLD)  # no gateway creates a task in the past: it shows what is counted
    assert await long_list.total() == 3
    long_list.now += COUNT_LIFETIME_US
    assert await long_list.total() == 4


async def test_the_total_of_a_long_list_forgets_deleted_tasks(long_list: LongList) -> None:
    with long_list.database.engine.begin() as connection:
        connection.execute(delete(tasks).where(tasks.c.id == "t_00000"))
    await long_list.database.write(lambda batch: raise_epoch(batch, EPOCH))
    await long_list.database.refresh_epochs()
    assert await long_list.total() == 2


async def test_a_total_that_was_read_before_a_deletion_is_not_remembered(home: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "SLOW_SECONDS", 0.0)
    found = LongList(home)
    for number in range(3):
        await found.add(number, OLD)
    assert await found.total() == 3
    query = found.database.query

    async def query_before_a_deletion(*terms: Any) -> Any:
        result = await query(*terms)
        home.gateway.stores.tasks.pruning.forget_tasks()
        return result

    monkeypatch.setattr(found.database, "query", query_before_a_deletion)
    assert await found.total() == 3
    monkeypatch.undo()
    with found.database.engine.begin() as connection:
        connection.execute(delete(tasks).where(tasks.c.id == "t_00000"))
    assert await found.total() == 2

"""A page of tasks by state is read through an index on both databases, however many other tasks the owner has."""

from sqlalchemy import Connection, insert, text

from gateway.storage.tables import tasks
from gateway.tasks.pages import TaskFilter, TaskPages
from tests.fakes.house import URL, House

OTHERS = 3000


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
    assert "tasks_state" in await database.read(lambda connection: _plan(connection, alice.principal.owner_key))


def _plan(connection: Connection, owner: str) -> str:
    explain = "EXPLAIN QUERY PLAN" if connection.dialect.name == "sqlite" else "EXPLAIN"
    query = f"""{explain} SELECT * FROM tasks WHERE tenant = 'default' AND owner = :owner AND agent = 'sales'
        AND state = 'TASK_STATE_FAILED' ORDER BY updated DESC, id DESC LIMIT 3"""
    return str(connection.execute(text(query), {"owner": owner}).all())

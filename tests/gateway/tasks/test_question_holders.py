"""Claims about agents whose sessions share state: people see and decide their own questions alone."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from structlog.testing import capture_logs

from gateway.tasks.contracts.prompts import open_prompts
from tests.fakes.a2a_agents import serving
from tests.fakes.devui_server import DevUiServer
from tests.fakes.house import House
from tests.fakes.reception import Reception

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


@pytest.fixture
async def devui() -> DevUiServer:
    return DevUiServer()


@pytest.fixture
async def desk(home: House, devui: DevUiServer) -> AsyncIterator[Reception]:
    """With the workflow registered as `payer`."""
    async with serving(devui) as url:
        desk = Reception(home)
        upstream = {"model": "flow", "dialect": "devui"}
        answer = await desk.post("/api/agents", url=f"{url.removesuffix('/')}/v1", kind="openai-responses", name="payer", upstream=upstream)
        assert answer.status_code == 201, answer.text
        yield desk


async def says(desk: Reception, user: str, text: str, **more: Any) -> Any:
    answer = await desk.home.send(desk.home.token(user), "payer", text, **more)
    return answer["result"]["task"] if "result" in answer else answer["error"]


def state(task: Any) -> str:
    return str(task["status"]["state"]).removeprefix("TASK_STATE_")


def questions(task: Any) -> list[str]:
    return [part["data"]["text"] for part in task["status"]["message"]["parts"] if "promptId" in part.get("data", {})]


async def test_each_sees_and_decides_their_own_question_alone(desk: Reception, devui: DevUiServer) -> None:  # attack HIT-02
    alices, bobs = await says(desk, "alice", "pay 5"), await says(desk, "bob", "pay 1000000")
    assert (questions(alices), questions(bobs)) == (["pay 5?"], ["pay 1000000?"])
    with capture_logs() as logs:
        answered = await says(desk, "bob", "no", taskId=bobs["id"])
    assert state(answered) == "COMPLETED" and "pay 5" not in str(answered)
    assert [log["requests"] for log in logs if log["event"] == "question_dropped"] == [["r-1"]]
    assert devui.decided == [("pay 1000000?", "no")]
    assert state(await says(desk, "alice", "yes", taskId=alices["id"])) == "COMPLETED"
    assert devui.decided[1:] == [("pay 5?", "yes")]


async def test_a_question_that_another_task_holds_is_not_shown(desk: Reception, devui: DevUiServer) -> None:  # attack HIT-02
    alices = await says(desk, "alice", "pay 5")
    devui.again = "r-1"
    with capture_logs() as logs:
        bobs = await says(desk, "bob", "pay 7")
    assert state(bobs) == "FAILED" and "promptId" not in str(bobs)
    assert bobs["status"]["message"]["metadata"]["urn:interlock:a2a:error"] == {"reason": "FOREIGN_QUESTION"}
    assert [log["held_by"] for log in logs if log["event"] == "question_dropped"] == [{"r-1": alices["id"]}]
    assert state(await says(desk, "alice", "yes", taskId=alices["id"])) == "COMPLETED"


async def test_a_task_that_got_to_show_another_ones_question_can_not_answer_it(
    desk: Reception, devui: DevUiServer
) -> None:  # attack HIT-02
    alices, bobs = await says(desk, "alice", "pay 5"), await says(desk, "bob", "pay 7")
    tasks, database = desk.home.gateway.stores.tasks, desk.home.gateway.database
    (hers, his) = [await tasks.read_record("default", row["owner"], row["id"]) for row in await owners(desk, alices, bobs)]
    assert open_prompts(hers.row.vendor_ref)
    await database.write(
        lambda batch: batch.run("UPDATE tasks SET vendor_ref = ? WHERE id = ?", (hers.row.vendor_ref, his.row.id))
    )  # as a gateway left it that did not look
    refused = await says(desk, "bob", "yes", taskId=bobs["id"])
    assert refused["code"] == -32602 and "another conversation" in str(refused)
    assert devui.decided == []
    assert state(await says(desk, "alice", "yes", taskId=alices["id"])) == "COMPLETED"


async def owners(desk: Reception, *tasks: Any) -> list[dict[str, str]]:
    read = "SELECT id, owner FROM tasks WHERE id = ?"
    rows = [await desk.home.gateway.database.read(lambda c, t=t: c.exec_driver_sql(read, (t["id"],)).one()) for t in tasks]
    return [{"id": row.id, "owner": row.owner} for row in rows]

"""/api/deadletters through the front door."""

from msgspec.structs import replace

from adapters.task import PushConfig, TaskState
from tests.fakes.house import CallbackAgent, House
from tests.fakes.reception import Reception


async def test_operators_read_dead_letters_and_send_them_again(home: House) -> None:
    await home.agent(CallbackAgent("echo"))
    task = (await home.send(home.token("alice"), "echo", "hi"))["result"]["task"]
    [letter_id] = await given_up(home, task["id"])
    desk = Reception(home)
    [letter] = (await desk.ask("GET", "/api/deadletters")).json()["items"]
    assert letter["id"] == letter_id and letter["target"] == "http://127.0.0.1:2"
    assert letter["created"].endswith("Z") and "s3cret" not in str(letter)
    assert (await desk.ask("POST", f"/api/deadletters/{letter_id}/retry")).status_code == 204
    assert (await desk.ask("GET", "/api/deadletters")).json() == {"items": [], "next": None}
    again = await desk.ask("POST", f"/api/deadletters/{letter_id}/retry")
    assert (again.status_code, again.json()["reason_id"]) == (404, "unknown")


async def test_others_are_refused_with_an_explanation(home: House) -> None:
    desk = Reception(home)
    for method, path in (("GET", "/api/deadletters"), ("POST", "/api/deadletters/n_1/retry")):
        refused = await desk.ask(method, path, "alice")
        assert refused.status_code == 403 and refused.json()["decision_id"]
        assert (await desk.ask(method, path, "")).status_code == 401
    narrow = await desk.ask("POST", "/api/deadletters/n_1/retry", scope="audit:read")
    assert narrow.status_code == 403


async def given_up(home: House, task_id: str) -> list[str]:
    """A task's notifications, all of which died at the first attempt."""
    gateway = home.gateway
    await gateway.periodic_tasks.stop()  # or its own postman is there first
    row = await gateway.stores.tasks.find("default", "default|interlock-development|alice", task_id)
    webhook = gateway.webhooks.configs.check_config(PushConfig(url="http://127.0.0.1:2/s3cret"), "1.0")
    earlier = replace(row, state=TaskState.WORKING)
    await gateway.database.write(lambda batch: webhook.write(batch, earlier, row.last_seq - 1))
    taken = await gateway.webhooks.outbox.acquire_due(10, {})
    for delivery in taken:
        await gateway.webhooks.outbox.record_failure(delivery, "no", None)
    return [delivery.id for delivery in taken]

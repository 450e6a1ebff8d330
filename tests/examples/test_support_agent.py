"""The support agent speaks A2A 1.0, hands orders to sales and reports what came of them."""

from typing import Any

import httpx
import pytest

from examples.on_behalf import Gateway
from examples.support_agent import build
from tests.examples.conftest import DENIAL, FakeGateway, Serve

REFUSED = {"order": "refused", "reason": "reserve_stock was refused", "decision_id": "d_42"}


def sales_task(state: str, *parts: dict[str, Any]) -> dict[str, Any]:
    task = {"id": "t1", "contextId": "c1", "status": {"state": state}, "artifacts": [{"artifactId": "a1", "parts": parts}]}
    return {"result": {"task": task}}


async def ask(serve: Serve, gateway: FakeGateway, text: str) -> dict[str, Any]:
    agent = await serve(build("http://127.0.0.1:1", Gateway(await serve(gateway.app()), lambda: ("support", "s3cret"))))
    message = {"messageId": "m1", "role": "ROLE_USER", "parts": [{"text": text}]}
    body = {"jsonrpc": "2.0", "id": 1, "method": "SendMessage", "params": {"message": message}}
    async with httpx.AsyncClient(headers={"Authorization": "Bearer hop", "A2A-Version": "1.0"}) as client:
        task: dict[str, Any] = (await client.post(agent, json=body)).json()["result"]["task"]
    return task


async def test_an_order_goes_to_sales_with_a_token_of_its_own(serve: Serve, fake_gateway: FakeGateway) -> None:
    fake_gateway.sales = sales_task("TASK_STATE_COMPLETED", {"text": "Order confirmed"}, {"data": {"reservation": "R-1001"}})
    task = await ask(serve, fake_gateway, "I'd like to order 2 of SKU-7, please")
    assert task["status"]["state"] == "TASK_STATE_COMPLETED"
    assert task["artifacts"][0]["parts"] == [{"text": "Order confirmed"}, {"data": {"reservation": "R-1001"}}]
    exchange = fake_gateway.exchanges[0]
    assert exchange["subject_token"] == "hop"
    assert exchange["resource"].endswith("/agents/sales")
    assert fake_gateway.authorizations == ["Bearer onward"]
    assert fake_gateway.sent[0]["params"]["message"]["parts"] == [{"text": "I'd like to order 2 of SKU-7, please"}]


@pytest.mark.parametrize(
    "answer",
    [sales_task("TASK_STATE_FAILED", {"data": REFUSED}), sales_task("TASK_STATE_COMPLETED", {"data": REFUSED}), {"error": DENIAL}],
    ids=["further down", "as an answer", "at the door"],
)
async def test_a_refusal_is_reported_with_its_decision(serve: Serve, fake_gateway: FakeGateway, answer: dict[str, Any]) -> None:
    fake_gateway.sales = answer
    task = await ask(serve, fake_gateway, "2 of SKU-7")
    text, data = task["artifacts"][0]["parts"]
    assert task["status"]["state"] == "TASK_STATE_FAILED"
    assert text["text"].startswith("Sorry, sales could not take the order.")
    assert data["data"]["decision_id"] == "d_42"


async def test_a_question_needs_nobody_else(serve: Serve, fake_gateway: FakeGateway) -> None:
    task = await ask(serve, fake_gateway, "When are you open?")
    assert "9 to 17" in task["artifacts"][0]["parts"][0]["text"]
    assert fake_gateway.exchanges == []

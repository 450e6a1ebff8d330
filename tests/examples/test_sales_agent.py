"""The sales agent speaks A2A 0.3 and nothing else, and works with the rights of whoever asked."""

from typing import Any

import httpx
import pytest
from a2a.client import A2ACardResolver, ClientConfig, ClientFactory
from a2a.helpers.proto_helpers import get_artifact_text, new_text_message
from a2a.types import Role, SendMessageRequest, TaskState

from examples.on_behalf import Gateway
from examples.sales_agent import build
from tests.examples.conftest import FakeGateway, Serve

TEXT = "I'd like to order 2 of SKU-7"


@pytest.fixture
async def url(serve: Serve, fake_gateway: FakeGateway) -> str:
    gateway = Gateway(await serve(fake_gateway.app()), lambda: ("sales", "s3cret"))
    return await serve(build("http://127.0.0.1:1", gateway))


async def rpc(url: str, method: str, params: dict[str, Any], **headers: str) -> Any:
    body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
    async with httpx.AsyncClient(headers={"Authorization": "Bearer hop", **headers}) as client:
        return (await client.post(url, json=body)).json()


def message(text: str) -> dict[str, Any]:
    return {"message": {"kind": "message", "messageId": "m1", "role": "user", "parts": [{"kind": "text", "text": text}]}}


async def test_its_card_is_of_03_alone(url: str) -> None:
    async with httpx.AsyncClient() as client:
        card = (await client.get(url + "/.well-known/agent-card.json")).json()
    assert card["protocolVersion"] == "0.3.0"
    assert card["preferredTransport"] == "JSONRPC"
    assert "supportedInterfaces" not in card


@pytest.mark.parametrize("method", ["SendMessage", "SendStreamingMessage", "GetTask", "CancelTask", "ListTasks"])
async def test_it_refuses_the_methods_of_10(url: str, method: str) -> None:
    answer = await rpc(
        url, method, {"message": {"messageId": "m", "role": "ROLE_USER", "parts": [{"text": TEXT}]}}, **{"A2A-Version": "1.0"}
    )
    assert answer["error"]["code"] == -32601


async def test_an_order_is_confirmed_with_price_and_reservation(url: str, fake_gateway: FakeGateway) -> None:
    task = (await rpc(url, "message/send", message(TEXT)))["result"]
    text, data = task["artifacts"][0]["parts"]
    assert task["status"]["state"] == "completed"
    assert text["text"] == "Order confirmed: 2 x SKU-7 (standing desk) for 698.00 EUR, reservation R-1001."
    assert data["data"]["reservation"] == "R-1001"
    exchange = fake_gateway.exchanges[0]
    assert exchange["subject_token"] == "hop"
    assert exchange["resource"].endswith("/mcp/inventory")
    assert exchange["scope"] == "tool:inventory.check_stock tool:inventory.reserve_stock"
    assert set(fake_gateway.authorizations) == {"Bearer onward"}


async def test_a_refused_tool_call_fails_the_task_with_the_decision(url: str, fake_gateway: FakeGateway) -> None:
    fake_gateway.refuse_tool = "reserve_stock"
    task = (await rpc(url, "message/send", message(TEXT)))["result"]
    text, data = task["artifacts"][0]["parts"]
    assert task["status"]["state"] == "failed"
    assert "reserve_stock was refused: bob may not call inventory.reserve_stock" in text["text"]
    assert data["data"] == {"order": "refused", "reason": data["data"]["reason"], "decision_id": "d_42"}


async def test_a_refused_exchange_fails_the_task(url: str, fake_gateway: FakeGateway) -> None:
    fake_gateway.refuse_exchange = True
    task = (await rpc(url, "message/send", message(TEXT)))["result"]
    assert task["status"]["state"] == "failed"
    assert "more than was held" in task["artifacts"][0]["parts"][0]["text"]


async def test_nothing_is_ordered_for_nobody(url: str, fake_gateway: FakeGateway) -> None:
    body = {"jsonrpc": "2.0", "id": 1, "method": "message/send", "params": message(TEXT)}
    async with httpx.AsyncClient() as client:
        task = (await client.post(url, json=body)).json()["result"]
    assert task["status"]["state"] == "failed"
    assert fake_gateway.exchanges == []


async def test_more_than_is_left_is_refused(url: str) -> None:
    task = (await rpc(url, "message/send", message("13 of SKU-7")))["result"]
    assert "13 of SKU-7 can't be reserved, 12 are available" in task["artifacts"][0]["parts"][0]["text"]


async def test_a_task_of_the_past_can_be_read(url: str) -> None:
    task = (await rpc(url, "message/send", message(TEXT)))["result"]
    again = (await rpc(url, "tasks/get", {"id": task["id"]}))["result"]
    assert again["artifacts"] == task["artifacts"]
    assert (await rpc(url, "tasks/cancel", {"id": task["id"]}))["error"]["code"] == -32002


async def test_the_sdk_client_streams_from_it(serve: Serve, fake_gateway: FakeGateway) -> None:
    gateway = Gateway(await serve(fake_gateway.app()), lambda: ("sales", "s3cret"))
    url = await serve(build("http://127.0.0.1:1", gateway))
    async with httpx.AsyncClient(headers={"Authorization": "Bearer hop"}) as http:
        card = await A2ACardResolver(http, url).get_agent_card()
        card.supported_interfaces[0].url = url
        client = ClientFactory(ClientConfig(httpx_client=http)).create(card)
        request = SendMessageRequest(message=new_text_message(TEXT, role=Role.ROLE_USER))
        events = [event async for event in client.send_message(request)]
    artifacts = [event.artifact_update.artifact for event in events if event.HasField("artifact_update")]
    assert "R-1001" in get_artifact_text(artifacts[0])
    assert events[-1].status_update.status.state == TaskState.TASK_STATE_COMPLETED

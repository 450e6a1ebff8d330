"""Resilience through the front door: failover, who is shown to be down, deadlines of nested calls, and endpoints that are another's."""

import json
from datetime import datetime, timedelta
from typing import Any

import pytest

from adapters.upstream import breaker
from adapters.upstream.breaker import FAILURES_MAX
from gateway.calls.outgoing.builder import DEADLINE_HEADER
from registry.cards.card import AgentEndpoint
from tests.fakes.a2a_agents import serving
from tests.fakes.house import CallbackAgent, House
from tests.fakes.ports import nowhere

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


async def shown(home: House) -> Any:
    headers = {"authorization": f"Bearer {home.token('admin')}"}
    return (await home.http.get("/api/agents/sales", headers=headers)).json()["calls"]


async def test_a_message_that_reaches_nobody_goes_to_the_next_endpoint_and_it_is_shown(home: House) -> None:
    agent = CallbackAgent("sales")
    away, here = nowhere(), await home.stack.enter_async_context(serving(agent))
    await home.registered("sales", away, endpoints=(AgentEndpoint(here),))
    first = (await home.send(home.token("alice"), "sales", "hi"))["result"]["task"]
    assert first["status"]["state"] == "TASK_STATE_COMPLETED"
    await home.send(home.token("alice"), "sales", "again", contextId=first["contextId"])
    assert [request["params"]["message"].get("contextId", "") for request in agent.requests] == ["", "sales-context"]
    calls = await shown(home)
    assert [each["url"] for each in calls["endpoints"]] == [away, here] and calls["retries"]["used"] >= 1
    assert calls["last_fault"]["problem"] == "the upstream can't be reached"
    assert b"interlock_agent_retries" in home.gateway.metrics.render()


async def test_an_agent_that_is_not_there_is_left_alone_for_a_while(home: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(breaker, "PAUSE_SECONDS", 3600.0)
    await home.registered("sales", nowhere())
    said = [(await home.send(home.token("alice"), "sales", "hi"))["result"]["task"]["status"] for _ in range(FAILURES_MAX)]
    assert all(status["state"] == "TASK_STATE_FAILED" for status in said)
    assert "several times" in said[-1]["message"]["parts"][0]["text"]
    [endpoint] = (await shown(home))["endpoints"]
    assert endpoint["state"] == "ejected" and endpoint["since"].endswith("Z")
    assert b"interlock_agents_ejected 1.0" in home.gateway.metrics.render()
    others = await home.http.get("/api/agents/sales", headers={"authorization": f"Bearer {home.token('alice')}"})
    assert others.status_code == 200 and "calls" not in others.json()


async def test_a_nested_call_never_outlives_its_parents(home: House) -> None:
    inner = await home.agent(CallbackAgent("sales"), upstream={"timeout": 3000})

    async def asks(token: str, text: str) -> str:
        handed_on = await home.exchanged("support", token, "/agents/sales", "agent:sales")
        return json.dumps(await home.send(handed_on, "sales", "hi"))

    outer = await home.agent(CallbackAgent("support", asks), upstream={"timeout": 40})
    await home.send(home.token("alice"), "support", "go")
    await home.send(home.token("alice"), "sales", "without a parent")
    name = DEADLINE_HEADER.lower()
    nested, alone, parents = (datetime.fromisoformat(each[name]) for each in (*inner.headers, outer.headers[0]))
    assert nested - parents < timedelta(seconds=60)  # both say the same moment, by two clocks
    assert alone - parents > timedelta(seconds=1000)


async def test_an_agent_is_only_called_where_its_own_card_is(home: House) -> None:
    own = await home.agent(CallbackAgent("sales"))
    document = json.loads(home.gateway.registry.find("default", "sales").card_text)

    def showing(**changes: Any) -> Any:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
            await send({"type": "http.response.body", "body": json.dumps({**document, **changes}).encode()})

        return app

    same = await home.stack.enter_async_context(serving(showing()))
    other = await home.stack.enter_async_context(serving(showing(name="somebody else")))
    admin = {"authorization": f"Bearer {home.token('admin')}"}
    refused = await home.http.patch("/api/agents/sales", json={"endpoints": [{"url": f"{other}/a2a"}]}, headers=admin)
    assert refused.status_code == 422 and "endpoints[0].url" in refused.text and "another agent" in refused.text
    private = await home.http.patch("/api/agents/sales", json={"endpoints": [{"url": "http://169.254.169.254/"}]}, headers=admin)
    assert private.status_code == 400
    taken = await home.http.patch("/api/agents/sales", json={"endpoints": [{"url": f"{same}/a2a", "weight": 2}]}, headers=admin)
    assert taken.status_code == 200 and taken.json()["endpoints"] == [{"url": f"{same}/a2a", "weight": 2}]
    assert own.requests == []

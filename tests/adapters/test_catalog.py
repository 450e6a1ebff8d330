"""Every kind has an adapter behind the guard."""

import asyncio
from typing import Any

import pytest
from msgspec.structs import replace

from adapters.catalog import AdapterCatalog, UnknownKind
from adapters.contract import Failed
from adapters.upstream.aws_access import AWS_OPTION
from adapters.upstream.egress import Egress
from adapters.upstream.guarded import GuardedAdapter
from adapters.vendors.aws.agentcore_session import SESSION_HEADER
from adapters.vendors.sdk.connection import VendorEndpoint
from tests.adapters.replay import call_of, gathered
from tests.fakes.a2a_agents import a2a_agent, serving
from tests.fakes.a2a_calls import call_to, turn
from tests.fakes.graph_server import GraphServer


def test_every_kind_is_guarded() -> None:
    catalog = AdapterCatalog(Egress())
    assert "a2a" in catalog.kinds
    assert all(isinstance(catalog.adapter(kind), GuardedAdapter) for kind in catalog.kinds)


@pytest.mark.parametrize("headers", [{}, {"x-api-key": "operators-secret-key"}], ids=["open", "with a credential"])
async def test_a_late_run_is_stopped_with_the_agents_credential(headers: dict[str, str]) -> None:
    graph, egress = GraphServer(headers.get("x-api-key", "")), Egress(["127.0.0.1"])
    upstream = {"assistant": "echo", **({"headers": headers} if headers else {})}
    async with serving(graph) as url, asyncio.timeout(60):
        call = replace(call_of("langgraph", upstream, url, seconds=1), headers=headers)
        events = await gathered(AdapterCatalog(egress).adapter("langgraph", upstream).run(turn("slow please"), call))
    await egress.close()
    assert isinstance(events[-1], Failed) and events[-1].kind == "AGENT_LATE"
    assert graph.canceled.is_set()


@pytest.mark.parametrize("upstream", [{}, {"headers": {"x": "y"}}, {AWS_OPTION: {}}], ids=["open", "credential", "signed"])
async def test_a_late_task_of_an_a2a_agent_is_canceled_in_every_adapter(upstream: dict[str, Any]) -> None:
    app, egress = a2a_agent("1.0"), Egress(["127.0.0.1"])
    async with serving(app) as url:
        call = call_to(url, seconds=0.5)
        await gathered(AdapterCatalog(egress).adapter("a2a", upstream).run(turn("hang", stream=True), call))
    await egress.close()
    assert app.methods == ["SendStreamingMessage", "CancelTask"]
    if AWS_OPTION in upstream:
        assert app.headers[0][SESSION_HEADER.lower()] == app.headers[1][SESSION_HEADER.lower()]


def test_an_unknown_kind_is_an_error_of_its_own() -> None:
    with pytest.raises(UnknownKind):
        AdapterCatalog(Egress()).adapter("telepathy")


async def test_an_option_that_names_a_variable_is_read_where_it_is_used() -> None:
    values = {"env:RUNTIME": "arn:aws:bedrock-agentcore:us-east-1:1:runtime/claims"}
    catalog = AdapterCatalog(Egress(), read_option=lambda text: values.get(text, text))
    facts = await catalog.describe("agentcore", VendorEndpoint("https://aws.example", {"runtime": "env:RUNTIME"}, {}, 1e9))
    assert facts.name == "claims"

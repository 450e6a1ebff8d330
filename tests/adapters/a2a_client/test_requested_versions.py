"""Every request to an agent says which version of A2A it speaks, over every binding (A2A 1.0 s3.6.1); agents of 0.3 know of none."""

from collections.abc import Mapping
from typing import Any

import pytest

from adapters.a2a_client.agent import A2AAgent
from adapters.a2a_client.grpc import GrpcTransport
from adapters.a2a_client.peers import A2APeers
from adapters.contract import RefLearned, VendorRef
from adapters.upstream.egress import Egress
from tests.fakes.a2a_agents import a2a_agent, serving
from tests.fakes.a2a_bindings import grpc_agent, rest_agent
from tests.fakes.a2a_calls import call_to, turn


async def asked(url: str, binding: str, version: str) -> None:
    """A send, a stream, a look at a task, and a cancellation."""
    egress = Egress(["127.0.0.1"])
    grpc = GrpcTransport(egress, lambda: 0.0)
    agent = A2AAgent(egress, grpc=lambda: grpc)
    try:
        call = call_to(url, binding=binding, version=version)
        _ = [event async for event in agent.run(turn("hello"), call)]
        _ = [event async for event in agent.run(turn("pieces", stream=True), call)]
        refs = [event.ref async for event in agent.run(turn("ask"), call) if isinstance(event, RefLearned)]
        await A2APeers(egress, lambda: grpc, None).task(call, refs[-1].task_id)
        assert await agent.cancel(VendorRef(refs[-1].context_id, refs[-1].task_id), call)
    finally:
        await grpc.close()
        await egress.close()


async def heard(binding: str, version: str) -> list[Mapping[str, Any]]:
    """The headers or metadata of each request."""
    if binding == "JSONRPC":
        agent = a2a_agent(version)
        async with serving(agent) as url:
            await asked(url, binding, version)
        return [dict(each) for each in agent.headers]
    async with (grpc_agent if binding == "GRPC" else rest_agent)(version) as (url, calls):
        await asked(url, binding, version)
    return [said for _, said in calls]


@pytest.mark.parametrize("binding", ["JSONRPC", "HTTP+JSON", "GRPC"])
async def test_every_request_says_its_version(binding: str) -> None:
    said = await heard(binding, "1.0")
    assert [each.get("a2a-version") for each in said] == ["1.0"] * len(said) and len(said) >= 5


@pytest.mark.parametrize("binding", ["JSONRPC", "HTTP+JSON", "GRPC"])
async def test_an_agent_of_0_3_is_spoken_to_as_0_3_speaks(binding: str) -> None:
    said = await heard(binding, "0.3")
    assert {each.get("a2a-version") for each in said} == {None} and len(said) >= 5

"""Which door a path leads to."""

from tests.fakes.house import CallbackAgent, House


async def test_an_agents_url_with_a_slash_at_its_end_is_the_same_door(home: House) -> None:
    """Clients that join paths to a base URL post there, the public A2A kit among them."""
    await home.agent(CallbackAgent("sales"))
    answer = await home.rpc("/agents/sales/", home.token("alice"), "GetTask", {"id": "unknown"})
    assert answer.status_code == 200
    assert answer.json()["error"]["code"] == -32001

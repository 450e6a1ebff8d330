"""What the gateway adds for those who ask for it: a skill that is checked, and a message that is sent once."""

import pytest

from registry.cards.republish import IDEMPOTENCY, SKILL_SELECTION
from tests.fakes.a2a_agents import serving
from tests.fakes.a2a_doors import DOORS, ask, message_of, result
from tests.fakes.house import CallbackAgent, House

pytestmark = [pytest.mark.parametrize("database_url", ["sqlite"], indirect=True), pytest.mark.parametrize("door", DOORS)]


async def test_a_skill_is_checked_when_it_is_asked_for(home: House, door: str) -> None:
    agent = await home.agent(CallbackAgent("sales"))
    headers = {"A2A-Extensions": SKILL_SELECTION}
    only_quotes = home.token("alice", scope="agent:sales/quote")
    named = {"message": message_of(door, "hi", metadata={SKILL_SELECTION: {"skillId": "quote"}})}
    for token in (home.token("alice"), only_quotes):
        answer = await ask(home, door, "send", named, token=token, headers=headers)
        assert answer.headers["a2a-extensions"] == SKILL_SELECTION and result(door, answer)["artifacts"], answer.text
    without = await ask(home, door, "send", {"message": message_of(door, "hi")}, token=only_quotes, headers=headers)
    assert "error" in without.json()
    for chosen in ({"skillId": "nothing"}, {"skillId": 5}, "quote", {}):
        wrong = {"message": message_of(door, "hi", metadata={SKILL_SELECTION: chosen})}
        assert "is not a skill" in (await ask(home, door, "send", wrong, headers=headers)).json()["error"]["message"]
    assert len(agent.requests) == 2
    unasked = await ask(home, door, "send", wrong)
    assert result(door, unasked)["artifacts"] and len(agent.requests) == 3


async def test_a_message_is_sent_once_under_one_key(home: House, door: str) -> None:
    agent = await home.agent(CallbackAgent("sales"))
    headers = {"Idempotency-Key": "k1", "A2A-Extensions": IDEMPOTENCY}
    params = {"message": message_of(door, "hello")}
    first, second = [await ask(home, door, "send", params, headers=headers) for _ in range(2)]
    assert result(door, first) == result(door, second) and len(agent.requests) == 1
    elsewhere = [await ask(home, other, "send", {"message": message_of(other, "hello")}, headers=headers) for other in DOORS]
    assert {result(other, answer)["id"] for other, answer in zip(DOORS, elsewhere, strict=True)} == {result(door, first)["id"]}
    assert len(agent.requests) == 1
    assert "error" in (await ask(home, door, "send", {"message": message_of(door, "other")}, headers=headers)).json()


async def test_an_extension_of_the_agent_reaches_it_under_the_name_of_its_version(home: House, door: str) -> None:
    agent = CallbackAgent("sales")
    url = await home.stack.enter_async_context(serving(agent))
    await home.registered("sales", url, facts={"version": "0.3"}, capabilities={"extensions": [{"uri": "urn:x:1"}]})
    for name in ("A2A-Extensions", "X-A2A-Extensions"):
        answer = await ask(home, door, "send", {"message": message_of(door, "hi")}, headers={name: "urn:x:1,urn:y:2"})
        assert answer.headers["a2a-extensions"] == "urn:x:1"
        assert agent.headers[-1]["x-a2a-extensions"] == "urn:x:1" and "a2a-extensions" not in agent.headers[-1]

"""The front door: a message finds the agent that fits, with the rights of whoever asks and no others."""

import json
from dataclasses import replace
from typing import Any

import pytest
from msgspec import structs

from gateway.calls.targets.front_door import FrontDoor
from gateway.ingress.a2a_server.extended_cards import ExtendedCards
from policies.callers import Caller
from policies.delegation.rulings import Act
from registry.cards.card import Family, RegistrationStatus
from registry.cards.reader import read_card
from registry.cards.republish import publish_card
from registry.names import BadName, check_name
from tests.fakes.house import URL, CallbackAgent, House

SKILLS = {
    "sales": [{"id": "quote", "name": "Make quote", "description": "Prices.", "tags": ["sales"]}],
    "travel": [{"id": "flight", "name": "Book flight", "description": "Flies.", "tags": ["travel"]}],
}


@pytest.fixture
async def agents(home: House) -> dict[str, CallbackAgent]:
    made = {}
    for name, skills in SKILLS.items():
        made[name] = await home.agent(CallbackAgent(name))
        entry = home.gateway.registry.find("default", name)
        assert entry.card is not None
        document = {**entry.card.document, "skills": skills}
        await home.gateway.registry.update(replace(entry, card=read_card(document), card_text=json.dumps(document)))
    return made


def said(answer: Any) -> str:
    return str(answer["result"]["task"]["artifacts"][0]["parts"][0]["text"])


async def caller(home: House, user: str, scope: str | None = None) -> Caller:
    return await home.gateway.rulings.caller_resolver.authenticate(home.token(user, scope), (URL,))


async def test_a_message_reaches_the_agent_that_fits(home: House, agents: dict[str, CallbackAgent]) -> None:
    alice = home.token("alice")
    assert said(await home.send(alice, "interlock", "Make me a quote, please")) == "sales got: Make me a quote, please"
    answer = await home.send(alice, "interlock", "I want to book a flight")
    assert said(answer) == "travel got: I want to book a flight"
    task = (await home.rpc("/agents/interlock", alice, "GetTask", {"id": answer["result"]["task"]["id"]}, **{"A2A-Version": "1.0"})).json()
    assert task["result"]["id"] == answer["result"]["task"]["id"]
    row = (await home.http.get(f"/api/tasks/{task['result']['id']}", headers={"authorization": f"Bearer {alice}"})).json()
    assert row["agent"] == "travel"


async def test_a_conversation_stays_with_its_agent(home: House, agents: dict[str, CallbackAgent]) -> None:
    alice = home.token("alice")
    first = await home.send(alice, "interlock", "Make me a quote")
    more = await home.send(alice, "interlock", "and one for my flight", contextId=first["result"]["task"]["contextId"])
    assert said(more).startswith("sales got")
    foreign = await home.send(home.token("bob"), "interlock", "and one for my flight", contextId=first["result"]["task"]["contextId"])
    assert said(foreign).startswith("travel got")  # it was never his


async def test_a_message_that_is_sent_again_goes_to_nobody_else(home: House, agents: dict[str, CallbackAgent]) -> None:
    """Whatever fits it best by then, and whoever is gone."""
    alice, key = home.token("alice"), {"Idempotency-Key": "k1"}
    first = await home.send(alice, "interlock", "Make me a quote", headers=key)
    await home.gateway.registry.set_status("default", "sales", RegistrationStatus.QUARANTINED)
    entry = home.gateway.registry.find("default", "travel")
    assert entry.card is not None
    document = {**entry.card.document, "skills": SKILLS["sales"]}
    await home.gateway.registry.update(replace(entry, card=read_card(document), card_text=json.dumps(document)))
    again = await home.send(alice, "interlock", "Make me a quote", headers=key)
    assert again["result"]["task"] == first["result"]["task"]
    assert (len(agents["sales"].requests), len(agents["travel"].requests)) == (1, 0)
    other = await home.send(alice, "interlock", "Make me another quote", headers=key)
    assert other["error"]["code"] == -32014
    for name, token in (("interlock", home.token("bob")), ("travel", alice)):  # neither another's key, nor that of another door
        assert said(await home.send(token, name, "Make me a quote", headers=key)).startswith("travel got")
    narrowed = await home.send(home.token("alice", "agent:travel"), "interlock", "Make me a quote", headers=key)
    assert said(narrowed).startswith("travel got")  # who may not know of the first task learns nothing of it


async def test_nobody_is_sent_where_they_may_not_go(home: House, agents: dict[str, CallbackAgent]) -> None:  # attack INJ-04
    error = (await home.send(home.token("alice", "agent:travel"), "interlock", "Make me a quote"))["error"]
    assert (error["code"], error["data"][0]["reason"]) == (-32011, "NO_AGENT_FITS")
    assert (await home.send(home.token("nora"), "interlock", "Make me a quote"))["error"]["code"] == -32011
    await home.gateway.registry.set_status("default", "sales", RegistrationStatus.QUARANTINED)
    assert (await home.send(home.token("alice"), "interlock", "Make me a quote"))["error"]["code"] == -32011
    assert agents["sales"].requests == agents["travel"].requests == []


async def test_a_route_is_chosen_among_what_the_caller_may_use(home: House, agents: dict[str, CallbackAgent]) -> None:
    route = home.gateway.front_door.route
    assert await route("quote for a flight", await caller(home, "alice")) in ("sales", "travel")
    assert await route("quote for a flight", await caller(home, "alice", "agent:travel")) == "travel"
    assert await route("anything", await caller(home, "alice"), skill="flight") == "travel"
    assert await route("nothing of that", await caller(home, "alice")) is None


async def test_only_agents_that_share_a_word_with_the_message_are_ruled_on(home: House, agents: dict[str, CallbackAgent]) -> None:
    asked: list[str] = []

    def may(_caller: Caller, act: Act) -> bool:
        asked.append(act.permission)
        return True

    door, alice = FrontDoor(home.gateway.registry, home.gateway.database, may), await caller(home, "alice")
    assert await door.route("book a flight", alice) == "travel"
    assert asked == ["agent:travel"]


async def test_a_token_that_expires_while_its_card_is_made_hides_no_skill(home: House, agents: dict[str, CallbackAgent]) -> None:
    alice, now = await caller(home, "alice"), 0.0

    def may(who: Caller, act: Act) -> bool:
        nonlocal now
        now = alice.expires + 1  # from the first ruling on
        return who.expires > now

    door = FrontDoor(home.gateway.registry, home.gateway.database, may, lambda who: who.principal.roles)
    await door.registration_for(alice)
    found = await door.registration_for(structs.replace(alice, expires=alice.expires + 100))
    assert found.card is not None and len(found.card.skills) > 1


async def test_a_message_for_the_front_door_does_not_list_its_skills(home: House, agents: dict[str, CallbackAgent]) -> None:
    found = home.gateway.calls.parts.callees.find(await caller(home, "alice"), "interlock", Family.AGENT)
    assert found.card is not None and [one.id for one in found.card.skills] == ["route"]


async def test_the_front_door_has_a_signed_card_of_its_own(home: House) -> None:
    for path in ("/.well-known/agent-card.json", "/agents/interlock/.well-known/agent-card.json"):
        answer = await home.http.get(path)
        document = answer.json()
        assert (answer.status_code, document["name"], len(document["signatures"])) == (200, "Interlock", 3)
        assert document["supportedInterfaces"][0]["url"] == f"{URL}/agents/interlock"
        again = await home.http.get(path, headers={"if-none-match": answer.headers["etag"]})
        assert (again.status_code, "last-modified" in answer.headers) == (304, True)


def test_nobody_takes_its_name() -> None:
    with pytest.raises(BadName):
        check_name("interlock")


async def test_an_extended_card_shows_the_skills_that_the_caller_may_use(home: House, agents: dict[str, CallbackAgent]) -> None:
    gateway = home.gateway
    cards = ExtendedCards(
        lambda found, offered: publish_card(found, URL, gateway.keys, offered), gateway.front_door, gateway.rulings.authority.could_allow
    )

    async def skills(name: str, scope: str | None = None) -> list[str]:
        person = await caller(home, "alice", scope)
        shown = await cards.extended_card(gateway.calls.parts.callees.find(person, name, Family.AGENT), person)
        return [one["id"] for one in shown["skills"]]

    assert await skills("sales") == ["quote"]
    assert await skills("sales", "agent:sales/other") == []
    assert await skills("interlock") == ["route", "quote", "flight"]
    assert await skills("interlock", "agent:travel") == ["route", "flight"]

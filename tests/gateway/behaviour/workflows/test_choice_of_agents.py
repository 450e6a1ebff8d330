"""A step that several agents can do: a healthy one first, then by rank and by what they came to; a failed one hands on to the next."""

import dataclasses
from typing import Any

import pytest

from gateway.workflows.engine.results import own_error
from registry.cards.card import RegistrationStatus
from tests.fakes.house import CallbackAgent, House
from tests.fakes.workflows import Workflows, output_of

STEP = """
do:
- quote:
    call: gateway.agent
    with: {agents: [one, two, three], skill: quote, input: hi}
    metadata: {gateway: {kind: ai}}
    input: {schema: {document: {}}}
    output: {schema: {document: {type: string}}}
"""


@pytest.fixture
async def workflows(home: House) -> Workflows:
    return Workflows(home)


async def three(home: House, **ranks: int) -> dict[str, CallbackAgent]:
    return {name: await home.agent(CallbackAgent(name), rank=ranks.get(name, 0)) for name in ("one", "two", "three")}


async def asked(workflows: Workflows, task: dict[str, Any]) -> list[str]:
    """The agents that were asked, in their order."""
    return [each["step"].rpartition("/")[2] for each in (await workflows.show(task["id"]))["steps"]]


async def test_agents_of_the_same_rank_are_asked_in_their_order(home: House, workflows: Workflows) -> None:
    await three(home)
    added = await workflows.add("quote", STEP)
    assert added["ceiling"] == ["agent:one", "agent:three", "agent:two"]
    assert output_of(await workflows.run("quote")) == "one got: hi"


async def test_the_operators_rank_comes_before_the_order(home: House, workflows: Workflows) -> None:
    await three(home, two=5)
    await workflows.add("quote", STEP)
    assert output_of(await workflows.run("quote")) == "two got: hi"


async def test_an_agent_that_is_down_is_asked_last(home: House, workflows: Workflows) -> None:
    await three(home, one=9)
    entry = home.gateway.registry.find("default", "one")
    await workflows.add("quote", STEP)
    await home.gateway.registry.update(dataclasses.replace(entry, status=RegistrationStatus.DOWN))
    await home.gateway.database.refresh_epochs()
    task = await workflows.run("quote")
    assert output_of(task) == "two got: hi"
    assert await asked(workflows, task) == ["two"]


async def test_a_step_whose_only_agent_is_down_says_so(home: House, workflows: Workflows) -> None:
    await three(home)
    entry = home.gateway.registry.find("default", "one")
    await workflows.add("quote", STEP.replace("agents: [one, two, three], skill: quote", "agent: one"))
    await home.gateway.registry.update(dataclasses.replace(entry, status=RegistrationStatus.DOWN))
    await home.gateway.database.refresh_epochs()
    shown = await workflows.show((await workflows.run("quote"))["id"])
    assert shown["fault"]["detail"] == "agent one: is not reachable now"


async def test_an_agent_with_an_open_breaker_is_asked_last(home: House, workflows: Workflows) -> None:
    await three(home, one=9)
    await workflows.add("quote", STEP)
    entry = home.gateway.registry.find("default", "one")
    breaker = home.gateway.catalog.resilience.breaker
    for _ in range(5):
        breaker.record_failure((entry.tenant, entry.name, entry.url))
    task = await workflows.run("quote")
    assert output_of(task) == "two got: hi"
    assert await asked(workflows, task) == ["two"]


async def test_an_agent_without_the_skill_is_not_asked(home: House, workflows: Workflows) -> None:
    await three(home)
    await workflows.add("quote", STEP.replace("skill: quote", "skill: paint"))
    said = (await workflows.run("quote"))["status"]["message"]["parts"][0]["text"]
    assert "none of one, two, three has the skill `paint` now" in said


async def test_a_failed_agent_hands_on_to_the_next(home: House, workflows: Workflows) -> None:
    agents = await three(home)
    agents["one"].state = "TASK_STATE_FAILED"
    await workflows.add("quote", STEP)
    task = await workflows.run("quote")
    assert output_of(task) == "two got: hi"
    steps = (await workflows.show(task["id"]))["steps"]
    assert [each["step"] for each in steps] == ["/do/0/quote/agents/one", "/do/0/quote/agents/two"]
    assert len({each["task_id"] for each in steps}) == 2
    assert output_of(await workflows.run("quote")) == "two got: hi"  # what it came to counts from now on
    assert len(agents["one"].requests) == 1


@pytest.mark.parametrize(("gate", "answer"), [("minConfidence: 0.8", {"confidence": 0.2}), ("check: {rule: .total > 5}", {"total": 1})])
async def test_a_doubtful_answer_hands_on_to_the_next(home: House, workflows: Workflows, gate: str, answer: Any) -> None:
    agents = await three(home)
    agents["one"].more, agents["two"].more = [{"data": answer}], [{"data": {"confidence": 0.9, "total": 9}}]
    body = STEP.replace("kind: ai", f"kind: ai, {gate}").replace("{type: string}", "{type: object}")
    await workflows.add("quote", body)
    assert output_of(await workflows.run("quote")) == {"confidence": 0.9, "total": 9}


async def test_when_all_fail_the_step_says_why_each_did(home: House, workflows: Workflows) -> None:
    for agent in (await three(home)).values():
        agent.state = "TASK_STATE_FAILED"
    await workflows.add("quote", STEP)
    said = (await workflows.run("quote"))["status"]["message"]["parts"][0]["text"]
    assert "at /do/0/quote: no agent completed the step: one: " in said and "three: " in said


async def test_a_step_whose_outcome_is_unknown_is_given_to_nobody_else(home: House, workflows: Workflows) -> None:
    agents = await three(home)
    await workflows.add("quote", STEP)
    await home.gateway.workflows.load()
    steps = home.gateway.workflows._parts.steps
    plain = steps.run

    async def lost(who: Any, key: Any, request: Any) -> Any:
        await plain(who, key, request)
        raise own_error("outcome-unknown", 500, "Outcome Unknown", "lost", key.pointer)

    steps.run = lost  # type: ignore[method-assign]  # the answer of the agent gets lost
    said = (await workflows.run("quote"))["status"]["message"]["parts"][0]["text"]
    assert "Outcome Unknown" in said
    assert agents["two"].requests == []


@pytest.mark.parametrize("agents", ["[]", "one", "[one, one]", "['${ .agent }']", "[one], agent: two"])
async def test_agents_are_named_by_plain_texts(home: House, workflows: Workflows, agents: str) -> None:
    await three(home)
    problems = await workflows.refused("quote", STEP.replace("[one, two, three]", agents))
    assert {each["path"] for each in problems} == {"/do/0/quote/with/agents"}

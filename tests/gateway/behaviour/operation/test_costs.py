"""What calls cost: by the tokens that agents report, or by the operator's price; charged to budgets, and shown by person, agent or day."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from gateway.storage.tables import costs
from tests.fakes.house import CallbackAgent, House, house
from tests.fakes.reception import Reception
from tests.fakes.waiting import until

GPT = {"usage": {"input_tokens": 1000, "output_tokens": 500, "model": "gpt-4o"}}  # 0.0075 USD


class Books:
    """Calls as people make them, and the costs that they see."""

    def __init__(self, home: House) -> None:
        self.home = home
        self.desk = Reception(home)

    async def send(self, agent: str, user: str = "alice") -> Any:
        return await self.home.send(self.home.token(user), agent, "hello")

    async def costs(self, by: str = "agent", user: str = "alice", **query: Any) -> dict[str, Any]:
        path = "&".join([f"/api/cost?by={by}", *(f"{name}={value}" for name, value in query.items())])
        answer = await self.desk.ask("GET", path, user)
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    async def amounts(self, by: str = "agent", **more: Any) -> dict[str, Any]:
        """The amount and the unpriced calls by key."""
        return {each[by]: (each["amount"], each["unpriced"]) for each in (await self.costs(by, **more))["items"]}


@pytest.fixture
async def books(home: House) -> Books:
    return Books(home)


async def test_reported_tokens_are_priced_by_their_model(books: Books) -> None:
    agent = await books.home.agent(CallbackAgent("sales"))
    agent.metadata = GPT
    await books.send("sales")
    found = await books.costs()
    (item,) = found["items"]
    assert (item["agent"], item["amount"], item["currency"], item["unpriced"]) == ("sales", "0.0075", "USD", 0)
    assert (item["input_tokens"], item["output_tokens"], item["priced"]) == (1000, 500, 1)
    assert found["total"] == {"amount": "0.0075", "currency": "USD", "unpriced": 0, "quarantined": 0}


@pytest.mark.parametrize("metadata", [{}, {"usage": {"total_tokens": 9}}, {"usage": {**GPT["usage"], "model": "nobody-knows-it"}}])
async def test_what_has_no_price_is_unknown_and_not_nothing(books: Books, metadata: dict[str, Any]) -> None:
    agent = await books.home.agent(CallbackAgent("sales"))
    agent.metadata = metadata
    await books.send("sales")
    assert await books.amounts() == {"sales": (None, 1)}


async def test_a_price_per_call_counts_whatever_tokens_are_reported(books: Books) -> None:
    agent = await books.home.agent(CallbackAgent("sales"))
    changed = await books.desk.ask("PATCH", "/api/agents/sales", body={"price": "0.02"})
    assert changed.json()["price"] == "0.02"
    await books.send("sales")
    for usage in (GPT["usage"], {**GPT["usage"], "input_tokens": 0, "output_tokens": 0}):
        agent.metadata = {"usage": usage}
        await books.send("sales")
    assert await books.amounts() == {"sales": ("0.06", 0)}
    removed = await books.desk.ask("PATCH", "/api/agents/sales", body={"price": ""})
    assert removed.json()["price"] is None


@pytest.mark.parametrize("body", [{"price": "free"}, {"price": "-1"}, {"price": 1}, {"prices": {"*": "1"}}])
async def test_what_is_no_price_is_refused(books: Books, body: dict[str, Any]) -> None:
    await books.home.agent(CallbackAgent("sales"))
    assert (await books.desk.ask("PATCH", "/api/agents/sales", body=body)).status_code == 422


async def test_only_operators_set_prices(books: Books) -> None:
    await books.home.agent(CallbackAgent("sales"))
    assert (await books.desk.ask("PATCH", "/api/agents/sales", "alice", {"price": "1"})).status_code == 403


async def test_an_unreachable_agent_costs_nothing_that_is_known(books: Books) -> None:
    agent = await books.home.agent(CallbackAgent("sales"))
    await books.desk.ask("PATCH", "/api/agents/sales", body={"price": "0.02"})

    async def break_off(_token: str, _text: str) -> str:
        raise ConnectionError

    agent.act = break_off
    await books.send("sales")
    assert await books.amounts() == {"sales": (None, 1)}


async def test_tool_calls_have_the_price_of_the_tool_or_of_the_server(books: Books) -> None:
    await books.home.server("inventory", "check", "reserve")
    priced = await books.desk.ask("PATCH", "/api/servers/inventory", body={"prices": {"*": "0.5", "check": "0.01"}})
    assert priced.json()["prices"] == {"*": "0.50", "check": "0.01"}
    for tool in ("check", "reserve"):
        await books.home.call(books.home.token("alice"), "/mcp/inventory", tool, {})

    async def is_written() -> bool:
        return await books.amounts() == {"inventory": ("0.51", 0)}

    await until(is_written)


async def test_everybody_sees_own_costs_and_auditors_those_of_all(books: Books) -> None:
    agent = await books.home.agent(CallbackAgent("sales"))
    agent.metadata = GPT
    await books.send("sales", "alice")
    await books.send("sales", "bob")
    assert (await books.costs("person"))["total"]["amount"] == "0.0075"
    refused = await books.desk.ask("GET", "/api/cost?everybody=true", "alice")
    assert refused.status_code == 403
    found = await books.amounts("person", user="admin", everybody="true")
    assert sorted(name.rpartition("|")[2] for name in found) == ["alice", "bob"]
    assert set(found.values()) == {("0.0075", 0)}


async def test_costs_of_days_are_pages(books: Books) -> None:
    agents = [await books.home.agent(CallbackAgent(name)) for name in ("a", "b", "c")]
    for agent in agents[:2]:
        agent.metadata = GPT
    for agent in agents:
        await books.send(agent.name)
    first = await books.costs(limit=2)
    second = await books.costs(limit=2, cursor=first["next"])
    assert [each["agent"] for each in first["items"] + second["items"]] == ["a", "b", "c"] and second["next"] is None
    assert first["total"] == second["total"] == {"amount": "0.015", "currency": "USD", "unpriced": 1, "quarantined": 0}
    today = datetime.now(UTC).date().isoformat()
    assert await books.amounts("day", since=today) == {today: ("0.015", 1)}
    assert await books.amounts("day", since="2020-01-01", until="2020-01-31") == {}


@pytest.mark.parametrize("query", ["since=2026-02-01&until=2026-01-01", "cursor=nonsense", "by=planet", "by=day&cursor=after:x"])
async def test_bad_queries_of_costs_are_refused(books: Books, query: str) -> None:
    assert (await books.desk.ask("GET", f"/api/cost?{query}", "alice")).status_code in (400, 422)


async def test_a_budget_is_spent_by_what_tasks_really_cost(tmp_path: Path, database_url: str) -> None:
    entries = [{"who": "user:*", "what": "agent:sales", "cost_per_day": 0.015}]
    async with house(tmp_path / "home", database_url, limits={"per": entries}) as home:
        books = Books(home)
        agent = await home.agent(CallbackAgent("sales"))
        agent.metadata = GPT
        for _ in range(2):
            assert "result" in await books.send("sales")
        refused = await books.send("sales")
        assert "budget" in refused["error"]["message"]
        assert "result" in await books.send("sales", "bob")
        assert len(agent.requests) == 3


@pytest.mark.parametrize("tokens", [10**7 + 1, 10**9, 10**12])
async def test_false_usage_reports_are_not_charged(tmp_path: Path, database_url: str, tokens: int) -> None:
    async with house(tmp_path / "home", database_url, limits={"per": [{"who": "user:*", "cost_per_day": 1}]}) as home:
        books = Books(home)
        agent = await home.agent(CallbackAgent("sales"))
        agent.metadata = {"usage": {"input_tokens": tokens, "output_tokens": 5, "model": "gpt-4o"}}
        for _ in range(2):
            assert "result" in await books.send("sales")
        assert await books.amounts() == {"sales": (None, 2)}


async def test_another_currency_needs_a_rate_for_tokens(tmp_path: Path, database_url: str) -> None:
    for settings, amount in (({"currency": "EUR"}, None), ({"currency": "EUR", "usd_rate": "0.5"}, "0.00375")):
        async with house(tmp_path / f"home{amount}", database_url, costs=settings) as home:
            books = Books(home)
            agent = await home.agent(CallbackAgent(f"sales{'-eur' if amount else ''}"))
            agent.metadata = GPT
            await books.send(agent.name)
            found = {each["agent"]: each for each in (await books.costs())["items"]}[agent.name]
            assert (found["amount"], found["currency"]) == (amount, "EUR")


async def test_a_turn_without_usage_and_price_adds_no_statement(books: Books) -> None:
    agent = await books.home.agent(CallbackAgent("sales"))
    written: list[str] = []
    ledger = books.home.gateway.calls.parts.costs
    pricing_of = ledger.pricing_of

    def observe(call: Any, ending: Any) -> Any:
        pricing = pricing_of(call, ending)
        written.append("none" if pricing is None else "priced")
        return pricing

    ledger.pricing_of = observe  # type: ignore[method-assign]  # observes the ledger
    await books.send("sales")
    agent.metadata = GPT
    await books.send("sales")
    assert written == ["priced"]
    rows = await books.home.gateway.database.read(lambda connection: connection.execute(select(costs)).all())
    assert len(rows) == 1

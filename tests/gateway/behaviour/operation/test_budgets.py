"""Budgets of costs: reserved before a call, settled after it, never exceeded by parallel calls, and not moved by false reports."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import select

from gateway.calls.costs.expiry import ExpiredReservations
from gateway.storage.tables import budgets, costs, reservations
from policies.ids import now_us
from policies.tables import audit_records
from tests.fakes.a2a_agents import loopback
from tests.fakes.house import CallbackAgent, House, house, two
from tests.fakes.reception import Reception
from tests.fakes.waiting import until

GPT = {"input_tokens": 1000, "output_tokens": 500, "model": "gpt-4o"}  # 0.0075 USD
OF_SALES = {"who": "user:*", "what": "agent:sales"}


class Till:
    """Calls of people with budgets, and what the database has of these."""

    def __init__(self, home: House) -> None:
        self.home = home
        self.desk = Reception(home)

    async def agent(self, price: str = "", **metadata: Any) -> CallbackAgent:
        agent = await self.home.agent(CallbackAgent("sales"))
        agent.metadata = metadata
        if price:
            await self.set_price("agents/sales", price=price)
        return agent

    async def set_price(self, path: str, **body: Any) -> None:
        assert (await self.desk.ask("PATCH", f"/api/{path}", body=body)).status_code == 200
        await self.home.gateway.database.refresh_epochs()

    async def send(self, user: str = "alice") -> Any:
        return await self.home.send(self.home.token(user), "sales", "hello")

    async def read(self, *columns: Any) -> list[Any]:
        return [tuple(row) for row in await self.home.gateway.database.read(lambda found: found.execute(select(*columns)).all())]

    async def spent(self) -> list[tuple[int, int]]:
        """Cost and reservations of each budget."""
        return await self.read(budgets.c.cost, budgets.c.reserved)

    async def rows(self) -> list[tuple[int | None, int, str]]:
        return await self.read(costs.c.amount, costs.c.charged, costs.c.quarantined)


@asynccontextmanager
async def till(tmp_path: Path, database_url: str, *entries: dict[str, Any], **more: Any) -> AsyncIterator[Till]:
    async with house(tmp_path / "home", database_url, limits={"per": list(entries)}, **more) as home:
        yield Till(home)


def accepted(answers: list[Any]) -> list[Any]:
    return [answer for answer in answers if "result" in answer]


async def test_fifty_parallel_turns_never_exceed_a_budget(tmp_path: Path, database_url: str) -> None:  # attack CST-01
    async with till(tmp_path, database_url, {**OF_SALES, "cost_per_day": 0.05}) as desk:
        agent, gate = await desk.agent("0.01"), asyncio.Event()

        async def act(_token: str, text: str) -> str:
            await gate.wait()
            return text

        agent.act = act
        sent = [asyncio.create_task(desk.send()) for _ in range(50)]
        await until(lambda: sum(each.done() for each in sent) + len(agent.requests) >= 50)  # each is refused or at the agent
        at_work, spent = len(agent.requests), await desk.spent()
        gate.set()
        assert (at_work, spent) == (5, [(0, 50_000)])
        answers = [await each for each in sent]
        assert len(accepted(answers)) == len(agent.requests) == 5
        assert await desk.spent() == [(50_000, 0)]
        assert await desk.read(reservations.c.id) == []


async def test_fifty_parallel_tool_calls_never_exceed_a_budget(tmp_path: Path, database_url: str) -> None:  # attack CST-01
    async with till(tmp_path, database_url, {"who": "user:*", "cost_per_day": 0.03}) as desk:
        server = await desk.home.server("inventory", "check")
        await desk.set_price("servers/inventory", prices={"check": "0.01"})
        token = desk.home.token("alice")
        answers = await asyncio.gather(*(desk.home.call(token, "/mcp/inventory", "check", {}) for _ in range(50)))
        assert len([each for each in answers if each.status_code == 200]) == len(server.calls) == 3

        async def is_settled() -> bool:
            return await desk.spent() == [(30_000, 0)]

        await until(is_settled)


async def test_calls_in_two_processes_share_what_is_left(tmp_path: Path, postgres_url: str) -> None:  # attack CST-01
    entries = [{**OF_SALES, "cost_per_day": 0.05}]
    async with two(tmp_path / "home", postgres_url, limits={"per": entries}) as homes:
        desks = [Till(home) for home in homes]
        agent = await desks[0].agent("0.01")
        for home in homes:
            await home.gateway.database.refresh_epochs()
        answers = await asyncio.gather(*(desks[at % 2].send() for at in range(30)))
        assert len(accepted(list(answers))) == len(agent.requests) == 5
        assert await desks[0].spent() == [(50_000, 0)]


async def test_a_refusal_says_what_is_left_and_when_it_begins_anew(tmp_path: Path, database_url: str) -> None:
    async with till(tmp_path, database_url, {**OF_SALES, "cost_per_day": 0.05}) as desk:
        agent = await desk.agent("0.03")
        assert "result" in await desk.send()
        refused = (await desk.send())["error"]
        assert refused["code"] == -32012 and len(agent.requests) == 1
        assert "0.02 of 0.05 USD are left, and the call reserves 0.03" in refused["message"]
        assert "begins anew at midnight, UTC" in refused["message"]
        (retry,) = [each for each in refused["data"] if each["@type"].endswith("RetryInfo")]
        assert 0 < int(retry["retryDelay"].removesuffix("s")) <= 86_400
        assert "result" in await desk.send("bob")


async def test_a_refusal_from_memory_tells_the_same_as_that_of_the_database(tmp_path: Path, database_url: str) -> None:
    async with till(tmp_path, database_url, {**OF_SALES, "cost_per_day": 0.05}) as desk:
        await desk.agent("0.03")
        assert "result" in await desk.send()
        first, second = [(await desk.send())["error"]["message"] for _ in range(2)]
        assert first == second and "0.03 are spent, and 0.00 are reserved by calls at work" in second


async def test_a_refused_call_leaves_no_task_and_no_grant(tmp_path: Path, database_url: str) -> None:
    async with till(tmp_path, database_url, {**OF_SALES, "cost_per_day": 0.05}) as desk:
        await desk.agent("0.06")
        assert "error" in await desk.send()
        decided = await desk.read(audit_records.c.body)
        assert [body for (body,) in decided if json.loads(body)["kind"] == "decision" and '"invokeAgent"' in body] == []
        assert (await desk.desk.ask("GET", "/api/tasks", "alice")).json()["items"] == []


async def test_an_unknown_cost_reserves_what_the_settings_say(tmp_path: Path, database_url: str) -> None:
    async with till(tmp_path, database_url, {**OF_SALES, "cost_per_day": 0.05}, costs={"reservation": "0.02"}) as desk:
        agent, reserved = await desk.agent(), list[tuple[int, int]]()

        async def act(_token: str, text: str) -> str:
            reserved.extend(await desk.spent())
            return text

        agent.act = act
        agent.metadata = {"usage": GPT}
        await desk.send()
        await desk.send()
        assert reserved == [(0, 20_000), (7500, 7500)]
        assert await desk.spent() == [(15_000, 0)]


async def test_a_reservation_never_exceeds_its_bound(tmp_path: Path, database_url: str) -> None:
    bounds = {"reservation": "0.02", "reservation_max": "0.001"}
    async with till(tmp_path, database_url, {**OF_SALES, "cost_per_day": 0.05}, costs=bounds) as desk:
        agent, reserved = await desk.agent(usage=GPT), list[tuple[int, int]]()

        async def act(_token: str, text: str) -> str:
            reserved.extend(await desk.spent())
            return text

        agent.act = act
        await desk.send()
        await desk.send()
        assert reserved == [(0, 1000), (7500, 1000)]


FALSE_REPORTS: tuple[tuple[Any, str], ...] = (
    ({**GPT, "input_tokens": -5}, "bad-figures"),
    ({**GPT, "output_tokens": 1.5}, "bad-figures"),
    ({**GPT, "output_tokens": "NaN"}, "bad-figures"),
    ({**GPT, "input_tokens": 10**30}, "bad-figures"),
    ({**GPT, "input_tokens": 10**7 + 1}, "too-many-tokens"),
    ({**GPT, "model": "nobody-knows-it"}, "unpriced-usage"),
    ({"total_tokens": 5}, "unpriced-usage"),
    ({}, "missing-usage"),
    (None, "missing-usage"),
)


async def test_reports_that_cannot_be_right_are_charged_by_reservations(tmp_path: Path, database_url: str) -> None:  # attack CST-01
    async with till(tmp_path, database_url, {**OF_SALES, "cost_per_day": 1}) as desk:
        agent = await desk.agent()
        for usage, _ in FALSE_REPORTS:
            agent.metadata = {"usage": usage}
            assert "result" in await desk.send()
        reasons = sorted(reason for _, reason in FALSE_REPORTS)
        assert sorted(await desk.rows(), key=str) == [(None, 10_000, reason) for reason in reasons]
        assert await desk.spent() == [(90_000, 0)]
        (item,) = (await desk.desk.ask("GET", "/api/cost?by=agent", "alice")).json()["items"]
        assert (item["amount"], item["unpriced"], item["quarantined"], item["charged"]) == (None, 9, 9, "0.09")
        records = [json.loads(body) for (body,) in await desk.read(audit_records.c.body)]
        trail = [(each["agent"], each["reason"], each["charged_micros"]) for each in records if each["kind"] == "quarantined"]
        assert sorted(trail) == [("sales", reason, 10_000) for reason in reasons]
        figures = desk.home.gateway.metrics.render().decode()
        assert 'interlock_costs_quarantined_total{reason="bad-figures"} 4.0' in figures


async def test_false_reports_are_shown_where_no_budget_counts_them(tmp_path: Path, database_url: str) -> None:
    async with till(tmp_path, database_url) as desk:
        await desk.agent(usage={**GPT, "input_tokens": -5})
        await desk.send()
        assert await desk.rows() == [(None, 0, "bad-figures")]


async def test_a_price_is_charged_whatever_is_reported(tmp_path: Path, database_url: str) -> None:  # attack CST-01
    async with till(tmp_path, database_url, {**OF_SALES, "cost_per_day": 0.05}) as desk:
        agent = await desk.agent("0.02")
        for usage in (GPT, {**GPT, "input_tokens": -5}):
            agent.metadata = {"usage": usage}
            await desk.send()
        assert sorted(await desk.rows()) == [(20_000, 20_000, ""), (20_000, 20_000, "bad-figures")]


async def test_an_agent_that_is_not_reached_costs_nothing(tmp_path: Path, database_url: str) -> None:
    async with till(tmp_path, database_url, {"who": "user:*", "cost_per_day": 0.05}) as desk:
        with loopback() as listener:
            closed = listener.getsockname()[1]
        for name, port in (("sales", closed), ("refused", 9)):
            await desk.home.registered(name, f"http://127.0.0.1:{port}/")
            await desk.home.send(desk.home.token("alice"), name, "hello")
            assert await desk.spent() == [(0, 0)], name


async def test_a_broken_answer_is_charged_by_its_reservation(tmp_path: Path, database_url: str) -> None:
    async with till(tmp_path, database_url, {**OF_SALES, "cost_per_day": 0.05}) as desk:
        agent = await desk.agent("0.02")

        async def break_off(_token: str, _text: str) -> str:
            raise ConnectionError

        agent.act = break_off
        await desk.send()
        assert await desk.rows() == [(None, 20_000, "no-answer")]
        assert await desk.spent() == [(20_000, 0)]


async def begin_turn(desk: Till) -> tuple["asyncio.Task[Any]", asyncio.Event]:
    """A turn of the agent for 0.02 that lasts until the event is set."""
    agent, gate = await desk.agent("0.02"), asyncio.Event()

    async def act(_token: str, text: str) -> str:
        await gate.wait()
        return text

    agent.act = act
    sending = asyncio.create_task(desk.send())
    await until(lambda: len(agent.requests) == 1)
    return sending, gate


async def test_a_canceled_turn_has_a_cost_and_gives_its_reservation_back(tmp_path: Path, database_url: str) -> None:
    async with till(tmp_path, database_url, {**OF_SALES, "cost_per_day": 0.05}) as desk:
        sending, gate = await begin_turn(desk)
        (task,) = (await desk.desk.ask("GET", "/api/tasks", "alice")).json()["items"]
        await desk.home.rpc("/agents/sales", desk.home.token("alice"), "CancelTask", {"id": task["id"]})
        gate.set()
        await sending

        async def is_settled() -> bool:
            return await desk.spent() == [(20_000, 0)]

        await until(is_settled)
        assert await desk.rows() == [(None, 20_000, "no-answer")]
        shown = (await desk.desk.ask("GET", f"/api/tasks/{task['id']}", "alice")).json()
        assert shown["cost"] == {"amount": None, "currency": "USD", "unpriced": 1, "quarantined": 1}


async def test_usage_in_the_result_of_a_tool_is_priced(tmp_path: Path, database_url: str) -> None:
    async with till(tmp_path, database_url, {"who": "user:*", "cost_per_day": 0.01}) as desk:
        server = await desk.home.server("inventory", "check")
        result = server.result
        server.result = lambda params: {**result(params), "_meta": {"usage": GPT}}  # type: ignore[method-assign]  # it reports usage
        await desk.home.call(desk.home.token("alice"), "/mcp/inventory", "check", {})

        async def is_written() -> bool:
            return await desk.rows() == [(7500, 7500, "")] and await desk.spent() == [(7500, 0)]

        await until(is_written)
        refused = await desk.home.call(desk.home.token("alice"), "/mcp/inventory", "check", {})
        assert refused.status_code == 429 and len(server.calls) == 1


async def test_free_calls_reserve_nothing(tmp_path: Path, database_url: str) -> None:
    async with till(tmp_path, database_url, {"who": "user:*", "cost_per_day": 0.01}) as desk:
        await desk.agent("0")
        server = await desk.home.server("inventory", "check")
        for _ in range(3):
            assert "result" in await desk.send()
            await desk.home.call(desk.home.token("alice"), "/mcp/inventory", "check", {})
        assert len(server.calls) == 3 and await desk.spent() == []


async def test_callers_without_a_budget_write_no_reservation(tmp_path: Path, database_url: str) -> None:
    async with till(tmp_path, database_url, {"who": "user:bob", "cost_per_day": 0.01}) as desk:
        await desk.agent("0.02")
        assert "result" in await desk.send("alice")
        assert await desk.spent() == [] and "error" in await desk.send("bob")


async def test_a_task_is_shown_with_the_cost_of_all_that_it_caused(tmp_path: Path, database_url: str) -> None:
    async with till(tmp_path, database_url) as desk:
        home = desk.home
        await desk.agent("0.01")

        async def pass_on(token: str, text: str) -> str:
            hop = (await home.exchange("chief", token, "/agents/sales", "agent:sales")).json()["access_token"]
            await home.send(hop, "sales", text)
            return "done"

        await home.agent(CallbackAgent("chief", pass_on))
        await desk.set_price("agents/chief", price="0.02")
        await home.send(home.token("alice"), "chief", "hi")
        (task,) = [each for each in (await desk.desk.ask("GET", "/api/tasks", "alice")).json()["items"] if each["agent"] == "chief"]
        whole = {"amount": "0.03", "currency": "USD", "unpriced": 0, "quarantined": 0}
        assert (await desk.desk.ask("GET", f"/api/tasks/{task['id']}", "alice")).json()["cost"] == whole
        assert (await desk.desk.ask("GET", f"/api/tasks/{task['id']}/trace", "alice")).json()["cost"] == whole


async def test_an_abandoned_process_leaves_nothing_reserved(tmp_path: Path, database_url: str) -> None:
    async with till(tmp_path, database_url, {**OF_SALES, "cost_per_day": 0.05}) as desk:
        sending, gate = await begin_turn(desk)
        gateway = desk.home.gateway
        week_later = ExpiredReservations(gateway.database, lambda: now_us() + 9 * 86_400_000_000)
        assert await week_later.run_once() == 1
        assert await desk.rows() == [(None, 20_000, "expired")] and await desk.spent() == [(20_000, 0)]
        gate.set()
        await sending
        assert await desk.rows() == [(20_000, 20_000, "")] and await desk.spent() == [(20_000, 0)]


async def test_costs_are_given_as_csv(tmp_path: Path, database_url: str) -> None:
    async with till(tmp_path, database_url) as desk:
        await desk.agent("0.01")
        await desk.send()
        headers = {"authorization": f"Bearer {desk.home.token('alice')}", "accept": "text/csv"}
        answer = await desk.home.http.get("/api/cost?by=agent", headers=headers)
        assert answer.headers["content-type"].startswith("text/csv")
        assert answer.text.splitlines() == [
            "agent,amount,currency,unpriced,quarantined,charged,priced,input_tokens,output_tokens",
            "sales,0.01,USD,0,0,0.00,1,0,0",
        ]

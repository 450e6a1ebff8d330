"""How much may be asked for: by a person, an agent, a tenant, of an agent, a server, a tool; at once, in a second, in a day, in bytes."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from gateway.calls.limits.budgets import Budgets
from gateway.calls.limits.meters import BudgetSpent, CallLimits, Limit, PayloadTooLarge, RateLimited, TooManyCalls, release
from gateway.server.settings import BadSettings
from gateway.server.settings_sources import load_settings
from gateway.storage.tables import budgets
from policies.audit.log import AuditLog
from policies.callers import Caller
from policies.delegation.chain import Delegation, Hop, Principal
from policies.delegation.permissions import ALL_PERMISSIONS
from policies.delegation.rulings import act_of_calling_tool, act_of_invoking_agent
from policies.tables import audit_records as audit_table
from tests.fakes.a2a_doors import DOORS, ask, message_of
from tests.fakes.clock import Clock
from tests.fakes.house import CallbackAgent, House, house
from tests.fakes.outages import Shaky
from tests.fakes.waiting import until

CRM, SALES = act_of_calling_tool("crm", "find"), act_of_invoking_agent("sales")


def caller(user: str = "alice", tenant: str = "acme", actor: str = "") -> Caller:
    principal = Principal(tenant, "idp", user)
    delegation = Delegation(principal, ALL_PERMISSIONS, 2e9, (Hop(actor),) if actor else ())
    return Caller(principal, delegation, "", "t", 2e9, f"{tenant} {user} {actor}")


def limits(clock: Clock, *given: Limit) -> CallLimits:
    return CallLimits(given, clock, clock)


def test_a_bucket_empties_by_bursts_and_fills_with_time() -> None:
    clock = Clock()
    made = limits(clock, Limit("user:*", rate=2, burst=3))
    for _ in range(3):
        release(made.acquire(caller(), CRM, b""))
    with pytest.raises(RateLimited) as reached:
        made.acquire(caller(), CRM, b"")
    assert reached.value.retry_after == 1
    release(made.acquire(caller("bob"), CRM, b""))
    release(made.acquire(caller("alice", "other"), CRM, b""))
    clock.now += 0.5
    release(made.acquire(caller(), SALES, b""))
    with pytest.raises(RateLimited):
        made.acquire(caller(), CRM, b"")


def test_what_is_under_way_counts_until_it_is_over() -> None:
    made = limits(Clock(), Limit("agent:*", concurrent=2))
    first, _ = made.acquire(caller(actor="sales"), CRM, b""), made.acquire(caller("bob", actor="sales"), CRM, b"")
    with pytest.raises(TooManyCalls):
        made.acquire(caller(actor="sales"), CRM, b"")
    made.acquire(caller(actor="other"), CRM, b"")
    made.acquire(caller(), CRM, b"")
    release(first)
    made.acquire(caller(actor="sales"), CRM, b"")


def test_what_goes_on_takes_a_place_and_is_not_counted_once_more() -> None:
    clock = Clock()
    made = limits(
        clock, Limit("user:*", concurrent=2), Limit("user:*", rate=1, burst=1, calls_per_day=1), Limit(what="agent:sales", concurrent=1)
    )
    release(made.acquire(caller(), SALES, b""))  # it had to wait
    places = made.acquire_concurrency(caller(), SALES)
    with pytest.raises(TooManyCalls):
        made.acquire_concurrency(caller(), SALES)
    other = made.acquire_concurrency(caller(), CRM)  # of the first limit nothing was taken by who was refused by the third
    with pytest.raises(TooManyCalls):
        made.acquire(caller(), CRM, b"")
    release(places)
    release(other)
    release(made.acquire_concurrency(caller(), SALES))
    clock.now += 10
    with pytest.raises(BudgetSpent):
        made.acquire(caller(), SALES, b"")


@pytest.mark.parametrize(
    ("what", "held"), [("tool:crm.find", True), ("tool:crm.*", True), ("tool:*", True), ("server:crm", True), ("server:*", True),
                       ("tool:crm.add", False), ("agent:*", False), ("server:sales", False)]
)  # fmt: skip
def test_a_limit_is_about_what_it_names(what: str, held: bool) -> None:
    made = limits(Clock(), Limit(what=what, concurrent=0))
    if held:
        with pytest.raises(TooManyCalls):
            made.acquire(caller(), CRM, b"")
    else:
        made.acquire(caller(), CRM, b"")
    assert made.refusals.total() == int(held)


def test_whoever_is_refused_by_one_limit_has_taken_nothing_of_others() -> None:
    made = limits(Clock(), Limit("tenant:*", concurrent=1), Limit("user:bob", concurrent=0))
    with pytest.raises(TooManyCalls):
        made.acquire(caller("bob"), CRM, b"")
    made.acquire(caller(), CRM, b"")


def test_larger_arguments_than_a_tool_takes_are_refused() -> None:
    made = limits(Clock(), Limit(what="tool:crm.find", max_bytes=10))
    made.acquire(caller(), CRM, b"1234567890")
    with pytest.raises(PayloadTooLarge, match="at most 10 bytes"):
        made.acquire(caller(), CRM, b"12345678901")


def test_costs_count_for_those_whose_budgets_they_are() -> None:
    made = limits(Clock(), Limit("user:*", cost_per_day=1.5), Limit("agent:sales", what="server:crm", cost_per_day=1))

    def budgets_of(user: str, actor: str = "") -> list[list[str]]:
        return [json.loads(meter.name) for meter in made.cost_meters(f"acme|idp|{user}", actor, CRM)]

    assert budgets_of("alice") == [["user:*", "", "acme|idp|alice", ""]]
    assert budgets_of("bob", "sales") == [["user:*", "", "acme|idp|bob", ""], ["agent:sales", "server:crm", "sales", "crm"]]
    spent = {("acme", meter.name): (0, 1_500_000) for meter in made.cost_meters("acme|idp|alice", "", CRM)}
    made.restore_spent(spent)
    with pytest.raises(BudgetSpent) as refused:
        made.acquire(caller(), CRM, b"")
    assert 0 < refused.value.retry_after <= 86_400
    release(made.acquire(caller("bob"), CRM, b""))


def test_who_has_not_asked_for_a_while_is_forgotten_and_who_is_at_it_is_not() -> None:
    clock = Clock()
    made = limits(clock, Limit("user:*", rate=1, concurrent=1))
    made.acquire(caller(), CRM, b"")
    release(made.acquire(caller("bob"), CRM, b""))
    clock.now += 10
    made.sweep()
    assert len(made._meters) == 1
    with pytest.raises(TooManyCalls):
        made.acquire(caller(), CRM, b"")


async def test_a_budget_outlasts_a_restart_and_ends_with_its_day(database: Any) -> None:
    clock, now = Clock(), [1_800_000_000_000_000]
    audit = AuditLog("a_1", lambda: now[0])
    database.enlist(audit)
    await database.write(lambda batch: audit.begin_chain(batch.connection, batch))

    def process() -> tuple[CallLimits, Budgets]:
        made = limits(clock, Limit("user:*", calls_per_day=3))
        return made, Budgets(database, audit, made, lambda: now[0])

    before, kept = process()
    await kept.run_once()
    for _ in range(2):
        release(before.acquire(caller(), CRM, b""))
    await kept.close()
    again, kept = process()
    await kept.run_once()
    release(again.acquire(caller(), CRM, b""))
    with pytest.raises(BudgetSpent):
        again.acquire(caller(), CRM, b"")
    await kept.run_once()
    rows = await database.read(lambda connection: connection.execute(select(budgets)).all())
    assert [(row.tenant, json.loads(row.name), row.calls) for row in rows] == [("acme", ["user:*", "", "acme|idp|alice", ""], 3)]
    now[0] += 86_400_000_000
    await kept.run_once()
    release(again.acquire(caller(), CRM, b""))
    for _ in range(50):
        with pytest.raises(BudgetSpent):
            for _ in range(4):
                again.acquire(caller(), CRM, b"")
    await kept.write_refusals()
    query = select(audit_table.c.body).where(audit_table.c.kind == "limited")
    (body,) = await database.read(lambda connection: connection.execute(query).scalars().all())
    assert json.loads(body)["count"] == 51 and json.loads(body)["principal"]["subject"] == "alice"


async def test_refusals_are_kept_at_the_end_though_spending_is_not_read(database: Any) -> None:
    audit = AuditLog("a_1", lambda: 1)
    database.enlist(audit)
    await database.write(lambda batch: audit.begin_chain(batch.connection, batch))
    shaky, made = Shaky(database), limits(Clock(), Limit("user:*", calls_per_day=1))
    budget = Budgets(shaky, audit, made, lambda: 1_800_000_000_000_000)  # type: ignore[arg-type]  # it does what is needed
    release(made.acquire(caller(), CRM, b""))
    with pytest.raises(BudgetSpent):
        made.acquire(caller(), CRM, b"")
    shaky.reads = 1
    await budget.close()
    query = select(audit_table.c.body).where(audit_table.c.kind == "limited")
    assert len(await database.read(lambda connection: connection.execute(query).scalars().all())) == 1


async def test_two_processes_on_one_server_share_a_budget(database: Any) -> None:
    clock = Clock()
    here, there = (limits(clock, Limit("user:*", calls_per_day=4)) for _ in range(2))
    kept = [Budgets(database, AuditLog(f"a_{at}", lambda: 1), made, lambda: 1_800_000_000_000_000) for at, made in enumerate((here, there))]
    if database.is_sqlite:
        return  # one process alone
    for made in (here, there):
        for _ in range(2):
            release(made.acquire(caller(), CRM, b""))
    for _ in range(2):
        for each in kept:
            await each.run_once()
    for made in (here, there):
        with pytest.raises(BudgetSpent):
            made.acquire(caller(), CRM, b"")


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        ("{who: alice, rate: 1}", "user:NAME or agent:NAME or tenant:NAME"),
        ("{what: 'memory:x', rate: 1}", "agent:NAME or server:NAME or tool:NAME"),
        ("{who: 'user:*', rate: 0}", "must be more than 0"),
        ("{who: 'user:*', speed: 3}", "no such setting"),
    ],
)
def test_a_limit_that_is_none_is_told_with_its_line(tmp_path: Path, entry: str, problem: str) -> None:
    path = tmp_path / "interlock.yaml"
    path.write_text(f"limits:\n  per:\n    - {{who: 'user:*', rate: 5}}\n    - {entry}\n")
    with pytest.raises(BadSettings, match=problem) as refused:
        load_settings(path)
    assert f"{path}:4:" in str(refused.value)


@asynccontextmanager
async def limited(tmp_path: Path, database_url: str, *entries: dict[str, Any]) -> AsyncIterator[House]:
    async with house(tmp_path / "home", database_url, limits={"per": list(entries)}) as home:
        yield home


class Slow:
    """An agent that waits for the gate."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.begun = 0
        self.agent = CallbackAgent("sales", self._act)

    async def _act(self, token: str, text: str) -> str:
        self.begun += 1
        await self.gate.wait()
        return "done"


@pytest.mark.parametrize("door", DOORS)
async def test_one_persons_flood_of_tasks_ends_at_the_limit_and_others_go_on(tmp_path: Path, database_url: str, door: str) -> None:
    slow = Slow()  # attack PRO-12
    async with limited(tmp_path, database_url, {"who": "user:*", "concurrent": 3}) as home:
        await home.agent(slow.agent)
        params = {"message": message_of(door, "hi")}
        flood = [asyncio.create_task(ask(home, door, "send", params)) for _ in range(40)]
        await until(lambda: sum(task.done() for task in flood) == 37 and slow.begun == 3)
        refused = [task.result() for task in flood if task.done()]
        assert {answer.status_code for answer in refused} == {429} and {answer.headers["retry-after"] for answer in refused} == {"1"}
        details = refused[0].json()["error"]["data" if door.startswith("jsonrpc") else "details"]
        assert details[0]["reason"] == "TOO_MANY_CALLS"
        assert details[1] == {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "1s"}
        bob = asyncio.create_task(ask(home, door, "send", params, user="bob"))
        await until(lambda: slow.begun == 4)
        slow.gate.set()
        assert (await bob).status_code == 200
        assert [answer.status_code for answer in await asyncio.gather(*flood)].count(200) == 3
        assert (await ask(home, door, "send", params)).status_code == 200
        await home.gateway.budgets.write_refusals()
        records = select(audit_table.c.body).where(audit_table.c.kind == "limited")
        (body,) = await home.gateway.database.read(lambda connection: connection.execute(records).scalars().all())
        assert json.loads(body)["count"] == 37
        assert b'outcome="too-many-calls"' in home.gateway.metrics.render()


async def test_a_flood_of_tool_calls_over_mcp_is_told_when_to_come_again(tmp_path: Path, database_url: str) -> None:  # attack PRO-12
    async with limited(tmp_path, database_url, {"who": "user:*", "what": "tool:*", "rate": 0.01, "burst": 2}) as home:
        await home.server("inventory", "check", "reserve")
        answers = [await home.call(home.token("alice"), "/mcp/inventory", "check", {}) for _ in range(4)]
        assert [answer.status_code for answer in answers] == [200, 200, 429, 429]
        error = answers[-1].json()["error"]
        assert (error["code"], error["data"]["reason_id"]) == (-32012, "rate-limited")
        assert 0 < error["data"]["retryAfter"] <= 100 and answers[-1].headers["retry-after"] == str(error["data"]["retryAfter"])
        assert (await home.call(home.token("alice"), "/mcp/inventory", "reserve", {})).status_code == 200
        assert (await home.call(home.token("bob"), "/mcp/inventory", "check", {})).status_code == 200


async def test_arguments_that_are_too_large_for_a_tool_are_refused_at_the_doors(tmp_path: Path, database_url: str) -> None:
    sizes = ({"what": "tool:inventory.check", "max_bytes": 600}, {"what": "agent:sales", "max_bytes": 600})
    async with limited(tmp_path, database_url, *sizes) as home:
        await home.server("inventory", "check")
        await home.agent(CallbackAgent("sales"))
        large = await home.call(home.token("alice"), "/mcp/inventory", "check", {"sku": "x" * 600})
        assert (large.status_code, large.json()["error"]["data"]["reason_id"]) == (413, "payload-too-large")
        assert (await home.call(home.token("alice"), "/mcp/inventory", "check", {"sku": "x"})).status_code == 200
        (violation,) = (await home.send(home.token("alice"), "sales", "x" * 600))["error"]["data"][0]["fieldViolations"]
        assert violation["field"] == "message"
        assert "result" in await home.send(home.token("alice"), "sales", "x")


async def test_requests_of_administration_and_exchanges_are_limited_by_rate(tmp_path: Path, database_url: str) -> None:
    tokens: list[str] = []
    rates = ({"who": "user:carol", "rate": 0.01, "burst": 2}, {"who": "agent:sales", "rate": 0.01, "burst": 1})

    async def act(token: str, text: str) -> str:
        for _ in range(2):
            tokens.append(str((await home.exchange("sales", token, "/mcp", "tool:inventory.check")).status_code))
        return "done"

    async with limited(tmp_path, database_url, *rates) as home:
        headers = {"authorization": f"Bearer {home.token('carol')}"}
        answers = [await home.http.get("/api/tasks", headers=headers) for _ in range(3)]
        assert [answer.status_code for answer in answers] == [200, 200, 429]
        assert answers[-1].json()["reason_id"] == "rate-limited" and int(answers[-1].headers["retry-after"]) > 1
        await home.agent(CallbackAgent("sales", act))
        await home.send(home.token("alice"), "sales", "hi")
        assert tokens == ["200", "429"]


async def test_agents_that_call_each_other_end_by_the_chain_they_are_in(home: House) -> None:  # attack PRO-12
    begun: list[str] = []
    told: list[str] = []

    def passing(name: str, following: str) -> CallbackAgent:
        async def act(token: str, text: str) -> str:
            begun.append(name)
            mine = await home.exchanged(name, token, f"/agents/{following}", "agent:*")
            answer = await home.send(mine, following, text)
            told.append(json.dumps(answer))
            return "passed on"

        return CallbackAgent(name, act)

    await home.agent(passing("ping", "pong"))
    await home.agent(passing("pong", "ping"))
    task = (await home.send(home.token("alice"), "ping", "hi"))["result"]["task"]
    assert task["status"]["state"] == "TASK_STATE_COMPLETED" and begun == ["ping", "pong"]
    assert '"loop"' in told[0] and '"TASK_STATE_COMPLETED"' in told[1]


def test_requests_refused_before_they_were_read_are_reported_with_other_refusals() -> None:
    limits = CallLimits([], Clock(), Clock())
    limits.count_overload("acme|issuer|ann", 3)
    limits.count_overload("acme|issuer|ann", 4)
    ((report, count),) = limits.take_refusals().items()
    assert (report.tenant, report.owner, report.reason, count) == ("acme", "acme|issuer|ann", "Overloaded", 7)

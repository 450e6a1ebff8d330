"""Budgets of runs and of workflows: of the document and of operators, over any number of hops, never exceeded, with an error to catch."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import select

from gateway.storage.tables import costs, reservations, run_budgets
from tests.fakes.house import CallbackAgent, house
from tests.fakes.waiting import until
from tests.fakes.workflows import HEAD, Workflows

AI = "metadata: {gateway: {kind: ai}}, input: {schema: {document: {}}}, output: {schema: {document: {}}}"
ASK = f"- ask: {{call: gateway.agent, with: {{agent: sales, input: hello}}, {AI}}}\n"
THRICE = "do:\n" + "".join(ASK.replace("ask:", f"{name}:") for name in ("first", "second", "third"))
CAUGHT = f"""
do:
- careful:
    try:
{"".join(f"    {line}" for line in THRICE.removeprefix("do:").splitlines(keepends=True) if line.strip())}
    catch:
      errors: {{with: {{type: 'urn:interlock:error:budget-spent'}}}}
      as: problem
      do:
      - note: {{set: {{status: '${{ $problem.status }}', detail: '${{ $problem.detail }}'}}}}
"""
ALLOWED = f"""
- also: {{if: '${{ false }}', call: gateway.agent, with: {{agent: sales, input: hello}}, {AI}}}
- too: {{if: '${{ false }}', call: gateway.tool, with: {{tool: inventory.check, arguments: {{}}}}}}
"""  # steps that do not run, but have the workflow be allowed what the agent does
MANY = f"do:\n- fan:\n    fork:\n      branches:\n{''.join('      ' + ASK.replace('ask:', f'b{number}:') for number in range(6))}"


def with_budget(name: str, body: str, **budget: Any) -> str:
    head = HEAD.format(name=name).rstrip().removesuffix("}")
    members = ", ".join(f"{name}: {value}" for name, value in budget.items())
    return f"{head}, metadata: {{gateway: {{budget: {{{members}}}}}}}}}\n{body}"


class Budgeted(Workflows):
    """Workflows whose documents have budgets. Each call of the agent `sales` costs 0.02."""

    async def prepare(self) -> CallbackAgent:
        agent = await self.home.agent(CallbackAgent("sales"))
        await self.set_price("agents/sales", price="0.02")
        return agent

    async def set_price(self, path: str, **body: Any) -> None:
        assert (await self.desk.ask("PATCH", f"/api/{path}", body=body)).status_code == 200
        await self.home.gateway.database.refresh_epochs()

    async def publish(self, name: str, body: str, **budget: Any) -> None:
        answer = await self.desk.post("/api/workflows", document=with_budget(name, body, **budget))
        assert answer.status_code == 201, answer.text
        await self.home.gateway.database.refresh_epochs()

    async def read(self, *columns: Any) -> list[Any]:
        return [tuple(row) for row in await self.home.gateway.database.read(lambda found: found.execute(select(*columns)).all())]

    async def of_runs(self) -> list[Any]:
        """Run, cost, reserved and most of each budget of a run."""
        return await self.read(run_budgets.c.run_id, run_budgets.c.cost, run_budgets.c.reserved, run_budgets.c.most)

    async def wait_until_settled(self) -> None:
        async def is_settled() -> bool:
            return await self.read(reservations.c.id) == []

        await until(is_settled)


@asynccontextmanager
async def budgeted(tmp_path: Path, database_url: str, *limits: dict[str, Any]) -> AsyncIterator[tuple[Budgeted, CallbackAgent]]:
    async with house(tmp_path / "home", database_url, limits={"per": list(limits)}) as home:
        workflows = Budgeted(home)
        yield workflows, await workflows.prepare()


def sqlite_in(folder: Path) -> str:
    """The database of a test about what is the same on both."""
    return f"sqlite:///{folder / 'i.db'}"


async def test_a_run_never_costs_more_than_its_document_says(tmp_path: Path, database_url: str) -> None:
    async with budgeted(tmp_path, database_url) as (workflows, sales):
        await workflows.publish("flow", THRICE, perRun=0.05)
        run = await workflows.start("flow")
        shown = await workflows.ended(run)
        assert shown["state"] == "TASK_STATE_FAILED" and shown["fault"]["instance"] == "/do/2/third"
        assert shown["fault"]["detail"].startswith(
            f"agent sales: The budget for run {run} has no room for this call (workflow:flow): 0.01 of 0.05 USD are left, and the call "
            "reserves 0.02. 0.04 are spent, and 0.00 are reserved by calls at work, which give back what they do not cost."
        )
        assert (len(sales.requests), await workflows.of_runs()) == (2, [(run, 40_000, 0, 50_000)])
        again = await workflows.ended(await workflows.start("flow"))
        assert again["fault"]["instance"] == "/do/2/third"  # another run has a budget of its own


async def test_a_spent_budget_of_a_run_is_caught_by_its_type(tmp_path: Path) -> None:
    async with budgeted(tmp_path, sqlite_in(tmp_path)) as (workflows, _):
        await workflows.publish("flow", CAUGHT, perRun=0.03)
        output = await workflows.output(await workflows.start("flow"))
        assert output["status"] == 429 and "raise `cost_per_run`" in output["detail"]


async def test_branches_that_race_never_exceed_the_budget_of_their_run(tmp_path: Path, database_url: str) -> None:  # attack CST-01
    async with budgeted(tmp_path, database_url, {"what": "workflow:*", "cost_per_run": 0.05}) as (workflows, sales):
        gate = asyncio.Event()

        async def act(_token: str, text: str) -> str:
            if len(sales.requests) > 2:  # more than the budget allows: the run is to end, and the test to fail
                gate.set()
            await gate.wait()
            return text

        sales.act = act
        await workflows.publish("flow", MANY)
        run = await workflows.start("flow")
        shown = await workflows.ended(run)
        gate.set()
        await workflows.wait_until_settled()
        assert shown["fault"]["type"].endswith("budget-spent") and len(sales.requests) <= 2
        ((_, cost, reserved, most),) = await workflows.of_runs()
        assert cost <= most == 50_000 and reserved == 0


async def test_all_runs_of_a_day_share_the_budget_of_their_workflow(tmp_path: Path) -> None:
    async with budgeted(tmp_path, sqlite_in(tmp_path), {"who": "user:*", "what": "workflow:flow", "cost_per_day": 0.08}) as (
        workflows,
        sales,
    ):
        await workflows.publish("flow", THRICE, perDay=0.10)
        runs = [await workflows.ended(await workflows.start("flow", user=user), user) for user in ("alice", "alice", "bob")]
        assert [each["state"].removeprefix("TASK_STATE_") for each in runs] == ["COMPLETED", "FAILED", "FAILED"]
        assert len(sales.requests) == 5
        assert "(user:* for workflow:flow)" in runs[1]["fault"]["detail"]
        assert "(workflow:flow, all runs of a day)" in runs[2]["fault"]["detail"]


async def test_what_agents_and_sub_runs_cause_counts_to_the_outermost_run(tmp_path: Path, database_url: str) -> None:
    """The run starts another, whose agent calls another agent and a tool with its hop token."""
    async with budgeted(tmp_path, database_url) as (workflows, sales):
        home, answers = workflows.home, list[Any]()
        server = await home.server("inventory", "check")
        await workflows.set_price("servers/inventory", prices={"check": "0.01"})

        async def pass_on(token: str, text: str) -> str:
            hop = (await home.exchange("chief", token, "/agents/sales", "agent:sales")).json()["access_token"]
            answers.append(await home.send(hop, "sales", text))
            tool = (await home.exchange("chief", token, "/mcp/inventory", "tool:inventory.check")).json()["access_token"]
            answers.extend([await home.call(tool, "/mcp/inventory", "check", {}) for _ in range(2)])
            return "done"

        await home.agent(CallbackAgent("chief", pass_on))
        await workflows.set_price("agents/chief", price="0.005")
        await workflows.publish("inner", "do:\n" + ASK.replace("agent: sales", "agent: chief") + ALLOWED, perRun=0.5)
        await workflows.publish("outer", "do:\n- below: {run: {workflow: {namespace: tests, name: inner, version: latest}}}\n", perRun=0.04)
        run = await workflows.start("outer")
        await workflows.ended(run)
        await workflows.wait_until_settled()
        assert "result" in answers[0] and [each.status_code for each in answers[1:]] == [200, 429]
        assert answers[2].json()["error"]["data"]["reason_id"] == "run-budget-spent"
        assert (len(sales.requests), len(server.calls)) == (1, 1)
        inner = (await workflows.show(run))["steps"][0]["task_id"]
        assert sorted(await workflows.of_runs()) == sorted([(run, 35_000, 0, 40_000), (inner, 35_000, 0, 500_000)])
        rows = sorted(await workflows.read(costs.c.target, costs.c.run_id, costs.c.step))
        assert rows == [(name, run, "/do/0/below") for name in ("chief", "inventory", "sales")]


async def test_a_run_that_is_not_waited_for_counts_to_the_run_that_started_it(tmp_path: Path, database_url: str) -> None:
    async with budgeted(tmp_path, database_url) as (workflows, _):
        await workflows.publish("inner", "do:\n" + ASK + ASK.replace("ask:", "again:"))
        start = "- start: {run: {workflow: {namespace: tests, name: inner, version: latest}, await: false}}\n"
        await workflows.publish("outer", "do:\n" + start, perRun=0.03)
        run = await workflows.start("outer")
        await workflows.ended(run)
        child = (await workflows.show(run))["steps"][0]["task_id"]
        assert (await workflows.ended(child))["fault"]["type"].endswith("budget-spent")
        assert await workflows.of_runs() == [(run, 20_000, 0, 30_000)]
        assert (await workflows.show(run))["cost"]["amount"] == "0.02"


async def test_a_higher_budget_lets_runs_that_began_before_go_on(tmp_path: Path) -> None:
    async with budgeted(tmp_path, sqlite_in(tmp_path)) as (workflows, sales):
        gate = asyncio.Event()

        async def act(_token: str, text: str) -> str:
            await gate.wait()
            return text

        sales.act = act
        await workflows.publish("flow", THRICE, perRun=0.03)
        run = await workflows.start("flow")
        await until(lambda: len(sales.requests) == 1)
        await workflows.publish("flow", THRICE, perRun=0.06)
        gate.set()
        assert (await workflows.ended(run))["state"] == "TASK_STATE_COMPLETED"


async def test_a_run_without_a_budget_reserves_nothing(tmp_path: Path) -> None:
    async with budgeted(tmp_path, sqlite_in(tmp_path)) as (workflows, _):
        await workflows.add("flow", "do:\n" + ASK)
        await workflows.ended(await workflows.start("flow"))
        assert await workflows.of_runs() == [] and await workflows.read(reservations.c.id) == []

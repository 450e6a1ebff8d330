"""A run has its starter's rights and no others: when they end, it stops at its next step and says why."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from adapters.task import TaskState
from tests.fakes.house import CallbackAgent, House, house
from tests.fakes.workflows import Gate, Workflows

CONTRACT = """    metadata: {gateway: {kind: ai}}
    input: {schema: {document: {}}}
    output: {schema: {document: {}}}
"""
BEFORE = """
use:
  functions:
    release:
      call: gateway.tool
      with: {tool: stock.release, arguments: {}}
do:
- hold:
    call: gateway.tool
    with: {tool: stock.hold, arguments: {}}
    metadata: {gateway: {compensate: release}}
"""
CAUGHT = """
- attempt:
    try:
    - ask:
        call: gateway.agent
        with: {agent: sales, input: hi}
        metadata: {gateway: {kind: ai}}
        input: {schema: {document: {}}}
        output: {schema: {document: {}}}
    catch:
      do:
      - hide: {set: {hidden: true}}
"""
PAUSED = BEFORE + "- pause: {wait: PT1H}\n" + CAUGHT.lstrip("\n")
SLOW = BEFORE + "- slow:\n    call: gateway.agent\n    with: {agent: slow, input: hi}\n" + CONTRACT + CAUGHT.lstrip("\n")
FORBID = '@id("no-sales") forbid(principal, action == Action::"invokeAgent", resource == Agent::"sales");\n'
FORBID_RUN = '@id("no-runs") forbid(principal, action == Action::"invokeAgent", resource == Agent::"held");\n'


@pytest.fixture
async def workflows(tmp_path: Path, database_url: str) -> AsyncIterator[Workflows]:
    (tmp_path / "policies").mkdir()
    async with house(tmp_path / "home", database_url, policies=str(tmp_path / "policies")) as home:
        await home.agent(CallbackAgent("sales"))
        await home.server("stock", "hold", "release")
        yield Workflows(home)


async def start_held(workflows: Workflows, body: str = PAUSED) -> str:
    await workflows.add("held", body)
    run = await workflows.start("held", user="admin")
    await workflows.reached(run, "SUSPENDED", user="admin")
    return run


async def reason(workflows: Workflows, run: str, user: str = "admin") -> str:
    task = (await workflows.desk.ask("GET", f"/api/tasks/{run}", user)).json()
    return str(task["status"]["message"]["parts"][0]["text"])


async def set_policies(workflows: Workflows, text: str) -> None:
    """Writes a policy and has this process load it."""
    home = workflows.home
    (Path(home.gateway.settings.policies) / "rules.cedar").write_text(text)
    await home.gateway.rulings.policy_reload.reload()


async def test_a_policy_against_the_workflow_stops_its_runs_whatever_they_catch(workflows: Workflows) -> None:
    run = await start_held(workflows)
    await set_policies(workflows, FORBID_RUN)
    await workflows.pass_time(3601)
    shown = await workflows.ended(run, "admin")
    assert shown["state"] == "TASK_STATE_REJECTED"
    said = await reason(workflows, run)
    assert "may not run held any more (policy-forbids); interlock why d_" in said
    assert "Not undone: /do/0/hold" in said
    assert "/do/0/hold" in [each["step"] for each in shown["open_effects"]]


async def test_a_policy_against_one_step_is_an_error_of_that_step(workflows: Workflows) -> None:
    run = await start_held(workflows)
    await set_policies(workflows, FORBID)
    await workflows.pass_time(3601)
    assert await workflows.output(run, "admin") == {"hidden": True}


async def test_a_revoked_grant_ends_a_suspended_run(workflows: Workflows) -> None:
    run = await start_held(workflows)
    grant = (await workflows.desk.ask("GET", f"/api/tasks/{run}", "admin")).json()["grant_id"]
    assert (await workflows.desk.ask("DELETE", f"/api/grants/{grant}", "admin")).status_code == 204
    assert await workflows.home.gateway.workflows.end_lost() == 1
    assert (await workflows.ended(run, "admin"))["state"] == "TASK_STATE_FAILED"
    assert "its grant was revoked" in await reason(workflows, run)


async def test_a_grant_revoked_in_the_middle_stops_the_run_and_undoes_nothing(workflows: Workflows) -> None:
    gate = Gate()
    await workflows.home.agent(CallbackAgent("slow", gate.act))
    await workflows.add("held", SLOW)
    run = await workflows.start("held", user="admin")
    await gate.reached.wait()
    grant = (await workflows.desk.ask("GET", f"/api/tasks/{run}", "admin")).json()["grant_id"]
    assert (await workflows.desk.ask("DELETE", f"/api/grants/{grant}", "admin")).status_code == 204
    gate.opened.set()
    shown = await workflows.ended(run, "admin")
    assert shown["state"] != "TASK_STATE_COMPLETED"
    assert "/do/0/hold" in [each["step"] for each in shown["open_effects"]]


async def test_a_kill_ends_a_suspended_run_at_once(workflows: Workflows) -> None:
    run = await start_held(workflows)
    assert (await workflows.desk.post("/api/kill", kind="agent", name="held")).status_code < 300
    row = await workflows.home.gateway.stores.tasks.find("default", "default|interlock-development|admin", run)
    assert row.state is TaskState.CANCELED or row.has_ended
    assert "Stopped by an operator" in await reason(workflows, run)


async def test_a_lost_role_refuses_the_next_step(tmp_path: Path, database_url: str) -> None:
    """The roles of development users are in the settings, which a process reads at its start."""
    users: dict[str, Any] = {"alice": {"roles": ["sales"]}}
    async with house(tmp_path / "home", database_url, users=users) as before:
        await before.server("inventory", "check", "reserve")
        body = "do:\n- pause: {wait: PT1H}\n- take:\n    call: gateway.tool\n    with: {tool: inventory.reserve, arguments: {}}\n"
        await Workflows(before).add("take", body)
        run = await Workflows(before).start("take")
        await Workflows(before).reached(run, "SUSPENDED")
    users = {"alice": {"roles": ["support"]}}
    async with house(tmp_path / "home", database_url, users=users) as after:
        await Workflows(after).pass_time(3601)
        assert (await Workflows(after).ended(run))["state"] == "TASK_STATE_FAILED"
        said = await reason(Workflows(after), run, "alice")
        assert "Authorization Error at /do/1/take: tool inventory.reserve: refused (user-lacks-permission); interlock why d_" in said


async def test_a_marketing_report_reaches_finance_through_no_agent(tmp_path: Path, database_url: str) -> None:
    """Scenario 5: every agent may write to finance by its ceiling; the marketing manager may not, and that decides."""
    roles = {"operator": ["*"], "marketing": ["agent:*", "tool:crm.*", "tool:finance.read"], "finance": ["agent:*", "tool:*"]}
    users = {"mia": {"roles": ["marketing"]}, "finn": {"roles": ["finance"]}}
    async with house(tmp_path / "home", database_url, roles=roles, users=users) as home:
        finance = await home.server("finance", "read", "write")
        for name, next_agent in (("writer", "analyst"), ("analyst", "")):
            await home.agent(_Greedy(home, name, next_agent), ("*",))
        await Workflows(home).add("report", REPORT)
        denied = await Workflows(home).run("report", user="mia")
        assert [tool for tool, _ in finance.calls] == ["read"]
        assert denied["status"]["state"] == "TASK_STATE_FAILED"
        assert "tool finance.write: refused (user-lacks-permission)" in denied["status"]["message"]["parts"][0]["text"]
        allowed = await Workflows(home).run("report", user="finn")
        assert allowed["status"]["state"] == "TASK_STATE_COMPLETED"
        assert [tool for tool, _ in finance.calls].count("write") == 4


REPORT = """
do:
- figures:
    call: gateway.tool
    with: {tool: finance.read, arguments: {}}
- text:
    call: gateway.agent
    with: {agent: writer, input: write the report}
    metadata: {gateway: {kind: ai}}
    input: {schema: {document: {}}}
    output: {schema: {document: {}}}
- check:
    call: gateway.agent
    with: {agent: analyst, input: check the report}
    metadata: {gateway: {kind: ai}}
    input: {schema: {document: {}}}
    output: {schema: {document: {}}}
- book:
    call: gateway.tool
    with: {tool: finance.write, arguments: {}}
"""


class _Greedy(CallbackAgent):
    """An agent that tries to write to finance by its own hop token, and has another agent try the same."""

    def __init__(self, home: House, name: str, next_agent: str) -> None:
        super().__init__(name)
        self._home = home
        self._next = next_agent
        self.act = self._try

    async def _try(self, token: str, text: str) -> str:
        exchanged = await self._home.exchange(self.name, token, "/mcp/finance", "tool:finance.write")
        if exchanged.status_code == 200:
            await self._home.call(exchanged.json()["access_token"], "/mcp/finance", "write", {})
        if self._next:
            onward = await self._home.exchange(self.name, token, f"/agents/{self._next}", f"agent:{self._next} tool:finance.write")
            if onward.status_code == 200:
                await self._home.send(onward.json()["access_token"], self._next, text)
        return "tried"

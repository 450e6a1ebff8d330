"""What is left of budgets, what calls will cost, and costs by run and step: for owners their own, and for operators all."""

from pathlib import Path
from typing import Any

from tests.fakes.house import CallbackAgent, House, house
from tests.fakes.reception import Reception
from tests.fakes.workflows import HEAD, Workflows

GPT = {"usage": {"input_tokens": 1000, "output_tokens": 500, "model": "gpt-4o"}}  # 0.0075 USD
AI = "metadata: {gateway: {kind: ai}}, input: {schema: {document: {}}}, output: {schema: {document: {}}}"
FLOW = f"""
do:
- ask: {{call: gateway.agent, with: {{agent: sales, input: hello}}, {AI}}}
- check: {{call: gateway.tool, with: {{tool: inventory.check, arguments: {{}}}}}}
- decide: {{call: gateway.approve, with: {{prompt: 'Go on?'}}, {AI}}}
"""
LIMITS = (
    {"who": "user:*", "cost_per_day": 1},
    {"what": "agent:sales", "cost_per_day": 0.5},
    {"who": "user:bob", "what": "agent:*", "cost_per_day": 0.3},
    {"what": "agent:hidden", "cost_per_day": 0.2},
    {"who": "user:*", "what": "workflow:*", "cost_per_day": 2, "cost_per_run": 0.7},
)


async def get(home: House, path: str, user: str = "alice", status: int = 200) -> Any:
    answer = await Reception(home).ask("GET", path, user)
    assert answer.status_code == status, answer.text
    return answer.json()


async def set_price(home: House, path: str, **body: Any) -> None:
    assert (await Reception(home).ask("PATCH", f"/api/{path}", body=body)).status_code == 200
    await home.gateway.database.refresh_epochs()


def shown(found: dict[str, Any]) -> dict[tuple[str, str, str], tuple[Any, ...]]:
    """Budget, spent, reserved and left, by who, what and callee."""
    amounts = ("budget", "spent", "reserved", "left")
    return {(each["who"], each["what"], each["callee"]): tuple(each[name] for name in amounts) for each in found["items"]}


async def test_everybody_sees_what_is_left_of_own_budgets(tmp_path: Path, database_url: str) -> None:
    async with house(tmp_path / "home", database_url, limits={"per": list(LIMITS)}) as home:
        await home.agent(CallbackAgent("sales"))
        await set_price(home, "agents/sales", price="0.02")
        for user in ("alice", "bob"):
            await home.send(home.token(user), "sales", "hello")
        own = {("user:*", "", ""): ("1.00", "0.02", "0.00", "0.98"), ("", "agent:sales", "sales"): ("0.50", "0.04", "0.00", "0.46")}
        assert shown(await get(home, "/api/cost/budgets")) == own
        of_bob = own | {("user:bob", "agent:*", "sales"): ("0.30", "0.02", "0.00", "0.28")}
        assert shown(await get(home, "/api/cost/budgets", "bob")) == of_bob
        assert shown(await get(home, "/api/cost/budgets", "nora"))[("user:*", "", "")] == ("1.00", "0.00", "0.00", "1.00")
        assert ("", "agent:sales", "sales") not in shown(await get(home, "/api/cost/budgets", "nora"))  # who may not know of the agent
        await get(home, "/api/cost/budgets?everybody=true", status=403)
        first = await get(home, "/api/cost/budgets?everybody=true&limit=2", "admin")
        second = await get(home, f"/api/cost/budgets?everybody=true&limit=2&cursor={first['next']}", "admin")
        whole = [(each["who"], each["subject"].rpartition("|")[2], each["spent"]) for each in first["items"] + second["items"]]
        assert sorted(whole) == [("", "", "0.04"), ("user:*", "alice", "0.02"), ("user:*", "bob", "0.02"), ("user:bob", "bob", "0.02")]
        assert second["next"] is None and first["items"][0]["resets"].endswith("T00:00:00Z")


async def test_runs_show_their_budgets_and_their_costs_by_step(tmp_path: Path, database_url: str) -> None:
    async with house(tmp_path / "home", database_url, limits={"per": list(LIMITS)}) as home:
        workflows = Workflows(home)
        (await home.agent(CallbackAgent("sales"))).metadata = GPT
        await home.server("inventory", "check")
        await set_price(home, "servers/inventory", prices={"check": "0.01"})
        head = HEAD.format(name="flow").rstrip().removesuffix("}") + ", metadata: {gateway: {budget: {perRun: 0.6, perDay: 5}}}}\n"
        assert (await workflows.desk.post("/api/workflows", document=head + FLOW)).status_code == 201
        await home.gateway.database.refresh_epochs()
        before = await get(home, "/api/cost/estimate?target=flow")
        assert before["calls_cost"] == {"amount": "0.01", "most": "0.01", "currency": "USD", "unpriced": 1}
        assert [(each["target"], each["source"]) for each in before["calls"]] == [("sales", "unknown"), ("inventory.check", "price")]
        run = await workflows.start("flow")
        await workflows.reached(run, "INPUT_REQUIRED", "SUSPENDED")
        of_run = await get(home, "/api/cost/budgets?period=run")
        assert sorted((each["run"], each["set_by"], each["budget"], each["left"]) for each in of_run["items"]) == [
            (run, "document", "0.60", "0.5825"),
            (run, "operator", "0.70", "0.6825"),
        ]
        assert (await get(home, "/api/cost/budgets?period=run", "bob"))["items"] == []
        assert len((await get(home, "/api/cost/budgets?period=run&everybody=true&limit=1", "admin"))["items"]) == 1
        today = shown(await get(home, "/api/cost/budgets"))
        assert today["", "workflow:flow", "flow"] == ("5.00", "0.0175", "0.00", "4.9825")
        assert today["user:*", "workflow:*", "flow"] == ("2.00", "0.0175", "0.00", "1.9825")
        by_run = (await get(home, "/api/cost?by=run"))["items"]
        assert [(each["run"], each["amount"], each["unpriced"]) for each in by_run] == [(run, "0.0175", 0)]
        by_step = (await get(home, "/api/cost?by=step"))["items"]
        assert [(each["step"], each["amount"]) for each in by_step] == [("flow/do/0/ask", "0.0075"), ("flow/do/1/check", "0.01")]
        after = await get(home, "/api/cost/estimate?target=flow")
        assert after["calls_cost"] == {"amount": "0.0175", "most": "0.0175", "currency": "USD", "unpriced": 0}


async def test_a_call_is_estimated_by_its_price_or_by_past_calls(tmp_path: Path) -> None:
    async with house(tmp_path / "home", f"sqlite:///{tmp_path / 'i.db'}") as home:
        agent = await home.agent(CallbackAgent("sales"))
        await home.server("inventory", "check")
        unknown = {"amount": None, "most": None, "currency": "USD", "source": "unknown", "calls": 0}
        for target, kind in (("sales", "agent"), ("inventory.check", "tool")):
            assert await get(home, f"/api/cost/estimate?target={target}") == {"target": target, "kind": kind, **unknown}
        for tokens in (1000, 2000, 9000):
            agent.metadata = {"usage": {**GPT["usage"], "input_tokens": tokens}}
            await home.send(home.token("alice"), "sales", "hello")
        found = await get(home, "/api/cost/estimate?target=sales")
        assert (found["amount"], found["most"], found["source"], found["calls"]) == ("0.01", "0.0275", "past-calls", 3)
        await set_price(home, "agents/sales", price="0.02")
        found = await get(home, "/api/cost/estimate?target=sales")
        assert (found["amount"], found["most"], found["source"]) == ("0.02", "0.02", "price")
        for target in ("nobody", "inventory.other", "other.check"):
            await get(home, f"/api/cost/estimate?target={target}", status=404)
        await get(home, "/api/cost/estimate?target=inventory.check", "nora", status=404)

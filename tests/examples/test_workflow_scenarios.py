"""The scenarios of examples/workflows in a whole gateway: each runs to its end, and through its failure path."""

import json
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.examples.scenarios import FOLDER, Scenario, scenario, whole_example
from tests.fakes.workflows import Workflows
from tests.gateway.cli.conftest import CommandLine

Enter = Callable[..., AbstractAsyncContextManager[Scenario]]
pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
DAY = 24 * 60 * 60.0
ALARMS = {"5xx after the release": "rollback", "no answer": "reroute", "slow": "watch"}


@pytest.fixture
def enter(tmp_path: Path, database_url: str) -> Enter:
    """Opens a gateway with one scenario."""
    environment = {"INTERLOCK_HOME": str(tmp_path / "home"), "COLUMNS": "200", "NO_COLOR": "1"}
    return partial(scenario, tmp_path / "gateway", database_url, CommandLine({**environment}))


async def test_support_hands_a_case_to_sales(enter: Enter) -> None:
    async with enter(name="support-case", user="alice") as shop:
        run = await shop.start(customer="C-12", text="2 of SKU-7, please")
        output = await shop.output(run)
        assert (output["total_cents"], output["reservation"]) == (69800, "R-1001")
        assert (await shop.call("stock", "check", sku="SKU-7")) == {"left": 10}


async def test_support_does_not_guess_what_a_customer_wants(enter: Enter) -> None:
    async with enter(name="support-case", user="alice") as shop:
        fault = await shop.problem(await shop.start(customer="C-12", text="Hello!"))
        assert (fault["type"], fault["instance"]) == ("urn:interlock:error:low-confidence", "/do/0/understand")
        short = await shop.problem(await shop.start(customer="C-12", text="99 of SKU-7"))
        assert (short["status"], short["detail"]) == (409, "only 12 of SKU-7 are left")
        refused = await shop.command("alice", "workflow", "run", "support-case", '{"customer": "C-12"}')
        assert refused.code == 1 and "interlock workflow show support-case --document" in refused.err
        assert (await shop.call("stock", "check", sku="SKU-7")) == {"left": 12}


async def test_a_lead_becomes_a_customer(enter: Enter) -> None:
    async with enter(name="new-customer", user="alice") as shop:
        run = await shop.start(lead="L-1", seats=25)
        assert await shop.answer(run, {"accepted": True, "contact": "Kim"}) == "What did L-1 say to 300 EUR a month?"
        assert await shop.output(run) == {"outcome": "customer", "account": "A-301", "kickoff": "Monday"}


async def test_an_open_escalation_holds_the_proposal_back(enter: Enter) -> None:
    async with enter(name="new-customer", user="alice") as shop:
        run = await shop.start(lead="L-2", seats=25)
        await shop.workflows.reached(run, "SUSPENDED")
        assert not any(step["step"].endswith("/send") for step in (await shop.workflows.show(run))["steps"])
        await shop.call("crm", "close_escalation", customer="L-2")
        await shop.workflows.pass_time(DAY + 1)
        assert (await shop.answer(run, {"accepted": False})).startswith("What did L-2 say")
        assert await shop.output(run) == {"outcome": "lost"}


async def test_an_account_that_can_not_be_onboarded_is_closed(enter: Enter) -> None:
    async with enter(name="new-customer", user="alice") as shop:
        run = await shop.start(lead="L-1", seats=25)
        await shop.answer(run, {"accepted": True})
        fault = await shop.problem(run)
        assert "a kickoff needs a contact" in fault["detail"]
        assert await shop.call("crm", "show_account", account="A-301") == {"account": "A-301", "state": "closed"}


async def test_four_vendors_buy_something_together(enter: Enter) -> None:
    async with enter(name="procurement", user="paul") as shop:
        run = await shop.start(item="laptop", quantity=10, supplier="acme", cost_center="CC-1")
        assert await shop.output(run) == {"order": "PO-5001", "total": 9000, "budget_left": 11000}


@pytest.mark.parametrize("approved", [True, False])
async def test_people_decide_about_a_risky_supplier(enter: Enter, approved: bool) -> None:
    async with enter(name="procurement", user="paul") as shop:
        run = await shop.start(item="desk", quantity=2, supplier="globex", cost_center="CC-1")
        question = await shop.answer(run, {"approved": approved})
        assert question == "Buy 2 desk of globex for 700 EUR? Its risk is 75 of 100."
        if approved:
            assert (await shop.output(run))["order"] == "PO-5001"
        else:
            assert (await shop.problem(run))["type"] == "urn:interlock:error:denied"
            assert (await shop.call("erp", "show_order", order="PO-5001"))["state"] == "unknown"


async def test_an_order_without_a_budget_is_canceled(enter: Enter) -> None:
    async with enter(name="procurement", user="paul") as shop:
        fault = await shop.problem(await shop.start(item="laptop", quantity=1, supplier="acme", cost_center="CC-2"))
        assert "CC-2 has 500 EUR left" in fault["detail"]
        assert (await shop.call("erp", "show_order", order="PO-5001"))["state"] == "canceled"


async def test_a_contract_that_is_not_acceptable_orders_nothing(enter: Enter) -> None:
    async with enter(name="procurement", user="paul") as shop:
        fault = await shop.problem(await shop.start(item="laptop", quantity=1, supplier="shady", cost_center="CC-1"))
        assert fault["detail"] == "contract review objects to: unlimited liability, no termination"
        assert (await shop.call("erp", "show_order", order="PO-5001"))["state"] == "unknown"


async def test_a_marketing_manager_can_not_write_in_finance(enter: Enter) -> None:
    async with enter(name="campaign-report", user="marta") as shop:
        assert (await shop.output(await shop.start(campaign="autumn")))["corrected"] == 0
        fault = await shop.problem(await shop.start(campaign="spring"))
        assert (fault["status"], fault["instance"]) == (403, "/do/2/correct")
        decision = fault["detail"].rpartition(" ")[2]
        why = (await shop.command("marta", "why", decision)).out
        assert "tool:finance.post_entry (user)" in why and "marta > campaign-report" in " ".join(why.split())
        assert await shop.call("finance", "read_spend", campaign="spring") == {"spent": 1200, "booked": 1000}


async def test_finance_may_start_the_same_workflow_and_write(enter: Enter) -> None:
    async with enter(name="campaign-report", user="finn") as shop:
        assert (await shop.output(await shop.start(campaign="spring")))["corrected"] == 200
        assert await shop.call("finance", "read_spend", campaign="spring") == {"spent": 1200, "booked": 1200}


async def test_an_incident_goes_the_way_that_the_coordinator_chooses(enter: Enter) -> None:
    async with enter(name="incident", user="olga") as shop:
        for entry, (alarm, action) in enumerate(ALARMS.items(), 1):
            output = await shop.output(await shop.start(host=f"web-{entry}", alarm=alarm))
            assert (output["action"], output["entry"]) == (action, entry)
        assert (await shop.call("network", "list_routes"))["hosts"] == ["web-2"]


async def test_people_decide_where_the_coordinator_is_not_sure(enter: Enter) -> None:
    async with enter(name="incident", user="olga") as shop:
        run = await shop.start(host="web-1", alarm="strange noises")
        assert await shop.answer(run, "reroute") == "web-1: strange noises. What is to be done?"
        assert (await shop.output(run))["cause"] == "decided by people"


async def test_a_route_that_does_not_help_is_taken_back(enter: Enter) -> None:
    async with enter(name="incident", user="olga") as shop:
        fault = await shop.problem(await shop.start(host="web-9", alarm="no answer"))
        assert (fault["status"], fault["detail"]) == (503, "web-9 does not serve after reroute")
        assert (await shop.call("network", "list_routes"))["hosts"] == []
        assert (await shop.call("pager", "list_alerts"))["alerts"] == ["web-9: its network card; reroute"]


async def test_recorded_runs_are_rehearsed(enter: Enter, tmp_path: Path) -> None:
    path = str(FOLDER / "procurement.yaml")
    async with enter(name="procurement", user="paul") as shop:
        bought = await shop.start(item="laptop", quantity=10, supplier="acme", cost_center="CC-1")
        await shop.output(bought)
        undone = await shop.start(item="laptop", quantity=1, supplier="acme", cost_center="CC-2")
        await shop.problem(undone)
        for run in (bought, undone):
            rehearsed = await shop.command("paul", "workflow", "test", path, "--from", run)
            assert rehearsed.code == 0, rehearsed.out + rehearsed.err
        recorded = await shop.command("paul", "workflow", "record", undone)
        (tmp_path / "case.yaml").write_text(recorded.out)
        assert (await shop.command("paul", "workflow", "test", path, str(tmp_path / "case.yaml"))).code == 0
        assert (await shop.command("finn", "workflow", "record", undone)).code == 1
        text = (FOLDER / "procurement.yaml").read_text()
        (tmp_path / "other.yaml").write_text(text.replace("$context.score > 60", "$context.score > 10"))
        differs = await shop.command("paul", "workflow", "test", str(tmp_path / "other.yaml"), "--from", bought)
        assert differs.code == 1 and "has no answer in the rehearsal" in differs.out


async def test_the_documented_gateway_runs_every_example(tmp_path: Path, database_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    files = sorted(path.name for path in FOLDER.glob("*.yaml") if ".test." not in path.name)
    async with whole_example(tmp_path / "gateway", database_url) as workflows:
        offered = await workflows.output(await workflows.start("offer", {"sku": "SKU-7", "quantity": 2}))
        assert offered == {"sku": "SKU-7", "total_cents": 69800}
        given = {"customer": "Ada", "problem": "the lamp is broken"}
        assert await _resolve_case(workflows, {**given, "order": "O-7"}) == {"letter": "Good news: A new lamp is on its way."}
        assert await _resolve_case(workflows, given) == {"letter": "Good news: The bill is correct now."}
    logged = [json.loads(line) for line in capsys.readouterr().err.splitlines() if line.startswith("{")]
    assert [each for each in logged if each["event"] == "workflow_refused"] == []
    assert sorted(each["file"] for each in logged if each["event"] == "workflow_published") == files
    assert len(files) == 15


async def _resolve_case(workflows: Workflows, given: dict[str, str]) -> Any:
    run = await workflows.start("resolve-case", given)
    await workflows.reached(run, "SUSPENDED")
    (asked,) = await workflows.checkpoints("admin")
    assert asked["prompt"] == "Resolve the case of Ada by this plan?"
    await workflows.answer(asked["id"], {"approved": True}, "admin")
    return await workflows.output(run)

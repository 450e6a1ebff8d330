"""The scenarios of examples/workflows that events start: each runs to its end, and through its failure path."""

import asyncio
import re
import shlex
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.examples.scenarios import FOLDER, Scenario, scenario, whole_example
from tests.fakes.waiting import until
from tests.fakes.workflows import Workflows
from tests.gateway.cli.conftest import CommandLine
from tests.house.source import ROOT

Enter = Callable[..., AbstractAsyncContextManager[Scenario]]
pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
DAY = 24 * 60 * 60.0


@pytest.fixture
def enter(tmp_path: Path, database_url: str) -> Enter:
    """Opens a gateway with one scenario."""
    environment = {"INTERLOCK_HOME": str(tmp_path / "home"), "COLUMNS": "200", "NO_COLOR": "1"}
    return partial(scenario, tmp_path / "gateway", database_url, CommandLine({**environment}))


async def test_a_stock_out_is_undone_when_the_stock_returns(enter: Enter) -> None:
    async with enter(name="stock-out", user="admin") as shop:
        await shop.send_event("inventory.stock-out", {"sku": "SKU-7"})
        run = await shop.started()
        await shop.suspended_after(run, "/tell", 1)
        assert await shop.call("chatbot", "list_facts") == {"facts": {"SKU-7": "out of stock"}}
        assert await shop.call("forecast", "list_excluded") == {"excluded": ["SKU-7"]}
        assert (await shop.call("state", "get", key="product/SKU-7/stock"))["value"] == "out"
        await shop.send_event("inventory.stock-returned", {"sku": "SKU-7"})
        assert await shop.output(run) == {"sku": "SKU-7", "outcome": "restored"}
        assert await shop.call("chatbot", "list_facts") == {"facts": {"SKU-7": "in stock"}}
        assert await shop.call("forecast", "list_excluded") == {"excluded": []}
        assert await shop.mails("subject") == ["Out of stock", "Back in stock"]
        stock = await shop.call("state", "get", key="product/SKU-7/stock")
        assert (stock["value"], stock["version"], stock["source"]["agent"]) == ("there", 2, "stock-out")


async def test_people_are_asked_where_the_promotion_agent_is_down(enter: Enter) -> None:
    async with enter(name="stock-out", user="admin") as shop:
        await shop.send_event("inventory.stock-out", {"sku": "SKU-404"})
        run = await shop.started()
        question = await shop.answer(run, "paused", "petra")
        assert question.startswith("SKU-404 is out of stock, and the agent of the promotions does not answer.")
        await shop.suspended_after(run, "/tell", 1)
        await shop.send_event("inventory.stock-returned", {"sku": "SKU-404"})
        assert (await shop.output(run))["outcome"] == "restored"
        assert await shop.mails("text") == [
            "SKU-404 is out of stock. Its promotion is paused.",
            "SKU-404 is back. Resume its promotion by hand.",
        ]


PAYMENT = {"payment": "P-1", "customer": "C-12", "payee": "a shop", "cents": 250_000}


async def compliance_events(bank: Scenario) -> list[Any]:
    """The data of what compliance was told, the oldest first."""
    items = (await bank.workflows.desk.ask("GET", "/api/events")).json()["items"]
    return [each["event"]["data"] for each in reversed(items) if each["event"]["type"].startswith("compliance.")]


async def test_only_a_customer_who_confirms_gets_a_payment_released(enter: Enter) -> None:
    async with enter(name="suspicious-transaction", user="admin") as bank:
        for count, answer in enumerate([{"confirmed": True}, {"confirmed": False}, None], 1):
            payment, state = f"P-{count}", "released" if count == 1 else "blocked"
            await bank.send_event("payments.suspicious", PAYMENT | {"payment": payment})
            run = await bank.started(count=count)
            if answer:
                assert await bank.answer(run, answer, "petra") == "Did C-12 confirm 2500 EUR to a shop?"
            else:
                await bank.workflows.reached(run, "SUSPENDED", "INPUT_REQUIRED", user="admin")
                assert await bank.call("payments", "show", payment=payment) == {"state": "paused"}
                await bank.workflows.pass_time(DAY + 1)
            assert await bank.output(run) == {"payment": payment, "outcome": state}
            assert await bank.call("payments", "show", payment=payment) == {"state": state}
        outcomes = [told["outcome"] for told in await compliance_events(bank) if "outcome" in told]
        assert outcomes == ["released", "blocked", "blocked"]


async def test_an_analyst_decides_where_the_fraud_analysis_is_not_sure(enter: Enter) -> None:
    async with enter(name="suspicious-transaction", user="admin") as bank:
        await bank.send_event("payments.suspicious", PAYMENT | {"cents": 5000})
        run = await bank.started()
        assert (await bank.answer(run, "legitimate", "petra")).startswith("P-1: 50 EUR of C-12 to a shop.")
        assert (await bank.output(run))["outcome"] == "released"
        assert (await compliance_events(bank))[0]["reasons"] == ["decided by an analyst"]
        await bank.send_event("payments.suspicious", PAYMENT | {"payment": "P-9"})
        fault = await bank.problem(await bank.started(count=2), "admin")
        assert (fault["status"], fault["detail"]) == (409, "P-9 was executed before it was paused")
        assert (await compliance_events(bank))[-1]["verdict"] == "missed"


VISIT = {"visit": "V-1", "patient": "PT-1", "symptoms": "wheezing", "treatment": "spirometry"}
DECIDED = {"finding": "asthma attack", "appointment": "V-1 + 14 days", "insurance": "decided", "patient_cents": 2400}


async def test_the_insurer_decides_about_a_visit_without_its_records(enter: Enter) -> None:
    async with enter(name="clinic-visit", user="dora", others=["insurance-claim"]) as clinic:
        assert await clinic.output(await clinic.start(**VISIT)) == DECIDED
        assert await clinic.call("records", "show_summary", visit="V-1") == {"text": "asthma attack; known: asthma"}
        claim = await clinic.workflows.show(await clinic.started("insurance-claim"), "admin")
        assert claim["input"] == [{"visit": "V-1", "policy": "POL-77", "code": "spirometry", "cents": 12000}]
        run = await clinic.start(**VISIT | {"visit": "V-2", "treatment": "rare-therapy"})
        question = await clinic.answer(await clinic.started("insurance-claim", 2), {"covered_cents": 100_000}, "petra")
        assert question == "The insurer gave no clear answer on POL-77. How many cents of 900000 for rare-therapy are paid?"
        assert (await clinic.output(run))["patient_cents"] == 800_000


async def test_a_history_reaches_neither_the_reception_nor_the_insurer(enter: Enter, tmp_path: Path) -> None:
    text = (FOLDER / "clinic-visit.yaml").read_text().replace("agent: visit-summary", "agent: insurer")
    (tmp_path / "leaks.yaml").write_text(text.replace("name: clinic-visit", "name: leaks"))
    async with enter(name="clinic-visit", user="rita", others=["insurance-claim"]) as clinic:
        fault = await clinic.problem(await clinic.start(**VISIT))
        assert (fault["status"], fault["instance"].rpartition("/")[2]) == (403, "history")
        assert (await clinic.command("admin", "workflow", "add", str(tmp_path / "leaks.yaml"))).code == 0
        clinic.name = "leaks"
        fault = await clinic.problem(await clinic.start("dora", **VISIT), "dora")
        assert (fault["status"], fault["instance"]) == (403, "/do/1/summarize")
        why = (await clinic.command("dora", "why", fault["detail"].rpartition(" ")[2])).out
        assert "more sensitive than the receiver may get" in why


async def test_newsletters_end_when_engagement_falls(enter: Enter) -> None:
    async with enter(name="content-loop", user="marta") as marketing:
        fault = await marketing.problem(await marketing.start(topic="clickbait", audience="friends", rounds=1))
        assert (fault["status"], fault["detail"]) == (422, "the word miracle promises too much")
        assert await marketing.mails("text") == []
        run = await marketing.start(topic="chairs", audience="friends", rounds=4)
        for count in (1, 2, 3):
            await marketing.suspended_after(run, "/send", count)
            await marketing.workflows.pass_time(7 * DAY + 1)
        assert await marketing.output(run) == {"sent": 3, "opened": [31, 38, 24], "because": "engagement fell"}
        assert await marketing.mails("text") == [f"Number {count} on chairs." for count in (1, 2, 3)]


async def test_a_happy_customer_is_left_in_peace_before_a_renewal_offer(enter: Enter) -> None:
    async with enter(name="after-ticket", user="admin", others=["upsell"]) as care:
        await care.send_event("tickets.resolved", {"ticket": "T-7", "customer": "C-1"})
        run = await care.started()
        await care.suspended_after(run, "/write", 1)
        await care.send_event("accounts.growing", {"customer": "C-1", "usage": 92}, "admin")
        held = {"customer": "C-1", "outcome": "held", "holds": ["customer/C-1/holds/after-ticket"]}
        assert await care.output(await care.started("upsell")) == held
        await care.workflows.pass_time(2 * DAY + 1)
        await care.suspended_after(run, "/ask", 1)
        await care.send_event("surveys.answered", {"ticket": "T-7", "score": 9})
        assert await care.output(run) == {"outcome": "offered", "score": 9}
        assert await care.mails("subject") == ["How was it?", "Your renewal"]
        assert (await care.call("state", "get", key="customer/C-1/holds/recent-offer"))["value"] == "T-7"


async def test_holds_of_other_people_keep_survey_and_renewal_back(enter: Enter) -> None:
    async with enter(name="after-ticket", user="admin") as care:
        await care.command("sam", "state", "set", "customer/C-2/holds/open-escalation", "the machine is down")
        await care.send_event("tickets.resolved", {"ticket": "T-8", "customer": "C-2"})
        run = await care.started()
        await care.suspended_after(run, "/write", 1)
        await care.workflows.pass_time(2 * DAY + 1)
        await care.suspended_after(run, "/check-first", 1)
        assert await care.mails("to") == []
        await care.command("sam", "state", "rm", "customer/C-2/holds/open-escalation", "--version", "1")
        await care.workflows.pass_time(DAY + 1)
        await care.suspended_after(run, "/ask", 1)
        await care.command("sam", "state", "set", "customer/C-2/holds/not-this-month", "asked on the phone")
        await care.send_event("surveys.answered", {"ticket": "T-8", "score": 10})
        assert await care.output(run) == {"outcome": "held", "holds": ["customer/C-2/holds/not-this-month"]}
        assert await care.mails("subject") == ["How was it?"]


async def test_accounts_are_rated_on_mondays_and_those_that_grow_hear_of_it(enter: Enter) -> None:
    async with enter(name="account-health", user="admin", others=["upsell"]) as care:
        await care.workflows.pass_time(7 * DAY)
        rated = await care.output(await care.started())
        assert rated == {"good": ["C-1"], "poor": ["C-2"], "fair": ["C-3"], "unknown": ["C-4"]}
        assert await care.output(await care.started("upsell")) == {"customer": "C-1", "outcome": "sent"}
        assert sorted(await care.mails("to")) == ["C-1", "care@shop.example"]


async def stock_out_is_told(workflows: Workflows) -> bool:
    """Whether the run that the first block of the tour starts has told the product manager."""
    runs = (await workflows.desk.ask("GET", "/api/runs?everybody=true&workflow=stock-out")).json()["items"]
    return bool(runs) and any(each["step"].endswith("/tell") for each in (await workflows.show(runs[0]["id"], "admin"))["steps"])


async def test_the_tour_of_the_page_on_these_workflows_works(tmp_path: Path, database_url: str) -> None:
    tour = re.findall(r"```sh (\w+)\n(.*?)```", (ROOT / "docs" / "workflow-examples.md").read_text(), re.DOTALL)
    assert len(tour) == 6
    async with whole_example(tmp_path / "gateway", database_url) as workflows:
        home, shown = workflows.home, ""
        for user, commands in tour:
            environment = {"INTERLOCK_URL": home.url, "INTERLOCK_TOKEN": home.token(user), "COLUMNS": "200", "NO_COLOR": "1"}
            for line in commands.strip().splitlines():
                ran = await asyncio.to_thread(CommandLine({**environment}), *shlex.split(line)[1:])
                assert ran.code == 0, (line, ran)
                shown += ran.out
            await until(partial(stock_out_is_told, workflows), every=0.05)  # a reader takes longer than that for the next block
        assert "product/SKU-7/stock" in shown and "customer/C-1/holds/not-this-month" in shown
        ended = {"stock-out": ("outcome", "restored"), "clinic-visit": ("insurance", "decided")}
        for name, (member, value) in ended.items():
            (run,) = (await workflows.desk.ask("GET", f"/api/runs?everybody=true&workflow={name}")).json()["items"]
            assert (await workflows.output(run["id"], "admin"))[member] == value

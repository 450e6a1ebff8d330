"""The workflows of examples/: each passes its rehearsal, runs in a whole gateway, and is drawn in the documentation as it is."""

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.workflows.drawing.mermaid import mermaid_of
from gateway.workflows.drawing.outline import outline_of
from gateway.workflows.dsl.loading import read_document, read_source
from gateway.workflows.rehearsal.rehearse import rehearse
from gateway.workflows.rehearsal.script import Rehearsal
from tests.examples.scenarios import configuration
from tests.fakes.house import ROLES, CallbackAgent, House, house
from tests.fakes.workflows import Workflows
from tests.house.source import ROOT

DOCUMENTS = sorted(path for path in (ROOT / "examples" / "workflows").glob("*.yaml") if ".test." not in path.name)
PAGES = [ROOT / "docs" / "workflows.md", ROOT / "docs" / "workflow-examples.md"]
ORDER = ROOT / "examples" / "demo" / "order.yaml"


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


@pytest.mark.parametrize("path", [*DOCUMENTS, ORDER], ids=lambda path: path.stem)
async def test_an_example_passes_its_rehearsal(path: Path) -> None:
    document = read_document(read_source(_text(path)))
    cases = Rehearsal.model_validate(read_source(_text(path.with_suffix(".test.yaml"))).data)
    outcomes = await rehearse(document, cases)
    assert len(outcomes) >= 3
    assert [(outcome.name, outcome.problems) for outcome in outcomes if outcome.problems] == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.stem)
def test_an_example_is_drawn_in_the_documentation(path: Path) -> None:
    chart = mermaid_of(outline_of(read_document(read_source(path.read_text()))))
    assert sum(_text(page).count(f"```mermaid\n{chart}```") for page in PAGES) == 1


def test_the_documentation_quotes_the_examples_word_by_word() -> None:
    quotes = [quote for page in PAGES for quote in re.findall(r"<!-- from (\S+) -->\n```yaml\n(.*?)```", _text(page), re.DOTALL)]
    assert len(quotes) >= 13
    assert [path for path, lines in quotes if lines not in _text(ROOT / path)] == []


async def offering(home: House) -> tuple[Workflows, Any]:
    """The workflow `offer` with a scripted sales agent and stock."""
    sales = await home.agent(CallbackAgent("sales-desk"))
    sales.more = [{"data": {"total_cents": 400000, "confidence": 0.9}}]
    server = await home.server("stock", "check", "reserve", "release")
    answers = {"check": {"left": 5}, "reserve": {"reservation": "r1"}, "release": {}}
    server.result = lambda params: {  # type: ignore[method-assign]  # its stock
        "content": [],
        "structuredContent": answers.get(params.get("name", ""), {}),
        "resultType": "complete",
    }
    workflows = Workflows(home)
    text = _text(ROOT / "examples" / "workflows" / "offer.yaml")
    assert (await workflows.desk.post("/api/workflows", document=text)).status_code == 201
    await home.gateway.database.refresh_epochs()
    return workflows, server


@pytest.mark.parametrize("approved", [True, False])
async def test_the_offer_waits_for_an_approval(tmp_path: Path, database_url: str, approved: bool) -> None:
    async with house(tmp_path / "home", database_url, roles={**ROLES, "sales": ["agent:*", "tool:stock.*"]}) as home:
        workflows, server = await offering(home)
        run = await workflows.start("offer", {"sku": "SKU-7", "quantity": 4})
        await workflows.reached(run, "SUSPENDED")
        (checkpoint,) = await workflows.checkpoints("admin")
        assert checkpoint["prompt"] == "Sell 4 of SKU-7 for 4000 EUR?"
        await workflows.answer(checkpoint["id"], {"approved": approved}, "admin")
        if approved:
            assert await workflows.output(run) == {"sku": "SKU-7", "total_cents": 400000}
        else:
            assert (await workflows.ended(run))["state"] == "TASK_STATE_FAILED"
        released = [json.dumps(arguments) for tool, arguments in server.calls if tool == "release"]
        assert released == ([] if approved else ['{"reservation": "r1"}'])


async def test_documents_of_the_configured_folder_are_published(tmp_path: Path, sqlite_template: Path) -> None:
    folder = tmp_path / "documents"
    await asyncio.to_thread(folder.mkdir)
    (folder / "plain.yaml").write_text("document: {dsl: 1.0.3, namespace: n, name: plain, version: 1.0.0}\ndo:\n- say: {set: {a: 1}}\n")
    url = f"sqlite:///{tmp_path / 'interlock.db'}"
    async with house(tmp_path / "home", url, workflows=str(folder)) as home:
        task = await Workflows(home).run("plain")
        assert task["artifacts"][0]["parts"][0]["data"] == {"a": 1}


async def test_an_agent_of_a_marketing_run_can_not_write_in_finance_either(tmp_path: Path, database_url: str) -> None:
    people = {name: (await asyncio.to_thread(configuration, "http://127.0.0.1:1", set()))[name] for name in ("roles", "users")}
    answers: list[httpx.Response] = []
    async with house(tmp_path / "home", database_url, **people) as home:

        async def write(token: str, _text: str) -> str:
            onward = await home.exchanged("report-writer", token, "/mcp/finance", "tool:finance.post_entry")
            answers.append(await home.call(onward, "/mcp/finance", "post_entry", {"campaign": "spring", "amount": 1}))
            return "a report"

        writer = await home.agent(CallbackAgent("report-writer", write))
        writer.more = [{"data": {"report": "a report", "difference": 0, "confidence": 0.9}}]
        finance, marketing = await home.server("finance", "read_spend", "post_entry"), await home.server("marketing", "count_leads")
        figures = {"content": [], "structuredContent": {"leads": 1, "spent": 1, "booked": 1}}
        for server in (finance, marketing):
            server.result = lambda _: figures  # type: ignore[method-assign]  # the same for every tool
        workflows = Workflows(home)
        document = _text(ROOT / "examples" / "workflows" / "campaign-report.yaml")
        assert (await workflows.desk.post("/api/workflows", document=document)).status_code == 201
        await home.gateway.database.refresh_epochs()
        run = await workflows.start("campaign-report", {"campaign": "spring"}, user="marta")
        assert (await workflows.ended(run, user="marta"))["state"] == "TASK_STATE_COMPLETED"
    (refused,) = [answer.json()["error"] for answer in answers]
    assert refused["code"] == -32010 and "tool:finance.post_entry (user)" in refused["data"]["missing"]
    assert {tool for tool, _ in finance.calls} == {"read_spend"}

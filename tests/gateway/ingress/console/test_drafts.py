"""Evaluations and replays by draft policies: what a person pastes rules on nothing real, and is kept nowhere."""

import json
import re
from html import unescape
from pathlib import Path

import pytest

from gateway.ingress.console.pages import drafts
from tests.fakes.console import ConsoleBrowser, console_house
from tests.fakes.house import House
from tests.fakes.reception import Reception

on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
NO_CHECKS = '@id("no-checks") forbid(principal, action == Action::"callTool", resource == Tool::"inventory.check");'
CHECK = {"person": "alice", "action": "callTool", "resource": "inventory.check"}
QUESTION = {
    "subject": {"type": "user", "id": "alice"},
    "action": {"name": "callTool"},
    "resource": {"type": "tool", "id": "inventory.check"},
}


def words_of(html: str) -> str:
    return " ".join(unescape(re.sub("<[^>]*>", " ", html)).split())


async def test_a_draft_refuses_in_an_evaluation_and_nowhere_else(home: House) -> None:
    await home.server("inventory", "check", "refund")
    browser = await ConsoleBrowser(home).sign_in("admin")
    await browser.get("/console/evaluate")
    answer = await browser.post("/console/evaluate", {**CHECK, "draft": NO_CHECKS, "beside": "true"})
    shown = words_of(answer.text)
    assert answer.status_code == 200
    assert "By the policies in force The user, every agent in the chain and the policies allow it." in shown
    assert "By the draft A policy forbids it. By no-checks ." in shown
    assert (await home.call(home.token("alice"), "/mcp", "inventory_check", {})).json()["result"]
    assert "no-checks" not in json.dumps((await Reception(home).ask("GET", "/api/policies")).json())


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_the_foot_names_the_command_with_all_that_was_asked(home: House) -> None:
    await home.server("inventory", "check")
    browser = await ConsoleBrowser(home).sign_in("admin")
    await browser.get("/console/evaluate")
    asked = {**CHECK, "person": "bob", "chain": "sales", "arguments": '{"a": 1}'}
    shown = words_of((await browser.post("/console/evaluate", asked)).text)
    assert "policy evaluate tool:inventory.check --who bob --chain sales --arguments '{\"a\": 1}'" in shown
    long = words_of((await browser.post("/console/evaluate", {**asked, "arguments": f'{{"a": "{"b" * 300}"}}'})).text)
    assert "--arguments ARGUMENTS" in long
    replayed = words_of((await browser.get("/console/replay?only=denied")).text)
    assert "policy what-if FOLDER --only denied" in replayed


async def test_a_draft_counts_beside_the_folder_or_in_its_place(home: House) -> None:
    await home.server("inventory", "check", "refund")
    question = {**QUESTION, "resource": {"type": "tool", "id": "inventory.refund"}, "policies": {"draft.cedar": NO_CHECKS}}
    rulings = []
    for beside in (True, False):
        answer = await Reception(home).ask("POST", "/api/policies/evaluate", body={**question, "beside_current": beside})
        assert answer.status_code == 200, answer.text
        rulings.append(answer.json())
    assert [each["now"]["context"]["reason_id"] for each in rulings] == ["approval-needed"] * 2
    assert [each["draft"]["context"]["reason_id"] for each in rulings] == ["approval-needed", "allowed"]
    assert [each["changed"] for each in rulings] == [False, True]


@on_sqlite
async def test_a_draft_is_ruled_on_with_the_arguments_and_the_chain(home: House) -> None:
    await home.server("inventory", "check", "refund")
    when = "context has input && context.input has n && context.input.n > 5"
    limit = f'@id("few") forbid(principal, action == Action::"callTool", resource) when {{ {when} }};'
    for count, is_allowed in ((3, True), (7, False)):
        body = {**QUESTION, "context": {"arguments": {"n": count}}, "policies": {"draft.cedar": limit}}
        assert (await Reception(home).ask("POST", "/api/policies/evaluate", body=body)).json()["draft"]["decision"] is is_allowed


@on_sqlite
@pytest.mark.parametrize(
    ("form", "words"),
    [
        ({"draft": "permit(everything);"}, "can't be used"),
        ({"draft": '@id("x") permit(principal, action, resource'}, "can't be used"),
        ({"draft": NO_CHECKS, "arguments": "{"}, "the arguments can't be read as JSON"),
        ({"draft": NO_CHECKS, "arguments": "[" * 5000}, "the arguments can't be read as JSON"),
        ({"draft": NO_CHECKS, "resource": "inventory.nothing"}, "There is no such subject or resource."),
    ],
)
async def test_a_bad_draft_or_question_is_a_clear_page(home: House, form: dict[str, str], words: str) -> None:
    await home.server("inventory", "check", "refund")
    browser = await ConsoleBrowser(home).sign_in("admin")
    await browser.get("/console/evaluate")
    answer = await browser.post("/console/evaluate", {**CHECK, **form})
    assert answer.status_code in (200, 403) and words in words_of(answer.text), words_of(answer.text)


@on_sqlite
@pytest.mark.parametrize("path", ["/console/evaluate", "/console/replay"])
async def test_a_form_takes_the_longest_draft_in_any_script(home: House, path: str) -> None:
    await home.server("inventory", "check", "refund")
    browser = await ConsoleBrowser(home).sign_in("admin")
    page = (await browser.get(path)).text
    longest = int(re.findall(r'name="draft"[^>]*maxlength="(\d+)"', page)[0])
    draft = NO_CHECKS + "\n// " + "規" * (longest - len(NO_CHECKS) - 4)
    answer = await browser.post(path, {**CHECK, "draft": draft, "only": "all", "beside": "true"})
    assert answer.status_code == 200, words_of(answer.text)[:300]


@on_sqlite
async def test_who_may_not_write_policies_evaluates_no_draft(home: House) -> None:
    browser = await ConsoleBrowser(home).sign_in("alice")
    assert 'name="draft"' not in (await browser.get("/console/evaluate")).text
    answer = await browser.post("/console/evaluate", {**CHECK, "draft": NO_CHECKS})
    assert "By the draft" not in answer.text and "may not" in words_of(answer.text)
    assert "Only who may write policies" in words_of((await browser.get("/console/replay")).text)
    forged = await browser.post("/console/replay", {"draft": NO_CHECKS})
    assert "would change" not in words_of(forged.text)


@pytest.mark.parametrize("number", ["²", "9" * 5000])
async def test_a_forged_count_of_a_replay_counts_as_none(home: House, number: str) -> None:
    browser = await ConsoleBrowser(home).sign_in("admin")
    await browser.get("/console/replay")
    answer = await browser.post("/console/replay", {"draft": NO_CHECKS, "replayed": number})
    assert (answer.status_code, number in answer.text) == (200, False)


async def test_a_replay_goes_on_part_by_part_and_adds_up(home: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drafts, "REPLAYED_AT_ONCE", 3)
    await home.server("inventory", "check", "refund")
    for _ in range(4):
        await home.call(home.token("alice"), "/mcp", "inventory_check", {})
    browser = await ConsoleBrowser(home).sign_in("admin")
    await browser.get("/console/replay")
    form, changed, pages = {"draft": NO_CHECKS, "beside": "true", "only": "allowed"}, 0, 0
    while form:
        answer = await browser.post("/console/replay", form)
        assert answer.status_code == 200
        changed += answer.text.count("<code>tool:inventory.check</code>")
        found = re.search(r'<form class="more".*?</form>', answer.text, re.DOTALL)
        hidden = dict(re.findall(r'name="(\w+)" value="([^"]*)"', found[0])) if found else {}
        form = {**{name: value for name, value in hidden.items() if name != "csrf"}, "draft": NO_CHECKS} if hidden else {}
        pages += 1
    assert (changed, pages > 1) == (4, True)
    assert re.search(r"Of \d+ decisions 4 would change", words_of(answer.text))


async def test_a_replay_over_the_api_pages_through_all_decisions_once(home: House) -> None:
    await home.server("inventory", "check", "refund")
    for _ in range(5):
        await home.call(home.token("alice"), "/mcp", "inventory_check", {})
    seen, cursor = list[str](), ""
    while cursor is not None:
        body = {"only": "allowed", "limit": 2, "policies": {"draft.cedar": NO_CHECKS}, **({"cursor": cursor} if cursor else {})}
        found = (await Reception(home).ask("POST", "/api/policies/what-if", body=body)).json()
        seen += [each["id"] for each in found["items"] if each["permission"] == "tool:inventory.check"]
        cursor = found["next"]
    assert len(seen) == len(set(seen)) == 5
    bad = await Reception(home).post("/api/policies/what-if", cursor="no cursor")
    assert bad.status_code == 400


@on_sqlite
async def test_the_policies_in_force_are_listed_with_their_places(home: House) -> None:
    found = (await Reception(home).ask("GET", "/api/policies")).json()
    places = {each["id"]: (Path(each["file"]).name if each["file"] else None, each["is_built_in"]) for each in found["items"]}
    assert places["refunds"] == ("ours.cedar", False)
    assert any(is_built_in for _, is_built_in in places.values())
    assert (await Reception(home).ask("GET", "/api/policies", "alice")).status_code == 403


@on_sqlite
async def test_a_look_by_a_draft_is_in_the_audit(tmp_path: Path, database_url: str) -> None:
    (tmp_path / "other").mkdir()
    async with console_house(tmp_path / "other", database_url) as home:
        await home.server("inventory", "check")
        await Reception(home).ask("POST", "/api/policies/evaluate", body={**QUESTION, "policies": {"draft.cedar": NO_CHECKS}})
        records = (await Reception(home).ask("GET", "/api/audit?kind=decision")).json()["items"]
        assert any(each["action"] == "writePolicy" and each["allowed"] for each in records)


@on_sqlite
async def test_the_foot_has_the_request_that_answers_the_same_as_json(home: House) -> None:
    await home.server("inventory", "check")
    browser = await ConsoleBrowser(home).sign_in("admin")
    await browser.get("/console/evaluate")
    for page, form in (
        ("/console/evaluate", CHECK),
        ("/console/evaluate", {**CHECK, "draft": NO_CHECKS}),
        ("/console/replay", {"draft": "x"}),
    ):
        shown = (await browser.post(page, form)).text
        (path,) = re.findall(r"<summary>The same as JSON: POST ([^<]+)</summary>", shown)
        body = unescape(shown.partition("The same as JSON")[2].partition("<pre")[2].partition(">")[2].partition("</pre>")[0])
        answer = await Reception(home).ask("POST", path, "admin", json.loads(body))
        assert answer.status_code == (422 if form == {"draft": "x"} else 200), answer.text

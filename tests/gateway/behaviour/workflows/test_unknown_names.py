"""Routes of workflows and runs say that there is no such workflow or run, of hidden ones as of those that do not exist."""

from typing import Any

import pytest

from tests.fakes.house import House
from tests.fakes.workflows import Workflows

ASK = "do:\n- ask: {call: gateway.approve, with: {prompt: Pay?}}\n- last: {call: gateway.choose, with: {prompt: Which, options: [a]}}\n"


async def answered(home: House, method: str, path: str, token: str, body: Any = None) -> tuple[int, dict[str, Any]]:
    answer = await home.http.request(method, path, json=body, headers={"authorization": f"Bearer {token}"})
    return answer.status_code, {name: value for name, value in answer.json().items() if name != "trace_id"}


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/api/workflows/NAME", None),
        ("DELETE", "/api/workflows/NAME", None),
        ("GET", "/api/workflows/NAME/estimate", None),
        ("GET", "/api/workflows/NAME/picture", None),
        ("POST", "/api/workflows/NAME/runs", {"input": {}}),
        ("POST", "/api/runs", {"workflow": "NAME", "input": {}}),
    ],
)
async def test_hidden_and_unknown_workflows_have_the_same_answer(home: House, method: str, path: str, body: Any) -> None:
    await Workflows(home).add("pay", ASK)
    found = []
    for name in ("pay", "nowhere"):
        given = {**body, "workflow": name} if body and "workflow" in body else body
        found.append(await answered(home, method, path.replace("NAME", name), home.token("nora"), given))
    assert found[0] == found[1]
    assert (found[0][0], found[0][1]["detail"]) == (404, "There is no such workflow.")


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "", None),
        ("GET", "/events", None),
        ("GET", "/values/abc", None),
        ("POST", "/cancel", None),
        ("POST", "/pause", None),
        ("POST", "/resume", None),
        ("POST", "/signal", {"name": "x"}),
        ("POST", "/redrive", {}),
        ("POST", "/fork", {"step": "x"}),
    ],
)
async def test_an_unknown_run_is_told_as_a_run(home: House, method: str, path: str, body: Any) -> None:
    status, told = await answered(home, method, f"/api/runs/t_1{path}", home.token("alice"), body)
    assert (status, told["detail"], told["reason_id"]) == (404, "There is no such run.", "unknown")


async def test_a_checkpoint_is_relaxed_by_its_name_too(home: House) -> None:
    await Workflows(home).add("pay", ASK)
    path, admin = "/api/workflows/pay/relaxations", home.token("admin")
    assert (await answered(home, "POST", path, admin, {"step": "ask", "every": 3}))[0] == 200
    status, told = await answered(home, "POST", path, admin, {"step": "aks", "every": 3})
    assert (status, told["detail"]) == (404, "The workflow has no checkpoint aks; it has /do/0/ask, /do/1/last")
    for step, expected in (("ask", 204), ("ask", 204), ("/do/1/last", 204), ("aks", 404)):
        answer = await home.http.delete(f"{path}?step={step}", headers={"authorization": f"Bearer {admin}"})
        assert answer.status_code == expected


async def test_a_misspelt_step_of_a_fork_is_told_with_the_one_that_may_be_meant(home: House) -> None:
    workflows = Workflows(home)
    await workflows.add("pay", ASK)
    run = await workflows.start("pay")
    await workflows.reached(run, "SUSPENDED")
    status, told = await answered(home, "POST", f"/api/runs/{run}/fork", home.token("alice"), {"step": "lats"})
    assert (status, told["detail"]) == (422, "the workflow has no step lats; did you mean `last`?")

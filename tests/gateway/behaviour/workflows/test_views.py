"""The schema of documents and the pictures of workflows, as /api serves them."""

from xml.etree import ElementTree

import pytest

from tests.fakes.house import House
from tests.fakes.workflows import Workflows, document

SAY = "do:\n- say <b>: {set: {x: 1}}\n"


@pytest.fixture
def workflows(home: House) -> Workflows:
    return Workflows(home)


async def test_the_schema_is_served_to_people(workflows: Workflows) -> None:
    answer = await workflows.desk.ask("GET", "/api/workflows/schema", "alice")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/schema+json"
    assert {"DocumentExtras", "TaskExtras"} <= answer.json()["$defs"].keys()
    assert (await workflows.home.http.get("/api/workflows/schema")).status_code == 401


async def test_no_workflow_hides_the_schema(workflows: Workflows) -> None:
    (problem,) = await workflows.refused("schema", SAY)
    assert problem["path"] == "/document/name"


async def test_a_picture_is_an_image_without_code(workflows: Workflows) -> None:
    await workflows.add("say", SAY)
    answer = await workflows.desk.ask("GET", "/api/workflows/say/picture", "alice")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "image/svg+xml"
    assert answer.headers["content-security-policy"] == "default-src 'none'; style-src 'unsafe-inline'"
    texts = [each.text for each in ElementTree.fromstring(answer.text).iter("{http://www.w3.org/2000/svg}text")]
    assert "■ say <b>" in texts
    assert (await workflows.desk.ask("GET", "/api/workflows/say/picture", "nora")).status_code == 404
    assert (await workflows.desk.ask("GET", "/api/workflows/absent/picture", "alice")).status_code == 404


async def test_a_check_finds_what_an_upload_does_and_publishes_nothing(workflows: Workflows) -> None:
    sound, bad = document("say", SAY), document("say", SAY.replace("x: 1", "x: '${ .x == }'"))
    assert (await workflows.desk.post("/api/workflows", document=sound, check=True)).status_code == 200
    refused = await workflows.desk.post("/api/workflows", document=bad, check=True)
    assert [each["path"] for each in refused.json()["problems"]] == ["/do/0/say <b>/set/x"]
    assert (await workflows.desk.ask("GET", "/api/workflows", "alice")).json()["items"] == []


async def test_runs_are_listed_by_state_and_for_auditors_of_all_people(home: House) -> None:
    workflows = Workflows(home)
    await workflows.add("good", "do:\n- a: {set: {x: 1}}\n")
    await workflows.add("bad", "do:\n- a: {raise: {error: {type: 'urn:tests:no', status: 409}}}\n")
    runs = [await workflows.start(name, user=user) for name, user in (("good", "alice"), ("bad", "alice"), ("bad", "bob"))]
    for run, user in zip(runs, ("alice", "alice", "bob"), strict=True):
        await workflows.ended(run, user)

    async def listed(query: str, user: str, path: str = "/api/runs") -> list[str]:
        answer = await workflows.desk.ask("GET", f"{path}?{query}", user)
        assert answer.status_code == 200, answer.text
        return [each["id"] for each in answer.json()["items"]]

    assert await listed("state=TASK_STATE_FAILED", "alice") == [runs[1]]
    assert await listed("everybody=true", "admin") == runs[::-1]
    assert await listed("everybody=true&state=TASK_STATE_FAILED&workflow=bad", "admin") == runs[:0:-1]
    assert await listed("everybody=true", "admin", "/api/workflows/good/runs") == runs[:1]
    assert await listed("", "admin") == []
    refused = await workflows.desk.ask("GET", "/api/runs?everybody=true", "bob")
    assert refused.status_code == 403 and refused.json()["decision"]["missing"]
    assert (await workflows.desk.ask("GET", "/api/runs?state=broken", "alice")).status_code == 422
    records = (await workflows.desk.ask("GET", "/api/audit?kind=decision&limit=200", "admin")).json()["items"]
    assert [each["allowed"] for each in records if each.get("verb") == "list-runs"].count(True) == 3

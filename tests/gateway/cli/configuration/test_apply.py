"""What apply and diff do against a gateway that answers as scripted: failures, conflicts, order and exit codes."""

import json
from pathlib import Path
from typing import Any

import pytest

from gateway.cli.configuration.kinds import KINDS
from gateway.cli.configuration.problems import DIFFERENCES_FOUND
from tests.fakes.gateway_api import Answer, GatewayApi
from tests.gateway.cli.conftest import CommandLine

LIST = "GET /api/declarations?limit=200"
AGENT = "kind: Agent\nname: {name}\nspec: {{url: 'http://{name}.example'}}\n"
PROBLEM = {"title": "Bad request", "status": 422, "reason_id": "bad-request"}


@pytest.fixture
def documents(tmp_path: Path) -> Path:
    folder = tmp_path / "documents"
    folder.mkdir()
    return folder


def declare(documents: Path, *names: str) -> None:
    for name in names:
        (documents / f"{name}.yaml").write_text(AGENT.format(name=name))


def on_list(api: GatewayApi, query: str, *entries: dict[str, Any]) -> None:
    api.on(f"{LIST}&{query}", {"items": list(entries), "next": None})


def entry(name: str, kind: str = "Agent", **changes: Any) -> dict[str, Any]:
    spec = {"url": f"http://{name}.example", "kind": "a2a", "delegation": "bearer"} if kind == "Agent" else {}
    spec = {**{key: value for key, value in KINDS[kind].members.items() if value is not None}, **spec}
    return {
        "kind": kind,
        "name": name,
        "version": "v1",
        "label": "default",
        "status": "active",
        "configured": False,
        "spec": spec,
        **changes,
    }


def asked(api: GatewayApi) -> list[str]:
    return [f"{each.method} {each.path}" for each in api.asked if each.method != "GET"]


def test_an_object_that_fails_does_not_stop_the_others(interlock: CommandLine, api: GatewayApi, documents: Path) -> None:
    declare(documents, "a", "b", "c")
    on_list(api, "name=a&name=b&name=c")
    refused = {**PROBLEM, "detail": "url is refused: it is private", "field": "url"}
    api.answers["POST /api/agents"] = [Answer({"status": "active"}, 201), Answer(refused, 422), Answer({"status": "pending"}, 201)]
    ran = interlock("apply", "-f", str(documents))
    assert ran.code == 1 and "Agent a is created" in ran.out and "2 applied, 1 failed" in ran.out
    assert f"{documents}/b.yaml:3: spec.url is refused: it is private" in ran.err
    assert "it is pending and waits for an operator: interlock agent approve c" in ran.err


def test_with_stop_on_failure_the_rest_is_skipped(interlock: CommandLine, api: GatewayApi, documents: Path) -> None:
    declare(documents, "a", "b")
    on_list(api, "name=a&name=b")
    api.on("POST /api/agents", {**PROBLEM, "detail": "no"}, 422)
    ran = interlock("apply", "-f", str(documents), "--stop-on-failure", "--json")
    assert (ran.code, [each["outcome"] for each in ran.json["items"]]) == (1, ["failed", "skipped"])
    assert asked(api) == ["POST /api/agents"]


def test_nothing_is_deleted_after_a_failure(interlock: CommandLine, api: GatewayApi, documents: Path) -> None:
    declare(documents, "a")
    on_list(api, "name=a")
    on_list(api, "label=default", entry("old"))
    api.on("POST /api/agents", {**PROBLEM, "detail": "no"}, 422)
    ran = interlock("apply", "-f", str(documents), "--prune")
    assert ran.code == 1 and "Agent old is skipped: an earlier one failed, so nothing is deleted" in ran.err
    assert asked(api) == ["POST /api/agents"]


def test_prune_deletes_what_has_the_label_and_is_not_declared(interlock: CommandLine, api: GatewayApi, documents: Path) -> None:
    declare(documents, "a")
    on_list(api, "name=a", entry("a", label="shop"))
    gone = [entry("tools", "Server"), entry("front", "VirtualServer"), entry("flow", "Workflow"), entry("file", configured=True)]
    on_list(api, "label=shop", entry("a", label="shop"), *gone)
    for path in ("workflows/flow", "virtual-servers/front", "servers/tools"):
        api.on(f"DELETE /api/{path}", None, 204)
    ran = interlock("apply", "-f", str(documents), "--prune", "--label", "shop")
    assert ran.code == 0
    assert asked(api) == ["DELETE /api/workflows/flow", "DELETE /api/virtual-servers/front", "DELETE /api/servers/tools"]
    assert {each.headers["if-match"] for each in api.asked if each.method == "DELETE"} == {'"v1"'}


def test_without_prune_nothing_is_deleted(interlock: CommandLine, api: GatewayApi, documents: Path) -> None:
    declare(documents, "a")
    on_list(api, "name=a", entry("a"))
    assert interlock("apply", "-f", str(documents)).out == "nothing to do: 1 object as declared\n"
    assert asked(api) == [] and "label" not in "".join(each.path for each in api.asked)


def test_a_lost_gateway_leaves_the_rest_and_exits_with_4(interlock: CommandLine, api: GatewayApi, documents: Path) -> None:
    declare(documents, "a", "b")
    on_list(api, "name=a&name=b")
    api.answers["POST /api/agents"] = Answer({"status": "active"}, 201, cut=True)
    ran = interlock("apply", "-f", str(documents), "--json")
    assert (ran.code, [each["outcome"] for each in ran.json["items"]]) == (4, ["failed", "skipped"])


def test_what_was_changed_meanwhile_fails_and_says_so(interlock: CommandLine, api: GatewayApi, documents: Path) -> None:
    (documents / "a.yaml").write_text("kind: Agent\nname: a\nspec: {url: 'http://a.example', rank: 3}\n")
    on_list(api, "name=a", entry("a"))
    api.on("PATCH /api/agents/a?dry_run=true", {"name": "a", "changes": ["rank"]})
    api.on("PATCH /api/agents/a", {**PROBLEM, "status": 412, "reason_id": "precondition-failed", "detail": "changed"}, 412)
    ran = interlock("apply", "-f", str(documents))
    assert ran.code == 1 and "Agent a was changed since the plan was made: run the command again" in ran.err
    assert {each.headers.get("if-match") for each in api.asked if each.method == "PATCH"} == {'"v1"'}


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        ({"configured": True}, "is set by interlock.yaml"),
        (
            {"label": "team-b", "spec": {**entry("a")["spec"], "rank": 1}},
            "has the label team-b of other documents: --label team-b, or --take-over",
        ),
        ({"kind": "Server"}, "is the name of a Server at the gateway"),
        ({"status": "quarantined", "spec": {**entry("a")["spec"], "url": "http://old.example"}}, "can't be changed while a is quarantined"),
        ({"status": "pending", "spec": {**entry("a")["spec"], "url": "http://old.example"}}, "can't be changed while a is pending"),
        ({"spec": {**entry("a")["spec"], "kind": "langgraph"}}, "can't be changed: interlock agent rm a, then apply again"),
    ],
)
def test_an_entry_that_is_not_for_documents_to_change_is_left(
    found: dict[str, Any], reason: str, interlock: CommandLine, api: GatewayApi, documents: Path
) -> None:
    declare(documents, "a")
    on_list(api, "name=a", entry("a", **found))
    api.on("PATCH /api/agents/a?dry_run=true", {"name": "a", "changes": ["rank"]})
    for command in ("apply", "diff"):
        ran = interlock(command, "-f", str(documents))
        assert ran.code == 1 and reason in ran.out + ran.err and "a.yaml:" in ran.out + ran.err
    assert [each for each in asked(api) if "dry_run" not in each] == []


def test_an_entry_that_somebody_else_has_registered_is_not_adopted(interlock: CommandLine, api: GatewayApi, documents: Path) -> None:
    """A member could register a name before its documents are applied, and would keep the secret of its client."""
    declare(documents, "a")
    on_list(api, "name=a", entry("a", label="", status="pending", spec={**entry("a")["spec"], "rank": 5}))
    api.on("PATCH /api/agents/a?dry_run=true", {"changes": ["rank"]})
    ran = interlock("diff", "-f", str(documents))
    assert ran.code == 1 and "its registrant has its credentials" in ran.out and "interlock agent approve a" in ran.out
    assert interlock("diff", "-f", str(documents), "--take-over").code == DIFFERENCES_FOUND


def test_take_over_marks_what_others_have_created(interlock: CommandLine, api: GatewayApi, documents: Path) -> None:
    declare(documents, "a")
    on_list(api, "name=a", entry("a", label="team-b"))
    api.on("PATCH /api/agents/a", {"status": "active"})
    ran = interlock("apply", "-f", str(documents), "--take-over", "--label", "shop")
    assert ran.code == 0 and "label: team-b → shop" in ran.out
    assert api.asked[-1].body == {"label": "shop"}


def test_diff_shows_each_difference_and_exits_with_5(interlock: CommandLine, api: GatewayApi, documents: Path) -> None:
    (documents / "a.yaml").write_text(
        "kind: Agent\nname: a\nspec: {url: 'http://a.example', ceiling: ['tool:x.*'], upstream: {headers: {X-Key: 'file:key'}}}\n"
    )
    (documents / "key").write_text("very-secret")
    declare(documents, "b", "c")
    current = entry("a")
    current["spec"]["upstream"] = {"headers": {"X-Key": "stored:"}}
    on_list(api, "name=a&name=b&name=c", current, entry("c"))
    api.on("PATCH /api/agents/a?dry_run=true", {"name": "a", "changes": ["ceiling", "upstream.headers.X-Key"]})
    ran = interlock("diff", "-f", str(documents))
    assert ran.code == DIFFERENCES_FOUND == 5
    assert '~ Agent a\n    ceiling: ["*"] → ["tool:x.*"]\n    upstream.headers.X-Key: (secret) → file:key\n' in ran.out
    assert "+ Agent b\n    url: http://b.example\n" in ran.out and "1 to create, 1 to change, 1 unchanged" in ran.out
    assert "very-secret" not in ran.out + ran.err
    assert asked(api) == ["PATCH /api/agents/a?dry_run=true"]
    assert interlock("diff", "-f", str(documents), "--json").json["counts"] == {
        "create": 1,
        "change": 1,
        "delete": 0,
        "none": 1,
        "problem": 0,
    }


def test_an_empty_value_is_a_dash_in_a_difference(interlock: CommandLine, api: GatewayApi, documents: Path) -> None:
    (documents / "a.yaml").write_text("kind: Agent\nname: a\nspec: {url: 'http://a.example', clearance: secret}\n")
    current = entry("a")
    current["spec"]["clearance"] = ""
    on_list(api, "name=a", current)
    api.on("PATCH /api/agents/a?dry_run=true", {"name": "a", "changes": ["clearance"]})
    assert "    clearance: — → secret\n" in interlock("diff", "-f", str(documents)).out


def test_what_the_gateway_says_of_a_whole_document_stands_by_itself(interlock: CommandLine, api: GatewayApi, documents: Path) -> None:
    declare(documents, "a")
    on_list(api, "name=a")
    api.on("POST /api/agents", {**PROBLEM, "detail": "the upstream can't be reached"}, 502)
    assert f"Agent a failed: {documents}/a.yaml:1: the upstream can't be reached\n" in interlock("apply", "-f", str(documents)).err


def test_a_dry_run_asks_new_upstreams_and_changes_nothing(interlock: CommandLine, api: GatewayApi, documents: Path) -> None:
    declare(documents, "a", "b")
    on_list(api, "name=a&name=b")
    api.answers["POST /api/agents/preview"] = [
        Answer({"status": "active"}),
        Answer({**PROBLEM, "detail": "url is dead", "field": "url"}, 422),
    ]
    ran = interlock("apply", "-f", str(documents), "--dry-run")
    assert ran.code == 1 and "b.yaml:3: spec.url is dead" in ran.out
    assert asked(api) == ["POST /api/agents/preview"] * 2


def test_workflows_that_call_each_other_are_published_in_any_order(interlock: CommandLine, api: GatewayApi, documents: Path) -> None:
    for name in ("a", "b", "c"):
        document = f"kind: Workflow\nname: {name}\nspec: {{document: '{{document: {{name: {name}}}}}'}}\n"
        (documents / f"{name}.yaml").write_text(document)
    on_list(api, "name=a&name=b&name=c")
    unknown = {
        **PROBLEM,
        "reason_id": "workflow-refused",
        "problems": [{"line": 3, "path": "/do/0", "reason": "names b, which is not registered"}],
    }
    done = Answer({"name": "x"}, 201)
    api.answers["POST /api/workflows"] = [Answer(unknown, 422), done, Answer(unknown, 422), done, done]
    ran = interlock("apply", "-f", str(documents))
    assert (ran.code, ran.out.splitlines()[-1]) == (0, "3 applied")
    sent = [json.dumps(each.body["document"]) for each in api.asked if each.method == "POST"]
    assert [next(name for name in "abc" if f"name: {name}" in text) for text in sent] == ["a", "b", "c", "a", "c"]
    api.asked.clear()
    api.answers["POST /api/workflows"] = Answer(unknown, 422)
    ran = interlock("apply", "-f", str(documents))
    assert ran.code == 1 and "a.yaml:3: spec.document is refused: line 3 /do/0: names b" in ran.err and len(asked(api)) == 3


def test_a_paused_schedule_stays_paused_unless_a_document_says_else(interlock: CommandLine, api: GatewayApi, documents: Path) -> None:
    text = "{document: {name: a}}"
    (documents / "a.yaml").write_text(f"kind: Workflow\nname: a\nspec: {{document: '{text}'}}\n")
    on_list(api, "name=a", entry("a", "Workflow", spec={"document": text, "paused": True}))
    assert interlock("apply", "-f", str(documents)).code == 0
    assert asked(api) == []
    (documents / "a.yaml").write_text(f"kind: Workflow\nname: a\nspec: {{document: '{text}', paused: false}}\n")
    api.on("POST /api/triggers/a/resume", {"workflow": "a", "paused": False})
    assert "paused: true → false" in interlock("apply", "-f", str(documents)).out
    assert asked(api) == ["POST /api/triggers/a/resume"]


def test_a_client_secret_is_shown_on_request_only(interlock: CommandLine, api: GatewayApi, documents: Path) -> None:
    declare(documents, "a")
    on_list(api, "name=a")
    api.on("POST /api/agents", {"status": "active", "client_secret": "s3cret"}, 201)
    for more in ([], ["--json"]):
        ran = interlock("apply", "-f", str(documents), *more)
        assert ran.code == 0 and "s3cret" not in ran.out + ran.err
    assert "s3cret" in interlock("apply", "-f", str(documents), "--show-secrets").err
    assert "s3cret" in interlock("apply", "-f", str(documents), "--show-secrets", "--json").out


def test_an_export_leaves_out_what_documents_may_not_set(interlock: CommandLine, api: GatewayApi) -> None:
    secret = entry("b")
    secret["spec"]["upstream"] = {"headers": {"x": "stored:"}}
    sent = entry("sent", "Server", spec={"url": "http://s", "openapi": None, "command": False})
    api.on(LIST, {"items": [entry("a", configured=True), secret, sent], "next": None})
    ran = interlock("export")
    assert "name: b" in ran.out and "name: a" not in ran.out and "name: sent" not in ran.out
    assert "left out: Agent a is set by interlock.yaml" in ran.err and "left out: Server sent was registered with an OpenAPI" in ran.err
    assert "1 secret at the gateway" in ran.err
    assert interlock("export", "--kind", "Nothing").code == 2

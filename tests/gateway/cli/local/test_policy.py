"""interlock policy: what is said of a folder before a gateway loads it."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from gateway.cli.main import app
from gateway.storage.database import Database, engine_for, raise_epoch
from gateway.storage.migrations.run import upgrade
from policies.ids import new_id, now_us
from registry.cards.card import Family, McpTool, RegistrationStatus
from registry.rows import Candidate
from registry.store import Registry
from tests.fakes.gateway_api import GatewayApi
from tests.fakes.plaintext_settings import PLAINTEXT_ROWS
from tests.gateway.cli.conftest import CommandLine

BUY = {"type": "object", "properties": {"quantity": {"type": "integer"}}, "required": ["quantity"]}
LIMIT = 'forbid(principal, action == Action::"shop.buy", resource) when { context.input.%s > 3 };'


@pytest.fixture
def at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("INTERLOCK_HOME", str(tmp_path / "home"))
    (tmp_path / "policies").mkdir()
    (tmp_path / "interlock.yaml").write_text("policies: policies\n")
    return tmp_path


async def registered(folder: Path) -> None:
    """A database in which a server offers shop.buy."""
    (folder / "home").mkdir()
    database = Database(engine_for(f"sqlite:///{folder}/home/interlock.db"))
    upgrade(database.engine)
    database.start()
    registry = Registry(
        database, lambda batch: raise_epoch(batch, "registry"), new_id, now_us, lambda _batch, _record: None, rows=PLAINTEXT_ROWS
    )
    given = {"tenant": "default", "name": "shop", "family": Family.SERVER, "kind": "mcp", "url": "http://127.0.0.1:1/mcp"}
    tools = (McpTool("buy", {"name": "buy", "inputSchema": BUY}),)
    await registry.add(Candidate(**given, owner="operator", status=RegistrationStatus.ACTIVE, ceiling=("*",), facts={}, tools=tools))
    database.close()


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["policy", *arguments])
    return result.exit_code, result.output


def test_a_replay_of_no_decisions_is_a_wrong_usage(interlock: CommandLine) -> None:
    wrong = interlock("policy", "what-if", "--limit", "0")
    assert wrong.code == 2 and "--limit" in wrong.err


async def test_check_holds_policies_to_the_tools_in_the_gateways_database(at_home: Path) -> None:
    (at_home / "policies" / "ours.cedar").write_text(LIMIT % "quantty")
    assert run("check")[0] == 0  # nobody knows yet what there will be
    await registered(at_home)
    code, said = run("check")
    assert code == 1 and "ours.cedar:1" in said and "did you mean 'quantity'" in said
    (at_home / "policies" / "ours.cedar").write_text(LIMIT % "quantity")
    code, said = run("check", "--json")
    assert code == 0 and json.loads(said)["doubts"] == []


async def test_the_schema_has_the_arguments_of_registered_tools(at_home: Path) -> None:
    assert "entity User" in run("schema")[1]
    await registered(at_home)
    assert "quantity: __cedar::Long" in run("schema")[1]


async def test_cases_are_a_table_and_a_failed_one_is_an_exit_code(at_home: Path) -> None:
    case = "{name: alice sells, who: alice, act: 'tool:shop.buy', expect: %s}"
    code, said = run("test")
    assert code == 1 and said.count("no cases") == 1 and ".test.yaml" in said  # none is no success
    (at_home / "policies" / "shop.test.yaml").write_text(f"cases: [{case % 'allow'}]")
    code, said = run("test")
    assert code == 0 and "alice sells" in said and "role:member" in said
    (at_home / "other.yaml").write_text(f"cases: [{case % 'allow'}, {case % 'deny'}]")
    code, said = run("test", "other.yaml")
    assert code == 1 and "1 of 2 cases failed" in said and "expected deny, got allow" in said
    result = CliRunner().invoke(app, ["policy", "test", "other.yaml", "--json"])
    told = json.loads(result.stdout)
    assert result.exit_code == 1 and [one["ok"] for one in told["cases"]] == [True, False] and not told["ok"]
    assert run("test", "nowhere.yaml")[0] == 1
    (at_home / "policies" / "ours.cedar").write_text("permit(")
    assert "ours.cedar:1" in run("test")[1]


async def test_a_folder_that_is_named_is_tested_with_its_own_cases(at_home: Path) -> None:
    (at_home / "new").mkdir()
    (at_home / "new" / "ours.cedar").write_text('@id("no-sales") forbid(principal, action == Action::"callTool", resource);')
    (at_home / "new" / "ours.test.yaml").write_text("cases: [{name: nobody sells, who: alice, act: 'tool:shop.buy', expect: deny}]")
    code, said = run("test", "new")
    assert code == 0 and "no-sales" in said
    assert run("test", "new/ours.test.yaml")[0] == 1  # the configured policies permit it
    (at_home / "interlock.yaml").unlink()
    code, said = run("test", "new/ours.test.yaml")
    assert code == 0 and "no-sales" in said  # nothing is configured, so the policies beside the cases count


def test_what_if_sends_the_folder_and_shows_what_would_change(interlock: CommandLine, api: GatewayApi, at_home: Path) -> None:
    (at_home / "policies" / "ours.cedar").write_text("permit(principal, action, resource);")
    (at_home / "arguments.json").write_text('{"d_1": {"quantity": 3}}')
    then, now = {"ruling": "deny", "reason_id": "policy-forbids", "policies": ["x"]}, {"ruling": "allow", "policies": ["y"], "note": ""}
    item = {"id": "d_1", "at": "", "principal": "default|i|bob", "chain": ["sales"], "permission": "tool:a.b", "then": then, "now": now}
    found = {"policy_version": "1", "summary": {"replayed": 1, "changed": 1, "unknown": 0}, "items": [{**item, "changed": True}]}
    api.on("POST /api/policies/what-if", found)
    ran = interlock("policy", "what-if", "policies", "--decision", "d_1", "--arguments", "arguments.json")
    assert ran.code == 0 and "bob > sales" in ran.out and "allow *" in ran.out and "1 of 1 would change" in ran.out
    assert api.asked[-1].body == {
        "only": "denied",
        "limit": 100,
        "decisions": ["d_1"],
        "policies": {"ours.cedar": "permit(principal, action, resource);"},
        "arguments": {"d_1": {"quantity": 3}},
    }
    assert interlock("policy", "what-if", "--json").json == found
    assert "policies" not in api.asked[-1].body
    assert interlock("policy", "what-if", "nowhere").code == 1
    assert interlock("policy", "what-if", "--arguments", "nowhere.json").code == 1


def test_a_folder_without_policies_is_not_taken_for_policies(interlock: CommandLine, api: GatewayApi, at_home: Path) -> None:
    (at_home / "empty").mkdir()
    ran = interlock("policy", "what-if", "empty")
    assert ran.code == 1 and "has no policies" in ran.err and not api.asked


@pytest.mark.parametrize(
    ("prefix", "condition", "is_held"),
    [
        ("customer/*/tier", 'context.facts.values has tier && context.facts.values.tier == "gold"', True),
        ("customer/*/tier", 'context.facts.values has status && context.facts.values.status == "vip"', False),
        ("customer/*/tier", 'context.facts.holds.contains("tier")', False),
        ("customer/*/holds", 'context.facts.holds.contains("escalation")', True),
        ("customer/*/opt-outs/mail", 'context.facts.opt_outs.contains("post")', False),
        ("customer", "context.facts.numbers has seats && context.facts.numbers.seats > 3", True),
    ],
)
def test_a_policy_that_reads_a_value_of_a_server_is_doubted(at_home: Path, prefix: str, condition: str, is_held: bool) -> None:
    prefixes = [{"prefix": prefix, "backed_by": {"server": "crm", "read": "get"}}]
    (at_home / "interlock.yaml").write_text(json.dumps({"policies": "policies", "state": {"prefixes": prefixes}}))
    (at_home / "policies" / "ours.cedar").write_text(f'@id("rich")\nforbid(principal, action, resource) when {{ {condition} }};')
    for said in (run("check")[1], CliRunner().invoke(app, ["check"]).output):
        plain = " ".join(said.replace("│", " ").split())
        assert ("are held by the server crm" in plain) is is_held, said


def test_an_evaluation_shows_the_ruling_now_and_by_a_draft(interlock: CommandLine, api: GatewayApi, at_home: Path) -> None:
    (at_home / "policies" / "ours.cedar").write_text("permit(principal, action, resource);")
    now = {"decision": True, "context": {"reason_id": "allowed", "policies": ["role:sales"], "missing": []}}
    draft = {"decision": False, "context": {"reason_id": "policy-forbids", "policies": ["no-checks"], "missing": []}}
    api.on("POST /api/policies/evaluate", {"policy_version": "1", "now": now, "draft": draft, "changed": True})
    api.on("POST /access/v1/evaluation", now)
    ran = interlock("policy", "evaluate", "tool:a.b", "--who", "bob", "--chain", "x,y", "--arguments", '{"n": 1}', "--draft", "policies")
    assert ran.code == 0 and "no-checks" in ran.out and "by the draft" in ran.out
    assert api.asked[-1].body == {
        "subject": {"type": "user", "id": "bob"},
        "action": {"name": "callTool"},
        "resource": {"type": "tool", "id": "a.b"},
        "context": {"chain": ["x", "y"], "arguments": {"n": 1}},
        "policies": {"ours.cedar": "permit(principal, action, resource);"},
        "beside_current": True,
    }
    assert interlock("policy", "evaluate", "agent:a", "--who", "bob", "--json").json == now
    assert interlock("policy", "evaluate", "nothing", "--who", "bob").code == 1
    assert interlock("policy", "evaluate", "tool:a.b", "--who", "bob", "--arguments", "{").code == 1


def test_a_replay_asks_for_older_decisions_until_there_are_enough(interlock: CommandLine, api: GatewayApi, at_home: Path) -> None:
    part = {"policy_version": "1", "summary": {"replayed": 0, "changed": 0, "unknown": 0}, "items": []}
    api.on("POST /api/policies/what-if", {**part, "next": None})
    assert interlock("policy", "what-if", "--limit", "900").code == 0
    assert api.asked[-1].body["limit"] == 200

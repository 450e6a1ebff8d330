"""Policies and keys that change while the gateway runs, as callers see it."""

import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from gateway.server.reload import RELOAD_POLL_SECONDS, PolicyReload
from policies.cedar.engine import PolicyEngine
from policies.keys.signing import SigningKeys
from policies.tables import audit_records
from tests.fakes.house import House, house
from tests.fakes.waiting import until

FORBID = (
    '@id("stop")\nforbid(principal, action == Action::"callTool", resource in Server::"inventory")\nwhen { principal.subject == "alice" };'
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "policies"
    made.mkdir()
    return made


@pytest.fixture
async def ruled(tmp_path: Path, database_url: str, folder: Path) -> AsyncIterator[House]:
    async with house(tmp_path / "home", database_url, policies=str(folder)) as built:
        await built.server("inventory", "check")
        yield built


async def outcome(home: House) -> Any:
    """`ok`, or the policies that refused alice a call."""
    answer = (await home.call(home.token("alice"), "/mcp", "inventory_check", {})).json()
    return answer["error"]["data"]["policies"] if "error" in answer else "ok"


async def readiness(home: House) -> tuple[int, str, bool]:
    answer = await home.http.get("/readyz")
    return answer.status_code, answer.json()["status"], answer.json()["checks"]["policies"]


async def test_a_new_rule_holds_within_two_seconds_and_a_deleted_one_no_longer(ruled: House, folder: Path) -> None:
    assert 3 * RELOAD_POLL_SECONDS < 2  # the second look that finds it takes it up
    assert await outcome(ruled) == "ok"
    (folder / "ours.cedar").write_text(FORBID)
    await until(lambda: differs(ruled, "ok"), every=0.05)
    assert await outcome(ruled) == ["stop"]
    (folder / "ours.cedar").unlink()
    await until(lambda: differs(ruled, ["stop"]), every=0.05)
    assert await outcome(ruled) == "ok"


async def differs(home: House, before: Any) -> bool:
    return bool(await outcome(home) != before)


async def test_a_broken_file_keeps_the_last_good_rules_and_turns_readiness_degraded(ruled: House, folder: Path) -> None:
    (folder / "ours.cedar").write_text(FORBID)
    await until(lambda: differs(ruled, "ok"), every=0.05)
    assert await readiness(ruled) == (200, "ready", True)
    (folder / "ours.cedar").write_text("permit(principal, action")
    await until(lambda: not ruled.gateway.rulings.engine.is_healthy, every=0.05)
    assert await readiness(ruled) == (200, "degraded", False)
    assert await outcome(ruled) == ["stop"]
    away = Path(shutil.move(folder, folder.with_name("away")))
    await until(lambda: "folder" in str(ruled.gateway.rulings.engine.problem), every=0.05)
    assert await outcome(ruled) == ["stop"]
    (away / "ours.cedar").unlink()
    shutil.move(away, folder)
    await until(lambda: ruled.gateway.rulings.engine.is_healthy, every=0.05)
    assert (await outcome(ruled), await readiness(ruled)) == ("ok", (200, "ready", True))


async def test_a_change_of_policies_is_in_the_audit(ruled: House, folder: Path) -> None:
    before = ruled.gateway.rulings.engine.version
    (folder / "ours.cedar").write_text(FORBID)
    await until(lambda: differs(ruled, "ok"), every=0.05)

    async def kept() -> list[Any]:
        query = select(audit_records).where(audit_records.c.kind == "policies")
        return await ruled.gateway.database.read(lambda connection: list(connection.execute(query)))

    await until(kept, every=0.05)
    (row,) = await kept()
    assert f'"before":"{before}"' in row.body
    assert f'"policy_version":"{ruled.gateway.rulings.engine.version}"' in row.body


@pytest.mark.parametrize("database_url", ["postgres"], indirect=True)  # two processes do not share a SQLite file
async def test_another_process_reloads_what_one_has_seen_without_a_second_check(
    ruled: House, tmp_path: Path, database_url: str, folder: Path
) -> None:
    async with house(tmp_path / "other", database_url, policies=str(folder)) as other:
        await other.gateway.periodic_tasks.stop()  # it never looks at anything by itself
        before = other.gateway.rulings.engine.version
        (folder / "ours.cedar").write_text(FORBID)
        await until(lambda: ruled.gateway.rulings.engine.version != before, every=0.05)
        assert other.gateway.rulings.engine.version == before

        async def caught_up() -> bool:
            await other.gateway.database.refresh_epochs()
            return other.gateway.rulings.engine.version == ruled.gateway.rulings.engine.version

        await until(caught_up, every=0.05)
        assert await outcome(other) == ["stop"]


async def test_a_file_that_is_still_being_written_is_not_read(ruled: House, folder: Path, database_url: str) -> None:
    """What is there already of it might be a whole policy, and lack the rest."""
    gateway = ruled.gateway
    engine = PolicyEngine(gateway.settings.roles, folder)
    reload = PolicyReload(gateway.database, engine, gateway.audit, gateway.rulings.authority.invalidate)
    before = engine.version
    for count in range(3):
        (folder / "ours.cedar").write_text("\n".join([FORBID, *("// and more" for _ in range(count))]))
        await reload.poll()
        assert engine.version == before
    await reload.poll()
    assert engine.version != before


async def test_after_a_rotation_tokens_are_verified_again(home: House) -> None:
    token, audiences = home.token("alice"), {home.url}
    await home.gateway.rulings.token_verifier.verify(token, audiences)
    assert home.gateway.rulings.token_verifier.find_cached(token, audiences)
    SigningKeys.open(home.gateway.settings.home).rotate()
    await until(lambda: home.gateway.rulings.token_verifier.find_cached(token, audiences) is None, every=0.05)
    assert await home.gateway.rulings.token_verifier.verify(token, audiences)  # the key before still verifies for a day


async def test_a_key_that_is_taken_away_opens_no_door_any_more(home: House) -> None:
    gateway = home.gateway
    token = home.token("alice")
    assert (await home.http.get("/api/tasks", headers={"authorization": f"Bearer {token}"})).status_code == 200
    old = gateway.keys.active_kid
    SigningKeys.open(gateway.settings.home).rotate()
    for path in (gateway.settings.home / "keys").glob(f"*{old}*"):
        path.unlink()

    async def refused() -> bool:
        return (await home.http.get("/api/tasks", headers={"authorization": f"Bearer {token}"})).status_code == 401

    await until(refused, every=0.05)
    assert old not in gateway.keys.serving_kids


LIMIT = 'forbid(principal, action == Action::"callTool", resource == Tool::"shop.buy") when { context.input.%s > 3 };'
BUY = {"type": "object", "properties": {"quantity": {"type": "integer"}}, "required": ["quantity"]}


async def test_a_file_that_names_arguments_wrongly_is_refused_beside_the_registered_tools(ruled: House, folder: Path) -> None:
    await ruled.server("shop", "buy", schema=BUY)
    engine = ruled.gateway.rulings.engine
    (folder / "ours.cedar").write_text(LIMIT % "quantty")
    await until(lambda: not engine.is_healthy, every=0.05)
    assert "did you mean 'quantity'" in str(engine.problem) and str(engine.problem).startswith("ours.cedar:1: ")
    assert await readiness(ruled) == (200, "degraded", False)
    (folder / "ours.cedar").write_text(LIMIT % "quantity")
    await until(lambda: engine.is_healthy and engine.rules.warnings == (), every=0.05)
    assert await readiness(ruled) == (200, "ready", True)


async def test_a_change_of_the_registry_makes_doubts_and_takes_no_rules_away(ruled: House, folder: Path) -> None:
    engine = ruled.gateway.rulings.engine
    (folder / "ours.cedar").write_text(LIMIT % "amount")
    await until(lambda: "shop.buy" in str(engine.rules.warnings), every=0.05)  # nobody offers it yet
    version = engine.version
    await ruled.server("shop", "buy", schema=BUY)
    await until(lambda: "'amount'" in str(engine.rules.warnings), every=0.05)
    assert (engine.version, await readiness(ruled)) == (version, (200, "ready", True))


async def test_the_log_names_a_rule_that_reads_a_value_of_a_server(
    tmp_path: Path, light_url: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prefixes = [{"prefix": "customer/*/tier", "backed_by": {"server": "crm", "read": "get"}}]
    rule = '@id("NAME")\nforbid(principal, action, resource) when { context.facts.values has tier };'
    (folder / "ours.cedar").write_text(rule.replace("NAME", "first"))
    said = ""

    def is_said(name: str) -> bool:
        nonlocal said
        said += capsys.readouterr().err
        return f"ours.cedar:1: {name}: reads context.facts.values 'tier', and values of customer/*/tier are held by" in said

    async with house(tmp_path / "home", light_url, policies=str(folder), state={"prefixes": prefixes}):
        await until(lambda: is_said("first"), every=0.05)
        (folder / "ours.cedar").write_text(rule.replace("NAME", "second"))
        await until(lambda: is_said("second"), every=0.05)
        assert said.count("policy_doubtful") >= 2

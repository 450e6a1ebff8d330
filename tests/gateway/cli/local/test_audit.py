"""audit: the trail verified, exported and watched without a running gateway."""

import asyncio
import json
import shutil
from base64 import urlsafe_b64decode
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from gateway.cli.local.audit import _format_record
from gateway.storage.database import Database, engine_for
from gateway.storage.files.data_folder import lock_home
from policies.audit.heads import HeadsFile, read_heads
from policies.audit.log import AuditLog
from policies.ids import now_us
from policies.keys.signing import SigningKeys
from tests.fakes.house import house
from tests.gateway.cli.conftest import CommandLine


def decision(number: int) -> dict[str, object]:
    return {
        "kind": "decision",
        "tenant": "default",
        "decision_id": f"d_{number}",
        "txn": "x_1",
        "task_id": "t_1",
        "grant_id": "",
        "principal": {"issuer": "i", "subject": "bob"},
        "roles": ["support"],
        "path": [{"agent": "sales", "permissions": ["tool:*"]}],
        "action": "callTool",
        "resource": "inventory.reserve",
        "permission": "tool:inventory.reserve",
        "allowed": number % 2 == 0,
        "reason_id": "allowed" if number % 2 == 0 else "user-lacks-permission",
        "policies": [],
        "missing": [],
        "arguments": "",
        "policy_version": "1",
        "trace_id": "",
    }


async def _fill(home: Path) -> None:
    database = Database(engine_for(f"sqlite:///{home / 'interlock.db'}"))
    database.start()
    audit = AuditLog("p_1", now_us)
    database.enlist(audit)
    heads = HeadsFile(home / "audit.heads", SigningKeys.open(home), now_us)
    await database.write(lambda batch: audit.begin_chain(batch.connection, batch))
    for number in range(4):
        record = decision(number)
        await database.write(lambda batch, record=record: audit.record(batch, record))  # type: ignore[misc]  # the default binds the loop's value
    await database.write(
        lambda batch: audit.record(
            batch, {"kind": "outcome", "tenant": "default", "decision_id": "d_2", "txn": "x_1", "outcome": "ok", "duration_us": 1500}
        )
    )
    heads.write_head(audit.head)
    database.close()


@pytest.fixture
def home(tmp_path: Path, sqlite_template: Path) -> Path:
    """A trail of a genesis, four decisions and an outcome, whose last head was kept."""
    home = tmp_path / "home"
    home.mkdir()
    shutil.copy(sqlite_template, home / "interlock.db")
    asyncio.run(_fill(home))
    return home


def spoil(home: Path, statement: str) -> None:
    engine = engine_for(f"sqlite:///{home / 'interlock.db'}")
    with engine.begin() as connection:
        connection.execute(text(statement))
    engine.dispose()


def test_a_sound_trail_is_said_to_be_sound(interlock: CommandLine, home: Path) -> None:
    ran = interlock("audit", "verify", "--json")
    assert ran.code == 0
    assert ran.json == {"sound": True, "records": 6, "chains": 1, "heads": 1, "cuts": 0, "unwitnessed": 0, "flaws": []}
    assert "sound" in interlock("audit", "verify").out


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit SET body = replace(body, 'bob', 'eve') WHERE seq = 3",
        "UPDATE audit SET decision_id = 'd_9' WHERE seq = 3",
        "DELETE FROM audit WHERE seq = 3",
        "DELETE FROM audit WHERE seq >= 5",
        "DELETE FROM audit",
    ],
    ids=["edit", "column", "hole", "cut", "all"],
)
def test_any_change_to_the_trail_ends_with_1(interlock: CommandLine, home: Path, statement: str) -> None:
    spoil(home, statement)
    ran = interlock("audit", "verify", "--json")
    assert (ran.code, ran.json["sound"]) == (1, False)
    assert interlock("audit", "verify").code == 1


def test_an_export_is_verified_on_its_own(interlock: CommandLine, home: Path, tmp_path: Path) -> None:
    exported = interlock("audit", "export").out
    assert len(exported.splitlines()) == 7
    assert interlock("audit", "export", "-o", "copy.jsonl").code == 0
    assert (tmp_path / "copy.jsonl").read_text() == exported
    assert interlock("audit", "verify", "copy.jsonl", "--json").json["sound"]


def test_an_export_of_several_processes_is_verified_with_public_keys_alone(
    interlock: CommandLine, tmp_path: Path, postgres_url: str
) -> None:
    interlock.environment["INTERLOCK_DATABASE__URL"] = postgres_url

    async def two() -> None:
        """Two gateways at work at once, on one database and one home."""
        async with house(tmp_path / "home", postgres_url) as first, house(tmp_path / "home", postgres_url) as second:
            await first.server("inventory", "check")
            await second.gateway.database.refresh_epochs()
            for built in (first, second, first):
                await built.call(built.token("alice"), "/mcp/inventory", "check", {})
                await built.call(built.token("nora"), "/mcp/inventory", "check", {})

    asyncio.run(two())
    assert interlock("audit", "export", "-o", "copy.jsonl").code == 0
    (tmp_path / "keys.json").write_text(interlock("keys", "export").out)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / "copy.jsonl").rename(elsewhere / "copy.jsonl")
    del interlock.environment["INTERLOCK_DATABASE__URL"]
    interlock.environment["INTERLOCK_HOME"] = str(elsewhere / "none")
    asked = ("audit", "verify", str(elsewhere / "copy.jsonl"), "--keys", str(tmp_path / "keys.json"), "--json")
    proof = interlock(*asked).json
    assert (proof["sound"], proof["chains"], proof["flaws"]) == (True, 2, []) and proof["heads"] >= 2
    assert proof["records"] >= 2 + 6 and not (elsewhere / "none").exists()
    lines = (elsewhere / "copy.jsonl").read_text().splitlines()
    chains = {record["chain"] for record in map(json.loads, lines) if "chain" in record}
    assert len(chains) == 2
    for chain in chains:
        left = [line for line in lines if json.loads(line).get("chain") != chain]
        (elsewhere / "copy.jsonl").write_text("\n".join(left) + "\n")
        assert interlock(*asked).code == 1  # one that vanishes as a whole is missed


def _flip(line: str) -> str:
    return line.replace("bob", "cob")


def _garble(line: str) -> str:
    return line[: len(line) // 2]


def _doubled(line: str) -> str:
    """Another content before the true one: who reads the first member is shown something that no hash covers."""
    record = json.loads(line)
    return '{"body": ' + json.dumps(record["body"].replace("bob", "eve")) + ", " + line[1:]


def _extended(line: str) -> str:
    return '{"note": "bob asked eve", ' + line[1:]


def _headed(line: str) -> str:
    return '{"head": "x", ' + line[1:]


CHANGES = [_flip, _garble, lambda line: "", lambda line: "[" * 100_000, lambda line: '"text"', _doubled, _extended, _headed]


# attack LOG-04, LOG-07
@pytest.mark.parametrize("change", CHANGES)
def test_one_changed_line_of_an_export_is_found(interlock: CommandLine, home: Path, tmp_path: Path, change: Callable[[str], str]) -> None:
    lines = interlock("audit", "export").out.splitlines()
    lines[2] = change(lines[2])
    (tmp_path / "copy.jsonl").write_text("\n".join(line for line in lines if line) + "\n")
    ran = interlock("audit", "verify", "copy.jsonl", "--json")
    assert (ran.code, ran.json["sound"]) == (1, False)


# attack LOG-07
@pytest.mark.parametrize("content", ["", "\n", "{}\n", "[]\n"], ids=["nothing", "an empty line", "an empty object", "an empty list"])
def test_an_emptied_export_proves_nothing(interlock: CommandLine, home: Path, tmp_path: Path, content: str) -> None:
    (tmp_path / "copy.jsonl").write_text(content)
    ran = interlock("audit", "verify", "copy.jsonl")
    assert ran.code == 1 and "is sound" not in ran.out + ran.err
    told = interlock("audit", "verify", "copy.jsonl", "--json").json
    assert (told["sound"], len(told["flaws"]) > 0) == (False, True)
    allowed = interlock("audit", "verify", "copy.jsonl", "--allow-empty", "--json")
    assert (allowed.code, allowed.json["sound"]) == ((0, True) if content == "" else (1, False))


# attack LOG-07
def test_an_export_without_its_records_is_missed_by_its_heads(interlock: CommandLine, home: Path, tmp_path: Path) -> None:
    heads = [line for line in interlock("audit", "export").out.splitlines() if line.startswith('{"head"')]
    (tmp_path / "copy.jsonl").write_text("\n".join(heads) + "\n")
    for more in ((), ("--allow-empty",)):
        ran = interlock("audit", "verify", "copy.jsonl", *more)
        assert ran.code == 1 and "the chain was cut" in ran.out


# attack LOG-07
def test_an_export_of_another_gateway_is_not_vouched_for_by_these_keys(interlock: CommandLine, home: Path, tmp_path: Path) -> None:
    assert interlock("audit", "export", "-o", "copy.jsonl").code == 0
    SigningKeys.open(tmp_path / "other")
    interlock.environment["INTERLOCK_HOME"] = str(tmp_path / "other")
    ran = interlock("audit", "verify", str(tmp_path / "copy.jsonl"))
    assert ran.code == 1 and "is not signed by a key of this gateway" in ran.out
    bare = [line for line in (tmp_path / "copy.jsonl").read_text().splitlines() if not line.startswith('{"head"')]
    (tmp_path / "bare.jsonl").write_text("\n".join(bare) + "\n")
    assert "no signed head names this chain" in interlock("audit", "verify", str(tmp_path / "bare.jsonl")).out


def test_an_export_that_is_no_text_is_found_too(interlock: CommandLine, home: Path, tmp_path: Path) -> None:
    (tmp_path / "copy.jsonl").write_bytes(interlock("audit", "export").out.encode().replace(b"bob", b"b\xffb"))
    assert interlock("audit", "verify", "copy.jsonl").code == 1


def test_heads_kept_elsewhere_find_a_cut_of_both(interlock: CommandLine, home: Path, tmp_path: Path) -> None:
    (home / "audit.heads").rename(tmp_path / "kept")
    spoil(home, "DELETE FROM audit WHERE seq >= 5")
    bare = interlock("audit", "verify")
    assert bare.code == 1 and "no signed head names this chain" in bare.out
    cut = interlock("audit", "verify", "--heads", "kept")
    assert cut.code == 1 and "the chain was cut" in cut.out
    assert interlock("audit", "verify", "--heads", "nowhere").code == 2


def test_the_tail_shows_the_last_records_oldest_first(interlock: CommandLine, home: Path) -> None:
    ran = interlock("audit", "tail", "-n", "3")
    lines = ran.out.splitlines()
    assert len(lines) == 3
    assert "allowed  d_2  bob > sales: callTool inventory.reserve" in lines[0]
    assert "refused  d_3" in lines[1]
    assert "user-lacks-permission" in lines[1]
    assert "after 1.5 ms" in lines[2]
    records = [json.loads(line) for line in interlock("audit", "tail", "--json").out.splitlines()]
    assert [record["seq"] for record in records] == [1, 2, 3, 4, 5, 6]


def test_without_a_database_it_is_said_and_none_is_made(interlock: CommandLine, tmp_path: Path) -> None:
    for arguments in (("verify",), ("export",), ("tail",)):
        ran = interlock("audit", *arguments)
        assert ran.code == 1
        assert "INTERLOCK_HOME" in ran.err
    assert not (tmp_path / "home").exists()


def test_a_file_that_is_not_there_is_wrong_usage(interlock: CommandLine, home: Path) -> None:
    assert interlock("audit", "verify", "nowhere.jsonl").code == 2


def age(home: Path) -> None:
    """A gateway of long ago wrote there too."""
    asyncio.run(_aged(home))


async def _aged(home: Path) -> None:
    database = Database(engine_for(f"sqlite:///{home / 'interlock.db'}"))
    database.start()
    audit = AuditLog("a_old", lambda: 1_000_000)
    database.enlist(audit)
    heads = HeadsFile(home / "audit.heads", SigningKeys.open(home), now_us)
    await database.write(lambda batch: audit.begin_chain(batch.connection, batch))
    for number in range(4):
        record = decision(number) | {"at": 2_000_000 + number}
        await database.write(lambda batch, record=record: audit.record(batch, record))  # type: ignore[misc]  # the default binds the loop's value
        heads.write_head(audit.head)
    database.close()


def head_in(line: str) -> dict[str, Any]:
    """What a signed line says."""
    claims: dict[str, Any] = json.loads(urlsafe_b64decode(line.split(".")[1] + "=="))
    return claims


# attack LOG-04
def test_what_is_old_can_go_and_the_rest_still_proves_itself(interlock: CommandLine, home: Path, tmp_path: Path) -> None:
    age(home)
    before = interlock("audit", "verify", "--json").json
    told = interlock("audit", "prune", "--before", "2000-01-01", "--json").json
    assert (told["removed"], told["records"]) == (False, 4)
    assert interlock("audit", "verify", "--json").json["records"] == before["records"]
    ran = interlock("audit", "prune", "--before", "2000-01-01", "--yes", "--archive", "old.jsonl")
    assert ran.code == 0 and "4 records of 1 chain removed" in ran.out
    after = interlock("audit", "verify", "--json").json
    assert (after["sound"], after["records"], after["cuts"]) == (True, before["records"] - 4 + 2, 1)
    archived = [json.loads(line) for line in (tmp_path / "old.jsonl").read_text().splitlines()]
    assert [row["seq"] for row in archived] == [1, 2, 3, 4]
    heads = [head_in(line) for line in read_heads(home / "audit.heads")]
    assert len(heads) == len({(head["chain"], "records" in head) for head in heads}) == after["chains"] + 1  # and the statement of the cut
    assert max(head["seq"] for head in heads if head["chain"] == "a_old" and "records" not in head) == 5
    told_of = json.loads(interlock("audit", "tail", "-n", "1", "--json").out)
    assert (told_of["kind"], told_of["cut"]["hash"]) == ("cut", archived[-1]["hash"])
    spoil(home, "DELETE FROM audit WHERE chain = 'a_old'")
    assert interlock("audit", "verify").code == 1


# attack LOG-04
def test_without_its_statement_a_cut_is_found(interlock: CommandLine, home: Path) -> None:
    age(home)
    assert interlock("audit", "prune", "--before", "2000-01-01", "--yes").code == 0
    heads = home / "audit.heads"
    lines = heads.read_text().splitlines()
    cuts = [line for line in lines if b"audit-cut" in urlsafe_b64decode(line.partition(".")[0] + "==")]
    assert len(cuts) == 1
    heads.write_text("".join(f"{line}\n" for line in lines if line not in cuts))
    assert interlock("audit", "verify").code == 1


WRONG = [("--before", "some day"), ("--before", "2999-01-01"), ("--before", "2000-01-01", "--archive", "there")]


@pytest.mark.parametrize("arguments", WRONG)
def test_a_prune_that_can_not_be_meant_is_refused(interlock: CommandLine, home: Path, tmp_path: Path, arguments: tuple[str, ...]) -> None:
    age(home)
    (tmp_path / "there").write_text("mine")
    assert interlock("audit", "prune", *arguments, "--yes").code == 2
    assert interlock("audit", "verify", "--json").json["cuts"] == 0
    assert (tmp_path / "there").read_text() == "mine"


def test_a_gateway_at_work_on_sqlite_is_not_pruned(interlock: CommandLine, home: Path) -> None:
    age(home)
    with lock_home(home):
        ran = interlock("audit", "prune", "--before", "2000-01-01", "--yes")
        told = interlock("audit", "prune", "--before", "2000-01-01")
    assert ran.code == 1 and "stop the gateway" in ran.err
    assert told.code == 0 and "would be removed" in told.out  # what would go may be asked at any time


def test_nothing_is_pruned_while_a_legal_hold_is_in_force(interlock: CommandLine, home: Path) -> None:
    age(home)
    spoil(home, "INSERT INTO legal_holds VALUES ('default', 'h_1', 'person', 'x', '', 'y', 1)")
    ran = interlock("audit", "prune", "--before", "2000-01-01", "--yes")
    assert ran.code == 1 and "1 legal hold in force" in ran.err and "db release" in ran.err
    spoil(home, "DELETE FROM legal_holds")
    assert interlock("audit", "prune", "--before", "2000-01-01", "--yes").code == 0


# attack LOG-04
def test_an_export_is_verified_elsewhere_with_public_keys_alone(interlock: CommandLine, home: Path, tmp_path: Path) -> None:
    assert interlock("audit", "export", "-o", "copy.jsonl").code == 0
    interlock("keys", "rotate")
    (tmp_path / "keys.json").write_text(interlock("keys", "export").out)
    shutil.rmtree(home)
    ran = interlock("audit", "verify", "copy.jsonl", "--keys", "keys.json", "--json")
    assert ran.json["sound"] and not home.exists()
    edited = (tmp_path / "copy.jsonl").read_text().replace("bob", "eve", 1)
    (tmp_path / "copy.jsonl").write_text(edited)
    assert interlock("audit", "verify", "copy.jsonl", "--keys", "keys.json").code == 1
    assert interlock("audit", "verify", "--keys", "keys.json").code == 2
    (tmp_path / "keys.json").write_text("{}")
    assert interlock("audit", "verify", "copy.jsonl", "--keys", "keys.json").code == 2


WHO = {"issuer": "https://idp.example", "subject": "carol"}


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ({"kind": "vote", "principal": WHO, "verdict": "approve", "approval": "ap_1", "reason": "fine"}, "carol: approve ap_1 fine"),
        (
            {"kind": "kill", "principal": WHO, "target": {"kind": "agent", "name": "sales"}, "reason": "it leaks"},
            "carol: agent sales it leaks",
        ),
        ({"kind": "registry", "principal": WHO, "verb": "register", "family": "server", "name": "crm"}, "carol: register server crm"),
        ({"kind": "exchange", "agent": "sales", "allowed": False, "error": "invalid_grant"}, "sales invalid_grant"),
        ({"kind": "limited", "principal": WHO, "limit": "Too fast.", "reason": "TooFast", "count": 3}, "carol: Too fast. TooFast 3"),
        ({"kind": "genesis", "before": []}, "chain p_9, record 7"),
    ],
)
def test_the_tail_says_in_a_line_what_people_and_agents_did(record: dict[str, Any], said: str) -> None:
    line = _format_record({"chain": "p_9", "seq": 7, "at": now_us(), "tenant": "default", "decision_id": "", "txn": "", **record})
    assert line.split(maxsplit=2)[2].removeprefix(record["kind"]).strip() == said

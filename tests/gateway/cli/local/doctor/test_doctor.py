"""What the doctor finds on a machine, in a home, in settings and in the database, and how it says so."""

import os
import re
import shutil
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from sqlalchemy import create_engine, text

from gateway.cli.local.doctor import database, machine, peers
from gateway.cli.local.doctor.kinds import KINDS, SEVERITIES, DoctorFinding
from gateway.cli.local.doctor.waiting import check_waiting
from gateway.cli.local.installation import load_settings
from gateway.server.settings import Settings
from gateway.telemetry.backlog import OpenWork, Waiting
from policies.keys.signing import SigningKeys
from tests.fakes.ports import free_port
from tests.fakes.waiting import until
from tests.gateway.cli.conftest import CommandLine
from tests.house.source import ROOT, product

DAY = 86_400


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Settings]:
    """Builds settings of a home with keys, from an interlock.yaml."""
    monkeypatch.chdir(tmp_path)

    def build(yaml: str = "", database_url: str = "") -> Settings:
        SigningKeys.open(tmp_path / "home")
        located = f"database: {{url: '{database_url}'}}\n" if database_url else ""
        (tmp_path / "interlock.yaml").write_text(f"home: {tmp_path / 'home'}\n{located}{yaml}")
        return load_settings(None)

    return build


def ids(findings: object) -> list[str]:
    return [finding.id for finding in findings]  # type: ignore[attr-defined]  # an iterator of findings


def test_each_finding_is_in_the_guide_with_its_severity_and_no_other() -> None:
    rows = re.findall(r"^\| `([a-z-]+\.[a-z-]+)` \| (\w+) \| (.*) \| (.*) \|$", (ROOT / "docs" / "doctor.md").read_text(), re.MULTILINE)
    assert {row[0]: row[1:] for row in rows} == {id_: (kind.severity, kind.meaning, kind.todo) for id_, kind in KINDS.items()}


def test_each_finding_is_made_somewhere_and_each_that_is_made_is_known() -> None:
    folder = [source.text for source in product() if source.path.startswith("gateway/cli/local/doctor/") and "kinds" not in source.path]
    made = set(re.findall(r'"([a-z]+(?:-[a-z]+)*\.[a-z-]+)"', "\n".join(folder)))
    assert set(KINDS) <= made
    assert {name for name in made if not name.endswith((".json", ".txt", ".jsonl"))} - {"sign-in.providers"} <= set(KINDS)


def test_each_finding_has_a_test() -> None:
    tests = "\n".join(path.read_text() for path in sorted(Path(__file__).parent.glob("test_*.py")))
    assert [id_ for id_ in KINDS if f'"{id_}"' not in tests] == []


def test_each_command_that_mends_a_finding_exists() -> None:
    known = re.findall(r"^\| `(interlock [^`]+)`", (ROOT / "docs" / "command-line.md").read_text(), re.MULTILINE)
    told = [each.strip() for kind in KINDS.values() for each in kind.todo.split(";") if each.strip().startswith("interlock ")]
    assert len(told) > 10 and [each for each in told if not each.startswith(tuple(known))] == []


def test_a_fresh_folder_has_no_problem(interlock: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = interlock("doctor", "--json")
    assert (ran.code, ran.json["ok"], ran.json["problems"]) == (0, True, 0)
    assert "gateway.not-running" in [each["id"] for each in ran.json["findings"]]


def test_problems_come_first_and_end_the_command_with_1(interlock: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "interlock.yaml").write_text(f"port: {free_port()}\nroles: {{sales: [tools]}}\ntelemetry: {{log_level: debug}}\n")
    ran = interlock("doctor", "--json")
    assert ran.code == 1 and not ran.json["ok"]
    severities = [SEVERITIES.index(each["severity"]) for each in ran.json["findings"]]
    assert severities == sorted(severities)
    found = {each["id"]: each for each in ran.json["findings"]}
    assert "roles.sales" in found["settings.invalid"]["found"] and "settings.debug-log" in found


def test_settings_that_can_not_be_read_are_one_finding(interlock: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "interlock.yaml").write_text("server: {drian: 5}\n")
    ran = interlock("doctor", "--json")
    assert ran.code == 1 and [each["id"] for each in ran.json["findings"]] == ["settings.invalid"]


def test_people_get_a_table_with_what_to_do(interlock: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "interlock.yaml").write_text("telemetry: {log_level: debug}\n")
    ran = interlock("doctor")
    assert ran.code == 0 and "settings.debug-log" in ran.out and "telemetry.log_level: info" in " ".join(ran.out.split())


def test_a_disk_without_space_is_a_problem(settings: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch) -> None:
    for free, expected in ((1 << 20, ["disk.full"]), (1 << 30, ["disk.low"]), (400 << 30, [])):
        monkeypatch.setattr(shutil, "disk_usage", lambda _, free=free: shutil._ntuple_diskusage(500 << 30, (500 << 30) - free, free))  # type: ignore[attr-defined]  # its own type
        assert ids(machine.check_disk(settings())) == expected


class SlowDisk:
    """Stands for a disk and a clock: each write takes the next of `seconds` to be durable."""

    def __init__(self, seconds: list[float]) -> None:
        self.written: list[int] = []
        self._seconds = iter(seconds)
        self._now = 0.0

    def fsync(self, descriptor: int) -> None:
        self.written.append(os.fstat(descriptor).st_size)
        self._now += next(self._seconds)

    def perf_counter(self) -> float:
        return self._now


@pytest.mark.parametrize(("slow", "expected"), [(machine.SYNCS // 2, []), (machine.SYNCS // 2 + 1, ["disk.slow"])])
def test_a_disk_is_slow_when_most_writes_are(
    slow: int, expected: list[str], settings: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    disk, made = SlowDisk([0.05] * slow + [0.001] * (machine.SYNCS - slow)), settings()
    monkeypatch.setattr(machine, "os", disk)
    monkeypatch.setattr(machine, "time", disk)
    found = list(machine.check_sync_time(made))
    assert ids(found) == expected and [each.detail for each in found if "takes 50 ms" not in each.detail] == []
    assert disk.written == [4096 * number for number in range(1, machine.SYNCS + 1)]


def test_a_disk_is_measured_where_the_home_is_and_nothing_stays(
    settings: Callable[..., Settings], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "SLOW_SYNC_SECONDS", -1.0)
    made, home = settings(), tmp_path / "home"
    before = sorted(home.rglob("*"))
    (found,) = machine.check_sync_time(made)
    assert found.detail.endswith(f" ms to be durable in {home}") and sorted(home.rglob("*")) == before
    shutil.rmtree(home)
    assert ids(machine.check_sync_time(made)) == []


def test_keys_that_others_can_read_are_a_problem(settings: Callable[..., Settings], tmp_path: Path) -> None:
    made = settings()
    assert ids(machine.check_keys(made)) == []
    next((tmp_path / "home" / "keys").glob("*.json")).chmod(0o644)
    assert ids(machine.check_keys(made)) == ["keys.readable"]


def test_a_key_of_more_than_a_year_is_old(settings: Callable[..., Settings], tmp_path: Path) -> None:
    SigningKeys.open(tmp_path / "home", lambda: time.time() - 400 * DAY)
    assert ids(machine.check_keys(settings())) == ["keys.old"]


def test_more_calls_than_files_are_told(settings: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("resource.getrlimit", lambda _: (256, 1024))
    (found,) = machine.check_open_files(settings())
    assert found.id == "files.few" and "1024 open files allow 224 calls" in found.detail


def test_a_large_write_ahead_log_is_told(settings: Callable[..., Settings], light_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made = settings(database_url=light_url)
    assert ids(database.check_database(made)) == []
    monkeypatch.setattr(database, "WAL_BYTES", -1)
    with sqlite3.connect(light_url.removeprefix("sqlite:///")) as held:  # keeps the log in place
        held.execute("SELECT COUNT(*) FROM tasks").fetchall()
        assert ids(database.check_database(made)) == ["database.wal-large"]


TASK = (
    "INSERT INTO tasks (tenant, id, owner, context_id, agent, state, parent_id, txn, decision_id, grant_id, runner, last_seq, vendor_ref,"
    " request_digest, created, updated) VALUES ('default', :id, 'o', '', 'sales', :state, '', '', '', '', :runner, 1, '{}', '', :at, :at)"
)


def add_tasks(database_url: str, count: int, state: str, at: float, runner: str = "") -> None:
    engine = create_engine(database_url.replace("postgresql://", "postgresql+psycopg://"))
    rows = [{"id": f"t{number}", "state": state, "runner": runner, "at": int(at * 1e6)} for number in range(count)]
    with engine.begin() as connection:
        connection.execute(text(TASK), rows)
    engine.dispose()


def test_a_disk_that_is_full_within_a_month_is_told(
    settings: Callable[..., Settings], light_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_tasks(light_url, database.FEW_TASKS, "TASK_STATE_COMPLETED", time.time())
    made = settings(database_url=light_url)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**7, 10**7 - 10**6, 10**6))  # type: ignore[attr-defined]  # its own type
    assert ids(database.check_database(made)) == ["database.fills-disk"]


def test_what_people_have_not_answered_is_told_after_a_while(settings: Callable[..., Settings], database_url: str) -> None:
    add_tasks(database_url, 3, "TASK_STATE_INPUT_REQUIRED", time.time() - 3 * 3600)
    made = settings(database_url=database_url)
    assert ids(check_waiting(made, 24)) == []
    (found,) = check_waiting(made, 2)
    assert found.id == "tasks.waiting" and found.detail == "3 tasks (input-required), the oldest for 3 hours"


def test_questions_that_nobody_answers_and_runs_that_wait_are_told(
    settings: Callable[..., Settings], light_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, work = settings(database_url=light_url), OpenWork(unanswered={"approval": Waiting(2, 5 * 3600)}, queued_runs=3)
    monkeypatch.setattr("gateway.telemetry.backlog.read_backlog", lambda *_: work)
    questions, runs = check_waiting(made, 2)
    assert (questions.id, questions.detail) == ("questions.unanswered", "2 questions (approval), the oldest for 5 hours")
    assert (runs.id, runs.detail) == ("runs.queued", "3 runs")
    assert ids(check_waiting(made, 24)) == ["runs.queued"]


def test_tasks_of_processes_that_are_gone_are_told(settings: Callable[..., Settings], database_url: str) -> None:
    add_tasks(database_url, 2, "TASK_STATE_WORKING", time.time(), runner="p_gone")
    assert ids(check_waiting(settings(database_url=database_url), 24)) == ["tasks.lost"]


def test_failing_and_quarantined_entries_and_dead_letters_are_told(settings: Callable[..., Settings], database_url: str) -> None:
    engine = create_engine(database_url.replace("postgresql://", "postgresql+psycopg://"))
    columns = "kind, url, owner, card, card_hash, ceiling, delegation, upstream, facts, client_secret_hash, client_jwks"
    with engine.begin() as connection:
        for name, status in (("a", "active"), ("b", "quarantined"), ("c", "pending")):
            connection.execute(
                text(
                    f"INSERT INTO registrations (tenant, name, family, status, client_id, created, updated, {columns})"
                    f" VALUES ('default', '{name}', 'agent', '{status}', '{name}', 1, 1{', :x' * 11})"
                ),
                {"x": ""},
            )
        connection.execute(
            text(
                "INSERT INTO probes (tenant, name, checked, next_at, failures, note, place, etag, last_modified, hash)"
                " VALUES ('default', 'a', 1, 1, 3, 'x', '', '', '', '')"
            )
        )
        connection.execute(
            text(
                "INSERT INTO event_deliveries"
                " (tenant, id, webhook, subject, event_id, event, attempts, next_at, state, reason, created, updated) VALUES"
                " ('default', 'd1', 'w', '', 'e', '{}', 9, 1, 'dead', '', 1, 1),"
                " ('default', 'd2', 'w', '', 'e', '{}', 1, 1, 'pending', '', 1, 1)"
            )
        )
    engine.dispose()
    found = ids(check_waiting(settings(database_url=database_url), 24))
    assert found == ["entries.failing", "entries.quarantined", "entries.pending", "deliveries.dead", "deliveries.failing"]


def test_a_long_transaction_is_named_with_its_process(
    settings: Callable[..., Settings], postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = settings(database_url=postgres_url)
    assert ids(database.check_database(made)) == []
    engine = create_engine(postgres_url.replace("postgresql://", "postgresql+psycopg://"), connect_args={"application_name": "report"})
    monkeypatch.setattr(database, "TRANSACTION_SECONDS", -1)
    with engine.connect() as connection:
        pid = connection.execute(text("SELECT pg_backend_pid()")).scalar_one()
        (found,) = database.check_database(made)
    engine.dispose()
    assert found.id == "database.long-transaction" and found.detail.startswith(f"report (PID {pid})") and f"({pid})" in found.todo


@pytest.mark.parametrize("setting", ["autovacuum", "track_counts"])
async def test_autovacuum_that_is_off_is_told_until_its_remedy_is_run(
    setting: str, settings: Callable[..., Settings], postgres_url: str
) -> None:
    made = settings(database_url=postgres_url)
    engine = create_engine(postgres_url.replace("postgresql://", "postgresql+psycopg://"), isolation_level="AUTOCOMMIT")

    def run(statements: str) -> None:
        with engine.connect() as connection:
            for statement in statements.split("; "):
                connection.execute(text(statement))

    try:
        run(f"ALTER SYSTEM SET {setting} = off; SELECT pg_reload_conf()")
        await until(lambda: ids(database.check_database(made)) != [])  # the server reads its settings a moment later
        (found,) = database.check_database(made)
        assert (found.id, found.detail) == ("database.autovacuum-off", f"{setting} is off")
        run(found.todo)
        await until(lambda: ids(database.check_database(made)) == [])
    finally:
        run(f"ALTER SYSTEM RESET {setting}; SELECT pg_reload_conf()")
        engine.dispose()


def test_a_clock_that_differs_and_few_connections_are_told(
    settings: Callable[..., Settings], postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "SKEW_SECONDS", -1.0)
    monkeypatch.setattr(database, "CONNECTIONS_SHARE", 0.0)
    assert ids(database.check_database(settings(database_url=postgres_url))) == ["clock.skewed", "database.connections"]


def test_tables_with_dead_rows_or_without_statistics_are_told() -> None:
    def table(name: str, live: int, dead: int, **more: object) -> SimpleNamespace:
        return SimpleNamespace(**{"relname": name, "n_live_tup": live, "n_dead_tup": dead, "is_unknown": False, "reltuples": live, **more})

    new = table("new", 20_000, 0, is_unknown=True, reltuples=-1)
    tables = [table("tasks", 30_000, 20_000), table("small", 10, 900), new, table("large", 10**6, 20_000)]
    dead, unknown = database.judge_tables(tables)
    assert (dead.id, dead.todo) == ("database.dead-rows", "VACUUM (ANALYZE) tasks")
    assert (unknown.id, unknown.todo) == ("database.no-statistics", "ANALYZE new")


def test_a_check_that_can_not_be_made_is_a_finding(interlock: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: object) -> list[DoctorFinding]:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(machine, "CHECKS", (refuse,))
    found = {each["id"]: each for each in interlock("doctor", "--json").json["findings"]}
    assert "Permission denied" in found["doctor.incomplete"]["found"]


def test_certificates_are_read_only_of_hosts_that_the_gateway_may_call(settings: Callable[..., Settings]) -> None:
    """Members choose the addresses of their agents; a look at the certificate is a connection."""
    urls = [
        "https://169.254.169.254/a",
        "https://10.1.2.3:8443",
        "grpcs://10.1.2.3:8443",
        "https://1.1.1.1:22",
        "https://user@1.1.1.1",
        "x",
    ]
    assert peers.find_vetted_peers(settings(), urls) == [("1.1.1.1", 443, "1.1.1.1")]
    allowed = settings("egress: {allow: ['10.0.0.0/8']}")
    assert peers.find_vetted_peers(allowed, urls) == [("10.1.2.3", 8443, "10.1.2.3"), ("1.1.1.1", 443, "1.1.1.1")]


@pytest.mark.parametrize(("days", "expected"), [(90, []), (20, ["certificates.ending"])])
def test_a_certificate_near_its_end_is_told(days: int, expected: list[str]) -> None:
    assert ids(peers.judge_certificate("a.example:443", 1000 + days * DAY, 1000)) == expected

"""The support bundle: what is in it, and that planted secrets and texts of people and agents are not."""

import json
import stat
import zipfile
from pathlib import Path
from urllib.parse import quote, unquote

import pytest

from gateway.cli.local.doctor.bundle import find_secrets, hide_secrets, read_log, write_bundle
from gateway.cli.local.doctor.kinds import DoctorFinding
from gateway.cli.local.doctor.running import Running
from tests.fakes.house import CallbackAgent, House
from tests.fakes.ports import free_port
from tests.gateway.cli.conftest import CommandLine

PLANTED = {
    "variable": "planted-of-a-variable-1",
    "token": "planted-of-the-session-2",
    "file": "planted-in-a-file-3",
    "setting": "planted-in-a-setting-4",
    "password": "planted-password-5",
    "message": "planted-in-a-message-6",
    "argument": "planted-in-an-argument-7",
    "log": "planted-in-the-log-8",
    "named": "planted-by-an-upstream-9",
}
JWT = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJhbGljZSJ9.c2lnbmVkLWJ5LW5vYm9keQ"


def read_bundle(path: Path) -> dict[str, str]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name).decode() for name in archive.namelist()}


@pytest.fixture
def planted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A configuration, an environment and a log that are full of secrets."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CRM_KEY", PLANTED["variable"])
    monkeypatch.setenv("INTERLOCK_TOKEN", PLANTED["token"])
    (tmp_path / "secret").write_text(PLANTED["file"])
    (tmp_path / "interlock.yaml").write_text(
        f"""home: {tmp_path / "home"}
database: {{url: 'postgresql://me:{PLANTED["password"]}@127.0.0.1:1/interlock', wait: 0}}
telemetry: {{metrics_token: 'file:{tmp_path / "secret"}'}}
agents:
  - {{name: crm, url: "http://127.0.0.1:1", upstream: {{headers: {{Authorization: "env:CRM_KEY"}}, account: service}}}}
  - {{name: erp, url: "http://127.0.0.1:1", upstream: {{headers: {{Authorization: "{PLANTED["setting"]}"}}, account: service}}}}
"""
    )
    lines = [
        {
            "at": "2026-11-23T10:00:00Z",
            "level": "warning",
            "event": "event_loop_blocked",
            "seconds": 0.8,
            "where": "a/b.py:1 f < c/d.py:2 g",
        },
        {"at": "2026-11-23T10:00:01Z", "level": "warning", "event": "upstream_failed", "problem": PLANTED["named"], "agent": "crm"},
        {"event": "request_failed", "exception": {"error": "ValueError", "message": PLANTED["log"], "where": "x.py:1 f"}},
        {"event": f"token {JWT}"},
        {"logger": "library", "event": PLANTED["log"]},
    ]
    (tmp_path / "log").write_text("\n".join(json.dumps(line) for line in lines) + f"\nplain text {PLANTED['log']}\n")
    return tmp_path


def test_no_planted_secret_is_in_the_bundle(interlock: CommandLine, planted: Path) -> None:
    interlock.environment["INTERLOCK_TOKEN"] = PLANTED["token"]
    ran = interlock("doctor", "--bundle", "support.zip", "--log", "log", "--json")
    assert ran.json["bundle"] == "support.zip"
    whole = "\n".join(read_bundle(planted / "support.zip").values())
    assert [where for where, secret in PLANTED.items() if secret in whole] == []
    assert JWT not in whole
    assert "event_loop_blocked" in whole and "crm" in whole


def test_a_secret_in_any_part_is_hidden(planted: Path) -> None:
    told = " ".join([*PLANTED.values(), JWT])
    findings = [DoctorFinding("settings.unwise", f"{PLANTED['variable']} {PLANTED['file']} {PLANTED['setting']} {JWT}", PLANTED["token"])]
    running = Running("http://gateway", {}, f'interlock_kills{{name="{PLANTED["variable"]} {JWT}"}} 1\n')
    write_bundle(planted / "b.zip", None, findings, running, None)
    whole = "\n".join(read_bundle(planted / "b.zip").values())
    assert [secret for secret in told.split() if secret in whole] == []
    assert "[hidden]" in whole


@pytest.mark.parametrize("secret", ['quo"ted-pass', "back\\slash-pass", "fünf-Wörter", "p%40ss%2Fword", "two\nlines-of-a-key"])
def test_a_secret_is_hidden_however_it_is_written(secret: str) -> None:
    plain = unquote(secret)
    forms = [secret, plain, json.dumps(secret), json.dumps(plain), json.dumps(plain, ensure_ascii=False), quote(plain, safe="")]
    hidden = hide_secrets(" ".join(forms), frozenset({secret}))
    assert hidden.replace('"', "").split() == ["[hidden]"] * len(forms)


def test_the_bundle_names_versions_settings_tables_and_slow_places(interlock: CommandLine, tmp_path: Path) -> None:
    interlock("migrate")
    (tmp_path / "log").write_text('{"event": "event_loop_blocked", "seconds": 0.5, "where": "a.py:1 f < b.py:2 g"}\n' * 2)
    assert interlock("doctor", "--bundle", "b.zip", "--log", "log").code == 0
    parts = read_bundle(tmp_path / "b.zip")
    assert all(name in parts["README.txt"] for name in parts if name != "README.txt")
    assert json.loads(parts["versions.json"])["packages"]["sqlalchemy"]
    database = json.loads(parts["database.json"])
    assert database["migration"] == database["expected"] and database["tables"]["tasks"] == 0
    assert {each["name"]: each["value"] for each in json.loads(parts["settings.json"])}["port"] == 8080
    assert json.loads(parts["slow.json"]) == [{"where": "a.py:1 f", "times": 2, "seconds": 1.0}]
    assert stat.S_IMODE((tmp_path / "b.zip").stat().st_mode) == 0o600


def test_metrics_that_were_not_read_are_told_with_the_reason(interlock: CommandLine, tmp_path: Path) -> None:
    interlock.environment["INTERLOCK_URL"] = f"http://127.0.0.1:{free_port()}"
    interlock("doctor", "--bundle", "b.zip")
    assert read_bundle(tmp_path / "b.zip")["metrics.txt"].startswith("# not read: nothing answers at http://127.0.0.1:")
    write_bundle(tmp_path / "c.zip", None, [], Running("http://gateway", {}, problem="no token for /metrics"), None)
    assert read_bundle(tmp_path / "c.zip")["metrics.txt"] == "# not read: no token for /metrics\n"


def test_a_file_that_exists_is_not_overwritten(interlock: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "b.zip").write_text("mine")
    ran = interlock("doctor", "--bundle", "b.zip")
    assert ran.code == 1 and "b.zip can't be written" in ran.err and (tmp_path / "b.zip").read_text() == "mine"


def test_only_the_end_of_a_long_log_is_read(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("".join(f'{{"event": "e{number}"}}\n' for number in range(300_000)))
    lines = read_log(tmp_path / "log")
    assert len(lines) == 2000 and lines[-1] == {"event": "e299999"}


def test_short_values_and_references_are_not_taken_for_secrets() -> None:
    secrets = find_secrets({"MY_TOKEN": "abc", "API_KEY": "env:OTHER", "DB_PASSWORD": "long-enough"}, None)
    assert secrets == {"long-enough"}
    assert hide_secrets("abc long-enough", secrets) == "abc [hidden]"


async def test_no_text_of_a_person_or_an_agent_is_in_the_bundle(
    home: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, database_url: str
) -> None:
    agent = CallbackAgent("sales")
    await home.agent(agent)
    await home.server("inventory", "check")
    await home.send(home.token("alice"), "sales", PLANTED["message"])
    await home.call(home.token("alice"), "/mcp/inventory", "check", {"sku": PLANTED["argument"]})
    (tmp_path / "interlock.yaml").write_text(f"home: {home.gateway.settings.home}\ndatabase: {{url: '{database_url}'}}\n")
    running = Running("http://gateway", {}, home.gateway.metrics.render().decode())
    write_bundle(tmp_path / "b.zip", tmp_path / "interlock.yaml", [], running, None)
    parts = read_bundle(tmp_path / "b.zip")
    whole = "\n".join(parts.values())
    assert PLANTED["message"] not in whole and PLANTED["argument"] not in whole
    assert "sales" in parts["metrics.txt"] and "tasks" in json.loads(parts["database.json"])["tables"]

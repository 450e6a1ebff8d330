"""What /api/settings shows: where values came from, and no secrets."""

from pathlib import Path

import pytest

from adapters.version import describe_version
from gateway.server.sections.in_force import describe_settings, mask_secrets
from gateway.server.settings_sources import load_settings
from tests.fakes.house import House
from tests.fakes.reception import Reception

SECRETS = ("hunter2", "s3cret-path", "abc123")


def test_each_value_says_where_it_came_from_and_no_secret_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tmp_path / "interlock.yaml"
    config.write_text(
        """
database: {url: 'postgresql://me:hunter2@db.example/x?password=hunter2'}
notify: ['https://hooks.example/s3cret-path']
telemetry: {metrics_token: 'env:METRICS'}
agents: [{name: sales, url: 'https://sales.example/s3cret-path', upstream: {headers: {x-key: abc123}}}]
limits: {calls: 77}
"""
    )
    monkeypatch.setenv("INTERLOCK_LIMITS__TOOL_TIMEOUT", "9")
    found = {each["name"]: (each["value"], each["source"]) for each in describe_settings(load_settings(config))}
    assert found["limits.calls"] == (77, "file")
    assert found["limits.tool_timeout"] == (9.0, "environment")
    assert found["limits.queue_seconds"] == (10.0, "default")
    assert found["database.url"] == ("postgresql://db.example/…", "file")
    assert found["notify"] == (["https://hooks.example/…"], "file")
    assert found["telemetry.metrics_token"] == ("env:METRICS", "file")
    assert found["agents"] == (["sales"], "file")
    assert not any(secret in str(found) for secret in SECRETS)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me:hunter2@/interlock?host=/run/postgresql",
        "postgresql://me:hunter2@:5432/interlock",
        "postgresql://:hunter2@/interlock",
        "postgresql://me:hunter2@a.example:5432,b.example:5433/interlock",
        "postgresql://me:12/hunter2@db.example/interlock",
        "sqlite:///interlock.db?password=hunter2",
    ],
)
def test_no_form_of_an_address_shows_its_password(url: str) -> None:
    assert "hunter2" not in mask_secrets("url", url) and "12" not in mask_secrets("url", url)


def test_the_path_of_a_local_database_is_shown() -> None:
    assert mask_secrets("url", "sqlite:////var/lib/interlock/interlock.db") == "sqlite:////var/lib/interlock/interlock.db"


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_readers_of_another_tenant_see_no_names_and_no_addresses(home: House) -> None:
    desk = Reception(home)
    ours, theirs = [(await desk.ask("GET", "/api/settings", tenant=tenant)).json()["items"] for tenant in ("default", "other")]
    assert [each["name"] for each in ours] == [each["name"] for each in theirs]
    by_name = {each["name"]: each["value"] for each in theirs}
    assert (by_name["users"], by_name["limits.queue_seconds"]) == ("(3 entries)", 10.0)
    assert "alice" in str(ours) and "alice" not in str(theirs)
    assert home.url in str(ours) and home.url not in str(theirs)


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_settings_are_for_readers_of_the_audit(home: House) -> None:
    desk = Reception(home)
    assert (await desk.ask("GET", "/api/settings", "alice")).status_code == 403
    document = (await desk.ask("GET", "/api/settings")).json()
    items = document["items"]
    assert document["version"] == describe_version()
    assert {"name": "home", "value": str(home.gateway.settings.home), "source": "file"} in items


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_the_audit_is_exported_whole_and_as_filtered(home: House) -> None:
    desk = Reception(home)
    for _ in range(3):
        await desk.ask("GET", "/api/settings")
    exported = await desk.ask("GET", "/api/audit/export?kind=decision&limit=1")
    assert exported.headers["content-type"].startswith("application/x-ndjson")
    assert exported.text.count('"read-settings"') == 3 and '"kind":"genesis"' not in exported.text
    assert (await desk.ask("GET", "/api/audit/export", "alice")).status_code == 403


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_an_export_that_can_not_begin_is_refused(home: House) -> None:
    answer = await Reception(home).ask("GET", "/api/audit/export?cursor=never")
    assert (answer.status_code, answer.json()["reason_id"]) == (400, "bad-cursor")

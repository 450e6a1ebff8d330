"""What the doctor reads in a running gateway's answers, and whom it finds at its address."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from adapters.version import VERSION
from gateway.cli.local.doctor.peers import check_issuers, check_public_address
from gateway.cli.local.doctor.running import Running, ask_gateway, judge_running, local_url
from gateway.server.settings import Settings
from policies.keys.signing import SigningKeys
from tests.fakes.house import House
from tests.fakes.ports import free_port

READY = {"status": "ready", "checks": {"serving": True, "database": True, "policies": True}}


def ids(findings: Iterator[object]) -> list[str]:
    return [finding.id for finding in findings]  # type: ignore[attr-defined]  # findings


def judged(*lines: str) -> list[str]:
    return ids(judge_running(Running("http://gateway", READY, "\n".join(lines) + "\n")))


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["interlock_event_loop_blocked_seconds_count 2.0", "interlock_event_loop_blocked_seconds_sum 1.5"], "gateway.loop-blocked"),
        (["interlock_event_loop_lag_seconds_count 100.0", "interlock_event_loop_lag_seconds_sum 9.0"], "gateway.loop-slow"),
        (["interlock_writer_wait_seconds_count 100.0", "interlock_writer_wait_seconds_sum 20.0"], "gateway.writer-slow"),
        (["interlock_call_slots 10.0", "interlock_call_slots_used 9.0"], "gateway.slots-used"),
        (["interlock_call_slots 10.0", "interlock_calls_waiting 1.0"], "gateway.slots-used"),
        (["interlock_open_files 95.0", "interlock_open_files_max 100.0"], "gateway.files-used"),
        (["interlock_servers_ejected 1.0"], "gateway.breakers-open"),
        (["interlock_kills 1.0"], "gateway.kills"),
        (['interlock_build_info{version="0.0.1",commit="' + "a" * 40 + '"} 1.0'], "gateway.other-version"),
    ],
)
def test_what_the_metrics_of_a_gateway_show_is_told(lines: list[str], expected: str) -> None:
    assert judged(*lines) == [expected]


def test_a_healthy_gateway_has_no_finding() -> None:
    assert judged("interlock_call_slots 10.0", "interlock_call_slots_used 1.0", f'interlock_build_info{{version="{VERSION}"}} 1.0') == []


@pytest.mark.parametrize(("status", "expected"), [("not ready", "gateway.not-ready"), ("degraded", "gateway.degraded")])
def test_a_gateway_that_is_not_ready_is_told_with_the_check(status: str, expected: str) -> None:
    checks = {"serving": True, "database": False}
    first, *_ = judge_running(Running("http://gateway", {"status": status, "checks": checks}, "interlock_kills 0.0\n"))
    assert first.id == expected and "database at http://gateway/readyz" in first.detail


async def test_a_running_gateway_is_asked_with_its_metrics_token(open_home: House, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = open_home.gateway.settings
    monkeypatch.setenv("INTERLOCK_URL", settings.public_url)
    monkeypatch.setenv("INTERLOCK_TOKEN", open_home.token("admin"))
    running = await asyncio.to_thread(ask_gateway, settings)
    assert running.readiness is not None and running.problem == ""
    assert "interlock_build_info" in running.metrics
    names = {line.partition("{")[0].partition(" ")[0] for line in running.metrics.splitlines() if not line.startswith("#")}
    read = ("call_slots", "call_slots_used", "calls_waiting", "open_files", "open_files_max", "agents_ejected", "servers_ejected", "kills")
    durations = [f"{name}_seconds_{part}" for name in ("event_loop_blocked", "event_loop_lag", "writer_wait") for part in ("sum", "count")]
    assert {f"interlock_{name}" for name in (*read, *durations)} <= names
    assert await asyncio.to_thread(lambda: ids(check_public_address(settings, is_running=True))) == []


async def test_metrics_that_may_not_be_read_are_told(open_home: House, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = open_home.gateway.settings
    monkeypatch.setenv("INTERLOCK_URL", settings.public_url)
    monkeypatch.setenv("INTERLOCK_TOKEN", "not-a-token")
    running = await asyncio.to_thread(ask_gateway, settings)
    assert ids(judge_running(running))[-1] == "gateway.metrics-unread"


@pytest.mark.parametrize("kind", ["with keys of its own", "never started"])
async def test_a_gateway_of_another_home_at_the_address_is_told(
    open_home: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    if kind == "with keys of its own":
        SigningKeys.open(tmp_path / "other")
    monkeypatch.setenv("INTERLOCK_URL", open_home.gateway.settings.public_url)
    running = await asyncio.to_thread(ask_gateway, Settings(home=tmp_path / "other"))
    (found,) = judge_running(running)
    assert found.id == "gateway.other-home" and str(tmp_path / "other" / "keys") in found.detail
    assert (tmp_path / "other").exists() is (kind == "with keys of its own")


def test_another_program_or_none_at_the_address_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("INTERLOCK_URL", raising=False)
    settings = Settings(port=free_port())
    running = ask_gateway(settings)
    assert ids(judge_running(running)) == ["gateway.not-running"] and local_url(settings) in running.problem


def test_an_address_of_nobody_is_told() -> None:
    settings = Settings.model_validate({"server": {"public_url": f"http://127.0.0.1:{free_port()}"}})
    assert ids(check_public_address(settings, is_running=True)) == ["settings.public-url"]
    assert ids(check_public_address(settings, is_running=False)) == []


def test_an_issuer_that_does_not_answer_is_told() -> None:
    issuer = {"issuer": "https://idp.example", "jwks_url": f"http://127.0.0.1:{free_port()}/jwks"}
    settings = Settings.model_validate({"identity": {"issuers": [issuer]}, "egress": {"allow": ["127.0.0.0/8"]}})
    assert ids(check_issuers(settings)) == ["issuers.unreachable"]
    refused = Settings.model_validate({"identity": {"issuers": [issuer]}, "egress": {"allow": []}})
    (found,) = check_issuers(refused)
    assert found.id == "issuers.unreachable" and "egress.allow" in found.todo

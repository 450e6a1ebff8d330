"""What `interlock check` verifies is found by the doctor under ids of its own."""

from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.cli.local import check
from gateway.cli.local.check import Finding
from gateway.cli.local.doctor.configuration import check_as_installed, check_proxies
from gateway.server.settings import Settings
from policies.keys.signing import SigningKeys
from tests.fakes.ports import free_port


def break_home(folder: Path) -> str:
    (folder / "home").write_text("a file")
    return ""


def break_key(folder: Path) -> str:
    SigningKeys.open(folder / "home")
    next((folder / "home" / "keys").glob("*.json")).write_text("{}")
    return ""


def break_policy(folder: Path) -> str:
    (folder / "policies").mkdir()
    (folder / "policies" / "own.cedar").write_text("permit(prin")
    return f"policies: {folder / 'policies'}"


def write_useless_policy(folder: Path) -> str:
    (folder / "policies").mkdir()
    (folder / "policies" / "own.cedar").write_text('@id("x") permit(principal in Role::"nobody-has-it", action, resource);')
    return f"policies: {folder / 'policies'}"


def break_workflow(folder: Path) -> str:
    (folder / "workflows").mkdir()
    (folder / "workflows" / "own.yaml").write_text("document: [")
    return f"workflows: {folder / 'workflows'}"


@pytest.mark.parametrize(
    ("prepare", "expected"),
    [
        (lambda _: "", []),
        (break_home, ["home.unusable"]),
        (break_key, ["keys.unusable"]),
        (lambda _: "vault: {keys: ['env:NOT_SET']}", ["vault.unusable"]),
        (lambda _: f"database: {{url: 'postgresql://127.0.0.1:{free_port()}/x', wait: 0}}", ["database.unusable"]),
        (break_policy, ["policies.invalid"]),
        (write_useless_policy, ["policies.doubtful"]),
        (break_workflow, ["workflows.invalid"]),
    ],
    ids=["nothing", "home", "key", "vault", "database", "policy", "useless policy", "workflow"],
)
def test_what_is_broken_is_one_finding(
    prepare: Callable[[Path], str], expected: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "interlock.yaml").write_text(f"home: {tmp_path / 'home'}\nsandbox: off\n{prepare(tmp_path)}\n")
    assert list(dict.fromkeys(finding.id for finding in check_as_installed(None))) == expected


def test_a_collector_that_does_not_answer_loses_traces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{free_port()}")
    (tmp_path / "interlock.yaml").write_text("sandbox: off\n")
    assert [finding.id for finding in check_as_installed(None)] == ["traces.unreachable"]


def test_packages_of_another_distribution_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "interlock.yaml").write_text("sandbox: off\n")
    monkeypatch.setattr("importlib.metadata.packages_distributions", lambda: {"registry": ["another"]})
    found = list(check_as_installed(None))
    assert [finding.id for finding in found] == ["install.packages"] and "another" in found[0].detail


@pytest.mark.parametrize(
    ("finding", "expected"),
    [
        (Finding("sandbox", False, "not offered", "install it"), "sandbox.missing"),
        (Finding("sandbox", True, "weak", "install it"), "sandbox.weak"),
        (Finding("sign_in.providers.google", False, "does not answer"), "sign-in.unusable"),
        (Finding("sign_in.providers.google", True, "without refresh", "ask for it"), "sign-in.doubtful"),
        (Finding("server.drain", False, "is too long"), "settings.invalid"),
        (Finding("server.drain", True, "is long", "shorten it"), "settings.unwise"),
        (Finding("database", True, "is older", check.MIGRATE_TODO), "database.migration"),
        (Finding("keys", False, "x is accessible to other users"), ""),  # of the check of the machine
        (Finding("home", True, "is fine"), ""),
    ],
)
def test_each_result_of_check_has_its_kind(finding: Finding, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "collect_findings", lambda _config: iter([finding]))
    assert [found.id for found in check_as_installed(None)] == ([expected] if expected else [])


@pytest.mark.parametrize(
    ("server", "expected"),
    [
        ({}, []),
        ({"trusted_proxies": ["*"]}, ["settings.any-proxy"]),
        ({"public_url": "https://agents.example.com"}, ["settings.no-proxy"]),
        ({"public_url": "https://agents.example.com", "trusted_proxies": ["10.0.0.1"]}, []),
        ({"public_url": "https://127.0.0.1:8443"}, []),
    ],
)
def test_proxies_that_are_trusted_blindly_or_not_at_all_are_told(server: dict[str, object], expected: list[str]) -> None:
    assert [found.id for found in check_proxies(Settings.model_validate({"server": server}))] == expected

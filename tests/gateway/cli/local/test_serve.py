"""serve, migrate, token, check, keys and policy: what runs beside the gateway's home."""

import json
import socket
import stat
from pathlib import Path

import pytest

from gateway.cli.http_client import GatewayClient
from gateway.cli.local import check
from policies.keys.signing import SigningKeys
from policies.tokens.claims import DEVELOPMENT_ISSUER
from tests.gateway.cli.conftest import CommandLine


def claims(home: Path, token: str) -> dict[str, object]:
    return dict(SigningKeys.open(home).verify(token.strip(), "at+jwt"))


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


def test_token_prints_the_token_alone(interlock: CommandLine, home: Path) -> None:
    home.mkdir()
    ran = interlock("token", "--user", "alice", "--ttl", "30m", "--tenant", "acme")
    assert ran.code == 0
    found = claims(home, ran.out)
    assert (found["iss"], found["sub"], found["tid"]) == (DEVELOPMENT_ISSUER, "alice", "acme")
    assert isinstance(found["exp"], int)
    assert isinstance(found["iat"], int)
    assert found["exp"] - found["iat"] == 1800
    assert "scope" not in found


def test_token_as_json_says_when_it_expires(interlock: CommandLine, home: Path) -> None:
    answer = interlock("token", "--create-keys", "--user", "alice", "--scope", "agent:sales  tool:crm.*", "--json").json
    assert set(answer) == {"token", "expires_at"}
    assert answer["expires_at"].endswith("Z")
    assert claims(home, answer["token"])["scope"] == "agent:sales tool:crm.*"


def test_token_makes_no_keys_where_no_gateway_was_started(interlock: CommandLine, home: Path) -> None:
    ran = interlock("token", "--user", "alice")
    assert (ran.code, ran.out) == (1, "")
    assert str(home / "keys") in ran.err and "INTERLOCK_HOME" in ran.err
    assert not home.exists()


def test_token_makes_keys_on_request_and_says_where(interlock: CommandLine, home: Path) -> None:
    ran = interlock("token", "--user", "alice", "--create-keys")
    assert claims(home, ran.out)["sub"] == "alice"
    assert f"made new keys in {home / 'keys'}" in ran.err


def test_token_makes_keys_beside_a_configuration_file(interlock: CommandLine, home: Path, tmp_path: Path) -> None:
    (tmp_path / "interlock.yaml").write_text("users: {}\n")
    ran = interlock("token", "--user", "alice")
    assert (ran.code, f"made new keys in {home / 'keys'}" in ran.err) == (0, True)


def test_token_names_the_gateway_and_the_key_folder_on_standard_error(interlock: CommandLine, home: Path) -> None:
    interlock("token", "--user", "alice", "--create-keys")
    ran = interlock("token", "--user", "alice")
    assert f"of {home / 'keys'}" in ran.err and "made new keys" not in ran.err
    assert str(claims(home, ran.out)["aud"]) in ran.err


def test_a_token_is_for_the_gateway_that_serves_from_this_home(interlock: CommandLine, home: Path, tmp_path: Path) -> None:
    home.mkdir()
    interlock.environment["INTERLOCK_URL"] = "http://127.0.0.1:9001/"
    assert claims(home, interlock("token", "--user", "a").out)["aud"] == "http://127.0.0.1:9001"
    (home / "serving.json").write_text(json.dumps({"url": "http://127.0.0.1:9002"}))
    assert claims(home, interlock("token", "--user", "a").out)["aud"] == "http://127.0.0.1:9002"
    (tmp_path / "interlock.yaml").write_text("server: {public_url: 'https://interlock.example/'}\nidentity: {development: 'on'}\n")
    assert claims(home, interlock("token", "--user", "a").out)["aud"] == "https://interlock.example"


def test_a_token_is_for_the_default_address_where_nothing_else_is_known(interlock: CommandLine, home: Path) -> None:
    home.mkdir()
    interlock.environment["INTERLOCK_URL"] = None
    assert claims(home, interlock("token", "--user", "a").out)["aud"] == "http://127.0.0.1:8080"


def test_without_the_development_issuer_there_are_no_tokens(interlock: CommandLine, home: Path) -> None:
    interlock.environment["INTERLOCK_IDENTITY__DEVELOPMENT"] = "off"
    ran = interlock("token", "--user", "alice")
    assert (ran.code, ran.out) == (3, "")
    assert "identity provider" in ran.err
    assert not home.exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ("--ttl", "2d"),
        ("--ttl", "0s"),
        ("--ttl", "soon"),
        ("--scope", "everything"),
        ("--scope", ""),
        ("--tenant", "a|b"),
        ("--user", "a|b"),
        ("--user", "a b"),
    ],
)
def test_a_token_that_would_be_refused_later_is_refused_now(interlock: CommandLine, home: Path, arguments: tuple[str, str]) -> None:
    ran = interlock("token", "--user", "alice", *arguments)
    assert (ran.code, ran.out) == (2, "")
    assert not home.exists()


@pytest.mark.parametrize(
    ("text", "flags", "field", "said"),
    [
        ("workers: 2\n", ("--workers", "2"), "workers", "2 workers need Postgres"),
        ("port: 8091\ngrpc_port: 8091\n", ("--port", "8091", "--grpc-port", "8091"), "grpc_port", "gRPC needs a port of its own"),
    ],
)
def test_what_processes_can_not_share_is_found_alike(
    interlock: CommandLine, tmp_path: Path, text: str, flags: tuple[str, ...], field: str, said: str
) -> None:
    by_flags = interlock("serve", *flags)
    (tmp_path / "interlock.yaml").write_text(text)
    by_file, checked = interlock("serve"), interlock("check", "--json")
    for ran in (by_flags, by_file):
        assert ran.code == 78 and f"{field}: {said}" in ran.err
    assert [one["name"] for one in checked.json["checks"] if not one["ok"]] == [field]


def test_serve_says_that_grpc_needs_a_port_that_is_free(interlock: CommandLine) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_server(("127.0.0.1", 0)) as other:
        port, free = listener.getsockname()[1], other.getsockname()[1]
        other.close()
        ran = interlock("serve", "--port", str(free), "--grpc-port", str(port))
        assert ran.code == 1
        assert f"--grpc-port {port + 1}" in ran.err


def test_serve_says_that_a_port_is_taken(interlock: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "my shop.yaml").write_text("")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        ran = interlock("serve", "--port", str(port))
        configured = interlock("serve", "--port", str(port), "--config", "my shop.yaml")
    assert (ran.code, configured.code) == (1, 1)
    assert f"interlock serve --port {port + 1}" in ran.err
    assert f"interlock serve --config 'my shop.yaml' --port {port + 1}" in configured.err


def test_a_port_that_this_user_may_not_open_is_no_matter_of_time(interlock: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    class Refusing(socket.socket):
        def bind(self, _address: object) -> None:
            raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(socket, "socket", Refusing)  # root may open every port
    ran = interlock("serve", "--port", "443")
    assert (ran.code, "put a proxy in front" in ran.err) == (78, True)


@pytest.mark.parametrize("text", ["server: [", "servre: {}", "- a"], ids=["no yaml", "unknown setting", "no mapping"])
def test_a_bad_setting_is_named(interlock: CommandLine, tmp_path: Path, text: str) -> None:
    (tmp_path / "interlock.yaml").write_text(text)
    ran = interlock("migrate")
    assert ran.code == 78
    assert ran.err


def test_migrate_makes_the_database_and_then_has_nothing_to_do(interlock: CommandLine, home: Path) -> None:
    first = interlock("migrate", "--json").json
    assert first["before"] == ""
    assert interlock("migrate", "--json").json == {"before": first["after"], "after": first["after"]}
    assert (home / "interlock.db").exists()
    assert stat.S_IMODE(home.stat().st_mode) == 0o700


def test_check_finds_a_fresh_machine_in_order(interlock: CommandLine, home: Path) -> None:
    answer = interlock("check", "--json")
    assert (answer.code, answer.json["ok"]) == (0, True)
    assert {one["name"] for one in answer.json["checks"]} >= {"settings", "home", "keys", "database", "policies", "package policies"}
    assert not home.exists()
    interlock("migrate")
    interlock("token", "--user", "alice")
    assert interlock("check").code == 0


@pytest.mark.parametrize(
    ("endpoint", "ok", "detail"),
    [
        (None, True, "OTEL_EXPORTER_OTLP_ENDPOINT is not set"),
        ("collector:4318", False, "is not an address"),
        ("http://127.0.0.1:9", True, "the collector at 127.0.0.1 can't be reached"),
    ],
)
def test_check_looks_at_the_collector_of_traces(interlock: CommandLine, endpoint: str | None, ok: bool, detail: str) -> None:
    interlock.environment["OTEL_EXPORTER_OTLP_ENDPOINT"] = endpoint
    (found,) = [one for one in interlock("check", "--json").json["checks"] if one["name"] == "traces"]
    assert found["ok"] is ok and detail in found["detail"]


def _open_keys(home: Path) -> None:
    for path in (home / "keys").glob("*.json"):
        path.chmod(0o644)


def _damaged_database(home: Path) -> None:
    (home / "interlock.db").write_bytes(b"no database" * 100)


def _broken_policy(home: Path) -> None:
    (home.parent / "rules").mkdir()
    (home.parent / "rules" / "mine.cedar").write_text("permit(principal, action")
    (home.parent / "interlock.yaml").write_text("policies: rules\n")


def _bad_setting(home: Path) -> None:
    (home.parent / "interlock.yaml").write_text("hosts: all\n")


@pytest.mark.parametrize(
    ("spoil", "name"),
    [(_open_keys, "keys"), (_damaged_database, "database"), (_broken_policy, "policies"), (_bad_setting, "settings")],
)
def test_check_names_what_is_wrong_and_what_to_do(interlock: CommandLine, home: Path, spoil: object, name: str) -> None:
    interlock("migrate")
    interlock("token", "--user", "alice")
    assert callable(spoil)
    spoil(home)
    ran = interlock("check", "--json")
    bad = [one for one in ran.json["checks"] if not one["ok"]]
    assert (ran.code, [one["name"] for one in bad]) == (1, [name])
    assert bad[0]["todo"]


def test_check_finds_a_stranger_with_one_of_our_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.metadata.packages_distributions", lambda: {"adapters": ["adapters", "interlock-gateway"]})
    found = {finding.name: finding for finding in check.check_package_owners()}
    assert found["package gateway"].ok
    assert not found["package adapters"].ok
    assert "pip uninstall adapters" in found["package adapters"].todo


def test_keys_are_listed_and_rotated(interlock: CommandLine, home: Path) -> None:
    assert interlock("keys", "list").code == 1
    assert not home.exists()
    interlock("token", "--create-keys", "--user", "alice")
    old = interlock("keys", "list", "--json").json["items"]
    new = interlock("keys", "rotate", "--json").json["kid"]
    items = interlock("keys", "list", "--json").json["items"]
    assert [(item["kid"], item["state"]) for item in items if item["use"] == "sign"] == [(new, "active"), (old[0]["kid"], "retired")]
    shown = interlock("keys", "list").out
    assert "active" in shown and not any(item["created"] in shown for item in items)  # times as in all tables


def test_policy_check_reads_the_operators_folder(interlock: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "mine.cedar").write_text('@id("mine")\nforbid(principal, action, resource) when { context.depth > 2 };')
    assert "mine" in interlock("policy", "check", str(tmp_path), "--json").json["policies"]
    shown = interlock("policy", "check", str(tmp_path)).out
    assert int(shown.split()[0]) == sum(int(line.split("(")[1].split()[0]) if "(" in line else 1 for line in shown.splitlines()[1:])
    (tmp_path / "mine.cedar").write_text("forbid(principal, action")
    ran = interlock("policy", "check", str(tmp_path))
    assert ran.code == 1
    assert "mine.cedar" in ran.err


def test_the_http_side_reads_no_settings(interlock: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "interlock.yaml").write_text("hosts: all\n")
    with GatewayClient("http://127.0.0.1:1", "") as remote:
        assert remote.url == "http://127.0.0.1:1"


def test_the_vaults_key_is_changed_and_everything_opens(interlock: CommandLine, home: Path) -> None:
    assert interlock("migrate").code == 0
    assert interlock("token", "--user", "alice").code == 0
    old = next(item["kid"] for item in interlock("keys", "list", "--json").json["items"] if item["use"] == "seal")
    done = interlock("keys", "rotate", "--vault", "--json").json
    assert (done["rows"], done["unusable"], done["dropped"]) == (0, 0, [])
    items = [(item["kid"], item["state"]) for item in interlock("keys", "list", "--json").json["items"] if item["use"] == "seal"]
    assert items == [(done["kid"], "active"), (old, "old")]
    assert interlock("keys", "rotate", "--vault", "--json").json["dropped"] == [old]
    assert "are wrapped with this key" in interlock("keys", "rotate", "--vault").err

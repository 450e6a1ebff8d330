"""What a newcomer gets wrong, and what is said of it: one case after another, with its line and the way out."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from adapters.version import describe_version
from gateway.cli.local.checks.configuration import find_problems
from gateway.server.settings_sources import load_settings
from policies.keys.signing import SigningKeys
from policies.tokens.claims import DEVELOPMENT_ISSUER
from tests.fakes.gateway_api import GatewayApi
from tests.fakes.ports import free_port
from tests.gateway.cli.conftest import CommandLine

ISSUER = "identity:\n  issuers:\n    - issuer: https://idp.example\n      jwks_url: https://idp.example/jwks\n"
BEHIND_PROXY = {"INTERLOCK_SERVER__PUBLIC_URL": "https://agents.example.com"}
SEEDS = """agents:
  - {name: A B, url: "http://127.0.0.1:1", ceiling: [nonsense]}
  - {name: sales, url: localhost:7001}
  - {name: twice, url: "http://127.0.0.1:2"}
  - {name: nothing}
servers:
  - {name: twice, url: "http://127.0.0.1:2"}
  - {name: program, command: no-such-program-anywhere}
"""


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("server:\n  max_body: [\n", "interlock.yaml:3: expected the node content"),
        ("server:\n  max_body: 1\n  sizes: 2\n", "interlock.yaml:2: server.max_body: must be at least 1024"),
        ("server:\n  max_body: 1\n  sizes: 2\n", "interlock.yaml:3: server.sizes: there is no such setting"),
        ("# a\nagents:\n  - name: a\n    url: http://x\n    rank: high\n", "interlock.yaml:5: agents[0].rank: must be a whole number"),
        ("agents:\n  - url: http://x\n", "interlock.yaml:2: agents[0].name: is missing"),
        ("server: {drian: 5}\n", "interlock.yaml:1: server.drian: there is no such setting; is drain meant?"),
        ("agents:\n  - {name: a, urls: x}\n", "interlock.yaml:2: agents[0].urls: there is no such setting; is url meant?"),
        ("server: {drain: 1e9}\n", "interlock.yaml:1: server.drain: must be at most 3600"),
        ("server: {drain: .inf}\n", "interlock.yaml:1: server.drain: must be at most 3600"),
        ("server: {max_connections: 100000000}\n", "interlock.yaml:1: server.max_connections: must be at most 1000000"),
        ("server: {tool_names: dots}\n", "interlock.yaml:1: server.tool_names: must be 'underscore' or 'dot'"),
        (
            "identity:\n  issuers:\n  - {issuer: x, jwks_url: y, roles_claim: 5}\n",
            "interlock.yaml:3: identity.issuers[0].roles_claim: must be a",
        ),
        ("a: b: c\n", "interlock.yaml:1: mapping values are not allowed here"),
        ("- a\n", "a mapping of settings is expected"),
        ("port: 8080\nport: 8081\n", "interlock.yaml:2: port: is set twice; line 1 has it too"),
        ("roles:\n  sales: []\n  buyer: []\n  sales: ['*']\n", "interlock.yaml:4: roles.sales: is set twice; line 2 has it too"),
        (
            "server: {public_url: 'https://agents.example.com'}\n",
            "identity.issuers: the gateway is reachable from the network behind a proxy",
        ),
        ("policies: nowhere\n", "nowhere: is not a folder; the setting policies must name a folder of .cedar files"),
        ("roles: {sales: [tools]}\n", "roles.sales: 'tools' is not a permission"),
        ("server: {public_url: agents.example.com}\n", "interlock.yaml:1: server.public_url: 'agents.example.com' is not an"),
        ("server: {public_url: ftp://agents.example.com}\n", "is not an address that clients can call, such as https://"),
        ("server: {public_url: 'https://'}\n", "is not an address that clients can call"),
        ("server: {public_url: 'https://a.example:99999'}\n", "is not an address that clients can call"),
        ("database: {url: 'mysql://me:s3cret@db/interlock'}\n", "interlock.yaml:1: database.url: 'mysql' is not a supported database"),
        ("database: {url: 'sqlite:////no/such/folder/x.db'}\n", "database.url: the folder /no/such/folder does not exist"),
        (ISSUER + ISSUER[ISSUER.index("    -") :], "identity.issuers[1] https://idp.example: two entries have this issuer"),
        (ISSUER.replace("https://idp.example/jwks", "idp.example/jwks"), "jwks_url: 'idp.example/jwks' is not an address"),
        (ISSUER + "      tenants: [a, b]\n", "several tenants need a tenant_claim"),
        ("vault: {keys: ['env:NOT_SET_ANYWHERE']}\n", "vault.keys: the variable NOT_SET_ANYWHERE is empty"),
        (
            ISSUER + "      scope_map: {crm: [read]}\n",
            "interlock.yaml:5: identity.issuers[0].scope_map: 'crm' is mapped to something that is not a permission",
        ),
        (ISSUER + "      scopes: ignore\n      scope_map: {}\n", "scopes: ignore and scope_map exclude each other"),
        (ISSUER + "      token_life: 31536000\n", "interlock.yaml:5: identity.issuers[0].token_life: must be at most 2592000"),
    ],
)
def test_a_mistake_in_the_file_is_said_with_its_line(interlock: CommandLine, tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "interlock.yaml").write_text(text)
    ran, checked = interlock("serve", "--port", "1"), interlock("check", "--json")
    assert (ran.code, checked.code) == (1 if "/no/such/folder" in text else 78, 1)  # a folder may be mounted later
    assert said in " ".join(ran.err.split())
    assert any(said in f"{one['name']}: {one['detail']}" for one in checked.json["checks"] if not one["ok"])


UPSTREAMS = """agents:
  - {name: one, url: "http://127.0.0.1:1", upstream: {headers: {Authorization: "env:NOT_SET_ANYWHERE"}, account: service}}
  - {name: two, url: "http://127.0.0.1:1", upstream: {auth: {client_secret: "env:NOT_SET_EITHER"}}}
  - {name: fine, url: "http://127.0.0.1:1", upstream: {headers: {Authorization: "env:INTERLOCK_TOKEN"}, account: service}}
servers:
  - {name: three, command: python3, env: {KEY: "env:NOT_SET_ANYWHERE"}}
"""


def test_a_credential_that_the_environment_lacks_is_said_before_the_gateway_starts(interlock: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "interlock.yaml").write_text(UPSTREAMS)
    ran = interlock("serve", "--port", "1")
    assert ran.code == 78
    found = {one["name"]: one["detail"] for one in interlock("check", "--json").json["checks"] if not one["ok"]}
    assert found == {
        "agents[0] one: upstream.headers.Authorization": "the environment variable NOT_SET_ANYWHERE is not set",
        "agents[1] two: upstream.auth.client_secret": "the environment variable NOT_SET_EITHER is not set",
        "servers[0] three: env.KEY": "the environment variable NOT_SET_ANYWHERE is not set",
    }
    assert all(f"{name}: {detail}" in ran.err for name, detail in found.items())


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_database_that_is_away_is_one_line(interlock: CommandLine, workers: str) -> None:
    interlock.environment["INTERLOCK_DATABASE__URL"] = f"postgresql://gateway:s3cret@127.0.0.1:{free_port()}/interlock"
    interlock.environment["INTERLOCK_DATABASE__WAIT"] = "0"
    for command in (("serve", "--port", str(free_port()), "--workers", workers), ("migrate",), ("check",)):
        ran = interlock(*command)
        assert ran.code == 1, command
        told = " ".join((ran.out + ran.err).split())
        assert "the database interlock at 127.0.0.1:" in told and "Connection refused" in told
        assert "Traceback" not in told and "s3cret" not in told
        texts = [line for line in ran.err.splitlines() if not line.startswith("{")]  # without the log
        assert command[0] == "check" or len(texts) == 2  # what is wrong, and what to do


def test_a_mistake_in_the_environment_is_said_with_its_variable(interlock: CommandLine) -> None:
    interlock.environment["INTERLOCK_PORT"] = "many"
    ran = interlock("migrate")
    assert ran.code == 78
    assert "INTERLOCK_PORT" in ran.err
    assert "port (INTERLOCK_PORT or a flag): must be a whole number" in ran.err


def test_entries_that_can_not_be_are_named_before_the_gateway_starts(interlock: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "interlock.yaml").write_text(SEEDS)
    ran = interlock("serve", "--port", "1")
    assert ran.code == 78
    for said in (
        "agents[0] A B: name must be",
        "agents[0] A B: ceiling: 'nonsense' is not a permission",
        "agents[1] sales: url: 'localhost:7001' is not an address",
        "agents[2] twice: two entries have this name",
        "agents[3] nothing: one of url and card is needed",
        "servers[0] twice: two entries have this name",
        "servers[1] program: command: there is no program 'no-such-program-anywhere'",
    ):
        assert said in ran.err
    found = {one["name"]: one for one in interlock("check", "--json").json["checks"] if not one["ok"]}
    assert len(found) == 7
    assert found["agents[1] sales: url"]["todo"] == "is http://localhost:7001 meant?"


def test_what_works_but_hardly_as_it_was_meant_is_a_warning_and_no_failure(interlock: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "interlock.yaml").write_text("users: {bob: {roles: [membre]}}\npolicies: rules\n")
    (tmp_path / "rules").mkdir()
    (tmp_path / "rules" / "bob.cedar").write_text('\nforbid(principal == User::"bob", action, resource);')
    interlock.environment["INTERLOCK_PROT"] = "9000"
    interlock.environment["INTERLOCK_SERVER__PUBLIC_URL"] = "http://127.0.0.1:8080"
    ran = interlock("check", "--json")
    assert ran.code == 0
    looks = {one["name"]: one["detail"] + "; " + one["todo"] for one in ran.json["checks"] if one["todo"]}
    assert looks.keys() - {"sandbox"} == {"INTERLOCK_PROT", "users.bob.roles", "policies"}  # bubblewrap may be missing here
    assert "is INTERLOCK_PORT meant?" in looks["INTERLOCK_PROT"]
    assert "no role 'membre'" in looks["users.bob.roles"] and "is member meant?" in looks["users.bob.roles"]
    assert 'bob.cedar:2: User::"bob" matches no principal' in looks["policies"]
    assert 'User::"bob" matches no principal' in interlock("policy", "check").err


def test_a_shared_account_is_a_warning_until_the_operator_confirms_it(interlock: CommandLine, tmp_path: Path) -> None:
    said = "  - {name: NAME, url: http://127.0.0.1:1, upstream: {headers: {X-Api-Key: env:INTERLOCK_TOKEN}MORE}}\n"
    quiet = said.replace("NAME", "quiet", 1).replace("MORE", "")
    aloud = said.replace("NAME", "aloud", 1).replace("MORE", ", account: service")
    (tmp_path / "interlock.yaml").write_text(f"servers:\n{quiet}{aloud}")
    ran = interlock("check", "--json")
    assert ran.code == 0
    looks = {one["name"]: one["detail"] + "; " + one["todo"] for one in ran.json["checks"] if one["todo"]}
    assert [name for name in looks if "servers" in name] == ["servers[0] quiet: upstream"]
    assert "all its callers share" in looks["servers[0] quiet: upstream"] and "account: service" in looks["servers[0] quiet: upstream"]


@pytest.mark.parametrize("command", [("serve", "--port", "1"), ("token", "--user", "alice")])
def test_a_home_that_is_no_folder_is_said(interlock: CommandLine, tmp_path: Path, command: tuple[str, ...]) -> None:
    (tmp_path / "home").write_text("")
    ran = interlock(*command)
    assert ran.code == 78
    assert f"INTERLOCK_HOME is {tmp_path / 'home'}" in ran.err
    assert "set it to a folder" in ran.err


@pytest.mark.parametrize(
    ("url", "todo"),
    [
        ("localhost:9000", "export INTERLOCK_URL=http://localhost:9000"),
        ("ftp://x", "for example: export INTERLOCK_URL=http://127.0.0.1:8080"),
    ],
)
def test_an_address_without_http_is_said_with_the_one_that_was_meant(interlock: CommandLine, url: str, todo: str) -> None:
    interlock.environment["INTERLOCK_URL"] = url
    ran = interlock("tools")
    assert ran.code == 2
    assert todo in ran.err


def expired(keys: SigningKeys, url: str) -> str:
    claims = {"iss": DEVELOPMENT_ISSUER, "sub": "o'hara", "aud": url, "exp": int(time.time()) - 60}
    return keys.sign(claims, "at+jwt")


def of_an_issuer(keys: SigningKeys, url: str) -> str:
    return keys.sign({"iss": "https://login.example", "sub": "x", "aud": url, "exp": int(time.time()) - 60}, "at+jwt")


def for_another(keys: SigningKeys, url: str) -> str:
    return keys.sign({"iss": DEVELOPMENT_ISSUER, "sub": "bob", "aud": "http://127.0.0.1:9999", "exp": int(time.time()) + 60}, "at+jwt")


def of_other_keys(keys: SigningKeys, url: str) -> str:
    return keys.sign({"iss": DEVELOPMENT_ISSUER, "sub": "bob", "aud": url, "exp": int(time.time()) + 60}, "at+jwt")


@pytest.mark.parametrize(
    ("token", "said", "todo"),
    [
        (expired, "your token has expired, at 20", "export INTERLOCK_TOKEN=$(interlock token --user 'o'\"'\"'hara')"),
        (of_an_issuer, "your token has expired", "get a fresh token from https://login.example"),
        (for_another, "your token, which is for http://127.0.0.1:9999", "export INTERLOCK_URL=http://127.0.0.1:9999"),
        (of_other_keys, "it was signed by other keys", "with its INTERLOCK_HOME: export INTERLOCK_TOKEN=$(interlock token --user bob)"),
        (lambda *_: "rubbish", "INTERLOCK_TOKEN is not a token", "interlock token --user alice"),
        (lambda *_: "", "INTERLOCK_TOKEN is not set", "export INTERLOCK_TOKEN=$(interlock token --user alice)"),
    ],
)
def test_whoever_is_not_let_in_learns_why_from_their_own_token(
    interlock: CommandLine, api: GatewayApi, tmp_path: Path, token: Callable[[SigningKeys, str], str], said: str, todo: str
) -> None:
    api.on("GET /api/agents", {"detail": "A valid bearer token for this resource is needed.", "reason_id": "unauthenticated"}, 401)
    interlock.environment["INTERLOCK_TOKEN"] = token(SigningKeys.open(tmp_path / "keys"), api.url)
    ran = interlock("agent", "list")
    assert (ran.code, ran.out) == (3, "")
    assert said in ran.err
    assert todo in ran.err


def test_short_help_and_the_version_are_there_and_help_tells_of_the_environment(interlock: CommandLine) -> None:
    assert interlock("--version").out == f"interlock {describe_version()}\n"
    for arguments in (["-h"], ["agent", "-h"], ["agent", "add", "-h"]):
        assert "Usage: " in interlock(*arguments).out
    words = interlock("--help").out
    for name in ("INTERLOCK_URL", "INTERLOCK_TOKEN", "INTERLOCK_HOME"):
        assert name in words


def test_an_address_of_every_interface_is_said_to_open_the_gateway_to_the_network(interlock: CommandLine) -> None:
    ran = interlock("serve", "--host", "0.0.0.0", "--port", "1")
    assert ran.code == 78
    assert "every network interface of this machine" in ran.err and "TLS" in ran.err and "server.public_url" in ran.err


# attack ADM-06
@pytest.mark.parametrize(
    ("host", "environment", "fatal"),
    [
        ("0.0.0.0", {}, True),
        ("0.0.0.0", {"INTERLOCK_SERVER__PUBLIC_URL": "http://agents.example.com"}, True),
        ("0.0.0.0", {"INTERLOCK_SERVER__PUBLIC_URL": "https://agents.example.com"}, False),
        ("0.0.0.0", {"INTERLOCK_SERVER__PUBLIC_URL": "http://localhost:8080"}, False),
        ("0.0.0.0", {"INTERLOCK_IDENTITY__DEVELOPMENT": "on"}, False),
        ("127.0.0.1", {}, False),
        ("127.0.0.1", {"INTERLOCK_SERVER__PUBLIC_URL": "http://localhost:9000"}, False),
        ("127.0.0.1", BEHIND_PROXY, True),
        ("127.0.0.1", BEHIND_PROXY | {"INTERLOCK_IDENTITY__DEVELOPMENT": "on"}, False),
        ("127.0.0.1", BEHIND_PROXY | {"INTERLOCK_IDENTITY__DEVELOPMENT": "off"}, False),
    ],
)
def test_a_network_is_served_over_tls_or_not_at_all(
    host: str, environment: dict[str, str], fatal: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    chosen = load_settings(None, host=host)
    assert any(trouble.is_fatal for trouble in find_problems(chosen, {})) is fatal
    explicit = environment.get("INTERLOCK_IDENTITY__DEVELOPMENT", "")
    assert chosen.is_development is (explicit == "on" or (host == "127.0.0.1" and not explicit))


def test_a_gateway_that_accepts_the_tokens_of_nobody_is_warned_of(interlock: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "interlock.yaml").write_text("identity: {development: off}\n")
    checked = interlock("check", "--json")
    warning = next(one for one in checked.json["checks"] if one["name"] == "identity.issuers")
    assert (checked.code, warning["ok"]) == (0, True)
    assert "accepts no token" in warning["detail"]


def test_a_home_that_can_not_be_written_is_a_problem(interlock: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "home").mkdir(mode=0o700)
    monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path / "home")  # root may write everywhere
    checked = interlock("check", "--json")
    home = next(one for one in checked.json["checks"] if one["name"] == "home")
    assert (checked.code, home["ok"]) == (1, False) and "read-only" in home["detail"]


@pytest.mark.parametrize("kind", ["below a file", "a link to nothing", "below a closed folder"])
def test_a_home_that_can_not_be_made_is_a_problem(
    interlock: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    place = tmp_path / "place"
    interlock.environment["INTERLOCK_HOME"] = str(place / "home")
    if kind == "below a file":
        place.write_text("")
    elif kind == "a link to nothing":
        place.mkdir()
        (place / "home").symlink_to(tmp_path / "nowhere")
    else:
        place.mkdir()
        monkeypatch.setattr(os, "access", lambda path, mode: path != place)  # root may write everywhere
    found = next(one for one in interlock("check", "--json").json["checks"] if one["name"] == "home")
    assert not found["ok"] and found["todo"]


def test_check_does_not_lead_to_itself(interlock: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(home: Path) -> SigningKeys:
        raise PermissionError(13, "Permission denied", str(home / "keys" / "lock"))

    interlock("token", "--user", "alice", "--create-keys")
    monkeypatch.setattr(SigningKeys, "open", refuse)
    found = next(one for one in interlock("check", "--json").json["checks"] if one["name"] == "keys")
    assert not found["ok"] and "interlock check" not in found["todo"] and "as the user of the gateway" in found["todo"]


def test_check_names_the_home_folder_by_its_whole_path(interlock: CommandLine, tmp_path: Path) -> None:
    interlock.environment["INTERLOCK_HOME"] = "state"
    said = [next(one for one in interlock("check", "--json").json["checks"] if one["name"] == "home")["detail"]]
    (tmp_path / "state").mkdir(mode=0o700)
    said.append(next(one for one in interlock("check", "--json").json["checks"] if one["name"] == "home")["detail"])
    assert said == [f"{tmp_path / 'state'} will be created by interlock serve", f"{tmp_path / 'state'}"]

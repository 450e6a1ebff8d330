"""The command as a whole: quick help, exit codes, and what the gateway's errors turn into."""

import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import typer

from gateway.calls.limits.meters import BudgetSpent
from gateway.cli.main import app
from gateway.ingress.http.error_bodies import a2a_details, mcp_data
from gateway.ingress.http.errors import describe
from tests.fakes.gateway_api import Answer, GatewayApi
from tests.fakes.ports import nowhere
from tests.gateway.cli.conftest import CommandLine, api, interlock

__all__ = ["api", "interlock"]  # fixtures of the folder below

HEAVY = {"a2a", "mcp", "mcp_types", "fastapi", "starlette", "sqlalchemy", "alembic", "pydantic", "httpx", "aiohttp", "cedarpy", "jose"}
STORY = {
    "id": "d_1",
    "allowed": False,
    "reason_id": "user-lacks-permission",
    "missing": ["tool:inventory.reserve (user)"],
    "principal": "default|interlock-development|bob",
}


def test_help_loads_nothing_that_is_slow_to_load() -> None:
    script = "import sys\nfrom gateway.cli.main import app\ntry:\n    app(['--help'])\nexcept SystemExit:\n    pass\nprint(*sys.modules)"
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300, check=True)
    loaded = {name.partition(".")[0] for name in ran.stdout.splitlines()[-1].split()}
    assert "gateway" in loaded
    assert not loaded & HEAVY


def test_the_module_is_the_command() -> None:
    ran = subprocess.run([sys.executable, "-m", "gateway", "--help"], capture_output=True, text=True, timeout=300, check=True)
    assert "Usage: interlock" in ran.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ("nonsense",),
        ("send", "sales"),
        ("call", "reserve", "{not json"),
        ("call", "reserve", "[1]"),
        ("agent", "add", "no-such-file.json"),
        ("server", "add", "inventory", "python server.py"),
        ("agent", "add"),
        ("agent", "show", ""),
        ("why", ".."),
    ],
)
def test_a_wrong_command_line_ends_with_2_before_anything_is_asked(
    interlock: CommandLine, api: GatewayApi, arguments: tuple[str, ...]
) -> None:
    ran = interlock(*arguments)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err
    assert api.asked == []


def test_nobody_there_ends_with_4_and_says_how_to_start_the_gateway(interlock: CommandLine) -> None:
    interlock.environment["INTERLOCK_URL"] = nowhere()
    ran = interlock("agent", "list")
    assert ran.code == 4
    assert "interlock serve" in ran.err


def test_https_to_a_gateway_of_plain_http_says_so(interlock: CommandLine, api: GatewayApi) -> None:
    interlock.environment["INTERLOCK_URL"] = api.url.replace("http:", "https:")
    ran = interlock("agent", "list")
    assert ran.code == 4
    assert "no TLS connection to https://" in ran.err and "plain http" in ran.err and "interlock serve" not in ran.err


def test_a_strange_url_is_wrong_usage(interlock: CommandLine) -> None:
    interlock.environment["INTERLOCK_URL"] = "localhost:8080"
    assert interlock("agent", "list").code == 2


def test_401_ends_with_3_and_says_how_to_get_a_token(interlock: CommandLine, api: GatewayApi) -> None:
    api.on("GET /api/agents", {"detail": "A valid bearer token for this resource is needed.", "reason_id": "unauthenticated"}, 401)
    ran = interlock("agent", "list")
    assert ran.code == 3
    assert "export INTERLOCK_TOKEN=$(interlock token --user alice)" in ran.err


def test_a_refusal_exits_with_3_and_prints_reason_decision_and_why_command(interlock: CommandLine, api: GatewayApi) -> None:
    api.on(
        "DELETE /api/agents/sales", {"detail": "No.", "reason_id": "user-lacks-permission", "decision_id": "d_1", "decision": STORY}, 403
    )
    ran = interlock("agent", "rm", "sales")
    assert (ran.code, ran.out) == (3, "")
    for text in ("user-lacks-permission", "d_1", "tool:inventory.reserve (user)", "interlock why d_1"):
        assert text in ran.err


@pytest.mark.parametrize(
    "data",
    [
        {"reason_id": "user-lacks-permission", "decision_id": "d_1", **STORY},
        [
            {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "metadata": {"decision_id": "d_1", "reason_id": "user-lacks-permission"}},
            {"@type": "interlock/decision", **STORY},
        ],
    ],
    ids=["mcp", "a2a"],
)
def test_a_refusal_over_json_rpc_reads_the_same(interlock: CommandLine, api: GatewayApi, data: object) -> None:
    api.on("POST /mcp", {"jsonrpc": "2.0", "id": 1, "error": {"code": -32010, "message": "bob may not.", "data": data}})
    ran = interlock("call", "inventory_reserve")
    assert (ran.code, ran.out) == (3, "")
    for text in ("bob may not.", "user-lacks-permission", "d_1", "tool:inventory.reserve (user)", "interlock why d_1"):
        assert text in ran.err


def test_records_that_cant_be_written_are_not_called_a_busy_gateway(interlock: CommandLine, api: GatewayApi) -> None:
    api.on("GET /api/agents", {"detail": "The gateway can't write its records now.", "reason_id": "not-kept"}, 503)
    ran = interlock("agent", "list")
    assert ran.code == 1 and "interlock doctor" in ran.err and "moment" not in ran.err


@pytest.mark.parametrize("status", [200, 429])
@pytest.mark.parametrize("protocol", ["mcp", "a2a"])
def test_a_spent_budget_is_not_said_to_be_over_in_a_moment(interlock: CommandLine, api: GatewayApi, status: int, protocol: str) -> None:
    said = describe(BudgetSpent("The budget of this day is spent.", 3600))
    data = mcp_data(said) if protocol == "mcp" else a2a_details(said)
    error = {"code": said.mapping.jsonrpc_code, "message": said.detail, "data": data}
    path, command = ("/mcp", ("call", "crm_read")) if protocol == "mcp" else ("/agents/crm", ("send", "crm", "hello"))
    api.on(f"POST {path}", {"jsonrpc": "2.0", "id": 1, "error": error}, status)
    ran = interlock(*command)
    assert ran.code == 1 and "midnight UTC" in ran.err and "moment" not in ran.err


def test_unknown_names_are_a_failure_not_a_refusal(interlock: CommandLine, api: GatewayApi) -> None:
    ran = interlock("agent", "show", "nobody")
    assert ran.code == 1
    assert "There is no such thing." in ran.err
    assert "agent list" in ran.err


@pytest.mark.parametrize("status", [500, 502, 503, 429, 400, 302])
def test_an_answer_that_is_no_success_and_no_json_is_a_plain_failure(interlock: CommandLine, api: GatewayApi, status: int) -> None:
    api.answers["GET /api/agents"] = Answer("<html>oops", status, "text/html")
    ran = interlock("agent", "list")
    assert (ran.code, ran.out) == (1, "")


def test_a_success_that_is_not_json_is_said_to_be_no_gateway(interlock: CommandLine, api: GatewayApi) -> None:
    api.answers["GET /api/agents"] = Answer("<html>hello", 200, "text/html")
    ran = interlock("agent", "list")
    assert ran.code == 1
    assert "INTERLOCK_URL" in ran.err


@pytest.mark.parametrize("command", [("agent", "list"), ("tools",), ("send", "sales", "hi"), ("task", "watch", "t_1")])
@pytest.mark.parametrize(
    "answer",
    [
        Answer({"detail": "Not Found"}, 404),
        Answer({"detail": "Not authenticated"}, 401),
        Answer("<html>Sign in", 403, "text/html"),
        Answer("<html>hello", 200, "text/html"),
        Answer({"hello": "world"}),
        Answer([]),
    ],
    ids=["404", "401", "403", "html", "object", "list"],
)
def test_another_service_at_the_address_is_told_apart_from_a_gateway(
    interlock: CommandLine, api: GatewayApi, command: tuple[str, ...], answer: Answer
) -> None:
    for place in ("GET /api/agents", "POST /mcp", "POST /agents/sales", "GET /api/tasks/t_1/events"):
        api.answers[place] = answer
    ran = interlock(*command)
    assert (ran.code, ran.out) == (1, "")
    assert f"{api.url} answers, but not as an Interlock gateway" in ran.err
    assert "set INTERLOCK_URL" in ran.err and "interlock token" not in ran.err


def test_the_token_goes_to_the_gateway_and_nowhere_on_the_screen(interlock: CommandLine, api: GatewayApi) -> None:
    ran = interlock("agent", "show", "nobody")
    assert api.asked[0].headers["authorization"] == "Bearer secret-token"
    assert "secret-token" not in ran.out + ran.err


def test_proxies_of_the_environment_are_not_used(interlock: CommandLine, api: GatewayApi) -> None:
    interlock.environment["HTTP_PROXY"] = interlock.environment["http_proxy"] = nowhere()
    api.on("GET /api/agents", {"items": [], "next": None})
    assert interlock("agent", "list", "--json").json == {"items": []}


def test_a_name_can_not_leave_its_segment_of_the_path(interlock: CommandLine, api: GatewayApi) -> None:
    interlock("agent", "show", "../tasks?x=/y")
    assert api.asked[0].path == "/api/agents/..%2Ftasks%3Fx%3D%2Fy"


def test_redirects_are_not_followed_so_the_token_stays_here() -> None:
    from gateway.cli.http_client import GatewayClient

    with GatewayClient("http://127.0.0.1:1", "t") as remote:
        assert isinstance(remote._client, httpx.Client)
        assert not remote._client.follow_redirects


@pytest.mark.parametrize("command", ["agent add", "server add", "server virtual add", "send", "call", "token"])
def test_a_missing_argument_is_named_with_an_example(interlock: CommandLine, command: str) -> None:
    ran = interlock(*command.split())
    assert (ran.code, ran.out) == (2, "")
    assert "Missing" in ran.err and f"Example: interlock {command} " in ran.err


def test_the_help_of_a_group_names_its_commands() -> None:
    whole = typer.main.get_command(app)
    groups = [(help_text, set(group.commands)) for help_text, group in _groups(whole) if re.search(r": (\w[\w-]*, )+", help_text)]
    assert len(groups) >= 5
    for help_text, commands in groups:
        assert set(help_text.partition(": ")[2].removesuffix(".").split(", ")) == commands, help_text


def _groups(group: Any) -> Iterator[tuple[str, Any]]:
    for inner in group.commands.values():
        if hasattr(inner, "commands"):
            yield inner.help, inner
            yield from _groups(inner)
